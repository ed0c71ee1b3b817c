-- psql: backslash commands over the schema, variables, copies, errors in and out of transactions.
\set QUIET 1
\set ON_ERROR_STOP 0
\set SHOW_CONTEXT never
\pset null '(null)'
\timing off
\echo --- backslash commands
\d
\d+
\d customers
\d+ orders
\d open_orders
\d+ open_orders
\d orders_by_customer
\dt+ public.*
\dt *.*customers
\di
\ds
\dv
\dm
\df
\df+ order_total
\dfn
\da count
\dn+
\du
\drds
\dp
\ddp
\dT
\dTS+ bool*
\do pg_catalog.@@
\dO
\dc *.utf8_to_koi8_r
\dC date
\dD
\db
\dx
\dx+
\dy
\dA
\dAc btree int4
\dAf btree int4
\dAo btree integer_ops
\dAp btree integer_ops
\des
\dew
\det
\deu
\dF
\dFd+ simple
\dFp
\dFt
\dL
\dl
\dP
\dRp
\dRs
\dX
\dconfig work_mem
\dconfig+ client_encoding
\dd
\dE
\sf close_order
\sf+ order_total
\sv open_orders
\l orders
\z orders
\encoding
\d not_there
\df not_there
\echo --- formats
\pset format csv
SELECT id, name, card FROM customers ORDER BY id LIMIT 3;
\pset format unaligned
\x on
SELECT * FROM orders WHERE id = 7;
\x off
\pset format html
SELECT NULL AS nothing, '<b>' AS text;
\pset format aligned
\echo --- variables
\set who 'O''Reilly; DROP TABLE orders'
SELECT :'who' AS literal, length(:'who');
SELECT count(*) AS orders_total, max(id) AS top FROM orders \gset
\echo :orders_total :top :{?nothing}
SELECT :top - 1 AS :"who";
\set ECHO_HIDDEN off
SELECT 1/0;
\echo :SQLSTATE :LAST_ERROR_MESSAGE :ERROR :ROW_COUNT
\errverbose
\if :ERROR
\echo it failed
\else
\echo it did not
\endif
\echo --- gexec, gdesc, crosstabview, watch
SELECT format('SELECT %s AS n, %L AS t', n, 't' || n) FROM generate_series(1, 3) n \gexec
SELECT id, state, total, placed, details FROM orders \gdesc
SELECT state, id % 3 AS third, count(*) FROM orders GROUP BY 1, 2 ORDER BY 1, 2 \crosstabview
SELECT 1 AS one \g (format=unaligned footer=off)
SELECT 'several' AS a\; SELECT 'statements' AS b\; SELECT 3;
BEGIN\; SELECT 'in one' \; COMMIT;
\echo --- bind, copy
CREATE TEMP TABLE copied (id int, name text);
\copy copied FROM PROGRAM 'seq 5 | sed "s/$/\tname/"'
SELECT count(*), sum(id) FROM copied;
COPY copied FROM STDIN;
6	six
7	\N
\.
COPY copied FROM STDIN WITH (FORMAT csv);
8,"a,b"
9,"never"
\.
COPY copied FROM STDIN;
ten	bad
\.
\copy (SELECT * FROM copied ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)
COPY copied TO STDOUT;
\copy copied TO '/tmp/not/there/copied.out'
\copy copied FROM '/tmp/not/there/copied.out'
\copy nowhere TO STDOUT
SELECT count(*) FROM copied;
\echo --- transactions
BEGIN;
INSERT INTO copied VALUES (100, 'kept no longer');
SELECT 1/0;
SELECT 'refused, the transaction failed';
ROLLBACK;
\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO copied VALUES (101, 'kept');
SELECT 1/0;
INSERT INTO copied VALUES (102, 'kept');
COMMIT;
\set ON_ERROR_ROLLBACK off
SELECT * FROM copied WHERE id > 99;
\set AUTOCOMMIT off
INSERT INTO copied VALUES (103, 'not kept');
ROLLBACK;
SELECT count(*) FROM copied WHERE id = 103;
COMMIT;
\set AUTOCOMMIT on
\echo --- fetched in pieces
\set FETCH_COUNT 100
SELECT count(*), sum(n) FROM (SELECT generate_series(1, 1000) n) x;
SELECT n FROM generate_series(1, 250) n WHERE n % 50 = 0;
SELECT 1/0;
\unset FETCH_COUNT
\echo --- settings, prepared, cursors
SET work_mem = '5MB'; SHOW work_mem; RESET work_mem; SHOW work_mem;
SET search_path = pg_catalog, public; SHOW search_path; RESET search_path;
PREPARE find (int) AS SELECT id, state FROM orders WHERE id = $1;
EXECUTE find(3);
EXECUTE find('x');
DEALLOCATE find;
EXECUTE find(3);
BEGIN; DECLARE c SCROLL CURSOR FOR SELECT id FROM orders ORDER BY id; FETCH 2 FROM c;
MOVE 10 FROM c; FETCH BACKWARD 1 FROM c; CLOSE c; COMMIT;
EXPLAIN (COSTS OFF) SELECT * FROM orders WHERE customer_id = 5;
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT count(*) FROM orders;
DO $$ BEGIN RAISE NOTICE 'a notice'; RAISE WARNING 'a warning' USING DETAIL = 'd', HINT = 'h'; END $$;
DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'P0099', DETAIL = 'd', HINT = 'h'; END $$;
CALL close_all();
SELECT order_total(5), close_order(5);
\lo_import /etc/hostname
SELECT loid > 0 AS made FROM (SELECT max(oid) loid FROM pg_largeobject_metadata) x;
SELECT lo_unlink(oid) FROM pg_largeobject_metadata;
LISTEN news; UNLISTEN news; NOTIFY news;
SELECT 'ünïcödé ''quotes'' \backslash', E'e\tscape', $tag$dollar$tag$, U&'\00fc', B'101', X'1F';
SELECT 'a' /* comment ; /* nested */ */ || 'b' -- to the end ;
;
\echo --- a session more
\c - - - -
SELECT current_database(), current_user;
\c other
SELECT current_database();
\q
