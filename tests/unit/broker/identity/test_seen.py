"""Used tokens: none is taken twice, also not after a death or with a damaged file."""

import os
from pathlib import Path

import pytest

from agent.broker.identity import seen as module
from agent.broker.identity.refusal import Check, Unverified
from agent.broker.identity.seen import KEEP_S, SEEN_MAX, Seen
from agent.policy.parse_issuer import CLOCK_SKEW_S_MAX

A, B = b"a" * 32, b"b" * 32
NOW = 1_800_000_000


def _use(seen: Seen, digest: bytes = A, *, uid: int = 1, reusable: bool = False,
         issued_s: int = NOW, now_s: int = NOW) -> None:  # fmt: skip
    seen.add(digest, issued_s=issued_s, ends_s=issued_s + 300, uid=uid, reusable=reusable,
             now_s=now_s)  # fmt: skip


def _refused(seen: Seen, digest: bytes = A, **how: int) -> Check:
    with pytest.raises(Unverified) as caught:
        _use(seen, digest, **how)  # type: ignore[arg-type]
    return caught.value.check


def test_a_token_is_used_once(tmp_path: Path) -> None:
    """By anybody; a restart forgets nothing."""
    seen = Seen(tmp_path / "seen", NOW)
    _use(seen)
    assert _refused(seen) is Check.REPLAYED
    assert _refused(seen, uid=2) is Check.REPLAYED
    again = Seen(tmp_path / "seen", NOW + 1)
    assert _refused(again) is Check.REPLAYED
    _use(again, B)
    assert oct((tmp_path / "seen").stat().st_mode & 0o777) == "0o600"


def test_a_reusable_token_is_its_first_users(tmp_path: Path) -> None:
    """The same user may show it again; another may not, also after a restart."""
    seen = Seen(tmp_path / "seen", NOW)
    _use(seen, reusable=True)
    _use(seen, reusable=True)
    assert _refused(seen, uid=2, reusable=True) is Check.REPLAYED
    assert _refused(Seen(tmp_path / "seen", NOW), uid=2, reusable=True) is Check.REPLAYED
    assert (tmp_path / "seen").read_bytes().count(b"\n") == 1


def test_it_is_forgotten_when_it_is_of_no_use(tmp_path: Path) -> None:
    """Some time after its end: a clock that is set back does not make it new."""
    path = tmp_path / "seen"
    _use(Seen(path, NOW))
    assert len(Seen(path, NOW + 300 + KEEP_S - 1)) == 1
    assert len(Seen(path, NOW + 300 + KEEP_S)) == 0
    assert path.read_bytes() == b""


def test_every_prefix_of_the_file_forgets_no_token(tmp_path: Path) -> None:
    """Cut anywhere: what was used is refused, as used or because that can't be said any more."""
    path = tmp_path / "seen"
    seen = Seen(path, NOW)
    _use(seen)
    _use(seen, B)
    whole = path.read_bytes()
    for size in range(len(whole)):
        if whole[:size].endswith(b"\n") or not size:
            continue  # a file that is whole, and older: nobody but root can make it so
        path.write_bytes(whole[:size])
        for _ in range(2):  # the second start too, when the file is whole again
            cut = Seen(path, NOW)
            assert _refused(cut) in {Check.REPLAYED, Check.REPLAY_UNKNOWN}
            assert _refused(cut, B) in {Check.REPLAYED, Check.REPLAY_UNKNOWN}
            _use(cut, b"c" * 32, issued_s=NOW + 1 + CLOCK_SKEW_S_MAX, reusable=True)


@pytest.mark.parametrize("line", [b"x", b"", b"\0" * 100, b"a" * 64 + b" 1", b"A" * 64 + b" 1 1"])
def test_a_damaged_line_refuses_what_was_issued_before(tmp_path: Path, line: bytes) -> None:
    """By a clock that may have been ahead, as far as is taken; one of a second later is taken."""
    path = tmp_path / "seen"
    _use(Seen(path, NOW))
    path.write_bytes(path.read_bytes() + line + b"\n")
    seen = Seen(path, NOW + 10)
    assert _refused(seen) is Check.REPLAYED
    assert _refused(seen, B, issued_s=NOW + 10 + CLOCK_SKEW_S_MAX) is Check.REPLAY_UNKNOWN
    _use(seen, B, issued_s=NOW + 11 + CLOCK_SKEW_S_MAX)


def test_the_store_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At SEEN_MAX live ones one more is refused; when one is over, it has room."""
    assert SEEN_MAX == 65_536
    monkeypatch.setattr(module, "SEEN_MAX", 3)
    seen = Seen(tmp_path / "seen", NOW)
    for number in range(3):
        _use(seen, bytes([number]) * 32 if number else A)
    assert _refused(seen, B) is Check.REPLAY_UNKNOWN
    later = NOW + 300 + KEEP_S
    _use(seen, B, issued_s=later, now_s=later)
    assert len(seen) == 1


def test_the_file_is_written_anew_when_it_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never has many more lines than there are tokens."""
    monkeypatch.setattr(module, "SEEN_MAX", 8)
    path = tmp_path / "seen"
    seen = Seen(path, NOW)
    for number in range(1, 100):
        at = NOW + number * (301 + KEEP_S)
        _use(seen, bytes([number]) * 32, issued_s=at, now_s=at)
        assert path.read_bytes().count(b"\n") <= 3 * 8


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A file that is gone or a link: the token is not taken, and not remembered as taken."""
    path = tmp_path / "seen"
    seen = Seen(path, NOW)
    path.unlink()
    assert _refused(seen) is Check.REPLAY_UNKNOWN
    path.symlink_to("elsewhere")
    assert _refused(seen) is Check.REPLAY_UNKNOWN
    assert not len(seen)
    os.unlink(path)
    path.touch()
    _use(seen)
