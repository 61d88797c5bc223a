# SPDX-License-Identifier: GPL-3.0-or-later
"""Those who ask whether the backups are in order, on sets that the engine made of a real server: check, metrics, checklist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from demo.servers import MotoS3, PostgresServer
from tests.integration.cli_fixtures import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    Program,
    program_builder,
    shop_program,
)
from tests.integration.conftest import ROOT, flip
from tests.integration.playing import played
from tests.tools.prometheus import promtool


def plugin(program: Program, *arguments: str, code: int = 0) -> str:
    """Run the check and return its line."""
    done = program("check", *arguments, code=code)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    return done.stdout


def test_a_night_is_seen_by_all_who_ask(bench: PostgresServer, shop: Program, store: MotoS3, tmp_path: Path) -> None:
    del bench
    textfile = tmp_path / "textfile"
    textfile.mkdir()
    shop.site.use_s3(store)
    shop.configure(metrics={"textfile_directory": str(textfile)}, verify={"place": "s3"})
    written = textfile / ("pgops-%s.prom" % shop.site.instance)

    assert plugin(shop, "backup", code=2).startswith("PGOPS BACKUP CRITICAL - There is no backup at all.")
    shop("backup")
    assert re.match(
        r"PGOPS BACKUP OK - The newest backup .* \| backup_age=\d\S*s;;93600;0 backup_size=", plugin(shop, "backup")
    )
    assert "There is no backup off this server" in plugin(shop, "sync", code=2)
    assert not re.search(r"run_last_success\{[^}]*sync", written.read_text())
    shop("sync")
    assert plugin(shop, "sync").startswith("PGOPS SYNC OK")
    assert "proven to restore" in plugin(shop, "verify", code=1)
    shop("verify")
    assert plugin(shop, "verify", "-w", "1h", "-c", "2h").startswith("PGOPS VERIFY OK")
    assert plugin(shop, "backup", "-w", "@0:1h", code=1).startswith("PGOPS BACKUP WARNING")

    text = written.read_text()
    assert 'verb="verify"} 1\n' in text
    assert written.stat().st_mode & 0o777 == 0o644
    done = subprocess.run(
        [str(promtool()), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    shown = shop("metrics").stdout
    names = {line.split("{")[0] for line in text.splitlines() if not line.startswith("#")}
    assert {line.split("{")[0] for line in shown.splitlines() if not line.startswith("#")} == names

    ticked = {
        line["id"]: line for stage in shop.json("checklist")["stages"] for line in stage["lines"] if line["ticked"]
    }
    assert {"day-1.backup", "day-1.covered", "day-1.copy", "day-1.proof", "deployment.metrics", "week-1.whole"} <= set(
        ticked
    )
    assert not {"week-1.nights", "before.store", "week-2.restore", "deployment.schedule"} & set(ticked)
    shop("probe")
    shop("restore", "--database", "shop", "--rename", "shop", "shop_test", "--yes")
    shop("checklist", "sign", "week-2.application", "--name", "Ada")
    later = shop("checklist", "week-2").stdout
    assert "(2 of 2)" in later
    assert "[x] The store off the server can do all that is needed" in shop("checklist", "before").stdout

    status = " ".join(shop("status").stdout.split())
    assert re.search(r"newest [\w. ]+ ago \(\d\S* KiB\), verified", status)


def test_trouble_is_seen_too_and_what_is_broken_is_unknown(shop: Program) -> None:
    set_id = shop.json("backup")["set"]
    flip(next(shop.site.set_folder(set_id).glob("databases/*")))
    shop("verify", "--level", "checksum", code=1)
    assert "failed its verification" in plugin(shop, "verify", code=2), "as the alert says"
    assert plugin(shop, "all", code=2).startswith("PGOPS CRITICAL - ")
    assert set_id in shop("checklist", "week-1").stdout
    shop.config.write_text("{")
    assert plugin(shop, code=3).startswith("PGOPS UNKNOWN - ")
    shop.config.chmod(0o644)
    shop.configure(backup={"jobs": "many"})
    assert "backup.jobs" in plugin(shop, code=3)


def test_a_server_that_is_gone_leaves_the_metrics_of_the_failure(
    make_program: Callable[..., Program], bench: PostgresServer, tmp_path: Path
) -> None:
    program = make_program(bench)
    textfile = tmp_path / "textfile"
    textfile.mkdir()
    program.configure(metrics={"textfile_directory": str(textfile)}, postgres={"login_port": 1})
    program("backup", code=4)
    (written,) = textfile.iterdir()
    assert re.search(r'pgops_run_last_success\{[^}]*verb="backup"\} 0\n', written.read_text())
    assert "\npgops_state{" in written.read_text()
    said = json.loads(program("check", "--json", code=2).stdout)
    assert said["state"] == "critical"
    assert os.listdir(textfile) == [written.name]


def test_the_playbook_shows_the_checklist_and_writes_it_for_a_wiki(shop: Program, tmp_path: Path) -> None:
    shop("backup")
    shop("checklist", "sign", "before.people", "--name", "Ada")
    wiki = tmp_path / "wiki"
    wiki.mkdir()
    # The program of the site takes the place of the one that the role agent lays down.
    program = tmp_path / "pgops"
    program.write_text(
        '#!/bin/sh\nPYTHONPATH=%s exec %s -m pgops "$@"\n' % (shop.environ["PYTHONPATH"], sys.executable)
    )
    program.chmod(0o755)
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"databases": {"hosts": {"db1": {}}, "vars": local}}))
    told = {
        "ansible_become": False,
        "pgops_play_program": str(program),
        "pgops_play_instances": [{"key": shop.site.instance, "value": str(shop.config)}],
        "markdown": str(wiki),
    }
    playbook = Path(sys.executable).with_name("ansible-playbook")
    words = [str(playbook), "-i", str(tmp_path / "hosts.yml"), "-e", json.dumps(told), "pgops.backup.checklist"]
    done = played(words, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[x] There is a recent backup (operator)" in done.stdout
    (page,) = wiki.iterdir()
    assert page.name == "db1-%s.md" % shop.site.instance
    assert page.read_text().startswith("# Checklists of ")
    assert "Signed by Ada on " in page.read_text()


def test_checks_are_offered_where_there_is_something_to_check(tmp_path: Path) -> None:
    role = ROOT / "roles" / "monitoring"
    instances = [
        {"name": "plain"},
        {"name": "archived", "wal": {"enabled": True}},
        {"name": "copied", "schedule": {"base": "0 1 * * 0"}},
        {"name": "waldumps", "wal": {"enabled": True}, "schedule": {"base": ""}},
    ]
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(role / "defaults" / "main.yml"), str(role / "vars" / "main.yml")],
        "vars": {
            "pgops_instances": instances,
            "ansible_python_interpreter": sys.executable,
        },
        "tasks": [
            {
                "ansible.builtin.template": {
                    "src": str(role / "templates" / (name + ".j2")),
                    "dest": str(tmp_path / name),
                }
            }
            for name in ("nrpe.cfg", "sudoers")
        ],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    words = [sys.executable, "-m", "ansible.cli.playbook", "-i", "localhost,", str(tmp_path / "play.yml")]
    done = played([*words, "-e", json.dumps({"monitoring_sudo_accounts": ["icinga"]})], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    always = {"all", "backup", "sync", "verify", "space", "size", "restore"}
    for name in ("nrpe.cfg", "sudoers"):
        said = (tmp_path / name).read_text()
        offered = {one["name"]: set(re.findall(r"/%s\.yml check (\w+)" % one["name"], said)) for one in instances}
        assert offered == {
            "plain": always,
            "archived": {*always, "wal", "base"},
            "copied": {*always, "base"},
            "waldumps": {*always, "wal"},
        }
