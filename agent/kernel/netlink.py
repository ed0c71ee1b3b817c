"""One netlink exchange at a time, blocking and short, over a plain socket.

pyroute2 encodes the messages (its classes know the attributes); its sockets run an asyncio
event loop of their own, which cannot be entered from a daemon that runs one already.
"""

import errno
import os
import socket
import struct
import sys
from dataclasses import dataclass

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NETLINK_NETFILTER = 12
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_MULTI = 0x2
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
HEADER = struct.Struct("=IHHII")
RECEIVE_BYTES = 1 << 18
TIMEOUT_S = 2.0  # the kernel answers at once; past this the request has failed
DUMP_TRIES = 100  # of a dump that others' changes interrupted; then the request has failed


@dataclass(frozen=True, slots=True)
class Message:
    """One answer: its type and the payload behind the header."""

    type: int
    payload: bytes


def request(type_: int, flags: int, payload: bytes, sequence: int = 1) -> bytes:
    """Return one message with header."""
    return HEADER.pack(HEADER.size + len(payload), type_, flags, sequence, 0) + payload


def exchange(family: int, messages: bytes, last: int) -> list[Message]:
    """Send, and read until the message numbered `last` is acknowledged or its dump ends.

    Raises:
        OSError: what the kernel answered to any of them, ETIMEDOUT, EINTR for a dump during which
            something was changed, or EBADMSG for an answer that is cut short.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family) as link:
        link.settimeout(TIMEOUT_S)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        link.bind((0, 0))
        link.send(messages)
        answers: list[Message] = []
        first_error = 0
        while True:
            try:
                data = link.recv(RECEIVE_BYTES)
            except TimeoutError as error:
                if first_error:
                    break
                raise OSError(errno.ETIMEDOUT, "the kernel does not answer netlink") from error
            done, number = _read(data, last, answers)
            first_error = first_error or number
            if done or first_error:
                break
        if first_error:
            raise OSError(first_error, os.strerror(first_error))
        return answers


def dump(family: int, message: bytes) -> list[Message]:
    """Ask for a list that is one state of the kernel's, whoever changes it meanwhile.

    A dump takes several reads; a change between two of them may leave out what did not change.
    The kernel marks such a dump (NLM_F_DUMP_INTR in linux/netlink.h), and it is made anew.

    Raises:
        OSError: as exchange; EINTR after DUMP_TRIES.
    """
    for _ in range(DUMP_TRIES - 1):
        try:
            return exchange(family, message, 1)
        except InterruptedError:
            continue
    return exchange(family, message, 1)


def _read(data: bytes, last: int, answers: list[Message]) -> tuple[bool, int]:
    offset = 0
    while offset + HEADER.size <= len(data):
        size, type_, flags, sequence, _ = HEADER.unpack_from(data, offset)
        if not HEADER.size <= size <= len(data) - offset:
            return True, errno.EBADMSG
        payload = data[offset + HEADER.size : offset + size]
        offset += (size + 3) & ~3
        if flags & NLM_F_MULTI and flags & NLM_F_DUMP_INTR:
            return True, errno.EINTR
        if type_ == NLMSG_ERROR:
            number = -int.from_bytes(payload[:4], sys.byteorder, signed=True)
            if len(payload) < 4 or number < 0:
                return True, errno.EBADMSG
            if number:
                return True, number
            if sequence == last:
                return True, 0
        elif type_ == NLMSG_DONE:  # with the dump's own error, where there is one
            return True, max(0, -int.from_bytes(payload[:4], sys.byteorder, signed=True))
        else:
            answers.append(Message(type_, payload))
            if not flags & NLM_F_MULTI and sequence == last:
                return True, 0
    return False, 0
