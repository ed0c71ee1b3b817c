"""The properties of every relay. A protocol is tested by them when it has a SPEC and samples.

P1 however bytes are cut into pieces, both ends read the same. P2 any bytes give commands, never an
exception. P3 what a relay holds is bounded. P4 the leased secret never goes downstream, nor into a
record or a repr. P5 nothing goes upstream after Deny or an error. P6 nothing goes upstream before
it is recorded. P7 what is allowed arrives whole. P8 exactly one Finish, and each operation has
exactly one end. P9 the same events give the same commands. (P4, P5, P6, P8 are also checked by the
conductor at every command of every test.)
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent.model.grant import Target
from agent.model.lease import Lease
from agent.model.operation import Operation
from agent.protocols import discover
from agent.wire.relay import ProtocolSpec
from tests.conformance.conductor import Conductor, World
from tests.conformance.sample import Sample


@dataclass(frozen=True)
class Subject:
    """One protocol with what its tests offer: tests/protocols/<folder>/samples.py.

    operations: of what went upstream, the part that the policy decides over; a protocol with a
    login of its own sends that before. idle: bytes upstream that carry no operation. ahead: what
    is judged before it is asked to be made (a statement that is prepared), and has no end.
    """

    spec: ProtocolSpec
    target: Target
    tls_name: str | None
    samples: Sequence[Sample]
    server: Callable[[Sample], Callable[[bytes], bytes]]
    reading: Callable[[Sample, Conductor], object]
    lease: Lease
    operations: Callable[[Conductor], bytes]
    idle: Callable[[bytes], bool]
    ahead: Callable[[Operation], bool]

    def world(self, sample: Sample, **changes: object) -> World:
        """Return a world that allows all and answers as the sample says."""
        plain = World(
            target=self.target,
            tls_name=self.tls_name,
            lease=self.lease,
            server=self.server(sample),
            idle=self.idle,
            ahead=self.ahead,
        )
        return replace(plain, **changes)  # type: ignore[arg-type]

    def play(self, sample: Sample, *, piece: int = 65536, server_piece: int = 65536) -> Conductor:
        """Play a sample to its end."""
        conductor = Conductor(self.spec, self.world(sample, server_piece=server_piece))
        conductor.down(sample.downstream, piece)
        conductor.down_eof()
        return conductor


def subjects() -> tuple[Subject, ...]:
    """Return every protocol there is. One without samples is an error, not a skip."""
    found = []
    for spec in discover().values():
        folder = spec.relay.__module__.split(".")[2]
        samples = importlib.import_module(f"tests.protocols.{folder}.samples")
        found.append(
            Subject(
                spec,
                samples.TARGET,
                samples.TLS_NAME,
                samples.SAMPLES,
                samples.server,
                samples.reading,
                samples.LEASE,
                samples.operations,
                samples.idle,
                samples.ahead,
            )
        )
    return tuple(found)
