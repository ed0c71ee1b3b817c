"""Invariant: any text has a class, the same each time, and what is unknown has a reason."""

from agent.model.sql import Effect
from agent.protocols.postgres.sql import classify, touches_pinned
from tests.fuzz.engine import main

SEEDS = (
    b"SELECT a, b FROM t WHERE c = $1 AND d IN (1, 2) ORDER BY e LIMIT 1",
    b"WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d; COMMIT",
    b"SELECT set_config('role', 'x', false), ('s'::regclass).nextval",
    b"SET client_encoding = 'UTF8'; BEGIN READ WRITE; RESET ALL",
    b"COPY (SELECT 1) TO PROGRAM 'x' WITH (FORMAT csv)",
    b"EXPLAIN (ANALYZE on) INSERT INTO t VALUES (1, E'\\'', $a$ ' $a$) -- x",
    b"CREATE RULE r AS ON INSERT TO t DO (DELETE FROM u; NOTIFY c)",
    b"DO $$ begin end $$ LANGUAGE plpgsql /* /* x */ */",
    b"MERGE INTO t USING s ON true WHEN MATCHED THEN UPDATE SET a = 1",
    b"ALTER TABLE t ADD COLUMN a int DEFAULT f(1), OWNER TO b",
    b"SELECT U&\"d\\0061t\", B'1', X'1F' FROM a JOIN b USING (c) FOR UPDATE",
)


def check(data: bytes) -> None:
    """Classify it twice: as UTF-8 with lone surrogates, and as Latin-1."""
    for text in (data.decode("utf-8", "surrogateescape"), data.decode("latin-1")):
        found = classify(text)
        assert found == classify(text)
        for statement in found.statements:
            assert statement.effects
            assert bool(statement.why) is (Effect.UNKNOWN in statement.effects)
            touches_pinned(statement)


if __name__ == "__main__":
    main("postgres_sql")
