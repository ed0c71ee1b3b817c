"""What the journal keeps of a lease: names at the server, never a token."""

import json
from dataclasses import asdict, dataclass

from agent.credentials.spec import HANDLE_CHARACTERS_MAX, CredentialError


@dataclass(frozen=True, slots=True)
class Handle:
    """accessor of the run's token; the server's lease, or a certificate's serial, or neither.

    ends_s: the certificate's end, Unix time; without a serial: one was asked for, and has ended by
    then at the latest.
    """

    accessor: str
    lease: str = ""
    mount: str = ""
    serial: str = ""
    ends_s: int = 0

    @property
    def nameless_until_ms(self) -> int:
        """When a certificate whose name never came has ended, 0 when there is none such."""
        return 0 if self.lease or self.serial else 1000 * self.ends_s


def serialize_handle(handle: Handle) -> str:
    """Return it as text.

    Raises:
        CredentialError: it is longer than HANDLE_CHARACTERS_MAX.
    """
    tree = {key: value for key, value in asdict(handle).items() if value}
    text = json.dumps(tree, separators=(",", ":"))
    if len(text) > HANDLE_CHARACTERS_MAX:
        raise CredentialError("the server's names are too long for the journal")
    return text


def parse_handle(text: str) -> Handle | None:
    """Return what was kept; None for "": the run's token, if there is one, was never kept.

    Raises:
        CredentialError: it is no handle of ours.
    """
    if not text:
        return None
    try:
        handle = Handle(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        handle = None
    names = () if handle is None else (handle.accessor, handle.lease, handle.mount, handle.serial)
    good = all(isinstance(each, str) for each in names)
    if handle is None or not handle.accessor or not good or not isinstance(handle.ends_s, int):
        raise CredentialError("the journal's handle is none of a vault", permanent=True)
    return handle
