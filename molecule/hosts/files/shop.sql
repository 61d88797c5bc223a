-- A small shop, with what a backup may lose: a sequence that has moved on, a large object, rights, a foreign key, an odd name.
CREATE ROLE shop_owner LOGIN PASSWORD 'only for tests';
CREATE ROLE shop_reader;
CREATE DATABASE shop OWNER shop_owner;
CREATE DATABASE "Odd ""name"" 50% $x";
\c shop
SET ROLE shop_owner;
CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer bigint NOT NULL REFERENCES customers,
    amount numeric(10, 2) NOT NULL CHECK (amount > 0),
    placed timestamptz NOT NULL
);
INSERT INTO customers (name) SELECT 'customer ' || n FROM generate_series(1, 500) AS n;
INSERT INTO orders (customer, amount, placed)
SELECT 1 + n % 500, 1 + n % 97, timestamptz '2026-01-01 00:00:00+00' + n * interval '1 minute' FROM generate_series(1, 20000) AS n;
CREATE INDEX ON orders (placed);
GRANT SELECT ON customers TO shop_reader;
SELECT setval('customers_id_seq', 4711);
SELECT lo_from_bytea(424242, convert_to('a large object', 'UTF8'));
RESET ROLE;
\c "Odd ""name"" 50% $x"
CREATE SCHEMA "sch'ema";
CREATE TABLE "sch'ema"."ta""ble" (id int PRIMARY KEY, "co%l" text);
INSERT INTO "sch'ema"."ta""ble" VALUES (1, E'tab\tquote'' end');
