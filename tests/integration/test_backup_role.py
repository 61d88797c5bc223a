# SPDX-License-Identifier: GPL-3.0-or-later
"""The role for backups: what it may is proven by a backup, what it may not by trying, and no server log has its password."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st
from psycopg2 import sql

from ansible_collections.pgops.backup.plugins.module_utils._engine import runs
from ansible_collections.pgops.backup.plugins.module_utils._engine.core import scram
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    MissingError,
    PgopsError,
    RefusedError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres import backup_role as module
from ansible_collections.pgops.backup.plugins.module_utils._engine.postgres.backup_role import Wanted, backup_role
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import backup
from demo.servers import MotoS3, PostgresServer, system_bindirs
from tests.integration.conftest import Servers, Site, create_database, create_shop, cursor, empty, run_sql
from tests.integration.test_modules import Site as Playbooks
from tests.integration.test_modules import task

MakeSite = Callable[..., Site]
SECRET = "p4ss' $w%rd#\"\\ Wörd"
HOSTILE = 'Back"up; DROP %s $1 Ü'
WITHOUT_SUBSCRIPTION = ("ALTER SUBSCRIPTION sub SET (slot_name = NONE)", "DROP SUBSCRIPTION sub")
ODD_PASSWORDS = [
    SECRET,
    "no\u2003break\u00adable\u00a0",  # odd blanks, a soft hyphen
    "\ufb01ne \u2168",  # a ligature, a Roman number
    "\u0007bell",
    "bell \u00e9\u0007",
    "\u0627\u0031",  # right to left, but ends in a number
    "\u0627\u0628",
    "\u00ad",
    "\U0001f511 key",
    "\u0221",
    "x" * 300,
]


@pytest.fixture
def shop(bench: PostgresServer, make_site: MakeSite) -> Site:
    """A server with the shop: row-level security, large objects, a database that not everybody may connect to."""
    create_shop(bench)
    create_database(bench, "closed %", "CREATE TABLE t AS SELECT 1 AS i")
    run_sql(bench, "postgres", 'REVOKE CONNECT ON DATABASE "closed %" FROM PUBLIC')
    return make_site(bench)


def make(site: Site, name: str = "keeper", *, dry_run: bool = False, **wanted: Any) -> dict[str, Any]:
    return backup_role(site.engine(), Wanted(name, **wanted), dry_run=dry_run)


def attributes(server: PostgresServer, name: str) -> tuple[Any, ...]:
    with cursor(server, "postgres") as asked:
        asked.execute(
            "SELECT rolsuper, rolcanlogin, rolbypassrls, rolcreatedb, rolcreaterole, rolconnlimit FROM pg_roles WHERE rolname = %s",
            (name,),
        )
        row: tuple[Any, ...] = asked.fetchone()
        return row


def log_in(site: Site, name: str, password: str) -> None:
    """Let the site back up as the role."""
    secret = site.root / "of-the-role"
    secret.unlink(missing_ok=True)
    secret.touch(0o600)
    secret.write_text(password)
    site.options = {"postgres": {"login_user": name, "login_password_file": str(secret)}}


# --- what it may ------------------------------------------------------------------------------------------------------


def test_with_the_role_a_backup_holds_everything_and_restores(shop: Site, target: PostgresServer) -> None:
    result = make(shop, password=SECRET, connection_limit=12)
    assert result["changed"]
    assert result["unreadable"] == []
    assert result["checked"]["by"] == "login"
    assert result["checked"]["large_objects"] == 2
    assert result["checked"]["databases"] == 3
    assert attributes(shop.server, "keeper") == (False, True, True, False, False, 12)
    again = make(shop, password=SECRET, connection_limit=12)
    assert (again["changed"], again["statements"], again["unreadable"]) == (False, [], [])
    assert again["before"] == again["after"]
    log_in(shop, "keeper", SECRET)
    made = shop.backup()
    assert made["uncovered"] == []
    manifest = shop.manifest(made["set"])
    assert manifest.globals_passwords
    facts = manifest.database("shop")
    assert facts is not None and facts.fingerprint is not None
    assert facts.fingerprint["large_objects"]["count"] == 2
    shop.options = {}
    assert shop.verify("restore")["sets"][0]["outcome"] == "passed"


@pytest.mark.parametrize("name", [HOSTILE, "UPPER", "x" * 63, "sélect"])
def test_a_role_may_bear_any_name(shop: Site, name: str) -> None:
    assert make(shop, name, password=SECRET)["unreadable"] == []
    assert attributes(shop.server, name)[:3] == (False, True, True)
    assert make(shop, name, password=SECRET)["changed"] is False
    assert make(shop, name, state="absent")["changed"] is True
    assert attributes(shop.server, name) is None


@pytest.mark.parametrize(
    "attempt",
    [
        "INSERT INTO shop.goods (name) VALUES ('x')",
        "UPDATE shop.sales SET who = 'x'",
        "DELETE FROM shop.goods",
        "CREATE TABLE shop.mine (i int)",
        "SELECT nextval('shop.tickets')",
        "SELECT lo_unlink(4711)",
        "SELECT lo_put(4711, 0, 'x')",
        "CREATE DATABASE mine",
        "CREATE ROLE mine",
        "ALTER ROLE keeper SUPERUSER",
        "COPY shop.goods TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/hostname')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
    ],
)
def test_the_role_changes_nothing(shop: Site, attempt: str) -> None:
    make(shop, password=SECRET)
    keeper = {"user": "keeper", "password": SECRET}
    with (
        cursor(shop.server, "postgres"),
        cursor(shop.server, "shop", **keeper) as asked,
        pytest.raises(psycopg2.Error) as caught,
    ):
        asked.execute(attempt)
    assert caught.value.pgcode in ("42501", "28000"), caught.value


def test_what_the_role_had_too_much_is_taken_away_or_told(shop: Site) -> None:
    run_sql(
        shop.server,
        "postgres",
        "CREATE ROLE keeper LOGIN CREATEDB CREATEROLE REPLICATION NOINHERIT; CREATE ROLE other; GRANT other TO keeper",
    )
    result = make(shop)
    assert 'ALTER ROLE "keeper" INHERIT BYPASSRLS NOCREATEDB NOCREATEROLE' in result["statements"]
    assert attributes(shop.server, "keeper") == (False, True, True, False, False, -1)
    assert "also a member of other, which a backup does not need" in shop.warnings
    assert "may replicate" in shop.warnings
    assert result["after"]["member_of"] == ["other", "pg_monitor", "pg_read_all_data"]
    assert make(shop)["changed"] is False


def test_a_password_that_has_expired_holds_again_and_one_that_will_is_told(shop: Site) -> None:
    make(shop, password=SECRET)
    run_sql(shop.server, "postgres", "ALTER ROLE keeper VALID UNTIL '2020-01-01 00:00:00+00'")
    log_in(shop, "keeper", SECRET)
    with pytest.raises(PgopsError, match="password authentication failed"):
        shop.backup()
    shop.options = {}
    result = make(shop, password=SECRET)
    assert result["statements"] == ["ALTER ROLE \"keeper\" VALID UNTIL 'infinity'"]
    assert (result["before"]["password"], result["after"]["password"]) == (
        "set, scram-sha-256, expired",
        "set, scram-sha-256",
    )
    assert make(shop, password=SECRET)["changed"] is False
    assert "can log in until" not in shop.warnings
    log_in(shop, "keeper", SECRET)
    assert shop.backup()["set"]
    run_sql(shop.server, "postgres", "ALTER ROLE keeper VALID UNTIL '2999-01-01 00:00:00+00'")
    shop.options = {}
    assert make(shop, password=SECRET)["changed"] is False
    assert "can log in until 2999-01-01" in shop.warnings


def test_a_role_that_may_replicate_takes_base_backups(shop: Site) -> None:
    result = make(shop, password=SECRET)
    assert result["after"]["replication"] is False
    predicted = make(shop, password=SECRET, replication=True, dry_run=True)
    result = make(shop, password=SECRET, replication=True)
    assert result["statements"] == predicted["statements"] == ['ALTER ROLE "keeper" REPLICATION']
    assert (result["granted"], result["after"]["replication"]) == (["REPLICATION"], True)
    assert make(shop, password=SECRET, replication=True)["changed"] is False
    assert "may replicate" not in shop.warnings
    log_in(shop, "keeper", SECRET)
    made = runs.perform(shop.engine(), "backup", lambda c: backup.backup(c, backup.Request(kind="base")))
    assert made["set"].endswith("-base")
    shop.options = {}
    assert make(shop, replication=False)["changed"] is False, "what it may already is left"
    assert make(shop, "other", replication=True)["statements"][0] == 'CREATE ROLE "other" LOGIN BYPASSRLS REPLICATION'


def test_a_superuser_is_not_touched(shop: Site) -> None:
    with pytest.raises(RefusedError, match="is a superuser"):
        make(shop, "postgres", state="absent")
    with pytest.raises(RefusedError, match="is a superuser"):
        make(shop, "postgres", password=SECRET)


@pytest.mark.parametrize("name", ["", "x" * 64, "pg_keeper", "public", "none", "a\0b"])
def test_what_cannot_be_a_role_is_refused(shop: Site, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a role"):
        make(shop, name)


# --- what it cannot read ----------------------------------------------------------------------------------------------


def test_what_the_role_cannot_read_is_listed(shop: Site, request: pytest.FixtureRequest) -> None:
    make(shop, password=SECRET)
    request.addfinalizer(lambda: [run_sql(shop.server, "shop", text) for text in WITHOUT_SUBSCRIPTION])
    run_sql(
        shop.server,
        "shop",
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        " CREATE USER MAPPING FOR clerk SERVER s OPTIONS (secret 'hidden');"
        " CREATE MATERIALIZED VIEW shop.later AS SELECT 1 WITH NO DATA;"
        " CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)",
    )
    run_sql(shop.server, "postgres", "ALTER ROLE keeper NOBYPASSRLS; REVOKE pg_read_all_data FROM keeper")
    run_sql(shop.server, "postgres", 'REVOKE CONNECT ON DATABASE "closed %" FROM keeper')
    for name in ("keeper", "postgres"):
        run_sql(shop.server, "shop", "REVOKE ALL ON LARGE OBJECT 4711 FROM %s" % name)
    standing_by = Wanted("keeper", password=SECRET, bypass_rls=False)
    # Only the check, as nothing would be left to find after the rest.
    context, result = shop.engine(), {}
    module._Check(context, standing_by, ["closed %", "shop"], standby=False).run(result)
    found = {(entry["database"], entry["kind"], entry["name"]): entry["why"] for entry in result["unreadable"]}
    assert found["closed %", "database", "closed %"] == "it may not connect"
    assert "permission denied for schema shop" in found["shop", "table", "shop.sales"]
    assert ("shop", "sequence", "shop.tickets") in found
    assert ("shop", "large object", "4711") in found
    assert ("shop", "table", "shop.later") not in found
    run_sql(shop.server, "postgres", "GRANT pg_read_all_data TO keeper")
    module._Check(context, standing_by, ["shop"], standby=False).run(result)
    found = {(entry["kind"], entry["name"]): entry["why"] for entry in result["unreadable"]}
    assert "row-level security" in found.pop(("table", "shop.sales"))
    assert set(found) == {("large object", "4711"), ("user mapping", "clerk on s"), ("subscription", "sub")}
    assert "cannot read everything" in "\n".join(context.warnings)


def test_a_table_that_somebody_has_locked_is_told_as_that(shop: Site) -> None:
    make(shop)
    with closing(shop.server.connect("shop", autocommit=False)) as blocker:
        blocker.cursor().execute("LOCK TABLE shop.goods IN ACCESS EXCLUSIVE MODE")
        assert make(shop)["unreadable"] == []
    assert "The table shop.goods of shop was locked, so it was not checked." in shop.warnings


def test_large_objects_that_are_new_can_be_read_too(shop: Site) -> None:
    """PostgreSQL 18 has default privileges for them."""
    make(shop, password=SECRET)
    run_sql(shop.server, "shop", "SELECT lo_from_bytea(5000, 'new')")
    again = make(shop, password=SECRET)
    assert (again["changed"], again["unreadable"]) == (False, [])
    with cursor(shop.server, "shop", user="keeper", password=SECRET) as asked:
        asked.execute("SELECT lo_get(5000)")
        assert bytes(asked.fetchone()[0]) == b"new"


def test_many_large_objects_are_granted_and_shown_shortly(shop: Site) -> None:
    run_sql(shop.server, "shop", "SELECT lo_create(i) FROM generate_series(100000, 101200) i")
    result = make(shop)
    grants = [text for text in result["statements"] if "ON LARGE OBJECT " in text]
    assert len(grants) == 3
    assert "… (500 in all)" in grants[0]
    assert result["unreadable"] == []


def test_with_compat_large_objects_of_any_server_can_be_read_also_new_ones(shop: Site) -> None:
    for password in ("", SECRET):
        result = make(shop, large_objects="compat", password=password)
        assert result["unreadable"] == []
    assert not any("LARGE OBJECT" in text for text in result["statements"])
    run_sql(shop.server, "shop", "SELECT lo_from_bytea(5000, 'new')")
    log_in(shop, "keeper", SECRET)
    assert shop.backup(databases=["shop"])["set"]
    shop.options = {}
    back = make(shop)
    assert 'ALTER ROLE "keeper" RESET lo_compat_privileges' in back["statements"]
    assert back["unreadable"] == []


def test_files_of_the_server_are_in_the_set_where_that_is_wanted(shop: Site) -> None:
    make(shop, password=SECRET, server_files=True)
    assert make(shop, password=SECRET, server_files=True)["changed"] is False
    log_in(shop, "keeper", SECRET)
    manifest = shop.manifest(shop.backup()["set"])
    assert manifest.hba is not None and manifest.ident is not None
    shop.options = {}
    assert make(shop)["changed"] is True
    with pytest.raises(psycopg2.Error), cursor(shop.server, "postgres", user="keeper", password=SECRET) as asked:
        asked.execute("SELECT pg_read_file('postgresql.conf')")


def test_only_the_databases_that_are_named(shop: Site) -> None:
    assert make(shop, databases=("shop",))["checked"]["databases"] == 1
    assert make(shop)["granted"] == ["CONNECT on the database closed %"]
    with pytest.raises(MissingError, match="'Shop'"):
        make(shop, databases=("Shop",))


# --- the password -----------------------------------------------------------------------------------------------------


def test_the_server_never_hears_the_password(servers: Servers, make_site: MakeSite) -> None:
    server = servers.get("logging", 18, log_statement="all", log_min_messages="debug1", log_parameter_max_length=-1)
    empty(server)
    site = make_site(server)
    make(site, password=SECRET)
    make(site, password="another" + SECRET)
    log = server.log_file.read_text(errors="replace")
    assert 'ALTER ROLE "keeper" PASSWORD' in log
    assert SECRET not in log and "Wörd" not in log
    for result in (make(site, password=SECRET), make(site, password="x" + SECRET, dry_run=True)):
        assert "SCRAM" not in str(result) and SECRET not in str(result)
        assert "ALTER ROLE \"keeper\" PASSWORD '********'" in result["statements"]
        assert result["after"]["password"] == "set, scram-sha-256, another one"


@pytest.mark.parametrize("password", ODD_PASSWORDS)
def test_odd_passwords_are_hashed_as_the_server_and_libpq_do(shop: Site, password: str) -> None:
    make(shop, password=password)
    with cursor(shop.server, "postgres", user="keeper", password=password, host="127.0.0.1") as asked:
        asked.execute("SELECT current_user")
        assert asked.fetchone() == ("keeper",)
    by_server(shop.server, password)
    assert make(shop, password=password)["changed"] is False
    if len(password) < 100:
        assert make(shop, password=password + "x")["changed"] is True


def by_server(server: PostgresServer, password: str) -> None:
    with cursor(server, "postgres") as asked:
        asked.execute(sql.SQL("ALTER ROLE keeper PASSWORD {}").format(sql.Literal(password)))


LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])


@given(passwords=st.lists(st.text(LETTERS, min_size=1, max_size=8), min_size=20, max_size=20))
@rules(max_examples=10, deadline=None, database=None)
def test_any_password_is_prepared_as_the_server_does(passwords: list[str], servers: Servers) -> None:
    server = servers.get("bench", 18)
    with cursor(server, "postgres") as asked:
        asked.execute("SET scram_iterations = 1")
        for number, password in zip(itertools.count(), passwords):
            name = sql.Identifier("prepared-%d" % number)
            asked.execute(sql.SQL("DROP ROLE IF EXISTS {0}; CREATE ROLE {0}").format(name))
            asked.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(password)))
            asked.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", ("prepared-%d" % number,))
            (kept,) = asked.fetchone()
            asked.execute(sql.SQL("DROP ROLE {}").format(name))
            # What looks like a hash to the server is taken for one.
            assert scram.is_stored(password, kept) or kept == password, ascii(password)


def test_an_md5_password_becomes_scram(shop: Site) -> None:
    run_sql(
        shop.server,
        "postgres",
        "CREATE ROLE keeper LOGIN; SET password_encryption = md5; ALTER ROLE keeper PASSWORD 'abc'",
    )
    assert make(shop, password="abc")["before"]["password"] == "set, md5"
    assert make(shop, password="abc")["changed"] is False


def test_a_role_that_cannot_log_in_from_here_is_checked_another_way(shop: Site) -> None:
    make(shop, password=SECRET)
    run_sql(shop.server, "postgres", "ALTER ROLE keeper CONNECTION LIMIT 0")
    result = make(shop, password=SECRET)
    assert (result["checked"]["by"], result["unreadable"]) == ("set role", [])
    assert "could not log in from here: " in shop.warnings


# --- check mode, a standby, the end -----------------------------------------------------------------------------------


def test_a_dry_run_predicts_and_changes_nothing(shop: Site) -> None:
    predicted = make(shop, password=SECRET, dry_run=True)
    assert attributes(shop.server, "keeper") is None
    assert (predicted["changed"], predicted["checked"]) == (True, None)
    done = make(shop, password=SECRET)
    for key in ("granted", "before", "after", "statements"):
        assert predicted[key] == done[key], key
    assert make(shop, password=SECRET, dry_run=True)["unreadable"] == []


def test_what_fails_in_the_middle_is_undone(shop: Site) -> None:
    """An administrator who may make roles, but not this one."""
    run_sql(shop.server, "postgres", "CREATE ROLE half LOGIN CREATEROLE PASSWORD 'half-an-admin'")
    log_in(shop, "half", "half-an-admin")
    with pytest.raises(PgopsError, match='Statement: CREATE ROLE "keeper" LOGIN BYPASSRLS') as caught:
        make(shop, password=SECRET, databases=("shop",))
    assert "superuser" in caught.value.hint
    assert attributes(shop.server, "keeper") is None


def test_the_role_goes_with_all_that_it_was_granted(shop: Site) -> None:
    make(shop, password=SECRET, server_files=True)
    assert make(shop, state="absent", dry_run=True)["changed"] is True
    result = make(shop, state="absent")
    assert result["changed"] and result["statements"][-1] == 'DROP ROLE "keeper"'
    assert attributes(shop.server, "keeper") is None
    assert make(shop, state="absent")["changed"] is False
    (count,) = run_sql(shop.server, "shop", "SELECT count(*) FROM shop.goods")[0]
    assert count == 50


def test_a_role_that_owns_something_stays(shop: Site) -> None:
    make(shop)
    run_sql(shop.server, "shop", "ALTER TABLE shop.goods OWNER TO keeper")
    with pytest.raises(RefusedError, match=r"owns what a role for backups never would: .* in shop"):
        make(shop, state="absent")
    assert attributes(shop.server, "keeper")
    run_sql(shop.server, "shop", "ALTER TABLE shop.goods OWNER TO chief")


@pytest.mark.skipif(not system_bindirs(), reason="no PostgreSQL of the distribution is installed")
def test_an_older_server_has_no_default_for_large_objects(servers: Servers, make_site: MakeSite) -> None:
    major = int(system_bindirs()[0].parent.name)
    server = servers.get("roles", major)
    empty(server)
    create_shop(server)
    site = make_site(server)
    result = make(site, password=SECRET)
    assert result["unreadable"] == []
    assert "large_objects: compat lifts that" in site.warnings
    run_sql(server, "shop", "SELECT lo_from_bytea(5000, 'new')")
    assert make(site, password=SECRET)["granted"] == ["SELECT on 1 large object of shop"]
    log_in(site, "keeper", SECRET)
    assert site.backup()["uncovered"] == []


# --- the module -------------------------------------------------------------------------------------------------------


def test_the_module_tells_the_truth_in_check_and_diff_mode(tmp_path: Path, shop: Site, store: MotoS3) -> None:
    playbooks = Playbooks(tmp_path, shop.server, store)
    given = {"name": HOSTILE, "password": "{{ wanted_password }}", "connection_limit": 9}
    both = {"check_mode": True, "diff": True}
    played = playbooks.play(
        task("pg_backup_role", both, **given),
        task("pg_backup_role", {"diff": True}, **given),
        task("pg_backup_role", both, **given),
        task("pg_backup_role", {"diff": True}, **{**given, "password": "{{ wanted_password }}2"}),
        task("pg_backup_role", {"diff": True}, name=HOSTILE, state="absent"),
        task("pg_backup_role", name="postgres", password="{{ wanted_password }}"),
        flags=("-vvv",),
        wanted_password=SECRET,
    )
    predicted, made, again, other, gone, refused = played.results
    assert [r["changed"] for r in (predicted, made, again, other, gone)] == [True, True, False, True, True]
    assert predicted["diff"] == made["diff"]
    assert made["diff"]["before"] == {}
    assert made["diff"]["after"]["connection_limit"] == 9
    assert again["diff"]["before"] == again["diff"]["after"]
    assert other["diff"]["after"]["password"] == "set, scram-sha-256, another one"
    assert gone["diff"]["after"] == {}
    assert (predicted["checked"], made["checked"]["by"], made["unreadable"]) == (None, "login", [])
    assert (refused["failed"], refused["outcome"], refused["exit_code"]) == (True, "refused", 5)
    for text in (played.output, str(played.results)):
        assert SECRET not in text and "Wörd" not in text and "SCRAM-SHA-256$" not in text
    assert attributes(shop.server, HOSTILE) is None
