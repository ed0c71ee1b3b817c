"""Errors of the kernel plane."""

from agent.model.reason import Reason


class PlaneError(Exception):
    """The plane cannot be set up, or a part of it is missing. The text is for operators."""


class RunRefused(Exception):
    """A request about a run was not done; nothing was changed by it.

    reason and detail go into ipc Failed; detail holds no secret.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
