"""All processes together, on real parts."""
