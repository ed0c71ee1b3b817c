"""From text to verdict: the classifier and the policy together, by one table."""

import pytest

from agent.model.ids import OperationId
from agent.model.operation import Operation
from agent.model.verdict import Allow, Deny
from agent.policy.evaluate import evaluate
from agent.protocols.postgres.sql import classify
from tests.unit.policy.statements import grant

READER = ["allow: {effects: [read]}"]
ORDERS = ["allow: {effects: [read, write], tables: [orders, 'public.orders']}"]
NO_REFUNDS = [
    "allow: {effects: [read, write, ddl, privilege, admin, unknown], unbounded: true}",
    "deny: {tables: [public.refunds]}",
]
NO_EMAIL = ["allow: {effects: [read, write]}", "deny: {columns: [customers.email]}"]
APP = ", settings: {search_path: app}, functions: {app.total: read}"
IN_APP = ["allow: {effects: [read], schemas: [app]}"]


def allows(rules: list[str], text: str, target: str = "") -> bool:
    statements = classify(text).statements
    operation = Operation(OperationId("o"), "postgres", "q", text, (), statements)
    return isinstance(evaluate(grant(*rules, target=target), operation), Allow)


ALLOWED = [
    (READER, "SELECT 1"),
    (READER, "SELECT count(*), max(state) FROM orders WHERE created > now() - interval '1 day'"),
    (READER, "BEGIN; SET LOCAL work_mem = '64MB'; SELECT * FROM orders; COMMIT"),
    (READER, "WITH x AS (SELECT * FROM orders) SELECT * FROM x"),
    (READER, "EXPLAIN SELECT * FROM orders"),
    (READER, "COPY (SELECT id FROM orders) TO STDOUT"),
    (READER, "DECLARE c CURSOR FOR SELECT * FROM orders"),
    (READER, "SHOW server_version"),
    (READER, "-- ping"),
    (ORDERS, "UPDATE orders SET state = 'x' WHERE id = 1 RETURNING id"),
    (ORDERS, "INSERT INTO public.orders (id) VALUES (1), (2)"),
    (ORDERS, "DELETE FROM ONLY orders AS o WHERE o.id = 1"),
    (ORDERS, 'SELECT * FROM "orders"'),
    (ORDERS, "SELECT * FROM ORDERS"),
    (NO_REFUNDS, "SELECT * FROM orders JOIN audit.refunds USING (id)"),
    (NO_REFUNDS, "DROP TABLE orders"),
    (NO_EMAIL, "SELECT c.name FROM customers c"),
    (NO_EMAIL, "SELECT email FROM suppliers"),
    (NO_EMAIL, "SELECT count(*) FROM customers"),
]
DENIED = [
    (READER, "DELETE FROM orders WHERE id = 1"),
    (READER, "WITH x AS (DELETE FROM orders WHERE id = 1 RETURNING *) SELECT * FROM x"),
    (READER, "SELECT * INTO copied FROM orders"),
    (READER, "EXPLAIN ANALYZE DELETE FROM orders WHERE id = 1"),
    (READER, "SELECT 1; DROP TABLE orders"),
    (READER, "SELECT nextval('s')"),
    (READER, "SELECT pg_terminate_backend(1)"),
    (READER, "SELECT pg_read_file('/etc/passwd')"),
    (READER, "SELECT * FROM pg_hba_file_rules"),
    (READER, "SELECT setting FROM pg_catalog.pg_file_settings"),
    (READER, "SELECT * FROM pg_config"),
    (READER, "TABLE pg_ident_file_mappings"),
    (READER, "SELECT my_function()"),
    (READER, "SELECT * FROM orders FOR UPDATE"),
    (READER, "DO $$ BEGIN PERFORM 1; END $$"),
    (READER, "CALL p()"),
    (READER, "EXECUTE nobody_knows"),
    (READER, "COPY orders TO PROGRAM 'sh'"),
    (READER, "COPY orders FROM STDIN"),
    (READER, "SET ROLE postgres"),
    (READER, "ALTER SYSTEM SET work_mem = '1GB'"),
    (READER, "CREATE TABLE x AS SELECT * FROM orders"),
    (READER, "this is no SQL"),
    (ORDERS, "DELETE FROM orders"),
    (ORDERS, "DELETE FROM orders WHERE true"),
    (ORDERS, "UPDATE orders SET total = (SELECT max(amount) FROM refunds) WHERE id = 1"),
    (ORDERS, "INSERT INTO orders SELECT * FROM refunds"),
    (ORDERS, 'SELECT * FROM "Orders"'),
    (ORDERS, "SELECT * FROM orders, LATERAL (SELECT * FROM refunds) r"),
    (ORDERS, "SELECT (SELECT amount FROM refunds LIMIT 1) FROM orders"),
    (ORDERS, "TABLE refunds"),
    (NO_REFUNDS, "SELECT * FROM refunds"),
    (NO_REFUNDS, "SELECT * FROM orders UNION SELECT * FROM public.refunds"),
    (NO_REFUNDS, "DROP SCHEMA public CASCADE"),
    (NO_REFUNDS, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO bob"),
    (NO_REFUNDS, "DO $$ BEGIN DELETE FROM refunds; END $$"),
    (NO_REFUNDS, "TRUNCATE orders, refunds"),
    (NO_REFUNDS, "COPY refunds TO STDOUT"),
    (NO_EMAIL, "SELECT email FROM customers"),
    (NO_EMAIL, "SELECT * FROM customers"),
    (NO_EMAIL, "SELECT x.* FROM customers AS x"),
    (NO_EMAIL, "SELECT c FROM customers c"),
    (NO_EMAIL, "SELECT row_to_json(c) FROM customers c"),
    (NO_EMAIL, "SELECT name FROM customers WHERE email LIKE 'a%'"),
    (NO_EMAIL, "SELECT name FROM customers ORDER BY email"),
    (NO_EMAIL, "SELECT (c).email FROM customers c"),
    (NO_EMAIL, "COPY customers TO STDOUT"),
    (NO_EMAIL, "SELECT e FROM customers AS c(i, n, e)"),
    (NO_EMAIL, "UPDATE customers SET name = email WHERE id = 1"),
]

NO_CARD = [
    "allow: {effects: [read, write, ddl], unbounded: true}",
    "deny: {columns: [customers.card]}",
]
UNREAD = [
    "allow: {effects: [read, write, ddl], unbounded: true}",
    "deny: {effects: [read], tables: [customers]}",
]
CHANGES_THAT_READ = [
    "DELETE FROM customers WHERE card = '4'",
    "DELETE FROM customers WHERE id = 1 RETURNING card",
    "DELETE FROM orders USING customers c WHERE c.card = orders.note",
    "UPDATE customers SET name = card WHERE id = 1",
    "UPDATE customers SET (name, id) = (SELECT card, id) WHERE id = 1",
    "UPDATE customers SET name = 'x' WHERE id = 1 RETURNING old.card",
    "UPDATE customers SET name = 'x' WHERE id = 1 RETURNING WITH (OLD AS o) o",
    "UPDATE customers SET name = 'x' WHERE id = 1 RETURNING WITH (OLD AS o) to_json(o)",
    "UPDATE customers SET name = 'x' WHERE id = 1 RETURNING WITH (NEW AS n) n.*",
    "UPDATE orders SET note = card FROM customers WHERE customers.id = 1",
    "INSERT INTO orders (note) SELECT card FROM customers",
    "INSERT INTO orders TABLE customers",
    "INSERT INTO customers (id) VALUES (1) RETURNING card",
    "INSERT INTO customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = excluded.card",
    "INSERT INTO customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = customers.card",
    "INSERT INTO customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 2 WHERE card = '4'",
    "INSERT INTO customers (id) VALUES (1) ON CONFLICT (card) DO NOTHING",
    "INSERT INTO customers (id) VALUES (1) ON CONFLICT (lower(card)) DO NOTHING",
    "INSERT INTO customers (id) VALUES (1) ON CONFLICT ON CONSTRAINT a_card_key DO NOTHING",
    (
        "MERGE INTO orders o USING customers c ON o.id = c.id"
        " WHEN MATCHED THEN UPDATE SET note = c.card"
    ),
    "MERGE INTO orders o USING customers c ON o.note = c.card WHEN MATCHED THEN DELETE",
    (
        "MERGE INTO orders o USING customers c ON o.id = c.id"
        " WHEN MATCHED AND c.card = '4' THEN DELETE"
    ),
    (
        "MERGE INTO orders o USING customers c ON o.id = c.id"
        " WHEN NOT MATCHED THEN INSERT (note) VALUES (c.card)"
    ),
    (
        "MERGE INTO orders o USING customers c ON true"
        " WHEN MATCHED THEN UPDATE SET note = 'x' RETURNING *"
    ),
    "MERGE INTO customers USING orders ON true WHEN MATCHED THEN UPDATE SET name = card",
    "WITH x AS (DELETE FROM customers WHERE id = 1 RETURNING *) SELECT 1 FROM x",
]


@pytest.mark.parametrize("text", CHANGES_THAT_READ)
def test_a_change_that_reads_is_denied_as_a_read(text: str) -> None:
    """A denied column is not returned, compared, copied or computed with; nor a denied table."""
    assert not allows(NO_CARD, text)
    assert not allows(UNREAD, text)
    statements = classify(text).statements
    assert any(one.name == "customers" for statement in statements for one in statement.reads)


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO customers (id, name) VALUES (1, 'x')",
        "INSERT INTO customers (id) VALUES (1) ON CONFLICT DO NOTHING",
        "UPDATE customers SET name = 'x'",
        "DELETE FROM customers",
        "UPDATE orders SET note = 'x' WHERE id = 1 RETURNING note",
    ],
)
def test_a_change_that_looks_at_nothing_is_no_read(text: str) -> None:
    """A deny of reading leaves tables to be filled and emptied, and others to be read."""
    assert allows(UNREAD, text)
    assert allows(["allow: {effects: [write], unbounded: true}"], "UPDATE t SET a = 1 WHERE b = 2")


@pytest.mark.parametrize(
    "text",
    [
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT card FROM customers'",
        "CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS 'BEGIN END'",
        "DROP SCHEMA public CASCADE",
    ],
)
def test_ddl_that_names_no_table_may_be_of_any_column(text: str) -> None:
    """The column of a rule may be with its table or without."""
    for column in ("card", "customers.card"):
        rule = f"deny: {{columns: [{column}]}}"
        assert not allows(["allow: {effects: [read, ddl]}", rule], text)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE probe (c text REFERENCES customers (card), d int CHECK (d > 0))",
        "CREATE TABLE probe (c text REFERENCES customers, d int CHECK (d > 0))",
        "CREATE TABLE probe (c text, CHECK (c > ''), FOREIGN KEY (c) REFERENCES customers (card))",
        "ALTER TABLE probe ADD FOREIGN KEY (c) REFERENCES public.customers (card)",
        "ALTER TABLE probe ADD COLUMN c text REFERENCES customers",
        "CREATE UNIQUE INDEX ON customers (card, lower(name))",
        "CREATE INDEX ON customers (lower(name)) INCLUDE (card)",
        "CREATE STATISTICS s ON card, (lower(name)) FROM customers",
        "CREATE PUBLICATION p FOR TABLE customers (card) WHERE (name = 'x')",
        "ALTER PUBLICATION p ADD TABLE customers WHERE (name = 'x')",
    ],
)
def test_a_column_that_no_expression_names_is_read_too(text: str) -> None:
    """References tell whether a value is there; also beside an expression of another column."""
    rules = ["allow: {effects: [read, write, ddl, admin]}", NO_CARD[1]]
    assert not allows(rules, text)
    assert allows(rules, "ALTER TABLE probe ADD FOREIGN KEY (c) REFERENCES customers (id)")


@pytest.mark.parametrize(("rules", "text"), ALLOWED)
def test_what_a_rule_means_is_allowed(rules: list[str], text: str) -> None:
    """No false denial of what people write."""
    assert allows(rules, text)


@pytest.mark.parametrize(("rules", "text"), DENIED)
def test_what_no_rule_means_is_denied(rules: list[str], text: str) -> None:
    """However it is said."""
    assert not allows(rules, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT * FROM orders", True),
        ("SELECT total(1), app.total(2) FROM app.orders", True),
        ("SELECT * FROM public.orders", False),
        ("SELECT other.total(1)", False),
        ("SET search_path = public; SELECT * FROM orders", False),
        ("SET LOCAL search_path TO public", False),
        ("SELECT set_config('search_path', 'public', false)", False),
        ("SELECT set_config('search' || '_path', 'public', false)", False),
        ("RESET search_path", True),
        ("SET search_path = app", True),
        ("DISCARD ALL", True),
    ],
)
def test_a_fixed_search_path_holds(text: str, expected: bool) -> None:
    """Names without schema mean that path's, and no statement changes it."""
    assert allows(IN_APP, text, APP) is expected


def test_what_was_decided_on_is_what_is_recorded() -> None:
    """The target's word on functions, for allowed and denied statements; `read` where rows are."""
    target = ", functions: {total: read, app.bill: write}"
    rules = ["allow: {effects: [read]}"]
    asked = "SELECT total(1), app.bill(2), lower('x'), other(3) FROM orders"
    for text, effects in (
        ("SELECT total(1), lower('x') FROM orders", {"total": "read", "lower": "read"}),
        (asked, {"total": "read", "bill": "write", "lower": "read", "other": "unknown"}),
    ):
        statements = classify(text).statements
        operation = Operation(OperationId("o"), "postgres", "q", text, (), statements)
        for _ in range(2):  # the second time from memory
            verdict = evaluate(grant(*rules, target=target), operation)
            assert verdict.statements is not None
            (decided,) = verdict.statements
            assert {call.name: call.effect for call in decided.calls} == effects
            assert decided.effects == {"read"}
    for text, read in (
        ("UPDATE orders SET note = 'x' WHERE id = 1", True),
        ("DELETE FROM orders WHERE id = 1 RETURNING id", True),
        ("UPDATE orders SET note = 'x'", False),
        ("SELECT 1", False),
    ):
        statements = classify(text).statements
        operation = Operation(OperationId("o"), "postgres", "q", text, (), statements)
        verdict = evaluate(grant(*rules, target=target), operation)
        assert (verdict.statements is not None) is read
        if verdict.statements is not None:
            assert verdict.statements[0].effects == {"read", "write"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CREATE FUNCTION other(int) RETURNS int LANGUAGE sql AS 'SELECT 1'", True),
        ("CREATE OR REPLACE FUNCTION total(int) RETURNS int LANGUAGE sql AS 'SELECT 1'", False),
        ("CREATE FUNCTION app.total(int) RETURNS int LANGUAGE sql AS 'SELECT 1'", False),
        ("CREATE FUNCTION bill(int) RETURNS int LANGUAGE sql AS 'SELECT 1'", False),
        ("CREATE FUNCTION other.bill(int) RETURNS int LANGUAGE sql AS 'SELECT 1'", True),
        ("ALTER FUNCTION other(int) RENAME TO total", False),
        ("ALTER FUNCTION other.bill(int) SET SCHEMA app", False),
        ("CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int)", False),
        ("CREATE AGGREGATE other(int) (SFUNC = int4pl, STYPE = int)", True),
    ],
)
def test_what_the_target_says_of_a_function_stays_true(text: str, expected: bool) -> None:
    """Who may make objects may not make another function of a name that the target speaks of."""
    target = ", functions: {total: read, app.bill: read}"
    assert allows(["allow: {effects: [read, ddl]}"], text, target) is expected


@pytest.mark.parametrize(
    "text",
    [
        "ALTER TABLE customers DROP COLUMN name, INHERIT p",
        "ALTER TABLE customers ALTER COLUMN name SET DEFAULT 'x', INHERIT p",
        "ALTER TABLE p ATTACH PARTITION customers DEFAULT",
        "CREATE TABLE p () INHERITS (customers)",
        "CREATE TABLE p PARTITION OF customers (id CHECK (id > 0)) DEFAULT",
    ],
)
def test_a_table_that_gets_a_parent_shows_all_its_columns(text: str) -> None:
    """Where one may not be read, also beside what is about another column."""
    assert not allows(NO_CARD, text)
    assert allows(NO_CARD, "ALTER TABLE customers DROP COLUMN name, ALTER COLUMN id SET DEFAULT 1")


def test_a_condition_of_another_table_is_no_bound_and_the_way_is_told() -> None:
    """A column in a query of its own is that query's, unless it has its table's name."""
    rules = ["allow: {effects: [read, write]}"]
    text = "DELETE FROM refunds WHERE EXISTS (SELECT FROM orders WHERE order_id = id)"
    operation = Operation(OperationId("o"), "postgres", "q", text, (), classify(text).statements)
    verdict = evaluate(grant(*rules), operation)
    assert isinstance(verdict, Deny)
    assert "name the columns of the table that it changes with that table" in verdict.explanation
    assert allows(rules, text.replace("order_id", "refunds.order_id"))
    assert allows([rules[0][:-1] + ", unbounded: true}"], text)
