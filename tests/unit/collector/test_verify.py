"""`verify` names the first bad record, whatever was done to the store."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import ColumnElement, Connection, delete, update

from agent.cli.collector import main
from agent.collector import checkpoints, ingest, schema
from agent.collector.authority import open_authority
from agent.collector.ingest import Refusal
from agent.collector.store import FILE_NAME, Head, open_store, store_url
from agent.collector.tokens import utc_now
from agent.collector.verify import ChainReport, verify
from agent.pb import collector_pb2 as pb
from agent.spool.checkpoint import Checkpoint, parse_checkpoint, write_checkpoint
from tests.unit.collector.chains import NOW_MS, authority, beats, store

RECORDS = schema.records
HOSTS = schema.hosts
Tampering = Callable[[Connection], object]


def after(directory: Path, tampering: Tampering) -> ChainReport:
    engine = store(directory, ("a", "b"))
    ingest.append(engine, authority(), "a", beats(50).batch(1, 50), NOW_MS)
    ingest.append(engine, authority(), "b", beats(9).batch(1, 9), NOW_MS)
    with engine.begin() as connection:
        tampering(connection)
    with engine.connect() as connection:
        first, second = verify(connection, authority().ca_key.public_key())
    engine.dispose()
    assert second.intact
    return first


def of_a(seq: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (RECORDS.c.host_id == "a", RECORDS.c.seq == seq)


def edit(connection: Connection) -> None:
    connection.execute(update(RECORDS).where(*of_a(20)).values(body=beats(60).records[50]))


def edit_with_hash(connection: Connection) -> None:
    other = beats(60)
    connection.execute(
        update(RECORDS).where(*of_a(20)).values(body=other.records[50], hash=other.hashes[51])
    )


def remove(connection: Connection) -> None:
    connection.execute(delete(RECORDS).where(*of_a(20)))


def truncate(connection: Connection) -> None:
    connection.execute(delete(RECORDS).where(RECORDS.c.host_id == "a", RECORDS.c.seq > 19))


def swap(connection: Connection) -> None:
    bodies = beats(50).records
    connection.execute(update(RECORDS).where(*of_a(20)).values(body=bodies[20]))
    connection.execute(update(RECORDS).where(*of_a(21)).values(body=bodies[19]))


def truncate_with_head(connection: Connection) -> None:
    truncate(connection)
    connection.execute(update(HOSTS).where(HOSTS.c.host_id == "a").values(seq=19))


def truncate_all(connection: Connection) -> None:
    truncate(connection)
    connection.execute(
        update(HOSTS).where(HOSTS.c.host_id == "a").values(seq=19, hash=beats(19).hashes[19])
    )


def truncate_unsigned(connection: Connection) -> None:
    truncate_all(connection)
    table = schema.checkpoints
    connection.execute(delete(table).where(table.c.host_id == "a"))


def sign_with_another_key(connection: Connection) -> None:
    rewritten = beats(19)
    truncate_all(connection)
    key = open_authority(Path(connection.engine.url.database or "").parent / "other", utc_now())
    checkpoints.keep(connection, key, "a", Head(19, rewritten.hashes[19]), NOW_MS)


@pytest.mark.parametrize(
    "tampering",
    [
        truncate_all,
        truncate_unsigned,
        edit,
        edit_with_hash,
        remove,
        truncate,
        swap,
        truncate_with_head,
    ],
)
def test_the_first_bad_record_is_named(tmp_path: Path, tampering: Tampering) -> None:
    """Edit, deletion, reorder and truncation at record 20 are found there."""
    report = after(tmp_path, tampering)
    assert (report.bad_seq, report.intact) == (20, False)


def test_an_intact_chain_is_said_to_be(tmp_path: Path) -> None:
    """Nothing done, nothing found."""
    report = after(tmp_path, lambda connection: None)
    assert (report.bad_seq, report.records, report.last_seq) == (None, 50, 50)


def test_a_forged_checkpoint_is_named(tmp_path: Path) -> None:
    """Records, head and checkpoint agree, but the signature is another key's."""
    report = after(tmp_path, sign_with_another_key)
    assert (report.bad_seq, report.detail.partition(" is ")[2]) == (
        19,
        "not signed by this collector for this host",
    )


@pytest.mark.parametrize("tampering", [truncate_all, truncate_unsigned, sign_with_another_key])
def test_a_changed_store_is_not_signed_again(tmp_path: Path, tampering: Tampering) -> None:
    """A host that connects gets no signature of what is left: that would hide what is gone."""
    after(tmp_path, tampering)
    engine = open_store(store_url(tmp_path))
    with pytest.raises(Refusal) as refused:
        ingest.greet(engine, authority(), "a", pb.Upload.Hello(last_seq=50), NOW_MS)
    assert refused.value.kind == "tampered"
    engine.dispose()


def checkpoint_of(count: int, host: str = "a") -> Checkpoint:
    """The checkpoint that a host keeps after so many records."""
    return authority().sign_checkpoint(host, count, beats(count).hashes[count])


def set_back(directory: Path) -> None:
    """A store that had 50 records is put back, whole, to when it had 19."""
    engine = store(directory)
    ingest.append(engine, authority(), "a", beats(19).batch(1, 19), NOW_MS)
    engine.dispose()
    shutil.copy(directory / FILE_NAME, directory / "old")
    engine = open_store(store_url(directory))
    ingest.append(engine, authority(), "a", beats(50).batch(20, 50), NOW_MS)
    engine.dispose()
    shutil.move(directory / "old", directory / FILE_NAME)


def test_a_store_that_was_set_back_is_found_with_the_head_a_host_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By itself the old copy is consistent; with the host's file the first lost record is named."""
    set_back(tmp_path)
    command = ["verify", "--state-dir", str(tmp_path)]
    assert main(command) == 0
    write_checkpoint(tmp_path / "kept", checkpoint_of(50))
    assert main([*command, "--checkpoint", str(tmp_path / "kept")]) == 1
    assert "BAD at 20" in capsys.readouterr().out
    write_checkpoint(tmp_path / "kept", checkpoint_of(19))
    assert main([*command, "--checkpoint", str(tmp_path / "kept")]) == 0
    write_checkpoint(tmp_path / "older", checkpoint_of(7))
    paths = [str(tmp_path / name) for name in ("kept", "older")]
    assert main([*command, "--checkpoint", paths[0], "--checkpoint", paths[1]]) == 0


@pytest.mark.parametrize("what", ["hash", "forged", "stranger"])
def test_what_does_not_fit_a_presented_checkpoint_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """Another hash at its number, another collector's signature, a host that is not here."""
    engine = store(tmp_path)
    ingest.append(engine, authority(), "a", beats(19).batch(1, 19), NOW_MS)
    engine.dispose()
    presented, said = {
        "hash": (authority().sign_checkpoint("a", 12, bytes(32)), "record 12 or one before it"),
        "forged": (
            open_authority(tmp_path / "other", utc_now()).sign_checkpoint("a", 12, bytes(32)),
            "not signed by this collector",
        ),
        "stranger": (checkpoint_of(5, "zz"), "no chain of this host"),
    }[what]
    write_checkpoint(tmp_path / "kept", presented)
    path = str(tmp_path / "kept")
    assert main(["verify", "--json", "--state-dir", str(tmp_path), "--checkpoint", path]) == 1
    assert said in capsys.readouterr().out


def test_the_stores_own_checkpoint_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--json` gives it as a file that `--checkpoint` takes, so that it can be kept elsewhere."""
    report = after(tmp_path, lambda connection: None)
    own = parse_checkpoint(report.checkpoint.encode())
    assert (own.host_id, own.seq, own.hash) == ("a", 50, beats(50).hashes[50])
    assert own.is_signed_by(authority().ca_key.public_key())
    (tmp_path / "kept").write_text(report.checkpoint)
    words = ["--checkpoint", str(tmp_path / "kept"), "--ca", str(tmp_path / "ca.pem")]
    assert main(["verify", "--state-dir", str(tmp_path), *words]) == 0
    assert "SIGNED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code"), [(["--checkpoint", "absent"], 2), (["--ca", "absent"], 3)]
)
def test_files_that_are_not_there_are_said(tmp_path: Path, words: list[str], code: int) -> None:
    """A wrong checkpoint is wrong use, a wrong CA is state that can't be used."""
    store(tmp_path).dispose()
    assert main(["verify", "--state-dir", str(tmp_path), *words]) == code
    (tmp_path / "garbage").write_bytes(b"garbage")
    assert (
        main(["verify", "--state-dir", str(tmp_path), words[0], str(tmp_path / "garbage")]) == code
    )
