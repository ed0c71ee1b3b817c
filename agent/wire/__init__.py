"""The sans-IO kit: what relays are told, what they may ask, and bounded parsing (layer 1)."""
