"""Tokens that were used, each until it is of no use any more: none is taken twice.

They are on the disk before the run is made, so that a restart forgets none. A file that is
damaged can't say what was used: then every token that was issued before is refused. A line is a
digest, the second at which it may be forgotten, and the user that showed it.
"""

import contextlib
import logging
import os
import re
from pathlib import Path

from agent.broker.identity.refusal import Check, Unverified
from agent.policy.parse_issuer import CLOCK_SKEW_S_MAX

SEEN_MAX = 65_536  # at once; one past it is refused
KEEP_S = 3_600  # longer than needed: a clock may be set back
_FLOOR = bytes(32)  # stands for "what was issued until that second may have been used"
_LINE = re.compile(rb"([0-9a-f]{64}) ([0-9]{1,12}) ([0-9]{1,10})")

logger = logging.getLogger(__name__)


class Seen:
    """The tokens of one host. All methods run on the event loop; add writes and syncs."""

    def __init__(self, path: Path, now_s: int) -> None:
        """Read the file, and write it anew without what is over.

        Raises:
            OSError: it can't be read or written.
        """
        self._path = path
        self._entries: dict[bytes, tuple[int, int]] = {}
        self._floor_s = 0  # tokens issued at or before this second may have been used
        self._appended = 0
        self._load(now_s)
        self._compact(now_s)

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self, digest: bytes, *, issued_s: int, ends_s: int, uid: int, reusable: bool, now_s: int
    ) -> None:
        """Take note of a token that is being used.

        Raises:
            Unverified: REPLAYED: it was used (reusable: by another user). REPLAY_UNKNOWN: that
                can't be said, or can't be kept.
        """
        before = self._entries.get(digest)
        if before is not None:
            if reusable and before[1] == uid:
                return
            whose = "" if before[1] == uid else ", by another user"
            raise Unverified(Check.REPLAYED, f"it was used before{whose}")
        if issued_s <= self._floor_s:
            raise Unverified(Check.REPLAY_UNKNOWN, f"{self._path} was damaged after it was issued")
        if len(self._entries) >= SEEN_MAX:
            self._drop(now_s)
        if len(self._entries) >= SEEN_MAX:
            raise Unverified(Check.REPLAY_UNKNOWN, f"{SEEN_MAX} tokens are in use")
        try:
            if self._appended > SEEN_MAX:
                self._compact(now_s)
            self._append(digest, ends_s + KEEP_S, uid)
        except OSError as error:
            why = f"{self._path}: {error.strerror}"
            raise Unverified(Check.REPLAY_UNKNOWN, why) from error

    def _append(self, digest: bytes, until_s: int, uid: int) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            line = _line(digest, until_s, uid)
            if os.write(fd, line) != len(line):
                raise OSError(0, "written in part")  # the torn line is seen at the next start
            os.fsync(fd)
        finally:
            os.close(fd)
        self._appended += 1
        self._entries[digest] = (until_s, uid)

    def _drop(self, now_s: int) -> None:
        over = [digest for digest, (until_s, _) in self._entries.items() if until_s <= now_s]
        for digest in over:
            del self._entries[digest]

    def _load(self, now_s: int) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        *lines, torn = data.split(b"\n")
        damaged = bool(torn)
        for line in lines:
            found = _LINE.fullmatch(line)
            if found is None:
                damaged = True
                continue
            digest = bytes.fromhex(found[1].decode())
            if digest == _FLOOR:
                self._floor_s = int(found[2])
            else:
                self._entries[digest] = (int(found[2]), int(found[3]))
        if damaged:
            self._floor_s = now_s + CLOCK_SKEW_S_MAX  # an issuer's clock may have been ahead
            logger.error("%s is damaged: tokens issued until now are refused", self._path)

    def _compact(self, now_s: int) -> None:
        self._drop(now_s)
        fresh = self._path.with_suffix(".fresh")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            if self._floor_s:
                file.write(_line(_FLOOR, self._floor_s, 0))
            file.writelines(_line(digest, *entry) for digest, entry in self._entries.items())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._appended = 0


def _line(digest: bytes, until_s: int, uid: int) -> bytes:
    return f"{digest.hex()} {until_s} {uid}\n".encode()
