"""When connections end, seen at the far host: FIN and RST with the kernel's own time."""

import ctypes
import socket
import struct

from tests.servers.netns import Namespace

ETH_P_IP = 0x0800
SO_ATTACH_FILTER = 26
SO_TIMESTAMPNS = 35
FRAME_BYTES = 96
# "tcp and tcp[tcpflags] & (tcp-fin|tcp-rst) != 0", as classic BPF (code, jt, jf, k)
PROGRAM = (
    (0x28, 0, 0, 12), (0x15, 0, 6, ETH_P_IP), (0x30, 0, 0, 23), (0x15, 0, 4, 6),
    (0xB1, 0, 0, 14), (0x50, 0, 0, 27), (0x45, 0, 1, 5), (0x06, 0, 0, FRAME_BYTES),
    (0x06, 0, 0, 0),
)  # fmt: skip


class FarEnds:
    """Hears what arrives at an interface of the far host."""

    def __init__(self, inside: Namespace, interface: str = "eth0") -> None:
        def opened() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            code = b"".join(struct.pack("HBBI", *each) for each in PROGRAM)
            buffer = ctypes.create_string_buffer(code)
            program = struct.pack("HL", len(PROGRAM), ctypes.addressof(buffer))
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sock.bind((interface, ETH_P_IP))
            sock.setblocking(False)
            return sock

        self._sock = inside.call(opened)

    def ended_ns(self, port: int) -> int:
        """Return Unix nanoseconds of the first end from a port that was heard, 0 for none yet."""
        found = 0
        while True:
            try:
                frame, ancillary, _, address = self._sock.recvmsg(FRAME_BYTES, 64)
            except BlockingIOError:
                return found
            if address[2] == socket.PACKET_OUTGOING:
                continue
            at = 14 + 4 * (frame[14] & 0xF)
            if int.from_bytes(frame[at : at + 2], "big") == port and not found:
                seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
                found = seconds * 1_000_000_000 + nanoseconds

    def close(self) -> None:
        """Hear no more."""
        self._sock.close()
