"""Speaks to the broker over the control socket, synchronously."""

import array
import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from agent.broker.control import (
    FRAME_BYTES_MAX,
    End,
    Refused,
    Reply,
    Request,
    decode_reply,
    encode,
)
from agent.cli.collector_text import clean
from agent.model.reason import Reason

Kind = TypeVar("Kind", bound=Reply)
ANSWER_S = 150  # for each reply; `doctor` has to wait longest, for its probes
_PEER = struct.Struct("@iII")  # struct ucred
_SILENT = f"the daemon does not answer within {ANSWER_S} s: see `journalctl -u loopwarden`"


class DaemonTrouble(Exception):
    """The daemon can't be asked, or refused; the text names cause and next step."""


class DeniedByPolicy(DaemonTrouble):
    """Refused, since the policy does not let this caller do it."""


class Client:
    """One connection."""

    def __init__(self, path: Path) -> None:
        """Connect.

        Raises:
            DaemonTrouble: nobody listens there, or we may not speak to it.
        """
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        within = struct.pack("@ll", ANSWER_S, 0)  # of the kernel: connect(2) waits for it as well
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, within)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, within)
        try:
            self._sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            self._sock.close()
            raise DaemonTrouble(
                f"the daemon is not running (nobody answers at {path}): "
                "start it with `systemctl start loopwarden`"
            ) from None
        except BlockingIOError:
            self._sock.close()
            raise DaemonTrouble(_SILENT) from None
        except PermissionError:
            self._sock.close()
            raise DaemonTrouble(
                f"you may not use {path}: ask to be added to the group of that socket"
            ) from None
        except OSError as error:
            self._sock.close()
            raise DaemonTrouble(f"{path}: {error.strerror or error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def fileno(self) -> int:
        """Return the descriptor, for a child to close."""
        return self._sock.fileno()

    @property
    def broker_pid(self) -> int:
        """Who listens there (SO_PEERCRED, unix(7)); 0 when it is in a PID namespace not ours."""
        raw = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        pid: int = _PEER.unpack(raw)[0]
        return pid

    def ask(self, request: Request, expect: type[Kind], fds: Sequence[int] = ()) -> Kind:
        """Return the reply.

        Raises:
            DaemonTrouble: refused, or the daemon went away.
        """
        self._send(request, fds)
        reply = self._receive()
        if not isinstance(reply, expect):
            raise DaemonTrouble(f"the daemon answered {type(reply).__name__}: restart it")
        return reply

    def rows(self, request: Request) -> Iterator[Reply]:
        """Yield replies up to End.

        Raises:
            DaemonTrouble: refused, or the daemon went away.
        """
        self._send(request, ())
        while True:
            reply = self._receive()
            if isinstance(reply, End):
                return
            yield reply

    def _send(self, request: Request, fds: Sequence[int]) -> None:
        frame = encode(request)
        if len(frame) > FRAME_BYTES_MAX:
            raise DaemonTrouble("the request is too long")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        # a refusal may be waiting from a daemon that has hung up already: it is read next
        try:
            with contextlib.suppress(BrokenPipeError):
                self._sock.sendmsg([frame], rights)
        except BlockingIOError:
            raise DaemonTrouble(_SILENT) from None

    def _receive(self) -> Reply:
        try:
            frame = self._sock.recv(FRAME_BYTES_MAX)
        except ConnectionResetError:
            frame = b""
        except BlockingIOError:
            raise DaemonTrouble(_SILENT) from None
        if not frame:
            raise DaemonTrouble("the daemon went away: see `journalctl -u loopwarden`")
        try:
            reply: Reply = decode_reply(frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise DaemonTrouble(
                "loopwarden and loopwardend differ in version: restart loopwarden.service"
            ) from None
        if isinstance(reply, Refused):
            lines = f"{reply.detail}\n  {reply.next_step}".rstrip().split("\n")
            denied = reply.reason is Reason.POLICY_DENIED
            trouble = DeniedByPolicy if denied else DaemonTrouble
            raise trouble("\n".join(clean(line) for line in lines))
        return reply
