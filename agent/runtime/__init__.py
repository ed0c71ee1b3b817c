"""What every process of ours needs to run: event loop, logs, readiness, privileges (layer 3)."""
