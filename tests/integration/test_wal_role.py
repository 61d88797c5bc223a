# SPDX-License-Identifier: GPL-3.0-or-later
"""The role wal_archive on a server of its own: check, converge, the second run, and what the server says then."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from demo.servers import PostgresServer
from tests.integration.conftest import ROOT, Servers, run_sql
from tests.integration.playing import played

RECAP = re.compile(r"changed=(\d+)\s+unreachable=0\s+failed=(\d+)")


class Controller:
    """Ansible with this collection, and the server as a host of it."""

    def __init__(self, root: Path, server: PostgresServer | SimpleNamespace) -> None:
        self.root = root
        self.through: list[str] = []
        host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
        (root / "inventory.yml").write_text(yaml.safe_dump({"databases": {"hosts": {"db1": host}}}))
        # The program itself, by a configuration that lies here.
        (root / "pgops.d").mkdir()
        (root / "pgops.d" / "pgops").symlink_to(ROOT / "plugins" / "module_utils" / "_engine")
        (root / "config.yml").write_text(
            yaml.safe_dump({"instance": "db1-main", "local": {"path": str(root / "backups")}})
        )
        (root / "pgops").write_text(
            f'#!/bin/sh\necho "$PWD" "$@" >> "{root}/calls"\n'
            f'PYTHONPATH={root}/pgops.d PGOPS_CONFIG={root}/config.yml exec {sys.executable} -m pgops "$1" "$2" "$3" "$6"\n'
        )
        (root / "pgops").chmod(0o755)
        self.variables: dict[str, Any] = {
            "pgops_postgres": {"login_port": server.port},
            "wal_archive_program": str(root / "pgops"),
            "wal_archive_psql": str(server.bindir / "psql"),
            "wal_archive_login_unix_socket": str(server.socket_dir),
            "wal_archive_ship": False,
            "__wal_archive_directory": str(root),
            "pgops_wal": {"enabled": True},
        }

    def play(self, *flags: str, failed: int = 0, **variables: Any) -> tuple[int, str]:
        """Apply the role; return how many tasks changed something, and what Ansible said."""
        book, told = self.root / "play.yml", self.root / "variables.json"
        book.write_text(
            yaml.safe_dump([{"hosts": "all", "gather_facts": False, "roles": [{"role": "pgops.backup.wal_archive"}]}])
        )
        told.write_text(json.dumps({**self.variables, **variables}))
        program = Path(sys.executable).with_name("ansible-playbook")
        words = [str(program), "-i", str(self.root / "inventory.yml"), "-e", "@%s" % told, *flags, str(book)]
        words = [*self.through, *words]
        done = played(words, self.root)
        output = done.stdout + done.stderr
        found = RECAP.search(output)
        assert found is not None, output
        assert int(found[2]) == failed, output
        return int(found[1]), output


def settings(server: PostgresServer) -> dict[str, str]:
    return dict(
        run_sql(
            server,
            "postgres",
            "SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf' ORDER BY seqno",
        )
    )


@pytest.mark.slow
def test_the_role_sets_what_differs_and_says_what_waits_for_a_restart(servers: Servers, tmp_path: Path) -> None:
    server = servers.get("wal-role", 18)
    ansible = Controller(tmp_path, server)
    changed, said = ansible.play("--check")
    assert changed == 1
    assert "Would set archive_command, archive_mode, archive_timeout of db1-main" in said
    assert "archive_mode need a restart of the server, which ends every connection" in said
    assert "it would be left to you (wal_archive_restart is false)" in said
    assert settings(server) == {}

    changed, said = ansible.play()
    assert changed == 1
    assert "does not archive yet" in said
    assert "archive_mode need a restart" in said
    command = "%s wal archive --config %s %%p" % (tmp_path / "pgops", tmp_path / "config.yml")
    assert settings(server) == {"archive_mode": "on", "archive_command": command, "archive_timeout": "60"}
    assert run_sql(server, "postgres", "SHOW archive_mode") == [("off",)], "nobody allowed a restart"

    changed, said = ansible.play()
    assert changed == 0
    assert "does not archive yet" in said, "it says so until somebody does it"
    server.stop()
    server.start()
    assert run_sql(server, "postgres", "SHOW archive_mode") == [("on",)]
    assert run_sql(server, "postgres", "SHOW archive_timeout") == [("1min",)]

    # It was promoted once, while it did not archive.
    (server.data_dir / "pg_wal" / "00000002.history").write_text("1\t0/3000000\tno recovery target specified\n")
    assert not (tmp_path / "calls").exists()
    # Where Perl is, the client lies beside the program; it takes a reload, no restart.
    (tmp_path / "pgops-wal").touch(mode=0o755)
    changed, _said = ansible.play()
    assert changed == 2
    assert settings(server)["archive_command"] == command.replace("/pgops wal", "/pgops-wal wal")
    called = "wal archive --verbose --config %s pg_wal/00000002.history" % (tmp_path / "config.yml")
    assert (tmp_path / "calls").read_text() == "%s %s\n" % (server.data_dir, called)
    assert len(list((tmp_path / "backups").rglob("00000002.history*"))) == 1
    changed, _said = ansible.play()
    assert changed == 0, "it is there already"

    _changed, said = ansible.play(failed=1, pgops_wal={})
    assert "No instance of db1 archives its WAL" in said
    _changed, said = ansible.play(failed=1, pgops_secrets={"database_url": "postgresql://u:hidden@db9.example.com/"})
    assert "An instance of db1 logs in elsewhere" in said
    assert "hidden" not in said
    _changed, said = ansible.play(failed=1, wal_archive_program="/nowhere/pgops")
    assert "Apply the role agent first" in said

    # As where the agent could not write it: the server goes on with what it has.
    before = settings(server)
    (tmp_path / "config.yml").rename(tmp_path / "away.yml")
    _changed, said = ansible.play(failed=1, wal_archive_timeout=120)
    assert "%s: there is no such file" % (tmp_path / "config.yml") in " ".join(said.split())
    assert settings(server) == before


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="units of its own need root")
def test_a_service_that_somebody_masked_stays_so(tmp_path: Path) -> None:
    ansible = Controller(tmp_path, SimpleNamespace(port=5432, bindir=tmp_path, socket_dir=tmp_path))
    (units := tmp_path / "units").mkdir()
    script = 'mount --bind "$0" /etc/systemd/system && exec "$@"'
    ansible.through = ["unshare", "--mount", "--propagation=private", "sh", "-c", script, str(units)]
    flags, told = ("--check", "--tags", "wal_archive_ship"), {"wal_archive_ship": True, "pgops_s3": {"bucket": "b"}}
    changed, _said = ansible.play(*flags, **told)
    assert changed == 1
    name = "pgops_wal_ship@db1-main.service"
    (units / name).symlink_to("/dev/null")
    changed, said = ansible.play(*flags, failed=1, **told)
    assert changed == 0
    assert "Somebody masked %s" % name in " ".join(said.split())
    assert "systemctl unmask %s" % name in " ".join(said.split())


@pytest.mark.slow
def test_archiving_ends_where_the_configuration_asks_for_it_no_more(servers: Servers, tmp_path: Path) -> None:
    server = servers.get("wal-role-end", 18)
    ansible = Controller(tmp_path, server)
    # Two are elsewhere, and were never set up from here.
    far = {"name": "far", "postgres": {"login_host": "db9.example.com"}, "wal": {"enabled": True}}
    farther = {"name": "farther", "secrets": {"database_url": "postgresql://u:p@db9.example.com/"}}
    away: dict[str, Any] = {
        "wal_archive_state": "absent",
        "pgops_wal": {"enabled": False},
        "pgops_instances": [{"name": "db1-main"}, far, farther],
    }
    command = "%s wal archive --config %s %%p" % (tmp_path / "pgops-wal", tmp_path / "config.yml")
    run_sql(server, "postgres", "ALTER SYSTEM SET archive_mode = on")
    run_sql(server, "postgres", "ALTER SYSTEM SET archive_command = '%s'" % command)
    server.stop()
    server.start()
    changed, said = ansible.play(**away)
    assert changed == 1
    assert settings(server) == {"archive_command": "/bin/true"}, (
        "without one it would keep all its WAL until the restart"
    )
    assert "once more" in said

    server.stop()
    server.start()
    changed, said = ansible.play("--check", **away)
    assert changed == 1
    assert "Would take the archive_command of db1-main out" in said
    assert settings(server) == {"archive_command": "/bin/true"}
    changed, _said = ansible.play(**away)
    assert changed == 1
    assert settings(server) == {}

    # Of somebody else, it stays.
    run_sql(server, "postgres", "ALTER SYSTEM SET archive_command = '/usr/bin/other %p'")
    changed, _said = ansible.play(**away)
    assert changed == 0
    assert settings(server) == {"archive_command": "/usr/bin/other %p"}

    # Nor does the role take its place unasked.
    with (server.data_dir / "postgresql.conf").open("a") as stream:
        stream.write("archive_library = 'walg'\n")
    run_sql(
        server,
        "postgres",
        "ALTER SYSTEM SET archive_command = 'X_TOKEN=hush1 wal-g --aws-secret ''hush2'' wal-push %p'",
    )
    before = settings(server)
    _changed, said = ansible.play("-vv", failed=1)
    assert "db1-main is archived by something else: archive_command" in said
    assert "X_TOKEN=******** wal-g --aws-secret ******** wal-push %p" in said
    assert "archive_library (walg)" in said
    assert "wal_archive_replace" in said
    assert "hush" not in said
    assert settings(server) == before
    changed, said = ansible.play("--check", wal_archive_replace=True)
    assert (changed, "Would replace what archives db1-main" in said) == (1, True)
    assert settings(server) == before
    _changed, said = ansible.play(wal_archive_replace=True)
    assert ("wal-push %p" in said, "hush" in said) == (True, False)
    assert settings(server) == {
        "archive_command": command.replace("pgops-wal", "pgops"),  # no client is here
        "archive_library": "",
        "archive_mode": "on",
        "archive_timeout": "60",
    }
