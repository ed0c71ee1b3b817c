-- The database `orders` of the tests, and one role for each way to log in. Passwords come in as
-- psql variables. Owner of everything is a role that nobody logs in as.
CREATE ROLE orders_owner NOLOGIN;
CREATE DATABASE orders OWNER orders_owner;
CREATE DATABASE other OWNER orders_owner;
CREATE ROLE loopwarden_admin LOGIN CREATEROLE PASSWORD :'admin_password';
CREATE ROLE app_scram LOGIN PASSWORD :'password';
CREATE ROLE app_password LOGIN PASSWORD :'password';
CREATE ROLE app_cert LOGIN;
CREATE ROLE app_trust LOGIN;
SET password_encryption = 'md5';
CREATE ROLE app_md5 LOGIN PASSWORD :'password';
RESET password_encryption;
CREATE ROLE app_all NOLOGIN;
GRANT app_all TO app_scram, app_password, app_cert, app_trust, app_md5;
GRANT CONNECT, TEMPORARY ON DATABASE orders TO loopwarden_admin WITH GRANT OPTION;
GRANT CREATE ON DATABASE orders TO app_all;

\connect orders
SET ROLE orders_owner;
CREATE TABLE customers (
    id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    card text NOT NULL,
    country char(2) NOT NULL DEFAULT 'DE',
    joined date NOT NULL
);
CREATE TABLE orders (
    id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    customer_id integer NOT NULL REFERENCES customers,
    state text NOT NULL CHECK (state IN ('open', 'paid', 'sent', 'returned')),
    total numeric(10, 2) NOT NULL,
    placed timestamptz NOT NULL,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE TABLE refunds (
    id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    order_id integer NOT NULL REFERENCES orders,
    amount numeric(10, 2) NOT NULL,
    reason text
);
CREATE INDEX orders_by_customer ON orders (customer_id, placed);
INSERT INTO customers (name, email, card, joined)
    SELECT 'Customer ' || n, 'customer' || n || '@shop.example',
           '4111 1111 1111 ' || lpad((n % 10000)::text, 4, '0'), date '2020-01-01' + n % 1500
    FROM generate_series(1, 2000) AS n;
INSERT INTO orders (customer_id, state, total, placed, details)
    SELECT 1 + n % 2000, (ARRAY['open', 'paid', 'sent', 'returned'])[1 + n % 4],
           (n % 977) + 0.99, timestamptz '2024-01-01 00:00:00Z' + n * interval '7 minutes',
           jsonb_build_object('lines', n % 9, 'gift', n % 11 = 0)
    FROM generate_series(1, 5000) AS n;
INSERT INTO refunds (order_id, amount, reason)
    SELECT n * 4 - 1, 5.00, CASE WHEN n % 3 = 0 THEN NULL ELSE 'returned' END
    FROM generate_series(1, 500) AS n;
CREATE VIEW open_orders AS SELECT id, customer_id, total FROM orders WHERE state = 'open';
CREATE FUNCTION order_total(customer integer) RETURNS numeric LANGUAGE sql STABLE
    AS 'SELECT coalesce(sum(total), 0) FROM orders WHERE customer_id = customer';
CREATE FUNCTION close_order(which integer) RETURNS void LANGUAGE sql VOLATILE
    AS 'UPDATE orders SET state = ''sent'' WHERE id = which';
CREATE PROCEDURE close_all() LANGUAGE sql AS 'UPDATE orders SET state = ''sent''';
GRANT ALL ON SCHEMA public TO loopwarden_admin WITH GRANT OPTION;
GRANT ALL ON ALL TABLES IN SCHEMA public TO loopwarden_admin WITH GRANT OPTION;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO loopwarden_admin WITH GRANT OPTION;
GRANT ALL ON ALL ROUTINES IN SCHEMA public TO loopwarden_admin WITH GRANT OPTION;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app_all;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app_all;
GRANT ALL ON SCHEMA public TO app_all;
RESET ROLE;
