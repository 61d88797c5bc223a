-- The one large table, about two fifths of the database: what devices say. A device has its name, place and firmware,
-- and says the same few hundred sentences with other numbers in them. Loaded beside others.sql.
SELECT setseed(0.43);
INSERT INTO events (at, device, kind, value, payload, message)
SELECT timestamptz '2025-01-01 00:00+00' + i * interval '12 s' + random() * interval '11 s', d,
    (array['reading', 'reading', 'reading', 'start', 'stop', 'alarm', 'login'])[1 + k % 7],
    CASE WHEN k % 9 > 0 THEN round((20 + d % 7 + 15 * random())::numeric, 2) END,
    jsonb_build_object('seq', i, 'firmware', '4.' || d % 9 || '.' || d % 31, 'battery', round((100 - i % 977 / 10.0)::numeric, 1), 'ok', k % 50 > 0,
        'at', jsonb_build_array(round(47 + d % 977 / 1000.0, 3), round(8 + d % 613 / 1000.0, 3)), 'name', p.s),
    CASE WHEN k % 3 > 0 THEN replace(q.s, ' e', ' ' || k % 1000 || ' e') || ': ' || round((random() * 900)::numeric, 1) END
FROM (SELECT i, floor(65536 * random())::int AS k, floor(4000 * random() ^ 2)::int AS d, floor(400 * random() ^ 2)::int AS m
      FROM generate_series(1, (2500000 * :scale)::int) i OFFSET 0) r
JOIN fill.pool p ON p.key = r.d JOIN fill.pool q ON q.key = 9000 + r.m;
ALTER TABLE events ADD PRIMARY KEY (id);
CREATE INDEX ON events (device, at);
