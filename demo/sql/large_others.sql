-- One of the files that are loaded at the same time.
INSERT INTO sales.order_lines (order_id, line, sku, quantity, price, remark)
SELECT 1 + i / 3, 1 + i % 3, upper(left(md5((i::bigint * 7919 % 20000)::text), 10)), 1 + i % 12,
    (i::bigint * 104729 % 90000) / 100.0, CASE WHEN i % 5 = 0 THEN left(p.s, 60) END
FROM generate_series(1, fill.n(500000)) i JOIN fill.pool p ON p.key = i::bigint * 40503 % 4096;

INSERT INTO audit.events (country, happened, payload, raw)
SELECT (array['DE', 'AT', NULL, 'FR', 'PL', 'US'])[1 + i % 6], timestamptz '2025-06-01 00:00+00' + i * interval '41 s',
    jsonb_build_object('type', split_part(p.s, ' ', 1), 'ip', '10.' || i % 256 || '.' || i * 31 % 256 || '.7',
        'text', p.s || ' ' || q.s, 'session', md5('s' || i / 5), 'ms', i::bigint * 7919 % 3000,
        'flags', jsonb_build_array(i % 2 = 0, NULL, i % 7)),
    CASE WHEN i % 20 = 0 THEN '{"a" : 1,  "a": "' || i || '"}' END::json
FROM generate_series(1, fill.n(90000)) i
JOIN fill.pool p ON p.key = i::bigint * 40503 % 4096 JOIN fill.pool q ON q.key = i::bigint * 7919 % 4096;

INSERT INTO stock.documents (id, title, content)
SELECT i, 'Doc "' || i || '" ' || left(p.s, 40), (
    SELECT string_agg(sha256((i * 1000 + k)::text::bytea) || convert_to(q.s, 'UTF8'), ''::bytea ORDER BY k)
    FROM generate_series(1, 20 + i % 150) k JOIN fill.pool q ON q.key = (i + k) % 4096)
FROM generate_series(1, fill.n(1500)) i JOIN fill.pool p ON p.key = i % 4096;

-- Large objects: an empty one, one of a byte, growing ones, one with a hole.
SELECT lo_from_bytea(id, CASE id WHEN 9000 THEN '' WHEN 9001 THEN '\x00'::bytea ELSE (
        SELECT string_agg(sha256((id * 100000 + k)::text::bytea), ''::bytea ORDER BY k)
        FROM generate_series(1, fill.n(7000) * (id - 9000)) k) END)
    FROM generate_series(9000, 9007) id;
SELECT lo_put(9007, fill.n(3000000), 'after a hole');
UPDATE stock.documents SET scan = 9000 + id % 8 WHERE id <= 100;
