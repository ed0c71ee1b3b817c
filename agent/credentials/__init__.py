"""Providers of credentials, one folder each (layer 2)."""
