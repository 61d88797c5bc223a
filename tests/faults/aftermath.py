# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold after every fault, asked of the disk, the server and the kernel, not of the program that failed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from demo.servers import PostgresServer
from tests.integration.cli_fixtures import Program
from tests.integration.conftest import Site, run_sql, sha256, wait_for

PATIENCE = 60  # seconds; what was told to end may be slow on a busy machine


def fails(program: Program, *arguments: str, code: int, says: str, hint: str, record: bool = True) -> dict[str, Any]:
    """Run the program into a fault: it says what is wrong and what to do, ends with `code`, records it, leaves nothing.

    Return its result. `record=False` is for a disk that cannot take a record.
    """
    return failed(program, program.json(*arguments, code=code), says=says, hint=hint, record=record)


def failed(program: Program, result: dict[str, Any], *, says: str, hint: str, record: bool = True) -> dict[str, Any]:
    """Check a result that tells a fault, its record, and what is left; return the result."""
    assert result["exit_code"] > 0
    assert re.search(says, result["message"]), result["message"]
    assert re.search(hint, result["hint"]), (result["message"], result["hint"])
    if record:
        last = program.site.records()[-1]
        told = (last["verb"], last["outcome"], last["exit_code"])
        assert told == (result["verb"], result["outcome"], result["exit_code"])
        assert re.search(says, last["reason"]), last["reason"]
        assert program.site.instance in (program.site.root / "log" / ("%s.log" % last["verb"])).read_text()
    nothing_is_left(program.site)
    return result


def works_again(program: Program, level: str = "structure") -> str:
    """After the fault: a backup is made, proven at `level`, recorded, and nothing is left over. Return its set."""
    set_id = str(program.json("backup")["set"])
    last = program.site.records()[-1]
    assert (last["verb"], last["outcome"], last["set"]) == ("backup", "ok", set_id)
    report = program.json("verify", set_id, "--level", level)["sets"][0]
    assert (report["set"], report["level"], report["outcome"]) == (set_id, level, "passed")
    nothing_is_left(program.site)
    return set_id


def nothing_is_left(site: Site, server: PostgresServer | None = None) -> None:
    """Only whole sets, no temporary file, no process, no session, no slot and no half-made database."""
    for name in site.sets():
        assert not name.startswith("."), name
        whole(site, name)
    left = unfinished(site)
    assert left == [], left
    wait_for(lambda: not programs_of(site), seconds=PATIENCE)
    wait_for(lambda: not servers_of(site), seconds=PATIENCE)
    on_server(server or site.server)


def whole(site: Site, set_id: str) -> None:
    """The set has a manifest, and its files are what that says."""
    folder = site.set_folder(set_id)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["id"] == set_id
    for file in manifest["files"]:
        assert sha256(folder / file["path"]) == file["sha256"], file


def unfinished(site: Site) -> list[str]:
    """Return the temporary files and folders of the site."""
    found = []
    for path in (*site.root.rglob("*"), *Path("/var/tmp").glob("pgops-verify-%s-*" % site.instance)):
        temporary = path.name.endswith((".tmp", ".partial")) or path.name.startswith(
            (".unfinished-", ".trash-", "pgops-")
        )
        if temporary or path.parent.name == "work":
            found.append(str(path))
    return found


def programs_of(site: Site) -> list[str]:
    """Return the command lines of PostgreSQL's programs that work for pgops at the server of the site."""
    port = b"PGPORT=%d\0" % site.server.port
    return [line for facts, line in _processes("environ") if b"PGAPPNAME=pgops" in facts and port in facts]


def servers_of(site: Site) -> list[str]:
    """Return the directories of the throwaway servers of the site that run."""
    homes = ("/var/tmp/pgops-verify-%s-" % site.instance, str(site.root))
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            cwd = os.readlink(process / "cwd")
        except OSError:
            continue
        if cwd.startswith(homes) and "verify" in cwd:
            found.append(cwd)
    return found


def _processes(facts: str) -> list[tuple[bytes, str]]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            found.append(((process / facts).read_bytes(), line))
        except OSError:
            continue
    return found


def on_server(server: PostgresServer) -> None:
    """The server has no session, no slot and no prepared transaction of ours, and no database that is half-made or shut."""
    wait_for(lambda: sessions(server) == [], seconds=PATIENCE)
    asked = "SELECT slot_name FROM pg_replication_slots UNION ALL SELECT gid FROM pg_prepared_xacts"
    assert run_sql(server, "postgres", asked) == []
    half = (
        "SELECT datname FROM pg_database WHERE datname LIKE 'pgops-%' OR (NOT datallowconn AND datname <> 'template0')"
    )
    assert run_sql(server, "postgres", half) == []


def sessions(server: PostgresServer) -> list[tuple[Any, ...]]:
    """Return what sessions of ours do at the server."""
    asked = "SELECT pid, query FROM pg_stat_activity WHERE application_name LIKE 'pgops%' OR application_name LIKE 'pg_dump%'"
    return run_sql(server, "postgres", asked)
