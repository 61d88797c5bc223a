-- Roles with names and passwords that break whatever quotes them by hand. Runs in the database postgres.
CREATE ROLE ordering_owner LOGIN CREATEDB PASSWORD 'an owner''s "own" \ pass $1 wörd';
CREATE ROLE "ordering app" LOGIN CONNECTION LIMIT 20 PASSWORD 'p%40ss:/?#[]@!&=';
CREATE ROLE "read only" NOLOGIN;
CREATE ROLE "O'Brien ""the DBA""" LOGIN CREATEROLE NOINHERIT VALID UNTIL '2099-12-31 23:59:59+00' PASSWORD 'O''Brien"s';
CREATE ROLE "größe_λ_注文" LOGIN PASSWORD 'пароль';
CREATE ROLE "$(touch pwned)" LOGIN;
CREATE ROLE "back\slash; DROP TABLE x --" NOLOGIN BYPASSRLS;
CREATE ROLE "{{ 7 * 7 }}" LOGIN REPLICATION;
CREATE ROLE "100% UPPER" NOLOGIN;
CREATE ROLE "-rf" NOLOGIN;
CREATE ROLE "with=equals,comma" LOGIN VALID UNTIL 'infinity';
-- A verifier of the older kind, as clusters that were upgraded for years still hold it.
SET client_min_messages = error;
CREATE ROLE legacy_md5 LOGIN PASSWORD 'md5e5dca5c9ae1d2c0b8a3f2ff3b3c3a5b1';
RESET client_min_messages;

GRANT "read only" TO "ordering app";
GRANT "read only" TO "größe_λ_注文" WITH ADMIN OPTION;
GRANT "ordering app" TO "O'Brien ""the DBA""";
GRANT "100% UPPER" TO "-rf", "$(touch pwned)";
GRANT pg_read_all_stats TO "{{ 7 * 7 }}";
GRANT pg_monitor TO "O'Brien ""the DBA""" WITH ADMIN OPTION;

ALTER ROLE "ordering app" SET statement_timeout = '45s';
ALTER ROLE "ordering app" SET search_path = sales, "Customer's ""Archive""", public;
ALTER ROLE "größe_λ_注文" SET "app.motto" = 'it''s 100% "fine"; $(id) {{ 1 }} \ ü';
ALTER ROLE ordering_owner SET work_mem = '8MB';
ALTER ROLE ALL SET "app.everyone" = 'yes';

COMMENT ON ROLE "read only" IS 'May look, may not touch: "SELECT" only, isn''t it?';
