"""The mirror of bpf/include/abi.h. tests/kernel compares every field with the object's BTF."""

import ctypes as c
from enum import IntEnum, IntFlag

ABI = 2
CHAIN_MAX = 8
EXE_MAX = 256
ARGV_MAX = 512
# A run is at most so deep below the mount; the programs search twice as many levels, since the
# mount of a container is itself below the real root.
RUN_LEVEL_MAX = 16
RUNS_MAX = 4096
FLOWS_MAX = 8192
PROCS_MAX = 16384
PENDING_MAX = 1024
DNS_STEP_NS = 1_000_000
DNS_BURST_NS = 2_000_000_000
META_BYTES = 4096
META_BODY_MAX = META_BYTES - 4


class RunFlag(IntFlag):
    """enum lw_run_flag."""

    REVOKED = 1
    ADOPT = 2


class EvidenceCode(IntEnum):
    """enum lw_evidence."""

    NONE = 0
    BOTH = 1
    TAG = 2
    CGROUP = 3


class EventType(IntEnum):
    """enum lw_event_type."""

    EMPTIED = 1
    TAG_WITHOUT_CGROUP = 2
    CGROUP_WITHOUT_TAG = 3
    DENIED = 4


class Cause(IntEnum):
    """enum lw_cause: index of the counters."""

    MARKED = 0
    FOREIGN_SOCKET = 1
    RUN_SOCKET_OUTSIDE = 2
    REVOKED = 3
    SOCKET_TYPE = 4
    OUR_PORT = 5
    UDP = 6
    EGRESS = 7
    INGRESS = 8
    SOCKOPT = 9
    NO_ROOM = 10
    RUN_UNKNOWN = 11
    EVENT_LOST = 12
    FAMILY = 13
    CROWDED = 14
    FORGED = 15


class Cfg(c.Structure):
    """struct lw_cfg."""

    _fields_ = (
        ("abi", c.c_uint32),
        ("mark_base", c.c_uint32),
        ("proxy_port", c.c_uint16),
        ("dns_port", c.c_uint16),
        ("pidns_inum", c.c_uint32),
        ("netns_cookie", c.c_uint64),
    )


class RunEntry(c.Structure):
    """struct lw_run."""

    _fields_ = (
        ("cgid", c.c_uint64),
        ("flags", c.c_uint32),
        ("pad", c.c_uint32),
        ("run_id", c.c_uint8 * 16),
    )


class Pending(c.Structure):
    """struct lw_pending."""

    _fields_ = (
        ("dns_ns", c.c_uint64),
        ("next", c.c_uint32),
        ("pad", c.c_uint32),
        ("marks", c.c_uint32 * PENDING_MAX),
    )


class Meta(c.Structure):
    """struct lw_meta."""

    _fields_ = (("size", c.c_uint32), ("body", c.c_uint8 * META_BODY_MAX))


class TagValue(c.Structure):
    """struct lw_tag."""

    _fields_ = (("tag", c.c_uint64),)


class ProcKey(c.Structure):
    """struct lw_proc_key."""

    _fields_ = (("tgid", c.c_uint32), ("pad", c.c_uint32), ("start_ns", c.c_uint64))


class Proc(c.Structure):
    """struct lw_proc."""

    _fields_ = (
        ("tag", c.c_uint64),
        ("parent", ProcKey),
        ("exec_ns", c.c_uint64),
        ("exit_ns", c.c_uint64),
        ("exe_ino", c.c_uint64),
        ("uid", c.c_uint32),
        ("argv_size", c.c_uint32),
        ("argv_total", c.c_uint32),
        ("pad", c.c_uint32),
        ("comm", c.c_char * 16),
        ("exe", c.c_char * EXE_MAX),
        ("argv", c.c_uint8 * ARGV_MAX),
    )


class Link(c.Structure):
    """struct lw_link: one process of a chain."""

    _fields_ = (
        ("tgid", c.c_uint32),
        ("uid", c.c_uint32),
        ("start_ns", c.c_uint64),
        ("comm", c.c_char * 16),
    )


class Flow(c.Structure):
    """struct lw_flow."""

    _fields_ = (
        ("cookie", c.c_uint64),
        ("netns_cookie", c.c_uint64),
        ("tag", c.c_uint64),
        ("cgid", c.c_uint64),
        ("connect_ns", c.c_uint64),
        ("daddr", c.c_uint8 * 16),
        ("dport", c.c_uint16),
        ("family", c.c_uint8),
        ("evidence", c.c_uint8),
        ("mark", c.c_uint32),
        ("nchain", c.c_uint32),
        ("pad", c.c_uint32),
        ("chain", Link * CHAIN_MAX),
    )


class Stamp(c.Structure):
    """struct lw_stamp."""

    _fields_ = (
        ("tag", c.c_uint64),
        ("flags", c.c_uint32),
        ("dns_port", c.c_uint16),
        ("pad", c.c_uint16),
        ("dns_addr", c.c_uint8 * 16),
        ("flow", Flow),
    )


class Event(c.Structure):
    """struct lw_event."""

    _fields_ = (
        ("type", c.c_uint32),
        ("cause", c.c_uint32),
        ("at_ns", c.c_uint64),
        ("tag", c.c_uint64),
        ("cgid", c.c_uint64),
        ("tgid", c.c_uint32),
        ("pad", c.c_uint32),
    )


MIRRORS: dict[str, type[c.Structure]] = {
    "lw_cfg": Cfg,
    "lw_run": RunEntry,
    "lw_pending": Pending,
    "lw_meta": Meta,
    "lw_tag": TagValue,
    "lw_proc_key": ProcKey,
    "lw_proc": Proc,
    "lw_link": Link,
    "lw_flow": Flow,
    "lw_stamp": Stamp,
    "lw_event": Event,
}
ENUMS: dict[str, tuple[str, type[IntEnum] | type[IntFlag]]] = {
    "lw_run_flag": ("LW_RUN_", RunFlag),
    "lw_evidence": ("LW_EV_", EvidenceCode),
    "lw_event_type": ("LW_E_", EventType),
    "lw_cause": ("LW_C_", Cause),
}
