"""The filtering proxy: hostile bytes on both sides, no power (layer 4)."""
