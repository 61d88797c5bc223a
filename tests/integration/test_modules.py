# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules as users run them: ansible-playbook, real PostgreSQL, an S3 server, and other tools to look at the result."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo import compare, dataset
from demo.servers import MotoS3, PostgresServer
from tests.integration.alert_receivers import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    HttpReceiver,
    receiver_here,
)
from tests.integration.conftest import (
    BUCKET,
    ROOT,
    SCALE,
    Servers,
    create_shop,
    cursor,
    databases_of,
    empty,
    flip,
    run_sql,
)
from tests.integration.playing import played

# Those that take the options of the connection and the places; test_host_modules.py has the others.
MODULES = sorted(yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())["action_groups"]["pgops"])


# A module, its options, and keywords of the task.
Task = tuple[str, dict[str, Any], dict[str, Any]]
CHECK = {"check_mode": True}


def task(module: str, keywords: dict[str, Any] | None = None, /, **given: Any) -> Task:
    """Return a task of a playbook: the module, keywords of the task, and the module's options."""
    return module, given, keywords or {}


@dataclass(frozen=True)
class Played:
    """What a playbook gave: the result of each task, and all that Ansible said."""

    results: list[dict[str, Any]]
    output: str

    @property
    def result(self) -> dict[str, Any]:
        """The result of the only task, which succeeded."""
        assert len(self.results) == 1
        assert not self.results[0].get("failed"), self.results[0].get("msg")
        return self.results[0]

    @property
    def failure(self) -> dict[str, Any]:
        """The result of the only task, which failed."""
        assert len(self.results) == 1
        assert self.results[0].get("failed") is True, "it was to fail"
        return self.results[0]


@dataclass
class Site:
    """A host of its own: directories, the options that lead to the servers, and Ansible with this collection."""

    root: Path
    server: PostgresServer
    store: MotoS3
    options: dict[str, Any] = field(default_factory=dict)
    plays: int = 0
    interpreter: str = sys.executable

    def __post_init__(self) -> None:
        self.instance = "modules-%s" % hashlib.sha256(str(self.root).encode()).hexdigest()[:12]
        self.backups, self.state, self.log = self.root / "backups", self.root / "state", self.root / "log"
        self.options = {
            "instance": self.instance,
            "login_host": self.server.host,
            "login_port": self.server.port,
            "login_user": self.server.user,
            "login_password": "{{ pg_password }}",
            "bin_dir": str(self.server.bindir),
            "backup_dir": str(self.backups),
            "state_dir": str(self.state),
            "log_dir": str(self.log),
            "s3": {
                "bucket": BUCKET,
                "endpoint_url": self.store.endpoint_url,
                "region": self.store.region,
                "addressing_style": "path",
                "access_key": "{{ s3_access_key }}",
                "secret_key": "{{ s3_secret_key }}",
            },
        }

    @property
    def secrets(self) -> dict[str, str]:
        """What nobody may read."""
        return {
            "pg_password": self.server.password,
            "s3_access_key": self.store.access_key,
            "s3_secret_key": self.store.secret_key,
        }

    def play(self, *tasks: Task, flags: tuple[str, ...] = (), **secrets: str) -> Played:
        """Run the tasks with the site's options as defaults of the action group; task i is registered as r<i>."""
        self.plays += 1
        folder = self.root / "plays"
        folder.mkdir(exist_ok=True)
        book, told, answer = (
            folder / ("%d-%s" % (self.plays, name)) for name in ("play.yml", "secrets.json", "results.json")
        )
        steps: list[dict[str, Any]] = [
            {
                "name": module,
                "pgops.backup.%s" % module: given,
                "register": "r%d" % i,
                "ignore_errors": True,
                **keywords,
            }
            for i, (module, given, keywords) in enumerate(tasks)
        ]
        names = ", ".join("r%d" % i for i in range(len(tasks)))
        keep = {"content": "{{ [%s] | to_json }}" % names, "dest": str(answer), "mode": "0600"}
        steps.append({"name": "keep", "ansible.builtin.copy": keep, "check_mode": False, "diff": False})
        play = {
            "hosts": "all",
            "gather_facts": False,
            "connection": "local",
            "module_defaults": {"group/pgops.backup.pgops": self.options},
            "tasks": steps,
        }
        book.write_text(yaml.safe_dump([play], allow_unicode=True))
        told.write_text(json.dumps({**self.secrets, **secrets}))
        program = Path(sys.executable).with_name("ansible-playbook")
        command = [str(program), "-i", "db1,", "-e", "@%s" % told, *flags, str(book)]
        done = played(command, self.root, seconds=600, ANSIBLE_PYTHON_INTERPRETER=self.interpreter)
        told.unlink()
        output = done.stdout + done.stderr
        assert answer.is_file(), output
        return Played(json.loads(answer.read_text()), output)

    # --- what other tools see ---

    def local_sets(self) -> list[str]:
        """The names in the local place, the newest first."""
        folder = self.backups / self.instance / "sets"
        return sorted((path.name for path in folder.iterdir()), reverse=True) if folder.is_dir() else []

    def objects(self) -> dict[str, str]:
        """The keys in the bucket below the instance, with their ETags."""
        pages = self.store.client().get_paginator("list_objects_v2")
        found: dict[str, str] = {}
        for page in pages.paginate(Bucket=BUCKET, Prefix="database-backups/%s/" % self.instance):
            found.update({item["Key"].split("/", 2)[2]: item["ETag"] for item in page.get("Contents", [])})
        return found

    def remote_sets(self) -> list[str]:
        """The sets in the bucket, the newest first: those with a manifest."""
        return sorted((key.split("/")[1] for key in self.objects() if key.endswith("/manifest.json")), reverse=True)

    def everything(self) -> dict[str, str]:
        """All that a run could change: files with their content, objects, databases."""
        found = {"s3:" + key: tag for key, tag in self.objects().items()}
        for top in (self.backups, self.state, self.log):
            for path in sorted(top.rglob("*")):
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found.update({"database:" + name: "" for name in databases_of(self.server)})
        return found


@pytest.fixture
def site(tmp_path: Path, servers: Servers, store: MotoS3) -> Iterator[Site]:
    """A site with an empty server and no sets."""
    server = servers.get("modules", 18)
    empty(server)
    yield Site(tmp_path, server, store)


@pytest.fixture
def shop(site: Site) -> Site:
    """A site with the small database."""
    create_shop(site.server)
    return site


# --- the main job -----------------------------------------------------------------------------------------------------


def test_the_main_job(site: Site) -> None:
    dataset.fill(site.server, scale=SCALE)
    before = compare.snapshot(site.server)
    verify = task("backup_verify", server_bin_dir=str(site.server.bindir))
    played = site.play(task("pg_backup"), task("s3_backup_sync"), verify, task("backup_info"))
    made, sent, proven, info = played.results
    assert [r["changed"] for r in played.results] == [True, True, True, False]

    # The set is what the result says, and PostgreSQL's own tool reads it.
    folder = Path(made["path"])
    assert site.local_sets() == [made["set"]] == [folder.name]
    payloads = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert (len(payloads), sum(p.stat().st_size for p in payloads)) == (made["files"], made["bytes"])
    assert {d["name"] for d in made["databases"]} == {*dataset.DATABASES, "postgres"}
    dumps = [path for path in payloads if path.read_bytes()[:5] == b"PGDMP"]
    assert len(dumps) == 3 or any(path.suffix in (".zst", ".gz", ".lz4") for path in payloads)
    for dump in dumps:
        assert "TOC Entries" in site.server.run("pg_restore", "--list", str(dump)).stdout

    # Every byte of it is in the bucket.
    assert sent["sets"] == [made["set"]] == site.remote_sets()
    for path in folder.rglob("*"):
        if path.is_file():
            key = "database-backups/%s/sets/%s/%s" % (site.instance, made["set"], path.relative_to(folder))
            assert site.store.client().get_object(Bucket=BUCKET, Key=key)["Body"].read() == path.read_bytes()

    # It was proven there, and the evidence lies beside it.
    assert [(s["outcome"], s["level"], s["place"]) for s in proven["sets"]] == [("passed", "restore", "s3")]
    assert proven["sets"][0]["evidence"] in site.objects()
    assert info["places"][1]["newest_verified"] == made["set"]
    assert info["state"] == "ok"

    # Everything is lost but the bucket.
    empty(site.server)
    subprocess.run(["rm", "-rf", str(site.backups)], check=True)
    assert databases_of(site.server) == {"postgres"}
    back = site.play(task("pg_restore_from_backup")).result
    assert back["changed"] is True
    assert (back["set"], back["place"]) == (made["set"], "s3")
    assert {d["name"] for d in back["databases"]} == set(dataset.DATABASES) <= databases_of(site.server)
    assert "ordering_owner" in back["roles_created"]
    assert compare.differences(before, compare.snapshot(site.server)) == []
    assert compare.compared_tables(before) > 20


# --- check mode and diff ----------------------------------------------------------------------------------------------


def test_check_mode_predicts_and_changes_nothing(shop: Site) -> None:
    held = shop.everything()
    twice = shop.play(task("pg_backup"), task("pg_backup"), flags=("--check", "--diff")).results
    assert shop.everything() == held
    made = shop.play(task("pg_backup"), flags=("--diff",)).result
    assert_predicted(twice, [made, made])

    there = {"place": "local", "set": "latest"}
    steps = [
        task("s3_backup_sync"),
        task("backup_verify", place="local", level="structure"),
        task("backup_pin", **there, reason="a test"),
        task("backup_prune", places=["local"]),
        task("pg_restore_from_backup", **there, databases=["shop"], rename={"shop": "shop_copy"}),
        task("backup_info", details=True),
    ]
    held = shop.everything()
    predicted = shop.play(*steps, *steps, flags=("--check", "--diff")).results
    assert shop.everything() == held
    done = shop.play(*steps, flags=("--diff",)).results
    assert_predicted(predicted, done + done)
    assert [r["changed"] for r in done] == [True, True, True, False, True, False]
    assert "shop_copy" in databases_of(shop.server)
    assert shop.remote_sets() == [made["set"]]


def assert_predicted(predicted: list[dict[str, Any]], done: list[dict[str, Any]]) -> None:
    """Assert that check mode said the same as the runs, as far as anybody can know it beforehand."""
    for before, after in zip(predicted, done, strict=True):
        assert not before.get("failed") and not after.get("failed"), (before.get("msg"), after.get("msg"))
        assert (before["dry_run"], after["dry_run"]) == (True, False)
        assert before["changed"] == after["changed"], after["verb"]
        assert diff_of(before) == diff_of(after), after["verb"]


def diff_of(result: dict[str, Any]) -> Any:
    """Return the diff without what nobody can know beforehand: ids of new sets and moments."""
    shown = json.loads(json.dumps(result.get("diff")))
    for side in ("before", "after") if shown else ():
        if shown[side].get("newest set") is not None:
            shown[side]["newest set"] = "a set"
        for value in shown[side].values():
            if isinstance(value, dict):
                value.pop("since", None)
    return shown


def test_a_plan_that_would_be_refused_fails_in_check_mode(shop: Site) -> None:
    wanted = {"place": "local", "set": "latest", "databases": ["shop"]}
    played = shop.play(
        task("pg_backup"), task("pg_restore_from_backup", CHECK, **wanted), task("pg_restore_from_backup", **wanted)
    )
    _unused, planned, real = played.results
    for failed in (planned, real):
        assert failed["failed"] is True
        assert (failed["outcome"], failed["exit_code"]) == ("refused", 5)
        assert "'shop'" in failed["msg"]
    assert planned["plan"]["refusals"]
    assert databases_of(shop.server) == {"postgres", "shop"}


# --- the second run ---------------------------------------------------------------------------------------------------


def test_a_second_run_changes_nothing(shop: Site) -> None:
    pin = task("backup_pin", set="latest", reason="before the upgrade", place="local")
    unverified = task("backup_verify", place="local", sets=["unverified"], level="checksum")
    each = [task("s3_backup_sync"), pin, unverified, task("s3_backup_sync"), task("backup_prune")]
    twice = [step for step in each for _unused in range(2)]
    made, *results = shop.play(task("pg_backup"), *twice).results
    # The second sync takes the evidence along, and nothing is old enough to be pruned.
    assert [r["changed"] for r in results] == [True, False, True, False, True, False, True, False, False, False]
    assert results[5]["sets"] == []
    kept = shop.backups / shop.instance / "pins" / made["set"]
    assert json.loads(kept.read_text())["reason"] == "before the upgrade"
    off = task("backup_pin", set=made["set"], state="absent", place="local")
    results = shop.play(off, off).results
    assert [(r["verb"], r["changed"]) for r in results] == [("unpin", True), ("unpin", False)]
    assert not kept.exists()


def test_prune_removes_by_the_rules_of_each_place_but_no_pin(shop: Site) -> None:
    pin = task("backup_pin", set="{{ r0.set }}", place="local", reason="audit")
    made = [task("pg_backup")] * 3
    old, middle, new = (r["set"] for r in shop.play(*made, task("s3_backup_sync"), pin).results[:3])
    rules = {"retention": {"keep_within": "1s", "keep_last": 1}}
    prune, check = task("backup_prune", **rules), task("backup_prune", CHECK, **rules)
    planned, done, again = shop.play(check, prune, prune, flags=("--diff",)).results
    both = {"local": [new, middle, old], "s3": [new, middle, old]}
    assert planned["diff"] == done["diff"] == {"before": both, "after": {**both, "local": [new, old]}}
    assert [r["changed"] for r in (planned, done, again)] == [True, True, False]
    assert [r["set"] for r in done["places"][0]["removed"]] == [middle]
    assert shop.local_sets() == [new, old]
    assert shop.remote_sets() == [new, middle, old]


# --- restore ----------------------------------------------------------------------------------------------------------


def test_a_swap_needs_its_word_and_keeps_the_old(shop: Site) -> None:
    wanted = {"place": "local", "set": "latest", "databases": ["shop"], "mode": "swap"}
    _unused, refused = shop.play(task("pg_backup"), task("pg_restore_from_backup", **wanted)).results
    assert (refused["failed"], refused["exit_code"]) == (True, 5)
    run_sql(shop.server, "shop", "DELETE FROM shop.sales WHERE no > 3")
    done = shop.play(task("pg_restore_from_backup", **wanted, confirm=["shop"]), flags=("--diff",)).result
    kept = done["databases"][0]["kept"]
    assert kept.startswith("shop_before_")
    assert databases_of(shop.server) == {"postgres", "shop", kept} == set(done["diff"]["after"]["databases"])
    assert run_sql(shop.server, "shop", "SELECT count(*) FROM shop.sales") == [(500,)]
    assert run_sql(shop.server, kept, "SELECT count(*) FROM shop.sales") == [(3,)]


def test_one_table_goes_into_a_database_of_its_own(shop: Site) -> None:
    wanted = {
        "place": "local",
        "set": "latest",
        "databases": ["shop"],
        "tables": ["shop.goods"],
        "rename": {"shop": "look"},
        "globals": "none",
        "ownership": False,
    }
    _unused, done = shop.play(task("pg_backup"), task("pg_restore_from_backup", **wanted)).results
    assert [d["name"] for d in done["databases"]] == ["look"]
    assert run_sql(shop.server, "look", "SELECT count(*) FROM shop.goods") == [(50,)]
    found = run_sql(
        shop.server, "look", "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'shop'::regnamespace"
    )
    assert found == [("goods",)]


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_damaged_set_fails_the_verification_with_its_differences(shop: Site) -> None:
    made = shop.play(task("pg_backup")).result
    files = [p for p in Path(made["path"]).rglob("*") if p.is_file() and p.name != "manifest.json"]
    payload = max(files, key=lambda path: path.stat().st_size)
    flip(payload)
    failed = shop.play(task("backup_verify", place="local", level="checksum")).failure
    assert (failed["outcome"], failed["exit_code"], failed["changed"]) == ("failed", 1, True)
    assert payload.name in failed["msg"]
    assert [(s["set"], s["outcome"]) for s in failed["sets"]] == [(made["set"], "failed")]
    assert any(payload.name in finding for finding in failed["sets"][0]["findings"])
    assert (shop.backups / shop.instance / failed["sets"][0]["evidence"]).is_file()


def test_a_failure_says_what_to_do(shop: Site) -> None:
    nowhere = {**shop.options["s3"], "bucket": "no-such-bucket"}
    expected = [
        (task("pg_backup", login_password="{{ wrong }}"), "unreachable", 4, "password authentication failed"),
        (task("pg_restore_from_backup", place="local"), "failed", 1, "No set in"),
        (task("s3_backup_sync", s3=nowhere), "failed", 1, "no-such-bucket"),
        (task("pg_backup", databases=["nowhere"]), "failed", 1, "nowhere"),
        (task("pg_backup", jobs=1000, lock_wait_timeout="soon"), "misused", 2, "backup.jobs"),
        (task("backup_pin", set="no-set", reason="x"), "misused", 2, "names no set"),
        (task("backup_verify", place="local"), "failed", 1, "There is no set"),
        (task("backup_info", config="/no/such/file.yml"), "misused", 2, "/no/such/file.yml"),
    ]
    played = shop.play(*(step for step, *_unused in expected), flags=("-vvv",), wrong="not-the-p4ssword")
    for failed, (_unused, outcome, code, said) in zip(played.results, expected, strict=True):
        assert failed["failed"] is True, said
        assert said in failed["msg"]
        assert failed["hint"], said
        assert failed["hint"] in failed["msg"]
        assert (failed["outcome"], failed["exit_code"], failed["changed"]) == (outcome, code, False), said
    assert "Traceback" not in played.output
    assert shop.local_sets() == []
    assert_silent(shop, played, "not-the-p4ssword")


def test_a_restore_to_a_server_that_is_down_says_so(shop: Site) -> None:
    step = task("pg_restore_from_backup", login_port=1, place="local", set="latest")
    failed = shop.play(task("pg_backup"), step).results[-1]
    assert (failed["outcome"], failed["exit_code"], failed["changed"]) == ("unreachable", 4, False)
    assert "Connection refused" in failed["msg"]
    assert failed["hint"]


def test_a_held_lock_is_told(shop: Site) -> None:
    shop.play(task("pg_backup"))
    with next(shop.state.rglob("backup.lock")).open("r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        failed = shop.play(task("pg_backup")).failure
    assert (failed["outcome"], failed["exit_code"]) == ("busy", 3)
    assert len(shop.local_sets()) == 1


def test_a_missing_library_is_named(shop: Site) -> None:
    hidden = shop.root / "hidden"
    hidden.mkdir()
    (hidden / "psycopg2.py").write_text("raise ImportError('hidden for a test')")
    (shop.root / "python").write_text('#!/bin/sh\nPYTHONPATH=%s exec %s "$@"\n' % (hidden, sys.executable))
    (shop.root / "python").chmod(0o755)
    shop.interpreter = str(shop.root / "python")
    failed = shop.play(task("pg_backup")).failure
    assert failed["exit_code"] == 4
    assert "psycopg2" in failed["msg"]
    assert "python3-psycopg2" in failed["hint"]


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_lie_over_the_configuration_file(shop: Site) -> None:
    said = {
        "instance": shop.instance,
        "postgres": {
            "login_host": shop.server.host,
            "login_port": 1,
            "login_user": shop.server.user,
            "login_password": shop.server.password,
            "bin_dir": str(shop.server.bindir),
        },
        "backup": {"format": "plain", "compression": "gzip", "globals": False},
        "local": {"path": str(shop.backups)},
        "state_dir": str(shop.state),
        "log_dir": str(shop.log),
    }
    path = shop.root / "config.yml"
    path.write_text(yaml.safe_dump(said))
    path.chmod(0o600)
    shop.options = {}
    given = {"config": str(path), "login_port": shop.server.port, "databases": ["shop"]}
    played = shop.play(task("pg_backup", **given), flags=("-vvv",))
    made = played.result
    assert [(d["name"], d["format"]) for d in made["databases"]] == [("shop", "plain")]
    assert made["choices"]["shop"]["compression"] == "gzip"
    assert "roles and tablespaces" in [left["what"] for left in made["left_out"]]
    assert "database postgres" in [left["what"] for left in made["uncovered"]]
    assert shop.local_sets() == [made["set"]]
    assert_silent(shop, played, keep=(path,))


# --- secrets and warnings ---------------------------------------------------------------------------------------------


def test_every_module_takes_the_defaults_of_the_group_and_shows_no_secret(shop: Site, receiver: HttpReceiver) -> None:
    """Neither in what Ansible prints at -vvv with diffs, nor in results, records, logs, manifests and evidence."""
    alerts = shop.root / "alerts.json"
    alerts.write_text(json.dumps({"alerts": {"webhook": {"url": receiver.url + "/hook"}}}))
    alerts.chmod(0o600)
    steps = [
        task("pg_backup"),
        task("pg_backup_role", name="keeper", password="{{ of_the_role }}"),
        task("s3_backup_bucket"),
        task("s3_backup_sync"),
        task("backup_verify", place="local", level="structure"),
        task("backup_pin", set="latest", reason="a test"),
        task("backup_prune"),
        task("backup_info", details=True),
        task("pg_restore_from_backup", set="latest", databases=["shop"], mode="swap", confirm=["shop"]),
        task("pg_restore_rollback", databases=["shop"]),
        task("backup_alert", action="test", config=str(alerts)),
    ]
    refused = task("pg_restore_from_backup", set="latest", databases=["shop"])
    assert sorted(name for name, *_unused in steps) == MODULES
    played = shop.play(*steps, refused, flags=("-vvv", "--diff"), of_the_role="keeps-what-it-reads")
    assert [r.get("msg") for r in played.results[:-1]] == [None] * len(MODULES)
    assert {r["instance"] for r in played.results} == {shop.instance}
    assert played.results[-1]["outcome"] == "refused"
    assert_silent(shop, played, "keeps-what-it-reads")


def assert_silent(site: Site, played: Played, *more: str, keep: tuple[Path, ...] = ()) -> None:
    """Assert that no secret stands in what was said, nor in a file of the site but those to `keep`."""
    secrets = [*site.secrets.values(), *more]
    said = played.output + json.dumps(played.results, ensure_ascii=False)
    for secret in secrets:
        assert secret not in said
    for path in site.root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path not in keep:
            content = path.read_bytes()
            for secret in secrets:
                assert secret.encode() not in content, path


def test_warnings_are_shown_and_kept(shop: Site) -> None:
    left = shop.backups / shop.instance / "sets" / ".unfinished-20260101T000000Z-logical"
    left.mkdir(parents=True)
    (left / "part").write_text("cut short")
    played = shop.play(task("pg_backup"))
    assert any(str(left) in warning for warning in played.result["run_warnings"])
    assert "[WARNING]" in played.output
    assert not left.exists()


def test_ansible_doc_renders_every_module(site: Site) -> None:
    program = Path(sys.executable).with_name("ansible-doc")
    names = ["pgops.backup.%s" % module for module in MODULES]
    command = [str(program), "-t", "module", "--json", *names]
    done = played(command, site.root)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert sorted(told) == names
    for name in names:
        assert {"login_host", "backup_dir", "s3", "config"} <= set(told[name]["doc"]["options"])
        assert told[name]["examples"]
        assert "run_warnings" in told[name]["return"]


def test_a_base_backup_and_a_recovery_beside_the_server(shop: Site) -> None:
    account = shop.server.account
    folder = Path(tempfile.mkdtemp(dir=shop.server.root))
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    copy = {"data_directory": str(folder / "data"), "stop": "immediate", "port": 5433}
    rescue = {
        "place": "local",
        "databases": ["shop"],
        "tables": ["shop.sales"],
        "rename": {"shop": "then"},
        "recovery": {"stop": "immediate"},
    }
    before = shop.everything()
    planned = shop.play(task("pg_backup", CHECK, kind="base", base={"compress_on": "client"})).result
    assert planned["plan"]["choices"]["base"]["by"] in ("client", "program")
    assert shop.everything() == before
    run_sql(shop.server, "postgres", "CREATE ROLE left_since LOGIN")
    taken = shop.play(task("pg_backup", kind="base")).result
    run_sql(shop.server, "postgres", "DROP ROLE left_since")
    try:
        played = shop.play(
            task("pg_restore_from_backup", CHECK, place="local", recovery=copy),
            task("pg_restore_from_backup", place="local", recovery={**copy, "time": "2026-11-22 14:31:07"}),
            task("pg_restore_from_backup", place="local", recovery=copy),
            task("pg_restore_from_backup", place="local", recovery=copy),
            task("pg_restore_from_backup", CHECK, **rescue),
            task("pg_restore_from_backup", **rescue),
            task("pg_restore_from_backup", **{**rescue, "globals": "missing", "rename": {"shop": "then_too"}}),
            task("pg_restore_from_backup", **{**rescue, "databases": ["shop", "postgres"]}),
            task("pg_restore_from_backup", place="local", recovery={"stop": "immediate"}),
            task("pg_restore_rollback", data_directory=copy["data_directory"]),
            task("pg_restore_rollback", data_directory=copy["data_directory"], databases=["shop"]),
        )
        plan, unclear, recovered, again, *others = played.results
        assert taken["set"].endswith("-base")
        assert plan["plan"]["set"] == taken["set"]
        assert plan["plan"]["refusals"] == []
        assert "Several targets" in unclear["msg"]
        assert unclear["exit_code"] == 2
        assert not recovered.get("failed"), recovered["msg"]
        assert (recovered["changed"], recovered["verb"], recovered["set"]) == (True, "recover", taken["set"])
        assert "reaching consistency" in recovered["stopped"]["log"]
        with cursor(shop.server, "shop", host=recovered["socket_directory"], port=5433) as asked:
            asked.execute("SELECT count(*) FROM shop.sales")
            assert asked.fetchone() == (500,)
        assert "is not empty" in again["msg"]
        assert again["exit_code"] == 5
        would, rescued, with_roles, many, nowhere, nothing_kept, both = others
        assert (would["plan"]["name"], would["plan"]["refusals"], would["dry_run"]) == ("then", [], True)
        assert not rescued.get("failed"), rescued["msg"]
        assert (rescued["verb"], rescued["name"], rescued["database"]) == ("rescue", "then", "shop")
        assert rescued["roles_created"] == [], "who was dropped since does not come back unasked"
        assert with_roles["roles_created"] == ["left_since"]
        assert run_sql(shop.server, "then", "SELECT count(*) FROM shop.sales") == [(500,)]
        assert run_sql(shop.server, "then", "SELECT to_regclass('shop.goods')") == [(None,)]
        assert "names the one that is rescued" in many["msg"]
        assert "needs recovery.data_directory" in nowhere["msg"]
        assert "that was kept of" in nothing_kept["msg"]
        assert (both["exit_code"], "exclude each other" in both["msg"]) == (2, True)
    finally:
        stop = [str(shop.server.bindir / "pg_ctl"), "stop", "-m", "immediate", "-D", str(folder / "data")]
        subprocess.run(stop, user=account.pw_name if account else None, cwd="/", check=False, capture_output=True)
