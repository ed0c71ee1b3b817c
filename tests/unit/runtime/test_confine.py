"""Giving up power is for ever."""

import os
import subprocess
import sys

import pytest

from agent.runtime import confine

PROGRAM = """
import os, sys
from agent.runtime import confine
confine.become(confine.Account(64999, 64998))
status = dict(line.split(":\\t", 1) for line in open("/proc/thread-self/status") if ":\\t" in line)
sys.stdout.write("|".join(status[key].strip() for key in
    ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb", "NoNewPrivs")))
for call in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
    try:
        call()
    except PermissionError:
        continue
    sys.exit("got power back")
"""


def test_become_leaves_nothing() -> None:
    """uid, gid, groups and every capability set are gone, and can't be had back."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    uid, gid, groups, *caps, nnp = done.stdout.split("|")
    assert set(uid.split()) == {"64999"}
    assert set(gid.split()) == {"64998"}
    assert groups == ""
    assert {int(cap, 16) for cap in caps} == {0}
    assert nnp == "1"


def test_accounts_are_names_or_numbers() -> None:
    """A number is a uid and gid of its own; an unknown name says what to do."""
    assert confine.account("64001") == confine.Account(64001, 64001)
    assert confine.account("root") == confine.Account(0, 0)
    with pytest.raises(LookupError, match="systemd-sysusers"):
        confine.account("no-such-user-here")
    assert confine.group_id("0") == 0
    assert confine.group_id("root") == 0
    with pytest.raises(LookupError):
        confine.group_id("no-such-group-here")
    assert os.geteuid() == 0  # nothing above changed us
