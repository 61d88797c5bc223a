-- What stands on the tables: keys, indexes, views, code, policies, rights, comments.
SET ROLE ordering_owner;
ALTER TABLE sales.customers ADD PRIMARY KEY (id), ADD CONSTRAINT "born once" CHECK (born > '1900-01-01') NOT VALID;
ALTER TABLE sales.orders ADD PRIMARY KEY (id, placed, status);
ALTER TABLE sales.orders ADD CONSTRAINT "customer's key" FOREIGN KEY (customer_id) REFERENCES sales.customers
    ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE sales.order_lines ADD PRIMARY KEY (order_id, line);
CREATE INDEX ON sales.orders (customer_id) INCLUDE (total);
CREATE INDEX "open ""orders""" ON sales.orders_2025_open (placed DESC NULLS LAST) WHERE status = 'new';
CREATE INDEX customers_lower ON sales.customers (lower(name) text_pattern_ops, ((home).country));
CREATE INDEX customers_search ON sales.customers USING gin (search);
CREATE UNIQUE INDEX documents_title ON stock.documents (title, md5(content)) WITH (fillfactor = 70);
ALTER TABLE stock.documents CLUSTER ON documents_title;
CREATE STATISTICS sales."orders stats" (dependencies, ndistinct, mcv) ON customer_id, status FROM sales.orders_2024;
CREATE STATISTICS sales.expressions ON (total * 2), date_trunc('day', placed AT TIME ZONE 'UTC') FROM sales.orders_2024;

CREATE VIEW sales."Big ""Spenders""" WITH (security_barrier) AS
    SELECT c.id, c.name, sum(o.total) AS spent FROM sales.customers c JOIN sales.orders o ON o.customer_id = c.id
    GROUP BY c.id, c.name HAVING sum(o.total) > 1000;
CREATE VIEW sales.open_orders AS SELECT * FROM sales.orders WHERE status = 'new' WITH LOCAL CHECK OPTION;
CREATE MATERIALIZED VIEW sales.by_month AS
    SELECT date_trunc('month', placed AT TIME ZONE 'UTC') AS month, status, count(*) AS orders, sum(total) AS total
    FROM sales.orders GROUP BY 1, 2;
CREATE UNIQUE INDEX ON sales.by_month (month, status);
CREATE MATERIALIZED VIEW sales.not_filled AS SELECT 1 AS one WITH NO DATA;

CREATE FUNCTION sales.order_total(bigint) RETURNS numeric LANGUAGE sql STABLE STRICT PARALLEL SAFE
    BEGIN ATOMIC SELECT sum(amount) FROM sales.order_lines WHERE order_id = $1; END;
CREATE FUNCTION sales.touch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $body$
BEGIN
    -- $$ and 'quotes' and \ within
    NEW.note := coalesce(NEW.note, '') || E' \\ touched';
    RETURN NEW;
END $body$;
CREATE PROCEDURE sales."archive it!"(IN before timestamptz DEFAULT '-infinity', INOUT n int DEFAULT 0)
    LANGUAGE plpgsql AS 'BEGIN n := n + 1; COMMIT; END';
CREATE AGGREGATE sales.longest(text) (sfunc = textcat, stype = text, initcond = '');
CREATE TRIGGER "touch ""it""" BEFORE UPDATE OF status ON sales.orders FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION sales.touch('a''b', 'ü');
CREATE TRIGGER asleep BEFORE INSERT ON sales.orders_default FOR EACH ROW EXECUTE FUNCTION sales.touch();
ALTER TABLE sales.orders_default DISABLE TRIGGER asleep;

ALTER TABLE sales.invoices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY "own ""rows""" ON sales.invoices TO "ordering app" USING (tenant = current_setting('app.tenant', true));
CREATE POLICY not_empty ON sales.invoices AS RESTRICTIVE FOR INSERT WITH CHECK (body <> '{}'::jsonb);
ALTER TABLE stock.documents ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone ON stock.documents FOR SELECT USING (title !~ 'secret');

GRANT USAGE ON SCHEMA sales TO "read only", "ordering app" WITH GRANT OPTION;
GRANT SELECT, INSERT, UPDATE ON sales.orders, sales.order_lines, sales.invoices TO "ordering app";
GRANT SELECT (id, name), UPDATE (phones) ON sales.customers TO "100% UPPER", PUBLIC;
GRANT ALL ON sales.open_orders TO "größe_λ_注文" WITH GRANT OPTION;
GRANT EXECUTE ON FUNCTION sales.order_total(bigint) TO "$(touch pwned)";
GRANT EXECUTE ON PROCEDURE sales."archive it!" TO "-rf";
GRANT USAGE, UPDATE ON SEQUENCE stock.invoice_no TO "{{ 7 * 7 }}";
GRANT USAGE ON TYPE sales.address TO "with=equals,comma";
SET ROLE "größe_λ_注文";
GRANT SELECT ON sales.open_orders TO "read only";
RESET ROLE;
CREATE RULE "no ""delete""" AS ON DELETE TO stock.vehicle WHERE OLD.id < 0 DO INSTEAD NOTHING;
REVOKE ALL ON TYPE sales.order_status FROM PUBLIC;
GRANT CREATE ON SCHEMA "empty schema" TO "100% UPPER";
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO "read only";
GRANT USAGE ON LANGUAGE plpgsql TO "-rf";
GRANT SELECT ON audit.events TO "back\slash; DROP TABLE x --";
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO "O'Brien ""the DBA""";

CREATE FOREIGN DATA WRAPPER "elsewhere ""wrapper""";
CREATE SERVER elsewhere FOREIGN DATA WRAPPER "elsewhere ""wrapper""";
GRANT USAGE ON FOREIGN SERVER elsewhere TO "ordering app";
CREATE USER MAPPING FOR "ordering app" SERVER elsewhere;
CREATE FOREIGN TABLE stock.far_away (id int, what text) SERVER elsewhere;
SET client_min_messages = error;
CREATE PUBLICATION "orders' news" FOR TABLE sales.order_lines, sales.customers WITH (publish = 'insert');
RESET client_min_messages;
ALTER TABLE stock.vehicle REPLICA IDENTITY FULL;
CREATE CAST (sales.order_status AS int) WITH FUNCTION pg_catalog.hashenum(anyenum) AS ASSIGNMENT;
CREATE OPERATOR stock.=== (leftarg = int, rightarg = int, procedure = int4eq, commutator = OPERATOR(stock.===));

COMMENT ON SCHEMA "größe_λ_注文" IS 'größe, λ and 注文';
COMMENT ON TABLE sales.orders IS E'it''s "the" table\nof two lines \\ and a backslash';
COMMENT ON COLUMN "Customer's ""Archive"""."Select"."日本 語" IS '日本';
COMMENT ON CONSTRAINT "customer's key" ON sales.orders IS 'who ordered';
COMMENT ON TRIGGER "touch ""it""" ON sales.orders IS 'marks a change of status';
COMMENT ON POLICY "own ""rows""" ON sales.invoices IS 'tenant''s own';
COMMENT ON FUNCTION sales.order_total(bigint) IS 'the sum';
COMMENT ON INDEX sales.customers_lower IS 'lower case';
COMMENT ON TYPE sales.order_status IS 'of an order';
COMMENT ON STATISTICS sales."orders stats" IS 'which go together';

CREATE FUNCTION audit.log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.ddl_log SELECT now(), tg_tag, object_identity FROM pg_event_trigger_dropped_objects();
END $$;
CREATE EVENT TRIGGER "log ""drops""" ON sql_drop WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION audit.log_ddl();
COMMENT ON EVENT TRIGGER "log ""drops""" IS 'who dropped it?';

ALTER LARGE OBJECT 9002 OWNER TO ordering_owner;
ALTER LARGE OBJECT 9003 OWNER TO "größe_λ_注文";
GRANT SELECT ON LARGE OBJECT 9002 TO "ordering app", "100% UPPER";
GRANT SELECT, UPDATE ON LARGE OBJECT 9004 TO PUBLIC;
COMMENT ON LARGE OBJECT 9002 IS 'a scan of Anna''s "letter"';
