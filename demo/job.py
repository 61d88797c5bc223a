# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job: fill, back up, copy off, prove, lose everything, get it back, compare."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

from psycopg2 import sql

from . import compare, dataset
from .guard import Guard
from .machine import reachable, server_account, short_temp_dir, wheel_bindir
from .playbook import Playbooks
from .report import Report, Step
from .servers import MotoS3, PostgresServer, RcloneS3

BUCKET = "pgops-demo"
_S3 = {"moto": MotoS3, "rclone": RcloneS3}
_DOING = {
    "backup": "Backing up every database, the roles and the settings",
    "sync": "Copying the set to S3",
    "verify": "Restoring the set from S3 into a throwaway server, to prove it",
    "restore": "Restoring roles and databases from S3",
}


class Job:
    """One run in a directory of its own, which vanishes with it, whatever ends it."""

    def __init__(self, base: Path, report: Report, *, s3: str, scale: float) -> None:
        self._base, self._report, self._s3_kind, self._scale = base, report, s3, scale
        self._stack = ExitStack()
        self._guards: list[Callable[[Path], None]] = []

    def __enter__(self) -> Self:
        try:
            self.root = Path(tempfile.mkdtemp(prefix="run-", dir=self._base))
            self._own_until_end(self.root)
            self.scratch = short_temp_dir()  # sockets need a short path
            self._own_until_end(self.scratch)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_unused: object) -> None:
        self._stack.close()

    def _own_until_end(self, path: Path) -> None:
        if server_account():
            path.chmod(0o711)  # the account of the server passes through
        guard = Guard(remove=[path])
        self._stack.callback(guard.close)
        self._guards.append(guard.keep_while)

    def run(self) -> None:
        """Do all steps."""
        self._start()
        self._fill()
        step = self._report.begin("remember", "Remembering every row, definition, right and role")
        before = compare.snapshot(self.postgres)
        self._report.end(step)
        playbooks = Playbooks(
            self.root, temp=self.scratch, log_file=self._base / "ansible.log", variables=self._variables()
        )
        self._play(playbooks, "protect")
        self._destroy(before)
        self._play(playbooks, "recover")
        step = self._report.begin("compare", "Comparing with what was there")
        after = compare.snapshot(self.postgres)
        self._report.compared_tables = compare.compared_tables(after)
        self._report.differences = compare.differences(before, after)
        step.said = f"{self._report.compared_tables} tables, {len(self._report.differences)} differences"
        self._report.end(step)

    def _start(self) -> None:
        step = self._report.begin("start", f"Starting PostgreSQL 18 and an S3 server ({self._s3_kind})")
        servers = self.root / "servers"
        self.postgres = self._stack.enter_context(PostgresServer(wheel_bindir(18), servers))
        self.s3 = self._stack.enter_context(_S3[self._s3_kind](servers))
        self._guards += [self.postgres.keep_while, self.s3.keep_while]
        self.s3.create_bucket(BUCKET)
        step.changed = True
        step.said = f"ports {self.postgres.port} and {self.s3.endpoint_url.rpartition(':')[2]}"
        self._report.end(step)

    def _fill(self) -> None:
        step = self._report.begin("fill", "Filling " + " and ".join(dataset.DATABASES))
        dataset.fill(self.postgres, scale=self._scale)
        with closing(self.postgres.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT sum(pg_database_size(name)) FROM unnest(%s) name", [list(dataset.DATABASES)])
            step.size = int(cursor.fetchone()[0])
        step.changed = True
        step.said = f"{len(dataset.DATABASES)} databases"
        self._report.end(step)

    def _variables(self) -> dict[str, Any]:
        """Write the secrets into files that only we can read; return the options of the modules, which name those."""
        keys = f"[default]\naws_access_key_id = {self.s3.access_key}\naws_secret_access_key = {self.s3.secret_key}\n"
        work = self.root / "work"
        work.mkdir()
        if not reachable(work, account=server_account()):
            work = self.scratch
        return {
            "demo_databases": list(dataset.DATABASES),
            "demo_options": {
                "instance": "demo-main",
                "backup_dir": str(self.root / "backups"),
                "state_dir": str(self.root / "state"),
                "log_dir": str(self.root / "logs"),
                "work_dir": str(work),
                "bin_dir": str(self.postgres.bindir),
                "login_host": self.postgres.host,
                "login_port": self.postgres.port,
                "login_user": self.postgres.user,
                "login_password_file": str(self._secret("password", self.postgres.password + "\n")),
                "s3": {
                    "bucket": BUCKET,
                    "endpoint_url": self.s3.endpoint_url,
                    "region": self.s3.region,
                    "addressing_style": "path",
                    "credentials_file": str(self._secret("aws_credentials", keys)),
                },
            },
        }

    def _secret(self, name: str, text: str) -> Path:
        path = self.root / name
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def _play(self, playbooks: Playbooks, name: str) -> None:
        step, began = Step(""), 0.0
        for event in playbooks.run(name):
            if event["event"] == "start":
                step, began = self._report.begin(event["step"], _DOING[event["step"]]), event["at"]
            else:
                result = event["result"]
                step.changed = bool(result.get("changed"))
                step.size = next((result[key] for key in ("bytes_sent", "bytes_read", "bytes") if key in result), None)
                step.said = _said(step.name, result)
                self._report.notes += [str(note) for note in result.get("run_warnings", [])]
                self._report.end(step, seconds=event["at"] - began)

    def _destroy(self, before: compare.Snapshot) -> None:
        """Lose the databases, the roles, the backups on the host and all that the host knew about them."""
        step = self._report.begin("disaster", "Dropping databases and roles, wiping the backups on the host")
        for name in ("backups", "state", "logs"):
            shutil.rmtree(self.root / name)
        with closing(self.postgres.connect()) as connection, connection.cursor() as cursor:
            for name in dataset.DATABASES:
                cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            cursor.execute("SELECT rolname FROM pg_roles WHERE oid >= 16384")
            for (name,) in cursor.fetchall():
                cursor.execute(sql.SQL("DROP OWNED BY {role}; DROP ROLE {role}").format(role=sql.Identifier(name)))
            cursor.execute("ALTER ROLE ALL RESET ALL")
        lost = len(compare.differences(before, compare.snapshot(self.postgres)))
        if not lost:
            raise AssertionError("the comparison does not notice that everything is gone")
        step.changed = True
        step.said = f"{lost} things are gone"
        self._report.end(step)

    def keep(self) -> str:
        """Leave the servers running when this process ends; return how to use and how to stop them."""
        passfile = self._secret("pgpass", f"{self.postgres.host}:*:*:{self.postgres.user}:{self.postgres.password}\n")
        mark = self.root / "keep"
        mark.touch()
        for keep_while in self._guards:
            keep_while(mark)
        psql = (
            f"{self.postgres.bindir / 'psql'} -h {self.postgres.host} -p {self.postgres.port} -U {self.postgres.user}"
        )
        aws = f"aws --endpoint-url {self.s3.endpoint_url} --region {self.s3.region}"
        return (
            "The servers are left running.\n"
            f"  PostgreSQL  PGPASSFILE={passfile} {psql} {dataset.ORDERING}\n"
            f"  S3          AWS_SHARED_CREDENTIALS_FILE={self.root / 'aws_credentials'} {aws} s3 ls --recursive s3://{BUCKET}\n"
            f"  Playbooks   the modules' options are in {self.root / 'variables.json'}\n"
            f"  Stop them   {sys.executable} -m demo --stop   (in this directory)"
        )


def _said(step: str, result: dict[str, Any]) -> str:
    """Return what is worth knowing of a module's result."""
    match step:
        case "backup":
            return f"set {result.get('set')}"
        case "sync":
            return str(result.get("place"))
        case "verify":
            return ", ".join(f"{one['outcome']} at level {one['level']}" for one in result.get("sets", []))
        case "restore":
            return f"{len(result.get('databases', []))} databases, {len(result.get('roles_created', []))} roles"
    return ""


def stop_kept(base: Path) -> int:
    """Stop what earlier runs left running, by removing the marks that their guards watch. Return how many."""
    marks = list(base.glob("run-*/keep"))
    for mark in marks:
        mark.unlink(missing_ok=True)
    return len(marks)
