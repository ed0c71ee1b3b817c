"""The host's roots as a worker believes them, for as long as it lives."""

import os
from pathlib import Path

import pytest

from agent.proxy.trust import ROOTS_LOOK_NS, Trust
from tests.servers.certificates import Authority

ALPN = ("http/1.1",)


def roots_in(trust: Trust) -> int:
    """Return how many CAs a context without a CA of its own believes."""
    return len(trust.context("", ALPN).get_ca_certs())


def test_replaced_roots_are_believed_within_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    """Until ROOTS_LOOK_NS after the last look the old ones are, at it the new ones, and only they.

    Contexts of targets with a CA of their own stay as they are.
    """
    bundle = tmp_path / "roots.pem"
    bundle.write_text(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    now_ns = 0
    trust = Trust(lambda: now_ns)
    assert roots_in(trust) == 1
    own, system = trust.context(authority.pem, ALPN), trust.context("", ALPN)
    (tmp_path / "new.pem").write_text(authority.pem + Authority().pem)
    os.rename(tmp_path / "new.pem", bundle)
    now_ns = ROOTS_LOOK_NS - 1
    assert roots_in(trust) == 1
    now_ns = ROOTS_LOOK_NS
    assert roots_in(trust) == 2
    assert trust.context("", ALPN) is not system
    assert trust.context(authority.pem, ALPN) is own
    now_ns = 2 * ROOTS_LOOK_NS
    same = trust.context("", ALPN)
    assert trust.context("", ALPN) is same
