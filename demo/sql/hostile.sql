-- The second database, small, with names that break whatever quotes them by hand.
CREATE TABLE "Späte ""Bestellung""" (id serial PRIMARY KEY, "Wann?" timestamptz, "Was's" text);
INSERT INTO "Späte ""Bestellung""" ("Wann?", "Was's")
    SELECT timestamptz '2026-01-01 00:00+00' + i * interval '1 h', md5(i::text) || ' ü ' || i
    FROM generate_series(1, greatest(20, floor(5000 * current_setting('fill.scale')::numeric))::int) i;
CREATE SCHEMA "{{ lookup('env') }}" AUTHORIZATION "{{ 7 * 7 }}";
CREATE TABLE "{{ lookup('env') }}"."; DROP DATABASE x; --" AS SELECT i, '$(id)' AS t FROM generate_series(1, 10) i;
CREATE SEQUENCE "never, ever";
SELECT lo_from_bytea(77, 'one large object'::bytea);
GRANT SELECT ON "Späte ""Bestellung""" TO "read only";
