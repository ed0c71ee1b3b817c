"""Protocols, one folder each; none imports another (layer 2)."""
