"""From text to verdict: the classifier and the policy together, by one table."""

import pytest

from agent.model.ids import OperationId
from agent.model.operation import Operation
from agent.model.verdict import Allow
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
