"""One connection as the driver sees it: bytes in, bytes out, pressure, end. Clear text here.

A raw asyncio Protocol, not a stream: a chunk costs one call. TLS is `secure.py`, the same to its
owner.
"""

import asyncio
import contextlib
import os
import socket
import struct
from typing import Protocol, cast

from agent.proxy.shares import BULK_BYTES, shares_of
from agent.wire.side import Side

WRITE_HIGH_BYTES = 256 << 10  # unsent bytes at which the other side is no longer read
WRITE_LOW_BYTES = 64 << 10  # at which it is read again
LINGER_S = 1.0  # after our FIN: how long we wait for what the peer still sends, to throw it away
LINGER_TOTAL_S = 30.0  # and, while it comes, how long in all ...
LINGER_BYTES_MAX = 1 << 30  # ... and how much: so that it reads our last words (RFC 9112 9.6)
LINGERING_MAX = 256  # of a worker for longer than LINGER_S; one more is given LINGER_S alone
NO_LINGER = struct.pack("ii", 1, 0)  # close(2) then sends RST
FLUSH_S = 30.0  # how long a peer may take to read our last words


# why a channel is not read: bits, and not an enum, because the driver sets them all the time
HOLD_RELAY = 1  # it said Pause
HOLD_PRESSURE = 2  # the other side does not keep up


class Owner(Protocol):
    """Whoever a channel's events are for."""

    def arrived(self, channel: "Channel", data: bytes) -> None:
        """Bytes came, never empty."""

    def ended(self, channel: "Channel", *, clean: bool) -> None:
        """The peer will send no more (once). Not clean: it was cut off, not ended by the peer."""

    def lost(self, channel: "Channel") -> None:
        """The connection is gone (once, and last)."""

    def pressed(self, channel: "Channel", *, high: bool) -> None:
        """Unsent bytes went over WRITE_HIGH_BYTES, or under WRITE_LOW_BYTES again."""


class Nobody:
    """The owner of a channel that is closing: reads, so that the peer is not reset, and drops."""

    def __init__(self) -> None:
        self._lingering: set[Channel] = set()

    def arrived(self, channel: "Channel", data: bytes) -> None:
        """Wait on for a peer that goes on sending, and give up on it at a bound."""
        channel.lingered_bytes += len(data)
        if channel.lingered_bytes > LINGER_BYTES_MAX:
            channel.abort()
        elif channel in self._lingering or len(self._lingering) < LINGERING_MAX:
            self._lingering.add(channel)
            channel.linger_on()

    def ended(self, channel: "Channel", *, clean: bool) -> None:
        """Both have said their last."""
        channel.abort_when_flushed()

    def lost(self, channel: "Channel") -> None:
        """It lingers no more."""
        self._lingering.discard(channel)

    def pressed(self, channel: "Channel", *, high: bool) -> None:
        """Flushing has its own deadline."""


NOBODY = Nobody()


class Channel(asyncio.Protocol):
    """A clear-text connection."""

    __slots__ = (
        "_closing",
        "_event_loop",
        "_has_ended",
        "_holds",
        "_linger",
        "_linger_max_s",
        "_linger_s",
        "_shares",
        "lingered_bytes",
        "owner",
        "side",
        "transport",
    )
    encrypted = False

    def __init__(self, side: Side, owner: Owner) -> None:
        self._event_loop = asyncio.get_running_loop()
        self._shares = shares_of(self._event_loop)
        self.side = side
        self.owner: Owner = owner
        self.transport: asyncio.Transport | None = None
        self.lingered_bytes = 0
        self._holds = 0
        self._has_ended = False
        self._closing = False
        self._linger: asyncio.TimerHandle | None = None
        self._linger_s = 0.0  # the event loop's time at which it is over ...
        self._linger_max_s = 0.0  # ... and until which it may be put off

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.adopt(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if len(data) >= BULK_BYTES:
            self._shares.took(self, len(data))
        self.owner.arrived(self, data)

    def eof_received(self) -> bool:
        """See asyncio.Protocol: the connection stays half open."""
        self._end(clean=True)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._release()
        self._end(clean=exc is None)
        self.owner.lost(self)
        self.owner = NOBODY  # who refers to each other would stay until the collector comes

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self.owner.pressed(self, high=True)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self.owner.pressed(self, high=False)

    # the owner's calls

    @property
    def established(self) -> bool:
        """Whether what its layer does first is done."""
        return True

    @property
    def open(self) -> bool:
        """Whether it is connected, and nobody began to close it."""
        return self.transport is not None and not self._closing

    @property
    def has_ended(self) -> bool:
        """Whether the peer said that it will send no more."""
        return self._has_ended

    def adopt(self, transport: asyncio.Transport) -> None:
        """Take over a transport (a new one, or one that another protocol peeked at)."""
        self.transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES, low=WRITE_LOW_BYTES)

    def send(self, data: bytes) -> None:
        """Write, without waiting."""
        if self.transport is not None and not self._closing:
            self.transport.write(data)

    def hold(self, why: int) -> None:
        """Do not read while there is a reason (HOLD_RELAY, HOLD_PRESSURE)."""
        if not self._holds and self.transport is not None:
            self.transport.pause_reading()
        self._holds |= why

    def release(self, why: int) -> None:
        """Read again when this was the last reason."""
        if not self._holds:
            return
        self._holds &= ~why
        if not self._holds and self.transport is not None and not self._has_ended:
            self.transport.resume_reading()

    def close(self, flush_s: float = FLUSH_S) -> None:
        """Send what is unsent, say that no more comes, and let the peer read it."""
        if self._closing:
            return
        self.owner = NOBODY
        if self.transport is None:
            return
        self._last_word()
        self._closing = True
        self.release(HOLD_RELAY | HOLD_PRESSURE)
        if self._has_ended:
            self.abort_when_flushed()
        else:
            self.transport.write_eof()
        pending = self.transport.get_write_buffer_size() > 0
        now_s = self._event_loop.time()
        # who is given less than LINGER_S is cut: nothing puts that off
        self._linger_max_s = now_s + (LINGER_TOTAL_S if flush_s >= LINGER_S else flush_s)
        self._linger_until(now_s + (flush_s if pending else min(flush_s, LINGER_S)))

    def linger_on(self) -> None:
        """Wait longer for a peer that still sends: a reset would take our last words from it."""
        until_s = min(self._event_loop.time() + LINGER_S, self._linger_max_s)
        if self._linger is not None and until_s > self._linger_s:
            self._linger.cancel()
            self._linger_until(until_s)

    def _linger_until(self, until_s: float) -> None:
        self._linger_s = until_s
        self._linger = self._event_loop.call_at(until_s, self.abort)

    def abort_when_flushed(self) -> None:
        """Close once what is unsent is sent."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close now."""
        self._closing = True
        if self.transport is not None:
            self.transport.abort()

    def sever(self) -> None:
        """Close now, and have the peer hear of it before this returns.

        Closing is the event loop's work, a turn or two later: long, when others are busy. What is
        unsent is thrown away (the FIN of shutdown(2) goes behind it, the RST of a close that does
        not linger goes at once).
        """
        if self.transport is not None:
            number = self.transport.get_extra_info("socket").fileno()
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                same.shutdown(socket.SHUT_RDWR)
        self.abort()

    def _last_word(self) -> None:
        """Say what the layer says before the end."""

    def _end(self, *, clean: bool) -> None:
        if not self._has_ended:
            self._has_ended = True
            self.owner.ended(self, clean=clean)

    def _release(self) -> None:
        self.transport = None
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
