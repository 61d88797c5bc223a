# SPDX-License-Identifier: GPL-3.0-or-later
"""Backup and restore of one database, on one Debian, against what people type by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.debian import Debian
from tests.benchmarks.race import Bench, CannotRunError, end, race
from tests.benchmarks.table import OURS, Found, Run, say

GZIP, BARE, PSQL = "pg_dump | gzip", "the bare pg_dump", "zcat | psql"

_DATABASE = "shop"
_BYTES = 2 * 10**9  # of the database at scale 1
_SQL = Path(__file__).parent / "sql"
_PLAIN = "/mnt/plain.sql.gz"
_OPTIONS = ("--config", "/mnt/config.json", "--json")


def scene(suite: str, major: int, bench: Bench, wanted: set[str]) -> Iterator[tuple[str, Found]]:
    """Yield the runs of `backup-<major>` and `restore-<major>`, as far as they are wanted."""
    with Debian(bench, suite, major) as debian:
        describe(bench, debian)
        fill(bench, debian)
        contest = _Contest(debian)
        if f"backup-{major}" in wanted:
            backups = {OURS: contest.backup, GZIP: contest.gzip, BARE: contest.bare}
            contest.warm_up()
            yield f"backup-{major}", race(backups, bench.rounds)
        else:
            contest.backup()
            contest.gzip()
        if f"restore-{major}" in wanted:
            yield f"restore-{major}", race({OURS: contest.restore, PSQL: contest.psql}, bench.rounds)
        bench.note(f"how pgops dumps on {major}", json.dumps(contest.choice))


def describe(bench: Bench, debian: Debian) -> None:
    """Note the versions."""
    bench.note(f"PostgreSQL {debian.major}", debian.sql("SELECT version()"))
    for name, command in (("zstd", ("zstd", "--version")), ("Python", ("python3", "--version"))):
        bench.note(f"{name} of {debian.suite}", debian.ask(*command).strip("* "))


def fill(bench: Bench, debian: Debian) -> None:
    """Load the database, the large table beside the others, and leave it at rest."""
    debian.sql(f"CREATE DATABASE {_DATABASE}")
    shutil.copytree(_SQL, debian.folder / "sql")
    (debian.folder / "sql").chmod(0o755)
    psql = ("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-v", f"scale={bench.scale}", "-d", _DATABASE, "-o", "/dev/null")
    debian.timed(*psql, "-f", "/mnt/sql/shape.sql")
    beside = subprocess.Popen(
        debian.words(*psql, "-f", "/mnt/sql/others.sql"), env=debian.env, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        debian.timed(*psql, "-f", "/mnt/sql/events.sql")
        said = beside.communicate()[1]
    finally:
        end(beside)
    if beside.returncode:
        raise CannotRunError(f"others.sql ended with {beside.returncode}: {said.decode(errors='replace')[-2000:]}")
    debian.sql("DROP SCHEMA fill CASCADE", "VACUUM (ANALYZE)", "CHECKPOINT", dbname=_DATABASE)
    size, tables, largest = debian.sql(
        f"SELECT pg_database_size('{_DATABASE}'), count(*), max(pg_total_relation_size(oid))"
        " FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
        dbname=_DATABASE,
    ).split("|")
    bench.note(
        f"data on {debian.major}",
        f"pg_database_size {int(size) / 1e6:,.0f} MB, {tables} tables, the largest {int(largest) / 1e6:,.0f} MB",
    )
    if int(size) < _BYTES * bench.scale:
        raise CannotRunError(f"the database has {size} bytes, which is less than the bench promises")


class _Contest:
    """The contestants. Each clears away what an earlier run of its own left, before its time starts."""

    def __init__(self, debian: Debian) -> None:
        self._debian = debian
        self._folder = debian.folder
        self.choice: dict[str, Any] = {}
        config = {
            "instance": "bench",
            "postgres": {"login_unix_socket": "/mnt/run", "login_user": "postgres"},
            "backup": {"databases": [_DATABASE]},
            "local": {"path": "/mnt/backups"},
            "state_dir": "/mnt/state",
            "log_dir": "/mnt/log",
        }
        (self._folder / "config.json").write_text(json.dumps(config))

    def warm_up(self) -> None:
        """Have the database and every program in memory, for all alike; and learn how pgops dumps it."""
        say("    warming up")
        self._debian.timed("sh", "-c", f"pg_dump {_DATABASE} | tail -c 1 | gzip > /dev/null")
        self.backup()

    # --- backup ---

    def backup(self) -> Run:
        """Make a set with all checks and the fingerprint."""
        sets = self._folder / "backups/bench/sets"
        shutil.rmtree(sets, ignore_errors=True)
        run, result = self._pgops("backup")
        self.choice = result["choices"][_DATABASE]
        return run | {"bytes": size_of(sets), "dump": result["databases"][0]["seconds"]}

    def gzip(self) -> Run:
        """What most scripts do."""
        target = self._fresh("plain.sql.gz")
        run = self._debian.timed("bash", "-o", "pipefail", "-c", f"pg_dump {_DATABASE} | gzip > {_PLAIN}")
        return _whole(run) | {"bytes": size_of(target)}

    def bare(self) -> Run:
        """What pgops has pg_dump do, typed by hand: the same format, jobs and compression, without any check."""
        target = self._fresh("bare")
        run = self._debian.timed("bash", "-o", "pipefail", "-c", bare_command(self.choice))
        return _whole(run) | {"bytes": size_of(target)}

    # --- restore ---

    def restore(self) -> Run:
        """Restore the newest set into a new database, with the proof and the statistics that belong to it."""
        self._without("shop_ours")
        chosen = ("latest", "--place", "local", "--database", _DATABASE, "--rename", _DATABASE, "shop_ours")
        run, result = self._pgops("restore", *chosen, "--yes")
        phases: dict[str, float] = result["databases"][0]["phases"]
        return run | phases

    def psql(self) -> Run:
        """The way back of most scripts."""
        self._without("shop_theirs")
        load = "psql -Xq -v ON_ERROR_STOP=1 -d shop_theirs > /dev/null"
        command = f"createdb -T template0 shop_theirs && zcat {_PLAIN} | {load}"
        return _whole(self._debian.timed("bash", "-o", "pipefail", "-c", command))

    # --- helpers ---

    def _pgops(self, *arguments: str) -> tuple[Run, dict[str, Any]]:
        out = self._folder / "result.json"
        run = self._debian.timed(*self._debian.pgops, *_OPTIONS, *arguments, out=out)
        result: dict[str, Any] = json.loads(out.read_text())
        return run, result

    def _fresh(self, name: str) -> Path:
        target = self._folder / name
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        return target

    def _without(self, database: str) -> None:
        """Drop what the last run restored, and have nothing left to write from it."""
        for name in ("shop_ours", "shop_theirs"):
            self._debian.sql(f"DROP DATABASE IF EXISTS {name}")
        self._debian.sql("CHECKPOINT")
        say(f"    {database} is loaded")


def bare_command(choice: dict[str, Any]) -> str:
    """Return the shell command that dumps as `choice` (of a backup's result) says."""
    method, level = choice["compression"], choice["level"]
    dump = f"pg_dump --format={choice['format']}"
    if choice["format"] == "directory":
        return f"{dump} --jobs={choice['jobs']} --compress={method}:{level} --file=/mnt/bare {_DATABASE}"
    if choice["inside_pg_dump"]:
        value = level if method == "gzip" else f"{method}:{level}"
        return f"{dump} --compress={value} --file=/mnt/bare {_DATABASE}"
    program = {"zstd": f"zstd -q -T0 -{level} -c", "gzip": f"gzip -{level}", "lz4": f"lz4 -q -{level} -c"}[method]
    return f"{dump} --compress=0 {_DATABASE} | {program} > /mnt/bare"


def _whole(run: Run) -> Run:
    """Return the run of a pipeline without its memory, which is only that of a shell."""
    return {name: value for name, value in run.items() if name != "memory"}


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
