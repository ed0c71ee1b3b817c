"""What alters bytes on their way down: detectors and scrubber, pure (layer 1)."""
