"""Configuration files, read once, unknown keys refused (layer 3)."""
