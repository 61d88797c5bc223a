# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules that see to the host, as users run them: what they lay down backs up a real server and proves it."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.servers import MotoS3
from tests.integration.cli_fixtures import ENGINE
from tests.integration.conftest import BUCKET, Servers, create_shop, empty
from tests.integration.playing import played
from tests.integration.test_modules import CHECK, Played, Site, Task, assert_silent, task

# Blanks, quotes and all else that a shell, YAML, INI or cron takes for its own.
HOSTILE = 'p\'w "x" $HOME %d #1 { no } ö\\n'
ACCOUNT = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}


@pytest.fixture
def site(tmp_path: Path, servers: Servers, store: MotoS3) -> Site:
    """A site with a small database on its server."""
    server = servers.get("modules", 18)
    empty(server)
    made = Site(tmp_path, server, store)
    create_shop(server)
    return made


def program(site: Site, **others: Any) -> Task:
    paths = {name: str(site.root / "usr" / name) for name in ("lib", "bin", "completion", "man", "logrotate")}
    return task("pgops_program", python=sys.executable, **{**paths, **others})


def config(site: Site, **sections: Any) -> Task:
    content: dict[str, Any] = {
        "instance": site.instance,
        "postgres": {
            "login_host": site.server.host,
            "login_port": site.server.port,
            "login_user": site.server.user,
            "bin_dir": str(site.server.bindir),
        },
        "local": {"path": str(site.backups)},
        "s3": {
            "bucket": BUCKET,
            "endpoint_url": site.store.endpoint_url,
            "region": site.store.region,
            "addressing_style": "path",
        },
        "verify": {"server_bin_dir": str(site.server.bindir)},
        "state_dir": str(site.state),
        "log_dir": str(site.log),
        **sections,
    }
    secrets = {
        "postgres_password": "{{ pg_password }}",
        "s3_access_key": "{{ s3_access_key }}",
        "s3_secret_key": "{{ s3_secret_key }}",
        # It is part of the name of the instance, which must be the same in what steers the plays.
        "smtp_password": site.instance[:7],
    }
    path = str(site.root / "etc" / "config.yml")
    return task("pgops_config", path=path, content=content, secrets=secrets, **ACCOUNT)


def pgops(site: Site, *words: str) -> dict[str, Any]:
    """Run the program that was laid down, in an environment as empty as cron's."""
    done = subprocess.run(
        [
            str(site.root / "usr" / "bin"),
            *words,
            "--config",
            str(site.root / "etc" / "config.yml"),
            "--as-root",
            "--json",
        ],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def secret_files(site: Site) -> tuple[Path, ...]:
    return tuple((site.root / "etc" / "secrets").iterdir())


def looked(site: Site, **more: Any) -> dict[str, Any]:
    """Return what a look at the host tells of the program and the configuration; its secrets are seen nowhere."""
    digest = "{{ lookup('pgops.backup.engine').digest }}"
    wanted = {
        "configurations": [config(site)[1]],
        "program": {**program(site)[1], "digest": digest},
    }
    played = site.play(task("pgops_host_info", wanted=wanted, **more), flags=("--diff", "-vvv"))
    assert_silent(site, played, keep=secret_files(site) if (site.root / "etc").exists() else ())
    return played.result


def changed(played: Played) -> list[bool]:
    assert [r.get("msg") for r in played.results] == [None] * len(played.results)
    return [r["changed"] for r in played.results]


def test_what_is_laid_down_backs_up_copies_and_proves(site: Site) -> None:
    steps = (program(site), config(site))
    bare = looked(site, status=True)
    assert (bare["lacking"], bare["answers"]) == (["configurations", "program"], [])
    planned = site.play(*steps, flags=("--check", "--diff"))
    assert changed(planned) == [True, True]
    assert not (site.root / "usr").exists()
    assert not (site.root / "etc").exists()

    made = site.play(*steps, flags=("--diff", "-vvv"))
    assert changed(made) == [True, True]
    assert_silent(site, made, keep=secret_files(site))
    assert_silent(site, planned, keep=secret_files(site))
    laid = made.results[0]
    version = pgops(site, "version")
    assert (version["version"], version["digest"]) == (laid["version"], laid["digest"])

    assert pgops(site, "backup")["set"] in site.local_sets()
    assert pgops(site, "sync")["sets"] == site.remote_sets()
    assert pgops(site, "verify", "--level", "restore")["sets"][0]["outcome"] == "passed"
    assert pgops(site, "prune")["outcome"] == "ok"
    assert pgops(site, "status")["state"] == "ok"

    again = site.play(*steps, flags=("--diff",))
    assert changed(again) == [False, False]
    assert [r["diff"] for r in again.results] == [[], []]
    seen = looked(site, status=True)
    assert seen["lacking"] == []
    assert [(one["instance"], one["said"]["state"]) for one in seen["answers"]] == [(site.instance, "ok")]


def test_every_module_of_the_engine_that_the_program_needs_travels(site: Site) -> None:
    site.play(program(site))
    home = (site.root / "usr" / "lib" / "current").resolve()
    code = (
        "import importlib, pkgutil, sys; sys.path.insert(0, sys.argv[1]); import pgops\n"
        "for found in pkgutil.walk_packages(pgops.__path__, 'pgops.'): importlib.import_module(found.name)\n"
        "import pgops.verbs.restore, pgops.verbs.rehearsal, pgops.reference, pgops.places.s3_wire"
    )
    # -S keeps third-party packages away: the engine imports none before it needs one.
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(home)], check=True)
    # All of it: a look compares with the digest of the whole engine.
    there, here = ({str(path.relative_to(top)) for path in top.rglob("*.py")} for top in (home / "pgops", ENGINE))
    assert there - {"__main__.py"} == here - {"__main__.py"}


def test_a_hostile_secret_comes_through_ansible_to_the_letter(site: Site) -> None:
    played = site.play(config(site), flags=("-vvv", "--diff"), pg_password=HOSTILE)
    assert changed(played) == [True]
    assert (site.root / "etc" / "secrets" / "config.postgres_password").read_text() == HOSTILE + "\n"
    assert_silent(site, played, HOSTILE, HOSTILE[1:-1], keep=secret_files(site))


def test_a_secret_in_the_wrong_place_is_refused_and_not_shown(site: Site) -> None:
    inline = config(
        site,
        postgres={"login_password": "{{ pg_password }}"},
        s3={"bucket": BUCKET, "secret_key": "{{ s3_secret_key }}"},
    )
    played = site.play(inline, flags=("-vvv", "--diff"))
    assert played.failure["outcome"] == "misused"
    assert "content holds a secret (postgres.login_password)" in played.failure["msg"]
    assert not (site.root / "etc").exists()
    assert_silent(site, played)


def test_every_error_of_the_configuration_is_told_at_once(site: Site) -> None:
    wrong = config(site, backup={"jobs": "x", "fromat": "auto"}, schedule={"sync": "daily"})
    schedule = {
        "instances": [{"name": site.instance}],
        "mailto": "a'b",
        "timezone": "UTC",
        "random_delay": "0s",
        "wait": "6h",
    }
    unlike = {**schedule, "of_instances": {"timezone": ["UTC", "Europe/Berlin"], "random_delay": ["0s"]}}
    look = task("pgops_host_info", wanted={"configurations": [wrong[1]], "schedule": schedule})
    other = task("pgops_host_info", wanted={"configurations": [config(site)[1]], "schedule": unlike})
    failure = site.play(wrong).failure
    said = site.play(look).failure["msg"]
    assert said.startswith(failure["msg"].rpartition("\n")[0] + "\n"), (
        "also what is wrong with the schedule, before anything is touched"
    )
    assert 'mailto: "a\'b" is no address' in said
    assert "differ in schedule.timezone (UTC, Europe/Berlin)." in site.play(other).failure["msg"]
    for part in (
        "backup.jobs",
        "backup.fromat: unknown key. Did you mean format?",
        "schedule.sync: 'daily' is not a calendar",
    ):
        assert part in failure["msg"]
    assert (failure["outcome"], failure["exit_code"]) == ("misused", 2)


def test_an_upgrade_names_what_was_there_and_removes_it(site: Site) -> None:
    site.play(program(site))
    current = site.root / "usr" / "lib" / "current"
    old = current.parent / "0.0.9-0123456789ab"
    current.resolve().rename(old)
    current.unlink()
    current.symlink_to(old.name)
    result = site.play(program(site)).result
    assert (result["changed"], result["before"], result["removed"]) == (True, "0.0.9", [str(old)])


def test_all_can_be_taken_away_but_the_backups(site: Site) -> None:
    site.play(program(site), config(site))
    pgops(site, "backup")
    gone = (
        task("pgops_config", path=str(site.root / "etc" / "config.yml"), state="absent"),
        program(site, state="absent"),
    )
    assert changed(site.play(*gone)) == [True, True]
    assert not (site.root / "etc").exists()
    assert [path for path in (site.root / "usr").rglob("*") if path.is_file()] == []
    assert site.local_sets()
    assert changed(site.play(*gone)) == [False, False]


def test_a_schedule_is_predicted_from_the_configuration(site: Site) -> None:
    """In check mode, as this is no host of ours to schedule on; the units and the table have their own tests."""
    site.play(program(site), config(site, schedule={"backup": "@hourly", "verify": ""}))
    wanted = task(
        "pgops_schedule",
        CHECK,
        kind="systemd",
        instances=[{"name": site.instance, "config": str(site.root / "etc" / "config.yml")}],
        program=str(site.root / "usr" / "bin"),
        account=ACCOUNT["owner"],
    )
    result = site.play(wanted, flags=("--diff",)).result
    assert sorted(result["next_runs"][site.instance]) == ["backup", "prune", "sync"]
    shown = "".join(entry["after"] for entry in result["diff"])
    for line in ("OnCalendar=*-*-* *:00:00", "ReadWritePaths=-%s" % site.backups, "NoNewPrivileges=yes", "--wait 6h"):
        assert line in shown, line


def test_ansible_doc_renders_the_modules_of_the_host(site: Site) -> None:
    names = ["pgops.backup.%s" % name for name in ("pgops_config", "pgops_program", "pgops_schedule")]
    tool = Path(sys.executable).with_name("ansible-doc")
    command = [str(tool), "-t", "module", "--json", *names]
    done = played(command, site.root)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert sorted(told) == names
    for name in names:
        assert told[name]["examples"]
        assert told[name]["doc"]["attributes"]["check_mode"]["support"] == "full"
        assert "run_warnings" in told[name]["return"]
