-- The one large table, about two fifths of the database. Loaded beside others.sql.
SELECT setseed(0.43);
INSERT INTO events (at, device, kind, value, payload, message)
SELECT timestamptz '2025-01-01 00:00+00' + i * interval '11.7 s' + random() * interval '9 s', d,
    (array['reading', 'reading', 'reading', 'start', 'stop', 'alarm', 'login'])[1 + k1 % 7],
    CASE WHEN k1 % 9 > 0 THEN 20 + 15 * random() END,
    jsonb_build_object('seq', i, 'firmware', '4.' || d % 9 || '.' || d % 31, 'battery', round((random() * 100)::numeric, 1), 'ok', k1 % 50 > 0,
        'at', jsonb_build_array(round((47 + random())::numeric, 5), round((8 + random())::numeric, 5)), 'by', p.s),
    CASE WHEN k2 % 3 > 0 THEN q.s || ' (' || k2 || ')' END
FROM (SELECT i, floor(65536 * random())::int AS k1, floor(65536 * random())::int AS k2, floor(4000 * random() ^ 2)::int AS d
      FROM generate_series(1, (2600000 * :scale)::int) i OFFSET 0) r
JOIN fill.pool p ON p.key = r.k1 JOIN fill.pool q ON q.key = r.k2;
ALTER TABLE events ADD PRIMARY KEY (id);
CREATE INDEX ON events (device, at);
