-- Everything but the large table. Loaded beside events.sql.
SELECT setseed(0.44);
INSERT INTO products
SELECT i, upper(substr(md5(i::text), 1, 10)), initcap(p.s), round((random() * 500)::numeric, 2), string_to_array(split_part(p.s, ' ', 3), 'e')
FROM generate_series(1, greatest(100, (54000 * :scale)::int)) i JOIN fill.pool p ON p.key = i % 65536;

INSERT INTO customers (name, mail, address, note, credit, created)
SELECT initcap(split_part(p.s, ' ', 1) || ' ' || split_part(p.s, ' ', 2)), replace(p.s, ' ', '.') || i || '@example.' || (array['org', 'net', 'com'])[1 + i % 3],
    jsonb_build_object('street', initcap(split_part(p.s, ' ', 4)) || ' ' || i % 200, 'zip', lpad((i::bigint * 7919 % 99999)::text, 5, '0'),
        'country', (array['DE', 'FR', 'PL', 'JP', 'US'])[1 + i % 5]),
    CASE WHEN i % 4 = 0 THEN p.s END, round((random() * 1000)::numeric, 2), timestamptz '2020-01-01 00:00+00' + i * interval '7 min'
FROM generate_series(1, greatest(100, (540000 * :scale)::int)) i JOIN fill.pool p ON p.key = i::bigint * 40503 % 65536;

INSERT INTO orders
SELECT i, timestamptz '2025-01-01 00:00+00' + (i + random()) / (2160001 * :scale) * interval '364 days', 1 + floor(random() * (SELECT count(*) FROM customers))::int,
    (enum_range(NULL::order_status))[1 + i % 5], round((random() * 900)::numeric, 2), gen_random_uuid(), CASE WHEN i % 3 = 0 THEN p.s END
FROM generate_series(1, (2160000 * :scale)::int) i JOIN fill.pool p ON p.key = i::bigint * 48271 % 65536;

INSERT INTO order_lines
SELECT i, j, p.id, 1 + floor(9 * random() ^ 3)::int, p.price, CASE WHEN i % 10 = 0 THEN 'gift for ' || split_part(p.name, ' ', 2) END
FROM (SELECT i, j, 1 + floor(random() ^ 2 * (SELECT count(*) FROM products))::int AS k
      FROM generate_series(1, (2160000 * :scale)::int) i, generate_series(1, 1 + i % 4) j OFFSET 0) r JOIN products p ON p.id = r.k;

INSERT INTO documents
SELECT i, p.s || '.pdf', b.body, w.words, timestamptz '2024-01-01 00:00+00' + i * interval '13 min'
FROM generate_series(1, (54000 * :scale)::int) i JOIN fill.pool p ON p.key = i % 65536,
    LATERAL (SELECT string_agg(sha512((i || '/' || j)::bytea), '') AS body FROM generate_series(1, 10 + i % 30) j) b,
    LATERAL (SELECT string_agg(s, '. ') AS words FROM fill.pool WHERE key BETWEEN i % 60000 AND i % 60000 + 10 + i % 70) w;

SELECT format('CREATE TABLE list_%s AS SELECT i AS id, s AS name FROM generate_series(1, %s) i JOIN fill.pool ON key = i + %s', n, 20 * n, 100 * n)
FROM generate_series(1, 20) n \gexec
SELECT format('ALTER TABLE list_%s ADD PRIMARY KEY (id)', n) FROM generate_series(1, 20) n \gexec

ALTER TABLE customers ADD PRIMARY KEY (id), ADD UNIQUE (mail);
ALTER TABLE orders ADD PRIMARY KEY (id, placed);
CREATE INDEX ON orders (customer_id);
ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers;
ALTER TABLE order_lines ADD PRIMARY KEY (order_id, line);
ALTER TABLE order_lines ADD FOREIGN KEY (product_id) REFERENCES products;
ALTER TABLE documents ADD PRIMARY KEY (id);
CREATE INDEX ON documents (created);
