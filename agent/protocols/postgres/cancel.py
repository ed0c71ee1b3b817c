"""Cancel keys: what the loop is told instead of the server's, of use to its run alone.

The downstream key is a permutation of the upstream's, keyed by run and target and tweaked by the
process id. Any worker of the host maps it back without a table; with a key of another run or
target the result means nothing, and the server answers it with silence. The process
id stays what it is: clients compare it with pg_backend_pid() and with the sender of a NOTIFY, and
the server tells it anyway.
"""

import hashlib
import hmac

_ROUNDS = (
    10  # even; an unbalanced Feistel network of two halves (Luby and Rackoff; NIST SP 800-38G)
)
_LABEL = b"loopwarden postgres cancel key, version 1"


class CancelKeys:
    """The permutation of one run at one target.

    Args:
        run_key: 32 bytes; the same for all sessions of the run at the target.
    """

    __slots__ = ("_key",)

    def __init__(self, run_key: bytes) -> None:
        self._key = hmac.digest(run_key, _LABEL, "sha256")

    def downstream(self, pid: bytes, key: bytes) -> bytes:
        """Return what the loop is told for the server's key of this process."""
        left, right = _halves(key)
        for number in range(0, _ROUNDS, 2):
            left = self._mixed(number, pid, right, left)
            right = self._mixed(number + 1, pid, left, right)
        return left + right

    def upstream(self, pid: bytes, key: bytes) -> bytes:
        """Return the server's key for what a client sent."""
        left, right = _halves(key)
        for number in range(_ROUNDS - 2, -1, -2):
            right = self._mixed(number + 1, pid, left, right)
            left = self._mixed(number, pid, right, left)
        return left + right

    def _mixed(self, number: int, pid: bytes, source: bytes, into: bytes) -> bytes:
        """Return `into`, XORed with as many bytes of a function of all else."""
        seed = bytes((number, len(source) & 0xFF)) + pid + source
        stream = b""
        while len(stream) < len(into):
            block = len(stream) // hashlib.sha256().digest_size
            stream += hmac.digest(self._key, bytes((block,)) + seed, "sha256")
        return bytes(a ^ b for a, b in zip(into, stream, strict=False))


def _halves(key: bytes) -> tuple[bytes, bytes]:
    middle = len(key) // 2
    return key[:middle], key[middle:]
