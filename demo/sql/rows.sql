-- The small tables: values at the edges of their types. The large ones are filled by dataset.py.
INSERT INTO public.edges (id, n, f8, f4, at, local, d, iv) VALUES
    (1, 'NaN', 'NaN', 'NaN', 'infinity', 'infinity', 'infinity', '0'),
    (2, 'Infinity', 'Infinity', 'Infinity', '-infinity', '-infinity', '-infinity', '-1 year 2 mons -3 days 04:05:06.000007'),
    (3, '-Infinity', '-Infinity', '-Infinity', '4713-01-01 00:00+00 BC', '294276-12-31 23:59:59.999999', '4713-01-01 BC', '178000000 years'),
    (4, '-0', '-0', '-0', '2024-02-29 23:59:59.999999-11:30', '1582-10-10', '5874897-12-31', '1 mon -31 days'),
    (5, 10::numeric ^ 1000 / 7, 4.9406564584124654e-324, 1.4e-45, '1883-11-18 12:03:58+00', NULL, NULL, NULL),
    (6, 1e-1000 / 3, 1.7976931348623157e308, 3.4028235e38, '2038-01-19 03:14:08+00', NULL, '0001-01-01', NULL);
UPDATE public.edges SET big = round(id * 2::numeric ^ 1600 / 3, 400) / 10::numeric ^ 50, i8 = (-9223372036854775808)::bigint WHERE id = 5;
INSERT INTO public.edges (id, i8, m, b, vb, tz, net, mac, pt, poly, ts, q, arr, texts, r, t, mr, lsn, c, nm, fixed) VALUES
    (10, 9223372036854775807, -92233720368547758.08, B'10101', B'', '24:00:00+15:59', '::ffff:1.2.3.4/120', '08:00:2b:01:02:03:04:05',
     '(1e-300,NaN)', '((0,0),(1,1),(2,0))', $$'it''s':3A,4 'a\\b':1$$, $$'fat' <-> ('rat' | !'cat':*)$$, '[0:1][-2:-1]={{1,NULL},{3,4}}',
     array['', 'NULL', NULL, E'tab\tnl\ncr\r', '"q"', '{}', '\', 'ü,é'], 'empty', '[-273.15,)', '{[1,2],(3,)}', 'FFFFFFFF/FFFFFFFF',
     '', repeat('n', 63), 'x');
INSERT INTO public.edges (id, js, jb, addr, addrs, st, bin, cls, texts) VALUES
    (20, '{"b": 1,   "a": [1.50, null], "b": 2}', '{"b": 1.50e3, "a": "\u00fc\u2028 \"", "n": -0.0, "deep": {"x": [[], {}, null]}}',
     row('Rue de l''Église, "3"', '75001', 'FR', array['a b', NULL, '']), array[row('', NULL, 'XX', '{}')::sales.address, NULL],
     '{new,"it''s \"shipped\"",NULL}', '\x00ff5c5c0a', 'sales.customers', '{}'),
    (21, '"\u0041"', 'null', NULL, '{}', '{}', '', 'pg_class', NULL);

INSERT INTO public.nothing DEFAULT VALUES;
INSERT INTO public.nothing DEFAULT VALUES;
INSERT INTO public.nothing DEFAULT VALUES;
INSERT INTO public.dropped_columns SELECT 'kept ' || i, i FROM generate_series(1, 50) i;
INSERT INTO public.no_more_rows (what) SELECT 'row ' || i FROM generate_series(1, 100) i;
DELETE FROM public.no_more_rows;
INSERT INTO stock.vehicle SELECT i, i % 7 FROM generate_series(1, 40) i;
INSERT INTO stock.lorry SELECT i, 6, i * 10 FROM generate_series(100, 120) i;
INSERT INTO stock.bookings
    SELECT int4range(i % 9, i % 9 + 1), tstzrange(t, t + '50 min'), datemultirange(daterange('2026-12-24', '2026-12-27'))
    FROM generate_series(1, 300) i, LATERAL (SELECT timestamptz '2026-01-01 08:00+00' + i / 9 * interval '1 hour') x (t);
INSERT INTO audit.scratch SELECT i, 'unlogged ' || i FROM generate_series(1, 500) i;
INSERT INTO "Customer's ""Archive"""."Select"
    SELECT i, i / 7.0, 'it''s ' || chr(9) || i || E'\n\\.\n\\N', '日本 ' || chr(19968 + i), i % 3 = 0, -i, i, E'\r\n', '{{ ' || i || ' }}', '%s %d %%'
    FROM generate_series(1, 400) i;
INSERT INTO "Customer's ""Archive"""."tab	and $dollar$" ("back\slash")
    SELECT CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN '\N' WHEN 3 THEN '\.' ELSE '$dollar$ ' || i END FROM generate_series(1, 100) i;
INSERT INTO "größe_λ_注文"."Ünïcødé 📦" SELECT md5(i::text)::uuid, repeat('λ📦é', i % 9) FROM generate_series(1, 250) i;

SELECT nextval('sales.countdown') FROM generate_series(1, 12);
SELECT nextval('stock."Wheel of ""Fortune"""') FROM generate_series(1, 10);
SELECT nextval('stock.invoice_no') FROM generate_series(1, 13);
SELECT setval('stock.set_not_called', 77, false);
