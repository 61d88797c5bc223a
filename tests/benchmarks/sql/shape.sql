-- The tables of a shop, empty; and `pool`, the phrases from which its texts are made, dropped at the end.
-- Words are as unevenly frequent as in a real text, so that compressors find what they find there.
SELECT setseed(0.42);

CREATE SCHEMA fill;
CREATE TABLE fill.words AS
SELECT i AS key, string_agg((array['ba','re','lin','to','mar','es','ka','dor','in','su','vel','pa','ne','ster','o','qui'])[
    1 + (hashint8extended(i * 7 + j, 1) & 15)], '' ORDER BY j) AS word
FROM generate_series(0, 2999) i, generate_series(1, 1 + (i % 4)) j GROUP BY i;
ALTER TABLE fill.words ADD PRIMARY KEY (key);
CREATE TABLE fill.pool AS
SELECT r.i AS key, string_agg(word, ' ' ORDER BY j) AS s
FROM (SELECT i, j, floor(3000 * random() ^ 2.5)::int AS k
      FROM generate_series(0, 65535) i, generate_series(1, 7) j OFFSET 0) r JOIN fill.words w ON w.key = r.k
GROUP BY r.i;
ALTER TABLE fill.pool ADD PRIMARY KEY (key);
ANALYZE fill.pool;

CREATE TYPE order_status AS ENUM ('new', 'paid', 'packed', 'sent', 'returned');
CREATE TABLE products (id int PRIMARY KEY, sku text NOT NULL UNIQUE, name text NOT NULL, price numeric(10, 2) NOT NULL, tags text[]);
CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY, name text NOT NULL, mail text, address jsonb, note text,
    credit numeric(12, 2) NOT NULL DEFAULT 0, created timestamptz NOT NULL);
CREATE TABLE orders (id bigint NOT NULL, placed timestamptz NOT NULL, customer_id bigint NOT NULL, status order_status NOT NULL,
    total numeric(12, 2) NOT NULL, token uuid NOT NULL, note text) PARTITION BY RANGE (placed);
SELECT format('CREATE TABLE orders_%s PARTITION OF orders FOR VALUES FROM (%L) TO (%L)', to_char(m, 'YYYYMM'), m, m + interval '1 month')
FROM generate_series(timestamptz '2025-01-01 00:00+00', '2025-12-01 00:00+00', '1 month') m \gexec
CREATE TABLE order_lines (order_id bigint NOT NULL, line int NOT NULL, product_id int NOT NULL, quantity int NOT NULL, price numeric(10, 2) NOT NULL,
    remark text);
CREATE TABLE documents (id bigint NOT NULL, name text NOT NULL, body bytea NOT NULL, words text NOT NULL, created timestamptz NOT NULL);
CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL, device int NOT NULL, kind text NOT NULL,
    value double precision, payload jsonb NOT NULL, message text);
CREATE VIEW unpaid AS SELECT id, customer_id, total FROM orders WHERE status = 'new';
