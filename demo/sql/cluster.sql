-- What belongs to the whole server, for the comparison. Each query gives (identity, details); a line "--: name" names it.

--: roles
SELECT rolname, to_jsonb(r) - '{oid,rolname,rolpassword}'::text[] || jsonb_build_object('password', md5(rolpassword))
FROM pg_authid r WHERE rolname !~ '^pg_';

--: memberships
SELECT format('%s in %s by %s', member::regrole, roleid::regrole, grantor::regrole), to_jsonb(m) - '{oid,member,roleid,grantor}'::text[]
FROM pg_auth_members m WHERE NOT (member < 16384 AND roleid < 16384);

--: settings of roles and databases
SELECT format('%s in %s', coalesce(rolname, 'all roles'), coalesce(datname, 'all databases')),
    jsonb_build_object('settings', ARRAY(SELECT s FROM unnest(setconfig) s ORDER BY 1))
FROM pg_db_role_setting LEFT JOIN pg_roles r ON r.oid = setrole LEFT JOIN pg_database d ON d.oid = setdatabase;

--: tablespaces
SELECT spcname, jsonb_build_object('owner', spcowner::regrole, 'rights', pg_temp.acl(spcacl, 't', spcowner), 'options', spcoptions)
FROM pg_tablespace;

--: comments
SELECT pg_describe_object(classoid, objoid, 0), jsonb_build_object('text', description)
FROM pg_shdescription WHERE classoid <> 'pg_database'::regclass OR objoid >= 16384;

--: databases
SELECT datname, to_jsonb(d) - '{oid,datname,datdba,datacl,dattablespace,datfrozenxid,datminmxid,datlastsysoid,datcollversion}'::text[]
    || jsonb_build_object('owner', datdba::regrole, 'rights', pg_temp.acl(datacl, 'd', datdba),
        'tablespace', (SELECT spcname FROM pg_tablespace t WHERE t.oid = dattablespace))
FROM pg_database d;
