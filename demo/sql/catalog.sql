-- What a database is made of, for the comparison. Each query gives (identity, details); a line "--: name" names it.
-- Rights are compared as they work: a missing ACL stands for the default one. Names stand for OIDs, which a restore changes.

--: schemas
SELECT format('%I', nspname), jsonb_build_object('owner', nspowner::regrole, 'rights', pg_temp.acl(nspacl, 'n', nspowner))
FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema';

--: relations
SELECT pg_temp.name(c.oid), jsonb_build_object(
    'kind', relkind, 'owner', relowner::regrole, 'persistence', relpersistence, 'options', reloptions, 'method', amname,
    'rights', pg_temp.acl(relacl, (CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", relowner), 'populated', relispopulated,
    'row security', relrowsecurity, 'forced row security', relforcerowsecurity, 'replica identity', relreplident,
    'partition key', pg_get_partkeydef(c.oid), 'partition bound', pg_get_expr(relpartbound, c.oid),
    'parents', (SELECT array_agg(pg_temp.name(inhparent) ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = c.oid),
    'tablespace', (SELECT spcname FROM pg_tablespace s WHERE s.oid = reltablespace))
FROM pg_temp.own_relations c LEFT JOIN pg_am a ON a.oid = relam WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c');

--: columns
SELECT pg_temp.name(c.oid) || '.' || format('%I', attname), jsonb_build_object(
    'position', row_number() OVER (PARTITION BY c.oid ORDER BY attnum), 'type', format_type(atttypid, atttypmod),
    'not null', attnotnull, 'default', pg_get_expr(adbin, adrelid), 'identity', attidentity, 'generated', attgenerated,
    'collation', NULLIF(attcollation, 0)::regcollation, 'storage', attstorage, 'options', attoptions,
    'statistics', to_jsonb(a) -> 'attstattarget', 'compression', to_jsonb(a) -> 'attcompression', 'local', attislocal,
    'rights', pg_temp.acl(attacl, 'c', relowner))
FROM pg_temp.own_relations c JOIN pg_attribute a ON attrelid = c.oid LEFT JOIN pg_attrdef ON adrelid = c.oid AND adnum = attnum
WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND attnum > 0 AND NOT attisdropped;

--: view definitions
SELECT pg_temp.name(c.oid), jsonb_build_object('definition', pg_get_viewdef(c.oid)) FROM pg_temp.own_relations c WHERE relkind IN ('v', 'm');

--: rules
SELECT format('%I on ', rulename) || pg_temp.name(ev_class), jsonb_build_object('definition', pg_get_ruledef(r.oid), 'enabled', ev_enabled)
FROM pg_rewrite r JOIN pg_temp.own_relations c ON c.oid = ev_class WHERE rulename <> '_RETURN';

--: indexes
SELECT pg_temp.name(c.oid), jsonb_build_object('definition', pg_get_indexdef(c.oid), 'valid', indisvalid, 'clustered', indisclustered,
    'replica identity', indisreplident, 'parent', (SELECT pg_temp.name(inhparent) FROM pg_inherits WHERE inhrelid = c.oid))
FROM pg_temp.own_relations c JOIN pg_index ON indexrelid = c.oid;

--: constraints
SELECT format('%I on %s', conname, CASE WHEN conrelid > 0 THEN pg_temp.name(conrelid) ELSE contypid::regtype::text END),
    jsonb_build_object('definition', pg_get_constraintdef(k.oid), 'valid', convalidated, 'local', conislocal)
FROM pg_constraint k LEFT JOIN pg_temp.own_relations c ON c.oid = conrelid WHERE c.oid IS NOT NULL OR contypid >= 16384;

--: triggers
SELECT format('%I on ', tgname) || pg_temp.name(tgrelid), jsonb_build_object('definition', pg_get_triggerdef(t.oid), 'enabled', tgenabled)
FROM pg_trigger t WHERE NOT tgisinternal;

--: event triggers
SELECT format('%I', evtname), to_jsonb(e) - '{oid,evtname}'::text[] || jsonb_build_object('evtowner', evtowner::regrole, 'evtfoid', evtfoid::regproc)
FROM pg_event_trigger e;

--: policies
SELECT format('%I on %I.%I', policyname, schemaname, tablename), to_jsonb(p) FROM pg_policies p;

--: functions
SELECT format('%s %I.%I(%s)', prokind, nspname, proname, pg_get_function_identity_arguments(p.oid)), jsonb_build_object(
    'owner', proowner::regrole, 'rights', pg_temp.acl(proacl, 'f', proowner),
    'definition', CASE WHEN prokind <> 'a' THEN pg_get_functiondef(p.oid)
        ELSE (SELECT (to_jsonb(a) - 'aggfnoid' || jsonb_build_object('aggsortop', aggsortop::regoper, 'aggtranstype', aggtranstype::regtype,
            'aggmtranstype', aggmtranstype::regtype))::text FROM pg_aggregate a WHERE aggfnoid = p.oid) END)
FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema';

--: types
SELECT format('%I.%I', nspname, typname), jsonb_build_object(
    'kind', typtype, 'owner', typowner::regrole, 'rights', pg_temp.acl(typacl, 'T', typowner),
    'labels', (SELECT array_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid),
    'base', format_type(typbasetype, typtypmod), 'not null', typnotnull, 'default', typdefault,
    'subtype', (SELECT rngsubtype::regtype || ' ' || rngsubdiff FROM pg_range WHERE rngtypid = t.oid))
FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND typtype IN ('e', 'd', 'r', 'm', 'c', 'b') AND typcategory <> 'A';

--: extensions
SELECT format('%I', extname), jsonb_build_object('version', extversion, 'schema', extnamespace::regnamespace, 'owner', extowner::regrole)
FROM pg_extension;

--: statistics objects
SELECT format('%s.%I', stxnamespace::regnamespace, stxname), jsonb_build_object('definition', pg_get_statisticsobjdef(oid), 'owner', stxowner::regrole)
FROM pg_statistic_ext;

--: default privileges
SELECT format('%s %s %s', defaclrole::regrole, NULLIF(defaclnamespace, 0)::regnamespace, defaclobjtype),
    jsonb_build_object('rights', ARRAY(SELECT x::text FROM unnest(defaclacl) x ORDER BY 1))
FROM pg_default_acl;

--: rights on system objects
SELECT pg_describe_object(classid, objid, objsubid), jsonb_build_object('rights', ARRAY(SELECT x::text FROM unnest(acl) x ORDER BY 1))
FROM (SELECT 'pg_proc'::regclass AS classid, oid AS objid, 0 AS objsubid, proacl AS acl FROM pg_proc WHERE oid < 16384
    UNION ALL SELECT 'pg_class'::regclass, oid, 0, relacl FROM pg_class WHERE oid < 16384
    UNION ALL SELECT 'pg_language'::regclass, oid, 0, lanacl FROM pg_language) s WHERE acl IS NOT NULL;

--: languages and casts
SELECT format('language %I', lanname), jsonb_build_object('owner', lanowner::regrole) FROM pg_language
UNION ALL SELECT format('cast %s to %s', castsource::regtype, casttarget::regtype),
    jsonb_build_object('function', castfunc::regprocedure, 'context', castcontext, 'method', castmethod) FROM pg_cast WHERE oid >= 16384;

--: operators
SELECT format('%s.%s (%s, %s)', oprnamespace::regnamespace, oprname, oprleft::regtype, oprright::regtype),
    jsonb_build_object('owner', oprowner::regrole, 'function', oprcode, 'commutator', oprcom::regoper) FROM pg_operator WHERE oid >= 16384;

--: collations and text search
SELECT format('collation %s.%I', collnamespace::regnamespace, collname),
    to_jsonb(c) - '{oid,collname,collnamespace,collversion}'::text[] || jsonb_build_object('collowner', collowner::regrole)
FROM pg_collation c WHERE oid >= 16384
UNION ALL SELECT format('configuration %s.%I', cfgnamespace::regnamespace, cfgname), jsonb_build_object('owner', cfgowner::regrole, 'map',
    (SELECT array_agg(format('%s %s %s', maptokentype, mapseqno, mapdict::regdictionary) ORDER BY 1) FROM pg_ts_config_map WHERE mapcfg = c.oid))
FROM pg_ts_config c WHERE oid >= 16384;

--: foreign data
SELECT format('wrapper %I', fdwname), jsonb_build_object('owner', fdwowner::regrole, 'rights', pg_temp.acl(fdwacl, 'F', fdwowner), 'options', fdwoptions)
FROM pg_foreign_data_wrapper
UNION ALL SELECT format('server %I', srvname), jsonb_build_object('owner', srvowner::regrole, 'rights', pg_temp.acl(srvacl, 'S', srvowner), 'options', srvoptions)
FROM pg_foreign_server
UNION ALL SELECT format('user %s at %I', usename, srvname), jsonb_build_object('options', umoptions) FROM pg_user_mappings;

--: publications
SELECT format('%I', pubname), to_jsonb(p) - '{oid,pubname}'::text[] || jsonb_build_object('pubowner', pubowner::regrole, 'tables',
    (SELECT array_agg(format('%I.%I', schemaname, tablename) ORDER BY 1) FROM pg_publication_tables t WHERE t.pubname = p.pubname))
FROM pg_publication p;

--: comments
SELECT pg_describe_object(classoid, objoid, objsubid), jsonb_build_object('text', description) FROM pg_description
WHERE objoid >= 16384 OR classoid IN ('pg_largeobject'::regclass, 'pg_namespace'::regclass, 'pg_extension'::regclass);

--: large objects
SELECT oid::text, jsonb_build_object('owner', lomowner::regrole, 'rights', pg_temp.acl(lomacl, 'L', lomowner),
    'bytes', length(content), 'content', md5(content))
FROM pg_largeobject_metadata, LATERAL (SELECT lo_get(oid) AS content OFFSET 0) x;

--: sequences
SELECT format('%I.%I', schemaname, sequencename), to_jsonb(s) - '{schemaname,sequencename,last_value}'::text[] || jsonb_build_object('owned by',
    (SELECT format('%s.%s', refobjid::regclass, refobjsubid) FROM pg_depend
     WHERE objid = format('%I.%I', schemaname, sequencename)::regclass AND classid = 'pg_class'::regclass AND deptype IN ('a', 'i')
     AND refclassid = 'pg_class'::regclass))
FROM pg_sequences s;
