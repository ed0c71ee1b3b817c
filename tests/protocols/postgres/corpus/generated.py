"""Statements made of a grammar: reads, with something that writes at any place, or not."""

from hypothesis import strategies as st

_RELATIONS = ("orders", "customers", "refunds", "open_orders", "public.orders")
_CALLS = (
    "now()", "random()", "lower('A')", "count(*) OVER ()", "current_setting('search_path')",
    "nextval('orders_id_seq')", "setval('orders_id_seq', 1)", "currval('orders_id_seq')",
    "('orders_id_seq'::regclass).nextval", "lo_create(0)", "lo_get(1)", "txid_current()",
    "pg_notify('c', 'x')", "pg_advisory_xact_lock(1)", "close_order(1)", "order_total(1)",
    "query_to_xml('DELETE FROM refunds', true, true, '')", "pg_export_snapshot()",
    "set_config('work_mem', '1MB', true)", "pg_current_xact_id()", "pg_stat_clear_snapshot()",
    "lo_open(1, 131072)", "lo_unlink(1)", "pg_relation_size('orders')",
)  # fmt: skip
_LOCKS = ("", "", "", " FOR UPDATE", " FOR SHARE", " FOR KEY SHARE SKIP LOCKED")
_CHANGES = (
    "INSERT INTO refunds (order_id, amount) VALUES (1, 1) RETURNING 1",
    "UPDATE refunds SET amount = 1 WHERE id = 1 RETURNING 1",
    "DELETE FROM refunds RETURNING 1",
    "SELECT 1",
    "SELECT id FROM orders FOR UPDATE",
)
_FRAMES = (
    "{}", "{}", "{}", "EXPLAIN {}", "EXPLAIN ANALYZE {}", "EXPLAIN (ANALYZE off) {}",
    "COPY ({}) TO STDOUT", "DECLARE c CURSOR FOR {}", "PREPARE p AS {}; DEALLOCATE p",
    "SELECT 1; {}", "CREATE TEMP TABLE made AS {}", "{} -- x", "CREATE TEMP VIEW made AS {}",
    "DECLARE d CURSOR FOR {}; FETCH ALL FROM d", "SET LOCAL work_mem = '1MB'; {}",
)  # fmt: skip

_relation = st.sampled_from(_RELATIONS)


def _expressions() -> st.SearchStrategy[str]:
    leaves = st.one_of(
        st.sampled_from(["1", "'x'", "NULL", "true", "id", "$$a$$", "E'\\''"]),
        st.sampled_from(_CALLS),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds("coalesce({}::text, {}::text)".format, inner, inner),
            st.builds("CASE WHEN true THEN ({})::text END".format, inner),
            st.builds("(SELECT ({})::text)".format, inner),
            st.builds("ARRAY[({})::text]".format, inner),
            st.builds("EXISTS (SELECT {} FROM {})".format, inner, _relation),
        ),
        max_leaves=3,
    )


@st.composite
def queries(draw: st.DrawFn) -> str:
    """A SELECT."""
    relation = draw(_relation)
    first, second = draw(_expressions()), draw(_expressions())
    text = f"SELECT {first} AS a FROM {relation}"
    if draw(st.booleans()):
        text += f" WHERE ({second})::text IS NOT NULL"
    text += draw(st.sampled_from(["", " LIMIT 2", " ORDER BY 1 LIMIT 1"]))
    text += draw(st.sampled_from(_LOCKS))
    shape = draw(st.integers(0, 5))
    if shape == 1:
        text = f"WITH w AS ({draw(st.sampled_from(_CHANGES))}) SELECT * FROM w, ({text}) AS q"
    elif shape == 2:
        text = f"({text}) UNION ALL (SELECT {draw(_expressions())}::text)"
    elif shape == 3:
        text = f"SELECT q.a FROM ({text}) AS q JOIN LATERAL (SELECT q.a) AS l ON true"
    elif shape == 4:
        text = f"WITH RECURSIVE r AS (SELECT 1 UNION SELECT 2), t AS ({text}) TABLE t"
    return text


def texts() -> st.SearchStrategy[str]:
    """A statement, or some."""
    return st.builds(str.format, st.sampled_from(_FRAMES), queries())
