-- Reads as applications, dashboards and drivers send them.
SELECT 1
;;
select version()
;;
SELECT current_schema()
;;
SELECT current_database(), current_user, session_user, inet_server_addr(), pg_backend_pid()
;;
SHOW server_version
;;
SHOW TRANSACTION ISOLATION LEVEL
;;
SHOW ALL
;;
show standard_conforming_strings
;;
SET client_encoding TO 'UTF8'
;;
SET NAMES 'utf-8'
;;
set client_encoding to 'unicode'
;;
SET standard_conforming_strings = on
;;
SET SESSION standard_conforming_strings TO 'true'
;;
SET client_min_messages TO warning
;;
SET SESSION timezone TO 'UTC'
;;
SET TIME ZONE INTERVAL '+00:00' HOUR TO MINUTE
;;
SET TIME ZONE LOCAL
;;
SET search_path TO app, public
;;
SET statement_timeout = '30s'
;;
SET LOCAL lock_timeout = 0
;;
SET application_name = 'worker'
;;
SET extra_float_digits = 3
;;
SET DATESTYLE TO ISO
;;
SET intervalstyle = iso_8601
;;
SET my_app.tenant_id = '42'
;;
SET LOCAL "app.user" TO 'bob'
;;
SET work_mem = '64MB'
;;
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED
;;
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
;;
SET default_transaction_read_only = on
;;
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY, DEFERRABLE
;;
SET TRANSACTION SNAPSHOT '00000003-0000001B-1'
;;
SET ROLE NONE
;;
RESET ROLE
;;
RESET ALL
;;
RESET search_path
;;
SET SESSION AUTHORIZATION DEFAULT
;;
SET session_replication_role = origin
;;
DISCARD ALL
;;
DISCARD PLANS
;;
DISCARD TEMP
;;
SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL
;;
SELECT set_config('search_path', 'app', true)
;;
SELECT pg_catalog.set_config('statement_timeout', $1, false)
;;
SELECT set_config('app.tenant', current_user, true)
;;
SELECT set_config('bytea_output', 'hex', false) FROM pg_settings WHERE name = 'bytea_output'
;;
SELECT set_config('standard_conforming_strings', 'on', false)
;;
SELECT name, setting FROM pg_settings WHERE name = ANY ($1)
;;
BEGIN
;;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE
;;
START TRANSACTION READ ONLY
;;
COMMIT
;;
COMMIT AND CHAIN
;;
ROLLBACK
;;
ABORT
;;
END
;;
SAVEPOINT a
;;
RELEASE SAVEPOINT a
;;
ROLLBACK TO SAVEPOINT a
;;
BEGIN; SELECT 1; COMMIT
;;
SET CONSTRAINTS ALL IMMEDIATE
;;
LISTEN jobs
;;
UNLISTEN jobs
;;
DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT * FROM orders
;;
FETCH FORWARD 100 FROM c
;;
MOVE ALL IN c
;;
CLOSE c
;;
PREPARE p (int) AS SELECT * FROM orders WHERE id = $1
;;
DEALLOCATE p
;;
DEALLOCATE ALL
;;
EXPLAIN SELECT * FROM orders
;;
EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT * FROM orders WHERE id = 1
;;
EXPLAIN DELETE FROM orders
;;
EXPLAIN (ANALYZE false) UPDATE orders SET total = 0
;;
EXPLAIN (ANALYZE off, VERBOSE) INSERT INTO orders DEFAULT VALUES
;;
EXPLAIN CREATE TABLE x AS SELECT 1
;;
COPY orders TO STDOUT
;;
COPY (SELECT id, total FROM orders WHERE total > 10) TO STDOUT WITH (FORMAT csv, HEADER)
;;
COPY customers (id, name) TO STDOUT BINARY
;;
LOCK TABLE orders IN ACCESS SHARE MODE
;;
TABLE orders
;;
VALUES (1, 'a'), (2, 'b')
;;
SELECT
;;
SELECT * FROM orders WHERE id = $1
;;
SELECT o.*, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.total > 10 ORDER BY o.id DESC LIMIT 10 OFFSET 5
;;
SELECT * FROM orders LEFT JOIN customers USING (id)
;;
SELECT * FROM orders NATURAL JOIN customers
;;
SELECT count(*), sum(total), avg(total), min(total), max(total), stddev(total), variance(total) FROM orders
;;
SELECT customer_id, count(*) FILTER (WHERE total > 10) FROM orders GROUP BY 1 HAVING count(*) > 1
;;
SELECT state, customer_id, sum(total) FROM orders GROUP BY GROUPING SETS ((state), (customer_id), ())
;;
SELECT state, grouping(state), sum(total) FROM orders GROUP BY ROLLUP (state)
;;
SELECT id, row_number() OVER (PARTITION BY customer_id ORDER BY total), rank() OVER w, lag(total) OVER w FROM orders WINDOW w AS (ORDER BY total)
;;
SELECT DISTINCT ON (customer_id) * FROM orders ORDER BY customer_id, id DESC
;;
WITH t AS (SELECT * FROM orders) SELECT * FROM t
;;
WITH RECURSIVE r (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT n FROM r
;;
WITH RECURSIVE s AS (SELECT 1 AS id UNION SELECT id + 1 FROM s WHERE id < 5) SEARCH DEPTH FIRST BY id SET o CYCLE id SET c USING p SELECT * FROM s
;;
SELECT * FROM orders WHERE EXISTS (SELECT 1 FROM customers c WHERE c.id = orders.customer_id)
;;
SELECT * FROM orders WHERE id IN (SELECT id FROM customers) AND total > ALL (SELECT 1)
;;
SELECT * FROM orders o, LATERAL (SELECT * FROM customers c WHERE c.id = o.customer_id) x
;;
SELECT 1 UNION ALL SELECT 2 EXCEPT SELECT 3 INTERSECT SELECT 4
;;
SELECT * FROM generate_series(1, 10) WITH ORDINALITY AS g (n, o)
;;
SELECT g.n FROM generate_series(1, 10) AS g (n)
;;
SELECT g FROM generate_series(now(), now() + interval '1 day', '1 hour') g
;;
SELECT e.key, e.value FROM jsonb_each('{"a": 1}') AS e
;;
SELECT key, value FROM orders, jsonb_each_text(details)
;;
SELECT u.a, u.b FROM unnest(ARRAY[1, 2], ARRAY['x', 'y']) AS u (a, b)
;;
SELECT * FROM unnest($1::int[], $2::text[])
;;
SELECT x.* FROM json_to_recordset('[{"a": 1}]') AS x (a int, b text)
;;
SELECT * FROM ROWS FROM (generate_series(1, 2), generate_series(1, 3))
;;
SELECT details->>'lines', details#>'{a,b}', details @> '{"gift": true}', details ? 'gift' FROM orders
;;
SELECT jsonb_build_object('a', 1), to_jsonb(o), row_to_json(o), json_agg(o), jsonb_path_query(details, '$.a') FROM orders o GROUP BY o.id, details
;;
SELECT id::text, CAST(total AS int), total::numeric(10, 2), '2020-01-01'::date FROM orders
;;
SELECT lower(name), upper(name), trim(name), btrim(name), length(name), substring(name FROM 1 FOR 3), position('a' IN name), overlay(name PLACING 'x' FROM 1), replace(name, 'a', 'b'), split_part(name, ' ', 1), left(name, 1), right(name, 1), initcap(name), concat(name, email), concat_ws(',', name, email), format('%s', name), md5(name), reverse(name), repeat(name, 2), lpad(name, 3), regexp_replace(name, 'a', 'b'), regexp_matches(name, 'a'), regexp_split_to_array(name, ' '), translate(name, 'a', 'b'), ascii(name), chr(65), encode('a', 'hex'), quote_literal(name), quote_ident(name), starts_with(name, 'a'), string_to_array(name, ' '), to_hex(1) FROM customers
;;
SELECT now(), current_date, current_timestamp, localtime, clock_timestamp(), statement_timestamp(), transaction_timestamp(), timeofday(), age(now()), date_trunc('month', now()), date_part('dow', now()), extract(epoch FROM now()), to_char(now(), 'YYYY'), to_date('2020', 'YYYY'), to_timestamp(0), make_date(2020, 1, 1), now() AT TIME ZONE 'UTC', justify_days(interval '40 days'), date_bin('15 minutes', now(), '2001-01-01'), isfinite(now())
;;
SELECT abs(-1), ceil(1.5), floor(1.5), round(1.55, 1), trunc(1.5), mod(5, 2), power(2, 3), sqrt(4), exp(1), ln(1), log(10), sign(1), random(), pi(), greatest(1, 2), least(1, 2), width_bucket(5, 0, 10, 5), div(5, 2), gcd(4, 6)
;;
SELECT array_agg(id ORDER BY id), array_length(ARRAY[1], 1), array_to_string(ARRAY[1], ','), array_append(ARRAY[1], 2), array_position(ARRAY[1], 1), cardinality(ARRAY[1]), ARRAY(SELECT 1), (ARRAY[1, 2])[1], 1 = ANY (ARRAY[1]) FROM orders
;;
SELECT coalesce(a, 1), nullif(a, 1), CASE WHEN a > 1 THEN 'x' ELSE 'y' END, a IS NULL, a IS DISTINCT FROM 1, a BETWEEN 1 AND 2, NOT a > 1 FROM (SELECT 1 AS a) t
;;
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total), mode() WITHIN GROUP (ORDER BY state), corr(total, id), string_agg(state, ',' ORDER BY id), bool_and(total > 0), every(total > 0) FROM orders
;;
SELECT to_tsvector('english', name) @@ plainto_tsquery('x'), ts_rank(to_tsvector(name), to_tsquery('x')), ts_headline(name, to_tsquery('x')), websearch_to_tsquery('a b'), setweight(to_tsvector('x'), 'A') FROM customers
;;
SELECT gen_random_uuid(), uuidv7(), pg_sleep(0), setseed(0.5)
;;
SELECT pg_try_advisory_lock(42)
;;
SELECT pg_advisory_xact_lock($1)
;;
SELECT pg_advisory_unlock(42)
;;
SELECT currval('orders_id_seq'), lastval()
;;
SELECT last_value FROM orders_id_seq
;;
SELECT pg_export_snapshot()
;;
SELECT txid_current(), pg_current_xact_id(), pg_current_snapshot(), pg_snapshot_xmin(pg_current_snapshot())
;;
SELECT pg_is_in_recovery(), pg_current_wal_lsn(), pg_last_wal_replay_lsn(), pg_postmaster_start_time(), pg_conf_load_time()
;;
SELECT pg_size_pretty(pg_database_size(current_database())), pg_total_relation_size('orders'), pg_table_size('orders'), pg_indexes_size('orders'), pg_relation_size('orders', 'fsm')
;;
SELECT pid, usename, state, query FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()
;;
SELECT pg_blocking_pids(pid) FROM pg_stat_activity
;;
SELECT relname, n_live_tup, last_autovacuum FROM pg_stat_user_tables ORDER BY n_dead_tup DESC
;;
SELECT schemaname, relname, idx_scan FROM pg_stat_user_indexes WHERE idx_scan = 0
;;
SELECT * FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted
;;
SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
;;
SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns WHERE table_name = 'orders' ORDER BY ordinal_position
;;
SELECT tc.constraint_name, kcu.column_name, ccu.table_name FROM information_schema.table_constraints tc JOIN information_schema.key_column_usage kcu ON tc.constraint_name = kcu.constraint_name JOIN information_schema.constraint_column_usage ccu ON ccu.constraint_name = tc.constraint_name WHERE tc.constraint_type = 'FOREIGN KEY'
;;
SELECT n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner), obj_description(c.oid, 'pg_class') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE pg_table_is_visible(c.oid) AND c.relkind IN ('r', 'p', 'v')
;;
SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, col_description(a.attrelid, a.attnum) FROM pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE a.attrelid = '"orders"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
;;
SELECT i.relname, d.indisunique, d.indkey, pg_get_indexdef(d.indexrelid), t.oid FROM pg_class t JOIN pg_index d ON t.oid = d.indrelid JOIN pg_class i ON d.indexrelid = i.oid WHERE t.relname = 'orders' AND i.relkind = 'i'
;;
SELECT conname, pg_get_constraintdef(oid, true) FROM pg_constraint WHERE conrelid = to_regclass('orders')
;;
SELECT result.table_name, result.column_name, result.key_seq FROM (SELECT n.nspname AS table_schem, ct.relname AS table_name, a.attname AS column_name, (information_schema._pg_expandarray(i.indkey)).n AS key_seq, information_schema._pg_expandarray(i.indkey) AS keys, a.attnum AS a_attnum FROM pg_catalog.pg_class ct JOIN pg_catalog.pg_attribute a ON (ct.oid = a.attrelid) JOIN pg_catalog.pg_namespace n ON (ct.relnamespace = n.oid) JOIN pg_catalog.pg_index i ON (a.attrelid = i.indrelid) WHERE i.indisprimary) result WHERE result.a_attnum = (result.keys).x ORDER BY result.table_name
;;
SELECT t.oid, t.typname, t.typelem, t.typdelim, t.typinput, r.rngsubtype, t.typtype, t.typbasetype FROM pg_type AS t LEFT JOIN pg_range AS r ON oid = rngtypid WHERE t.typname IN ('int2', 'json') OR t.typtype IN ('r', 'e', 'd')
;;
SELECT (aclexplode(relacl)).grantee, (aclexplode(relacl)).privilege_type FROM pg_class
;;
SELECT has_table_privilege('orders', 'SELECT'), has_schema_privilege('public', 'CREATE'), has_database_privilege(current_database(), 'TEMP'), pg_has_role('app_all', 'MEMBER')
;;
SELECT enumlabel FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid ORDER BY enumsortorder
;;
SELECT proname, pg_get_function_arguments(oid), pg_get_function_result(oid), pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
;;
SELECT extname, extversion FROM pg_extension
;;
SELECT name FROM pg_available_extensions
;;
SELECT datname, pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datistemplate = false
;;
SELECT rolname, rolsuper FROM pg_roles
;;
SELECT 1 FROM pg_catalog.pg_timezone_names LIMIT 1
;;
SELECT * FROM orders TABLESAMPLE SYSTEM (10) REPEATABLE (1)
;;
SELECT * FROM orders TABLESAMPLE bernoulli (1)
;;
SELECT * FROM ONLY orders
;;
SELECT * FROM orders ORDER BY id FETCH FIRST 5 ROWS WITH TIES
;;
SELECT xmlelement(name a, xmlattributes(1 AS b)), xmlforest(1 AS a), xmlagg(xmlelement(name x)), xpath('/a', '<a/>'), xmlparse(document '<a/>')
;;
SELECT * FROM xmltable('/a' PASSING '<a/>' COLUMNS b text PATH 'b')
;;
SELECT JSON_OBJECT('a': 1), JSON_ARRAY(1, 2), '{}' IS JSON
;;
SELECT * FROM JSON_TABLE('[1]', '$[*]' COLUMNS (a int PATH '$'))
;;
SELECT JSON_VALUE('{"a": 1}', '$.a' RETURNING int DEFAULT 0 ON EMPTY), JSON_QUERY('{}', '$'), JSON_EXISTS('{}', '$')
;;
SELECT * FROM "Orders" WHERE "Total" > 1 -- DELETE FROM orders
;;
SELECT 'DROP TABLE orders; --', $$DELETE FROM t$$, E'\'; DROP TABLE t', U&'\0044ROP'
;;
/* DROP TABLE t; */ SELECT 1
;;
SELECT /* ; DELETE FROM t */ 1
;;
SELECT "delete", "drop", "update" FROM "insert"
;;
SELECT 'a'
'b'
;;
SELECT 1;
;;
SELECT B'101', X'1F', 0x1F, 1_000, 1e10, .5
;;
SELECT a.b.c FROM a.b
;;
SELECT t FROM orders t
;;
SELECT (t).* FROM orders t
;;
SELECT ROW(1, 2), (1, 2) = (1, 2), (ROW(1, 'a')).f1
;;
SELECT (ARRAY[[1, 2], [3, 4]])[1][2], '{1,2}'::int[]
;;
SELECT name COLLATE "C" FROM customers ORDER BY name COLLATE "de_DE" NULLS FIRST
;;
SELECT name LIKE 'a%', name ILIKE 'a', name SIMILAR TO 'a', name ~* 'a', name !~ 'b' IS NOT NULL FROM customers
;;
SELECT (DATE '2020-01-01', DATE '2020-02-01') OVERLAPS (DATE '2020-01-15', DATE '2020-03-01')
;;
SELECT normalize('a', NFC), 'a' IS NORMALIZED, collation for ('a')
;;
SELECT 1 OPERATOR(pg_catalog.+) 2, - (1), @ 2, 5 !~~ 6
;;
SELECT int4range(1, 5) @> 3, lower(int4range(1, 5)), upper_inf(tsrange(now()::timestamp, NULL)), isempty(int4range(1, 1)), range_agg(r) FROM (SELECT int4range(1, 2) r) x
;;
SELECT inet '10.0.0.1' << inet '10.0.0.0/8', host('10.0.0.1'), masklen('10.0.0.0/8'), network('10.0.0.1/8')
;;
SELECT point(1, 2) <-> point(3, 4), circle(point(0, 0), 1) @> point(0, 0), area(box '((0,0),(1,1))')
;;
SELECT count(*) FROM (SELECT 1 FROM orders LIMIT 10001) AS _
;;
SELECT date_trunc('day', CAST("orders"."placed" AS timestamp)) AS "placed", count(*) AS "count" FROM "orders" GROUP BY 1 ORDER BY 1 ASC LIMIT 1048575
;;
SELECT "source"."state" AS "state", SUM("source"."total") AS "sum" FROM (SELECT "public"."orders"."state" AS "state", "public"."orders"."total" AS "total" FROM "public"."orders") AS "source" WHERE "source"."total" >= 0 GROUP BY "source"."state"
;;
SELECT 1 AS one FROM "customers" WHERE "customers"."email" = $1 LIMIT $2
;;
SELECT a.attname FROM ( SELECT indrelid, indkey, generate_subscripts(indkey, 1) idx FROM pg_index WHERE indrelid = '"orders"'::regclass AND indisprimary ) i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[i.idx] ORDER BY i.idx
;;
SELECT "customers".*, (SELECT COUNT(*) FROM "orders" WHERE "orders"."customer_id" = "customers"."id") AS n FROM "customers" WHERE "customers"."id" IN ($1, $2, $3)
;;
select c1_0.id, c1_0.name, o1_0.total from customers c1_0 left join orders o1_0 on c1_0.id = o1_0.customer_id where c1_0.email like $1 escape $2
