-- One of the files that are loaded at the same time.
INSERT INTO sales.customers (name, mail, home, phones, credit, born, created)
SELECT initcap(split_part(p.s, ' ', 1 + i % 5) || ' ' || split_part(p.s, ' ', 3 + i % 6)) || ' ' || i,
    CASE WHEN i % 10 > 0 THEN left(md5(i::text), 4 + i % 12) || '@example.' || (array['org', 'net', 'com'])[1 + i % 3] END,
    row(split_part(p.s, ' ', 2) || ' ' || i % 200, lpad((i::bigint * 7919 % 99999)::text, 5, '0'),
        (array['DE', 'FR', 'PL', 'JP', 'US'])[1 + i % 5], CASE WHEN i % 4 = 0 THEN array[split_part(p.s, ' ', 1)] END)::sales.address,
    CASE WHEN i % 3 = 0 THEN '{}' ELSE array['+49 30 ' || i * 31 % 9999999] END,
    1 + i * 37 % 100000 / 100.0, date '1940-01-01' + i * 13 % 25000, timestamptz '2024-01-01 00:00+00' + i * interval '17 min'
FROM generate_series(1, fill.n(60000)) i JOIN fill.pool p ON p.key = i::bigint * 40503 % 4096;

INSERT INTO sales.orders (customer_id, placed, status, total, token, note)
SELECT 1001 + 3 * (i::bigint * 48271 % fill.n(60000)),
    timestamptz '2024-01-01 00:00+00' + i::bigint * 1103515245 % 100000000 * interval '1 s',
    (enum_range(NULL::sales.order_status))[1 + i / 7 % 5], (i::bigint * 7919 % 500000) / 100.0,
    md5('order' || i)::uuid, CASE WHEN i % 3 = 0 THEN p.s END
FROM generate_series(1, fill.n(300000)) i JOIN fill.pool p ON p.key = i::bigint * 40503 % 4096;

INSERT INTO sales.invoices (tenant, body)
SELECT 'tenant ' || i % 40, jsonb_build_object(
    'no', i, 'text', p.s, 'paid', i % 3 = 0, 'sum', (i::bigint * 7919 % 500000) / 100.0,
    'lines', jsonb_build_array(jsonb_build_object('sku', md5(i::text), 'n', i % 9), NULL, split_part(p.s, ' ', 4)))
FROM generate_series(1, fill.n(40000)) i JOIN fill.pool p ON p.key = i::bigint * 40503 % 4096;
