"""Invariant: what STS answers is texts by name within the bounds, or a CredentialError."""

import contextlib

from agent.credentials.aws_sts.answers import ELEMENTS_MAX, leaves_of
from agent.credentials.spec import CredentialError, HttpReply
from agent.model.secret import Secret
from tests.fuzz.engine import main
from tests.servers.sts import Sts, role_answer

SEEDS = (
    role_answer(Sts()),
    b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>",
    b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    b"<a xmlns:b='c'><b:d>1</b:d><![CDATA[x]]><!-- y --></a>",
)


def check(data: bytes) -> None:
    """Read it."""
    with contextlib.suppress(CredentialError):
        found = leaves_of(HttpReply(200, (), Secret(data), 0))
        assert len(found) <= ELEMENTS_MAX
        assert sum(map(len, found.values())) <= len(data)


if __name__ == "__main__":
    main("sts_answer")
