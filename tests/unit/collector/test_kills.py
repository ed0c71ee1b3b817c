"""Kills over a real stream: told at once, told again until the host's last word, kept."""

import getpass
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import insert

from agent.collector import kills, schema
from agent.collector.query import NotFound
from agent.collector.service import INGEST
from agent.collector.store import add_host, open_store, store_url
from agent.pb import collector_pb2 as pb
from tests.servers.collector import Collector, running_collector
from tests.unit.collector.chains import beats
from tests.unit.collector.test_service import NAME_OPTION, PATIENCE_S, credentials, hello

RUN = "01JD0000000000000000000001"
# The command waits WAIT_S for the host's word; on a busy machine a test may speak later.
PATIENT = f"""
import sys
from agent.cli import collector, collector_kill
collector_kill.WAIT_S = {PATIENCE_S}
sys.exit(collector.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with running_collector(tmp_path_factory.mktemp("collector")) as running:
        yield running


class Stream:
    """A host's stream, to write to and read from as it goes."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._uploads: queue.Queue[pb.Upload | None] = queue.Queue()
        ingest = channel.stream_stream(
            INGEST,
            request_serializer=pb.Upload.SerializeToString,
            response_deserializer=pb.Acknowledgement.FromString,
        )
        self._answers: Any = ingest(iter(self._uploads.get, None), timeout=PATIENCE_S)

    def send(self, upload: pb.Upload) -> None:
        """Send one message."""
        self._uploads.put(upload)

    def next(self) -> pb.Acknowledgement:
        """Return the next answer or command."""
        answer: pb.Acknowledgement = next(self._answers)
        return answer

    def tell(self, kill_id: str, state: str, detail: str = "") -> None:
        """Say how a kill goes."""
        word = pb.Upload.KillTold(kill_id=kill_id, state=state, detail=detail)
        self.send(pb.Upload(kill_told=word))

    def end(self) -> None:
        """Hang up."""
        self._uploads.put(None)


@contextmanager
def stream(collector: Collector, identity: Path) -> Iterator[Stream]:
    with grpc.secure_channel(
        collector.address, credentials(identity), options=[NAME_OPTION]
    ) as channel:
        one = Stream(channel)
        one.send(hello(0))
        assert one.next().seq == 0
        yield one
        one.end()


class Asked:
    """The command, run beside the test."""

    def __init__(self, collector: Collector, *words: str) -> None:
        self.done: Any = None
        self._thread = threading.Thread(target=self._run, args=(collector, words))
        self._thread.start()

    def _run(self, collector: Collector, words: tuple[str, ...]) -> None:
        state_dir = ("--state-dir", str(collector.state_dir))
        self.done = subprocess.run(
            [sys.executable, "-c", PATIENT, "kill", *words, *state_dir],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )

    def result(self) -> tuple[int, str]:
        """Return exit status and output."""
        self._thread.join()
        return self.done.returncode, self.done.stdout + self.done.stderr


def test_a_kill_reaches_a_connected_host_and_its_words_come_back(collector: Collector) -> None:
    """Within 2 s of asking; "cut", then the last word; exit 0. Batches go on beside it."""
    identity = collector.enroll("connected")
    chain = beats(4)
    with stream(collector, identity) as one:
        asked = Asked(collector, RUN, "--host", "connected")
        command = one.next()
        assert command.HasField("kill")
        assert (command.kill.name, command.seq, command.refused) == (RUN, 0, "")
        one.send(pb.Upload(batch=chain.batch(1, 4)))
        assert one.next().seq == 4
        one.tell(command.kill.kill_id, "cut", "run is revoked")
        one.tell(command.kill.kill_id, "confirmed", "lease x (api): revoked")
        code, text = asked.result()
        assert code == 0, text
        assert "confirmed" in text
        assert "lease x (api): revoked" in text
    engine = open_store(store_url(collector.state_dir))
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT name, asked_by, state FROM kills").all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [(RUN, getpass.getuser(), "confirmed")]


def test_an_unanswered_kill_is_told_again_after_each_connection(collector: Collector) -> None:
    """Once a stream; not any more after the last word."""
    identity = collector.enroll("flaky")
    asked = Asked(collector, RUN, "--host", "flaky")
    seen = set()
    for _ in range(2):
        with stream(collector, identity) as one:
            seen.add(one.next().kill.kill_id)
    assert len(seen) == 1
    with stream(collector, identity) as one:
        command = one.next()
        one.tell(command.kill.kill_id, "unknown")
        code, text = asked.result()
        assert (code, "no such live run" in text) == (1, True)
    with stream(collector, identity) as one:
        one.send(pb.Upload(batch=beats(1).batch(1, 1)))
        assert one.next().seq == 1
        time.sleep(0.7)  # longer than a look at the store
        one.end()
        assert [*one._answers] == []


def test_a_host_speaks_for_its_own_kills(collector: Collector) -> None:
    """Another's word changes nothing; nor does a state that is none."""
    mine, other = collector.enroll("mine"), collector.enroll("other")
    asked = Asked(collector, RUN, "--host", "mine", "--json")
    with stream(collector, mine) as one, stream(collector, other) as two:
        command = one.next()
        two.tell(command.kill.kill_id, "confirmed", "believe me")
        one.tell(command.kill.kill_id, "fine")
        two.send(pb.Upload(batch=beats(1).batch(1, 1)))
        assert two.next().seq == 1  # what was before it was taken
        one.tell(command.kill.kill_id, "unconfirmed", "lease y: revoke-retry")
        code, text = asked.result()
    assert code == 1
    assert '"state":"unconfirmed"' in text.replace(" ", "")
    assert "believe me" not in text


def test_what_nobody_knows_is_refused(collector: Collector) -> None:
    """A run that no host told of, without --host; an unknown host."""
    for words in ((RUN,), (RUN, "--host", "nobody")):
        code, text = Asked(collector, *words).result()
        assert code == 1
        assert "no run or lease" in text or "no host" in text


def test_the_host_is_found_by_run_or_lease(tmp_path: Path) -> None:
    """From what its records told."""
    engine = open_store(f"sqlite:///{tmp_path / 'store'}")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO leases (host_id, lease_id, run_id, target, provider, state, began_ms) "
            "VALUES ('h', 'the-lease', 'the-run', 'api', 'vault', 'active', 1)"
        )
        assert kills.find_host(connection, "the-lease", None) == "h"
        with pytest.raises(NotFound):
            kills.find_host(connection, "the-run", None)
    engine.dispose()


def test_a_part_of_an_id_ends_nothing_and_the_whole_is_told(tmp_path: Path) -> None:
    """Tables show the end of an id; what it may be of is said, and who looks must write it."""
    engine = open_store(store_url(tmp_path))
    with engine.begin() as connection:
        for number in range(5):
            connection.execute(
                insert(schema.leases).values(
                    lease_id=f"01JD000000000000000000L{number}%A", host_id="h", run_id=RUN,
                    target="api", provider="static", state="active", began_ms=1,
                )
            )  # fmt: skip
        for part in ("00L3%A", "01JD000000000000000000L3"):
            with pytest.raises(NotFound, match=r"part of 01JD000000000000000000L3%A$"):
                kills.find_host(connection, part, None)
        with pytest.raises(NotFound, match=r"part of \S+ or \S+ or \S+$"):
            kills.find_host(connection, "01JD", None)
        for none in ("%", "_", "", "x"):
            with pytest.raises(NotFound, match="is known here"):
                kills.find_host(connection, none, None)
    engine.dispose()


def test_a_host_that_claims_anothers_run_gets_no_kill_of_it(tmp_path: Path) -> None:
    """Both are named, and a person says which."""
    engine = open_store(store_url(tmp_path))
    with engine.begin() as connection:
        for host_id in ("a", "b"):
            add_host(connection, host_id, f"host-{host_id}", "1", 1)
            connection.execute(
                insert(schema.leases).values(
                    lease_id="the-lease", host_id=host_id, run_id=RUN,
                    target="api", provider="static", state="active", began_ms=1,
                )
            )  # fmt: skip
        with pytest.raises(NotFound, match=r"several hosts .* \(host-a, host-b\): use --host"):
            kills.find_host(connection, "the-lease", None)
        assert kills.find_host(connection, "the-lease", "host-b") == "b"
    engine.dispose()
