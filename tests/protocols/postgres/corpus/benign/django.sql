-- What Django sends: introspection, and queries of its ORM, as the server logs it.
SELECT set_config('TimeZone', 'UTC', false)
;;
SELECT oid, typarray FROM pg_type WHERE typname = 'hstore'
;;
SELECT
                c.relname,
                CASE
                    WHEN c.relispartition THEN 'p'
                    WHEN c.relkind IN ('m', 'v') THEN 'v'
                    ELSE 't'
                END,
                obj_description(c.oid, 'pg_class')
            FROM pg_catalog.pg_class c
            LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v')
                AND n.nspname NOT IN ('pg_catalog', 'pg_toast')
                AND pg_catalog.pg_table_is_visible(c.oid)
;;
SELECT a1.attname, c2.relname, a2.attname
            FROM pg_constraint con
            LEFT JOIN pg_class c1 ON con.conrelid = c1.oid
            LEFT JOIN pg_class c2 ON con.confrelid = c2.oid
            LEFT JOIN
                pg_attribute a1 ON c1.oid = a1.attrelid AND a1.attnum = con.conkey[1]
            LEFT JOIN
                pg_attribute a2 ON c2.oid = a2.attrelid AND a2.attnum = con.confkey[1]
            WHERE
                c1.relname = 'customers' AND
                con.contype = 'f' AND
                c1.relnamespace = c2.relnamespace AND
                pg_catalog.pg_table_is_visible(c1.oid)
;;
SELECT
                c.conname,
                array(
                    SELECT attname
                    FROM unnest(c.conkey) WITH ORDINALITY cols(colid, arridx)
                    JOIN pg_attribute AS ca ON cols.colid = ca.attnum
                    WHERE ca.attrelid = c.conrelid
                    ORDER BY cols.arridx
                ),
                c.contype,
                (SELECT fkc.relname || '.' || fka.attname
                FROM pg_attribute AS fka
                JOIN pg_class AS fkc ON fka.attrelid = fkc.oid
                WHERE fka.attrelid = c.confrelid AND fka.attnum = c.confkey[1]),
                cl.reloptions
            FROM pg_constraint AS c
            JOIN pg_class AS cl ON c.conrelid = cl.oid
            WHERE cl.relname = 'customers' AND pg_catalog.pg_table_is_visible(cl.oid)
;;
SELECT
                indexname,
                array_agg(attname ORDER BY arridx),
                indisunique,
                indisprimary,
                array_agg(ordering ORDER BY arridx),
                amname,
                exprdef,
                s2.attoptions
            FROM (
                SELECT
                    c2.relname as indexname, idx.*, attr.attname, am.amname,
                    CASE
                        WHEN idx.indexprs IS NOT NULL THEN
                            pg_get_indexdef(idx.indexrelid)
                    END AS exprdef,
                    CASE am.amname
                        WHEN 'btree' THEN
                            CASE (option & 1)
                                WHEN 1 THEN 'DESC' ELSE 'ASC'
                            END
                    END as ordering,
                    c2.reloptions as attoptions
                FROM (
                    SELECT *
                    FROM
                        pg_index i,
                        unnest(i.indkey, i.indoption)
                            WITH ORDINALITY koi(key, option, arridx)
                ) idx
                LEFT JOIN pg_class c ON idx.indrelid = c.oid
                LEFT JOIN pg_class c2 ON idx.indexrelid = c2.oid
                LEFT JOIN pg_am am ON c2.relam = am.oid
                LEFT JOIN
                    pg_attribute attr ON attr.attrelid = c.oid AND attr.attnum = idx.key
                WHERE c.relname = 'customers' AND pg_catalog.pg_table_is_visible(c.oid)
            ) s2
            GROUP BY indexname, indisunique, indisprimary, amname, exprdef, attoptions
;;
SELECT
                a.attname AS column_name,
                NOT (a.attnotnull OR (t.typtype = 'd' AND t.typnotnull)) AS is_nullable,
                pg_get_expr(ad.adbin, ad.adrelid) AS column_default,
                CASE WHEN collname = 'default' THEN NULL ELSE collname END AS collation,
                a.attidentity != '' AS is_autofield,
                col_description(a.attrelid, a.attnum) AS column_comment
            FROM pg_attribute a
            LEFT JOIN pg_attrdef ad ON a.attrelid = ad.adrelid AND a.attnum = ad.adnum
            LEFT JOIN pg_collation co ON a.attcollation = co.oid
            JOIN pg_type t ON a.atttypid = t.oid
            JOIN pg_class c ON a.attrelid = c.oid
            JOIN pg_namespace n ON c.relnamespace = n.oid
            WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v')
                AND c.relname = 'customers'
                AND n.nspname NOT IN ('pg_catalog', 'pg_toast')
                AND pg_catalog.pg_table_is_visible(c.oid)
;;
SELECT * FROM "customers" LIMIT 1
;;
SELECT * FROM "orders" LIMIT 1
;;
SELECT * FROM "part" LIMIT 1
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers"
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" WHERE "customers"."id" = 1
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" WHERE UPPER("customers"."name"::text) LIKE UPPER('%a%')
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" WHERE NOT ("customers"."email"::text LIKE 'x%')
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" WHERE "customers"."created" BETWEEN '2020-01-01 00:00:00-06:00'::timestamptz AND '2020-12-31 23:59:59.999999-06:00'::timestamptz
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" WHERE ("customers"."created" AT TIME ZONE 'America/Chicago')::date = '2020-01-01'::date
;;
SELECT DISTINCT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" INNER JOIN "orders" ON ("customers"."id" = "orders"."customer_id") WHERE "orders"."total" > 5
;;
SELECT "orders"."id", "orders"."customer_id", "orders"."total", "orders"."state", "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "orders" INNER JOIN "customers" ON ("orders"."customer_id" = "customers"."id")
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created", COUNT("orders"."id") AS "n", SUM("orders"."total") AS "s" FROM "customers" LEFT OUTER JOIN "orders" ON ("customers"."id" = "orders"."customer_id") GROUP BY "customers"."id", "customers"."email", "customers"."name", "customers"."created" HAVING COUNT("orders"."id") > 1 ORDER BY 6 DESC
;;
SELECT "customers"."name" AS "name", COUNT(*) AS "c" FROM "customers" GROUP BY 1
;;
SELECT "orders"."id", "orders"."customer_id", "orders"."total", "orders"."state", CASE WHEN "orders"."total" > 5 THEN 'a' ELSE 'b' END AS "x" FROM "orders"
;;
SELECT "orders"."id", "orders"."customer_id", "orders"."total", "orders"."state", ROW_NUMBER() OVER (PARTITION BY "orders"."customer_id" ORDER BY "orders"."total") AS "r" FROM "orders"
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created", LOWER("customers"."name") AS "l", (COALESCE("customers"."name", '') || COALESCE((COALESCE(' ', '') || COALESCE("customers"."email", '')), '')) AS "u", DATE_TRUNC('month', "customers"."created" AT TIME ZONE 'America/Chicago') AS "d", LENGTH("customers"."name") AS "le" FROM "customers"
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" WHERE EXISTS(SELECT 1 AS "a" FROM "orders" U0 WHERE U0."customer_id" = ("customers"."id") LIMIT 1)
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created", (SELECT U0."total" AS "total" FROM "orders" U0 WHERE U0."customer_id" = ("customers"."id") ORDER BY U0."id" DESC LIMIT 1) AS "last" FROM "customers"
;;
(SELECT "customers"."id" AS "col1", "customers"."email" AS "col2", "customers"."name" AS "col3", "customers"."created" AS "col4" FROM "customers") UNION (SELECT "customers"."id" AS "col1", "customers"."email" AS "col2", "customers"."name" AS "col3", "customers"."created" AS "col4" FROM "customers" WHERE "customers"."id" = 2)
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" WHERE "customers"."name"::text ~ '^a'
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" WHERE "customers"."id" IN (1, 2, 3)
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" ORDER BY RANDOM() ASC LIMIT 2
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created", ARRAY_AGG("orders"."id" ) AS "a", STRING_AGG("orders"."state", ',' ) AS "s" FROM "customers" LEFT OUTER JOIN "orders" ON ("customers"."id" = "orders"."customer_id") GROUP BY "customers"."id", "customers"."email", "customers"."name", "customers"."created"
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created", to_tsvector(COALESCE("customers"."name", '') || ' ' || COALESCE("customers"."email", '')) AS "search" FROM "customers" WHERE to_tsvector(COALESCE("customers"."name", '') || ' ' || COALESCE("customers"."email", '')) @@ (plainto_tsquery('x'))
;;
SELECT "customers"."id" FROM "customers"
;;
SELECT "customers"."id", "customers"."name", "customers"."created" FROM "customers"
;;
SELECT "customers"."id" AS "id" FROM "customers"
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" WHERE "customers"."name" IN (SELECT U0."email" AS "email" FROM "customers" U0)
;;
SELECT COUNT(*) AS "__count" FROM "customers"
;;
SELECT 1 AS "a" FROM "customers" LIMIT 1
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" WHERE "customers"."id" = 1 ORDER BY "customers"."id" ASC LIMIT 1
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" ORDER BY "customers"."id" DESC LIMIT 1
;;
SELECT MAX("customers"."id") AS "id__max", MIN("customers"."id") AS "id__min", AVG("customers"."id") AS "id__avg", STDDEV_POP("customers"."id") AS "id__stddev" FROM "customers"
;;
SELECT DISTINCT DATE_TRUNC('month', "customers"."created" AT TIME ZONE 'America/Chicago') AS "datefield" FROM "customers" WHERE "customers"."created" IS NOT NULL ORDER BY 1 ASC
;;
SELECT DISTINCT DATE_TRUNC('hour', "customers"."created" AT TIME ZONE 'America/Chicago') AS "datetimefield" FROM "customers" WHERE "customers"."created" IS NOT NULL ORDER BY 1 ASC
;;
EXPLAIN SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" WHERE "customers"."id" = 1
;;
SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers" WHERE "customers"."id" IN (1)
;;
SAVEPOINT "s140684445937728_x1"
;;
RELEASE SAVEPOINT "s140684445937728_x1"
;;
SELECT * FROM "v" LIMIT 1
;;
SELECT
                s.relname AS sequence_name,
                a.attname AS colname
            FROM
                pg_class s
                JOIN pg_depend d ON d.objid = s.oid
                    AND d.classid = 'pg_class'::regclass
                    AND d.refclassid = 'pg_class'::regclass
                JOIN pg_attribute a ON d.refobjid = a.attrelid
                    AND d.refobjsubid = a.attnum
                JOIN pg_class tbl ON tbl.oid = d.refobjid
                    AND tbl.relname = 'v'
                    AND pg_catalog.pg_table_is_visible(tbl.oid)
            WHERE
                s.relkind = 'S'
;;
SELECT * FROM "mv" LIMIT 1
;;
SELECT * FROM "part1" LIMIT 1
;;
DECLARE "_django_curs_140684445937728_sync_1" NO SCROLL CURSOR WITH HOLD FOR SELECT "customers"."id", "customers"."email", "customers"."name", "customers"."created" FROM "customers"
;;
FETCH FORWARD 10 FROM "_django_curs_140684445937728_sync_1"
;;
CLOSE "_django_curs_140684445937728_sync_1"
