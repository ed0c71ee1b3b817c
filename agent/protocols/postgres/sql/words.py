"""Long lists of names, written as text."""


def words(text: str) -> frozenset[str]:
    """Return the words of the text."""
    return frozenset(text.split())
