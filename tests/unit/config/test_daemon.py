"""The daemon's configuration: right defaults, and errors that name file and key."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.daemon import HEADROOM_BYTES, ConfigError, Daemon, load
from agent.kernel.main import plane_config
from agent.spool.writer import SpoolLimits


def write(tmp_path: Path, text: str) -> Path:
    """Return a file with that text."""
    path = tmp_path / "loopwarden.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    """Every key has a default."""
    assert load(write(tmp_path, "")) == Daemon()


def test_paths_follow_the_instance(tmp_path: Path) -> None:
    """Slice and socket paths are derived."""
    config = load(write(tmp_path, 'instance = "t"\nattach_cgroup = "/a"\nrun_dir = "/r"\n'))
    assert config.slice_path == "/a/t.slice"
    assert config.control_socket == Path("/r/control.sock")
    assert Daemon().slice_path == "/loopwarden.slice"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("proxy_prt = 1", "unknown key 'proxy_prt'; did you mean 'proxy_port'?"),
        ("[spool]\nbytes = 1", "unknown key 'spool.bytes'; did you mean 'bytes_max'?"),
        ("[users]\nqqqq = 'x'", "unknown key 'users.qqqq'"),
        ("proxy_port = 'x'", "Expected `int`"),
        ("proxy_port = 0", "1 to 65535"),
        ("proxy_port = 65536", "1 to 65535"),
        ("proxy_port = 15053", "must differ"),
        ("proxy_workers = 0", "1 to 64"),
        ("proxy_workers = 65", "1 to 64"),
        ("mark_prefix = 0", "1 to 4095"),
        ("mark_prefix = 4096", "1 to 4095"),
        ("instance = '../x'", "instance"),
        ("instance = 'i234567890123456789012345'", "at most 24"),
        ("slice = 'a/b.slice'", "slice: one name"),
        ("slice = '..'", "slice: one name"),
        ("attach_cgroup = 'x'", "leading slash"),
        ("log_level = 'loud'", "log_level"),
        ("drain_s = -1.0", "drain_s"),
        ("drain_s = nan", "drain_s: 0 to 86400"),
        ("drain_s = 86401.0", "drain_s: 0 to 86400"),
        ("run_dir = ''", "run_dir, bpffs"),
        ("policy_dir = 'policy.d'", "leading slash"),
        ("[collector]\nidentity_dir = 'identity'", "leading slash"),
        ("[spool]\nheartbeat_s = 0.0", "heartbeat_s: more than 0, at most 86400"),
        ("[spool]\nheartbeat_s = inf", "heartbeat_s: more than 0, at most 86400"),
        ("[spool]\nsegment_bytes_max = 1", "at least 65536"),
        ("[spool]\nbytes_max = 100000", "at least four segments"),
        ("= x", "not TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    """Each mistake gives an error with the file, the key and why."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_the_smallest_spool_takes_records(tmp_path: Path) -> None:
    """One byte less is refused: a spool without room would refuse every operation, for ever."""
    least = 4 * 65_536 + HEADROOM_BYTES
    assert SpoolLimits().headroom_bytes == HEADROOM_BYTES
    text = "[spool]\nsegment_bytes_max = 65536\nbytes_max = "
    assert load(write(tmp_path, f"{text}{least}")).spool.bytes_max == least
    with pytest.raises(ConfigError, match="at least four segments and 8388608 bytes"):
        load(write(tmp_path, f"{text}{least - 1}"))


def test_names_at_their_limit(tmp_path: Path) -> None:
    """24 characters are an instance, for the kernel plane too."""
    config = load(write(tmp_path, "instance = 'i23456789012345678901234'\nslice = 'a-b.slice'"))
    assert plane_config(config).slice_path == "/a-b.slice"


@pytest.mark.parametrize("wrong", ["file", "folder"])
@pytest.mark.parametrize("by", ["mode", "owner"])
def test_whoever_acts_by_it_takes_no_file_of_others(tmp_path: Path, wrong: str, by: str) -> None:
    """It says where policies are and where records go; others may only have it read."""
    path = write(tmp_path, "")
    for each, mode in ((path, 0o644), (tmp_path, 0o755)):
        each.chmod(mode)
    assert load(path, trusted=True) == Daemon()
    bad = path if wrong == "file" else tmp_path
    if by == "mode":
        bad.chmod(bad.stat().st_mode | 0o020)
    else:
        os.chown(bad, 65534, -1)
    with pytest.raises(ConfigError, match="chmod go-w" if by == "mode" else "chown root"):
        load(path, trusted=True)
    assert load(path) == Daemon()


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """No file is not an empty file."""
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml")


@given(text=st.text(max_size=200))
def test_any_text_is_a_configuration_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """Reading is total."""
    path = tmp_path_factory.mktemp("c") / "f.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(load(path), Daemon)
    except ConfigError:
        return
