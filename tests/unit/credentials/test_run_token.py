"""The run's own token: good until its end, and never shown."""

from dataclasses import replace

import pytest

from agent.credentials.run_token import token_of_run
from agent.credentials.spec import CredentialError, RunToken, Wanted
from agent.model.credential import Shape
from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.secret import Secret

END_MS = 1_800_000_000_000
WANTED = Wanted(
    LeaseId("l"), RunId("r"), LoopName("nightly"), TargetName("api"), {}, Shape.BEARER, "", "",
    run_token=RunToken("repo:acme/orders", Secret(b"c4n4ry"), END_MS),
)  # fmt: skip


def test_it_is_given_until_its_end() -> None:
    """The last millisecond counts, the next does not."""
    assert token_of_run(WANTED, END_MS - 1).reveal() == b"c4n4ry"
    with pytest.raises(CredentialError, match="expired 0 s ago: start the run again") as caught:
        token_of_run(WANTED, END_MS)
    assert caught.value.nothing_made
    assert not caught.value.transient
    with pytest.raises(CredentialError, match="expired 90 s ago"):
        token_of_run(WANTED, END_MS + 90_500)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (None, "started without an OIDC token.*--oidc-token-file"),
        (RunToken("repo:acme/orders"), "broker was started anew: start the run again"),
    ],
)
def test_without_it_the_operator_is_told_what_to_do(shown: RunToken | None, said: str) -> None:
    """Never there, or lost with the broker that had it: nothing was made either way."""
    with pytest.raises(CredentialError, match=said) as caught:
        token_of_run(replace(WANTED, run_token=shown), 0)
    assert caught.value.nothing_made


def test_it_is_in_no_repr() -> None:
    """Neither of what is wanted, nor of the token itself."""
    assert "c4n4ry" not in repr(WANTED)
    assert "c4n4ry" not in repr(WANTED.run_token)
    assert replace(WANTED, run_token=None) == WANTED
