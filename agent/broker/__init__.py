"""Loops, leases, policy and the control API; holds the roots and parses no network (layer 4)."""
