"""The store's tables. Rows that a host's records make are keyed by that host, whatever they say."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA_VERSION = 5  # what came with it is in upgrade.py
metadata = MetaData()

meta = Table("meta", metadata, Column("schema_version", Integer, primary_key=True))

hosts = Table(
    "hosts",
    metadata,
    Column("host_id", String(26), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("certificate_serial", String(64), nullable=False),
    Column("enrolled_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False, default=0),
    Column("reported_name", Text, nullable=False, default=""),
    Column("version", Text, nullable=False, default=""),
    Column("seq", BigInteger, nullable=False, default=0),  # head of the chain
    Column("hash", LargeBinary(32), nullable=False),
)

# join tokens that were used, so that each works once; rows may go when they are past expiry
tokens = Table(
    "tokens",
    metadata,
    Column("token_id", String(64), primary_key=True),
    Column("host_name", String(255), nullable=False),
    Column("used_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)

# what is proven: the bytes as the host chained them, and the chain hash after each
records = Table(
    "records",
    metadata,
    Column("host_id", String(26), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("unix_ms", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    sqlite_with_rowid=False,
)

# the head that was signed last for each host: always its head in `hosts`, or the store was changed
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("host_id", String(26), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("signature", LargeBinary(144), nullable=False),
    Column("signed_ms", BigInteger, nullable=False),
)

# where a chain goes on behind records that its host can't show any more
gaps = Table(
    "gaps",
    metadata,
    Column("host_id", String(26), primary_key=True),
    Column("next_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("previous_hash", LargeBinary(32), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
)

# uploads that were refused: rollback, rewrite, gap, malformed, unknown, tampered
refusals = Table(
    "refusals",
    metadata,
    Column("refusal_id", Integer, primary_key=True, autoincrement=True),
    Column("host_id", String(26), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("host_id", String(26), primary_key=True),
    Column("run_id", String(64), primary_key=True),
    Column("loop", String(255), nullable=False),
    Column("tier", String(8), nullable=False),
    Column("cgroup_path", Text, nullable=False),
    Column("initiator", Text, nullable=False),  # JSON object
    Column("by_user", Text, nullable=False, server_default=""),  # of it, to search for
    Column("by_subject", Text, nullable=False, server_default=""),
    Column("argv", Text, nullable=False),  # JSON array
    Column("started_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("end_reason", String(64)),
    Index("runs_by_loop", "loop", "started_ms"),
    Index("runs_by_time", "started_ms"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("host_id", String(26), primary_key=True),
    Column("session_id", String(64), primary_key=True),
    Column("run_id", String(64), nullable=False),
    Column("loop", String(255), nullable=False),
    Column("target", String(255), nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("closed_ms", BigInteger),
    Column("reason", String(64), nullable=False, default=""),
    Column("detail", Text, nullable=False, default=""),  # of a refused one
    Column("evidence", String(16), nullable=False, default=""),
    Column("tier", String(8), nullable=False, default=""),
    Column("destination", Text, nullable=False, default=""),
    Column("pid", BigInteger, nullable=False, default=0),
    Column("exe", Text, nullable=False, default=""),
    Column("process", Text, nullable=False, default="{}"),  # JSON object
    Column("ancestors", Text, nullable=False, default="[]"),  # JSON array, parent first
    Column("operations", BigInteger, nullable=False, default=0),
    Column("downstream_bytes", BigInteger, nullable=False, default=0),
    Column("upstream_bytes", BigInteger, nullable=False, default=0),
    Column("duration_ns", BigInteger, nullable=False, default=0),
    Column("last_seq", BigInteger, nullable=False),  # of the record that changed it last
    Index("sessions_by_time", "opened_ms"),
    Index("sessions_by_last", "host_id", "last_seq"),
    Index("sessions_by_run", "run_id"),
    Index("sessions_by_target", "target", "opened_ms"),
    Index("sessions_by_loop", "loop", "opened_ms"),
)

operations = Table(
    "operations",
    metadata,
    Column("host_id", String(26), primary_key=True),
    Column("operation_id", String(64), primary_key=True),
    Column("session_id", String(64), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("loop", String(255), nullable=False),
    Column("target", String(255), nullable=False),
    Column("seq", BigInteger, nullable=False),  # of the intent or denial
    Column("at_ms", BigInteger, nullable=False),
    Column("protocol", String(32), nullable=False),
    Column("verb", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("attributes", Text, nullable=False),  # JSON array of pairs
    Column("rule", Text, nullable=False),
    Column("lease_id", String(64), nullable=False, default=""),
    Column("durability", String(16), nullable=False, default=""),
    Column("verdict", String(16), nullable=False),  # allow | deny
    Column("outcome", String(16)),  # NULL while it runs
    Column("reason", String(64), nullable=False, default=""),
    Column("explanation", Text, nullable=False, default=""),
    Column("status", Text, nullable=False, default=""),
    Column("request_bytes", BigInteger, nullable=False, default=0),
    Column("response_bytes", BigInteger, nullable=False, default=0),
    Column("duration_ns", BigInteger, nullable=False, default=0),
    Column("upstream", Text, nullable=False, default=""),
    Column("last_seq", BigInteger, nullable=False),  # of the outcome, once there is one
    Column("statements", Text, nullable=False, server_default="[]"),  # JSON array of objects
    Column("effects", Text, nullable=False, server_default=""),  # ",read,write,"
    Column("rows", BigInteger, nullable=False, server_default="0"),
    Column("result", Text, nullable=False, server_default="[]"),  # JSON array of pairs
    Index("operations_by_last", "host_id", "last_seq"),
    Index("operations_by_session", "host_id", "session_id", "seq"),
)

# tables that queries touch, as their text names them; schema_name "" when it names none
relations = Table(
    "relations",
    metadata,
    Column("host_id", String(26), primary_key=True),
    Column("operation_id", String(64), primary_key=True),
    Column("schema_name", String(255), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("written", Boolean, nullable=False),
    Index("relations_by_name", "name", "schema_name"),
)

leases = Table(
    "leases",
    metadata,
    Column("host_id", String(26), primary_key=True),
    Column("lease_id", String(64), primary_key=True),
    Column("run_id", String(64), nullable=False),
    Column("target", String(255), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("began_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Index("leases_by_target", "target", "began_ms"),
)

# runs and leases that people ended from here, and what their hosts said of it
kills = Table(
    "kills",
    metadata,
    Column("kill_id", String(26), primary_key=True),
    Column("host_id", String(26), nullable=False),
    Column("name", String(64), nullable=False),  # of the run or lease
    Column("asked_ms", BigInteger, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("told_ms", BigInteger),  # the host's first or last word came
    Column("done_ms", BigInteger),  # its last one
    Index("kills_waiting", "done_ms", "asked_ms"),
)

alarms = Table(
    "alarms",
    metadata,
    Column("host_id", String(26), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("alarm", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("run_id", String(64), nullable=False, default=""),
)
