"""Typed messages between our own processes over AF_UNIX SOCK_SEQPACKET (layer 3)."""
