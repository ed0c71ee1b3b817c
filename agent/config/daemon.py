"""The daemon's configuration: one TOML file, read once by the supervisor and each role.

Every key has a default that is right for a host with systemd; an unknown key, a wrong type or
an impossible value is an error that names the file and the key.
"""

import difflib
import os
import re
import stat
import tomllib
from pathlib import Path

import msgspec

DEFAULT_PATH = Path("/etc/loopwarden/loopwarden.toml")
INSTANCE = re.compile(r"[a-z][a-z0-9-]{0,23}")
SLICE = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9:_.@\\-]{0,200}")
PROXY_WORKERS_MAX = 64
WAIT_S_MAX = 86_400
HEADROOM_BYTES = 8_388_608  # of the spool, for what ends that which was begun (SpoolLimits)


class ConfigError(Exception):
    """The configuration can't be used; the message says which file, key and why."""


class Spool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[spool]: where records wait for the collector, and how many."""

    bytes_max: int = 1 << 30
    segment_bytes_max: int = 16 << 20
    heartbeat_s: float = 30.0


class Collector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[collector]: where records go. Without an address they stay in the spool up to its bound."""

    address: str = ""  # host:port
    identity_dir: str = "/etc/loopwarden/identity"  # key.pem, cert.pem, ca.pem by `enroll`


class Users(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[users]: whom the roles become: names, or numeric ids as text."""

    broker: str = "loopwarden"
    proxy: str = "loopwarden-proxy"
    reporter: str = "loopwarden-report"
    exec: str = "loopwarden-exec"  # programs of provider exec; without this user none is run


class Daemon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    instance: str = "loopwarden"  # names pins, the nft table and the slice
    policy_dir: str = "/etc/loopwarden/policy.d"
    state_dir: str = "/var/lib/loopwarden"  # broker/ and spool/ below it
    run_dir: str = "/run/loopwarden"  # control.sock and trust/ below it
    bpffs: str = "/sys/fs/bpf"
    attach_cgroup: str = "/"  # below the cgroup v2 mount; all runs must be below it
    slice: str = ""  # below attach_cgroup; "" means "<instance>.slice"
    proxy_workers: int = 1
    proxy_port: int = 15001
    dns_port: int = 15053
    mark_prefix: int = 0x4C5  # high 12 bits of the redirect mark
    control_group: str = ""  # group of control.sock; "" lets everyone ask, the policy decides
    drain_s: float = 10.0
    log_level: str = "info"
    spool: Spool = Spool()
    collector: Collector = Collector()
    users: Users = Users()

    @property
    def slice_path(self) -> str:
        """The slice's path below the cgroup v2 mount, with a leading slash."""
        name = self.slice or f"{self.instance}.slice"
        return f"{self.attach_cgroup.rstrip('/')}/{name}"

    @property
    def control_socket(self) -> Path:
        """Where `loopwarden` finds the broker."""
        return Path(self.run_dir, "control.sock")

    @property
    def trust_dir(self) -> Path:
        """The trust bundle for runs: ca-bundle.pem, ca.pem and certs/ (an OpenSSL CApath)."""
        return Path(self.run_dir, "trust")

    @property
    def broker_dir(self) -> Path:
        """The broker's own: CA key and lease journal."""
        return Path(self.state_dir, "broker")

    @property
    def spool_dir(self) -> Path:
        """The reporter's own."""
        return Path(self.state_dir, "spool")


def load(path: Path, *, trusted: bool = False) -> Daemon:
    """Read and check the file.

    trusted: of whoever acts by it, for it says where policies are and where records go. Only root
    or we may be able to write it, or to put another one in its place.

    Raises:
        ConfigError: it can't be read, is not TOML, has an unknown key or impossible value, or
            is not trusted.
    """
    try:
        with path.open("rb") as file:
            if trusted:
                _check_writers(path, os.fstat(file.fileno()))
                _check_writers(path.parent, os.stat(path.parent))
            tree = tomllib.loads(file.read().decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    _refuse_unknown(path, tree, Daemon, "")
    try:
        config = msgspec.convert(tree, Daemon)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error
    _check(path, config)
    return config


def _check_writers(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise ConfigError(f"{path} belongs to uid {status.st_uid}: run `chown root {path}`")
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(f"{path} has mode {mode:04o}: run `chmod go-w {path}`")


def _refuse_unknown(path: Path, tree: dict[str, object], kind: type, prefix: str) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key, value in tree.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{path}: unknown key {prefix + key!r}{hint}")
        inner = fields[key].type
        if (
            isinstance(value, dict)
            and isinstance(inner, type)
            and issubclass(inner, msgspec.Struct)
        ):
            _refuse_unknown(path, value, inner, f"{prefix}{key}.")


def _folders(config: Daemon) -> tuple[str, ...]:
    given = (config.policy_dir, config.state_dir, config.run_dir, config.bpffs)
    # without a collector nobody has to have an identity
    return (*given, config.collector.identity_dir) if config.collector.identity_dir else given


def _check(path: Path, config: Daemon) -> None:
    ports = (config.proxy_port, config.dns_port)
    problems = [
        (not INSTANCE.fullmatch(config.instance), "instance: letters, digits, '-', at most 24"),
        (not SLICE.fullmatch(config.slice), "slice: one name, without a slash"),
        (any(not 0 < port < 65536 for port in ports), "proxy_port, dns_port: 1 to 65535"),
        (config.proxy_port == config.dns_port, "proxy_port and dns_port must differ"),
        (
            not 0 < config.proxy_workers <= PROXY_WORKERS_MAX,
            f"proxy_workers: 1 to {PROXY_WORKERS_MAX}",
        ),
        (not 0 < config.mark_prefix < 1 << 12, "mark_prefix: 1 to 4095"),
        (not config.attach_cgroup.startswith("/"), "attach_cgroup: a path with a leading slash"),
        (config.spool.segment_bytes_max < 1 << 16, "spool.segment_bytes_max: at least 65536"),
        (
            config.spool.bytes_max < 4 * config.spool.segment_bytes_max + HEADROOM_BYTES,
            f"spool.bytes_max: at least four segments and {HEADROOM_BYTES} bytes",
        ),
        (not 0 <= config.drain_s <= WAIT_S_MAX, f"drain_s: 0 to {WAIT_S_MAX}"),
        (
            not 0 < config.spool.heartbeat_s <= WAIT_S_MAX,
            f"spool.heartbeat_s: more than 0, at most {WAIT_S_MAX}",
        ),
        (
            not all(text.startswith("/") for text in _folders(config)),
            "policy_dir, state_dir, run_dir, bpffs, collector.identity_dir: with a leading slash",
        ),
        (
            config.log_level not in ("debug", "info", "warning", "error"),
            "log_level: debug, info, warning or error",
        ),
    ]
    for wrong, text in problems:
        if wrong:
            raise ConfigError(f"{path}: {text}")
