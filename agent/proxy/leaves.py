"""Leaf certificates of interception: minted by the broker, cached here."""


class Leaves:
    """To come with TLS."""
