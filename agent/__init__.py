"""Loopwarden: just-in-time access for unmodified automated jobs."""

__version__ = "0.1.0"
