"""The commands a person types (layer 5)."""
