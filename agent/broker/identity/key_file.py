"""An issuer's keys from a file of the operator's, for hosts or issuers that can't be asked.

The file (RFC 7517 section 5) is read again when it changed: another inode, size or time. What is
in it now is what counts: a file that is gone, damaged or somebody else's to write means no keys,
and not those of before.
"""

import os
from dataclasses import dataclass

from agent.broker.files import read_public
from agent.broker.identity.keys import BadKeys, Keys, parse_keys
from agent.broker.identity.refusal import Check, Unverified
from agent.policy.schema import Issuer

FILE_BYTES_MAX = 256 << 10  # the field's largest sets of keys, with certificates, have 20 KiB
_Mark = tuple[int, int, int, int, int]


class BadKeyFile(Exception):
    """There are no keys in it; the text says why."""


@dataclass(frozen=True, slots=True)
class _Kept:
    mark: _Mark
    keys: Keys


class KeyFiles:
    """All methods run on the event loop; they read local files, bounded."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def keys(self, issuer: Issuer) -> Keys:
        """Return the keys of the issuer's file, as it is now.

        Raises:
            Unverified: KEYS_UNAVAILABLE.
        """
        path = issuer.jwks_file
        try:
            mark = _mark(path)  # before it is read: a change in between is seen at the next look
            kept = self._kept.get(path)
            if kept is None or kept.mark != mark:
                kept = self._kept[path] = _Kept(mark, read_keys(path))
        except (BadKeyFile, OSError) as error:
            self._kept.pop(path, None)
            why = getattr(error, "strerror", None) or str(error)
            said = f"{issuer.url}: jwks_file {path}: {why}"
            raise Unverified(Check.KEYS_UNAVAILABLE, said) from None
        return kept.keys

    def forget_others(self, paths: frozenset[str]) -> None:
        """Keep what was read from these files alone."""
        for path in self._kept.keys() - paths:
            del self._kept[path]


def read_keys(path: str) -> Keys:
    """Return a file's keys.

    Raises:
        BadKeyFile: it can't be read or trusted, is larger than FILE_BYTES_MAX, or has no keys.
    """
    try:
        return parse_keys(read_public(path, FILE_BYTES_MAX))
    except OSError as error:
        raise BadKeyFile(error.strerror or "it can't be read") from None
    except (BadKeys, ValueError) as error:
        raise BadKeyFile(str(error)) from None


def _mark(path: str) -> _Mark:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
