# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that archives with the real program, under its own account, and WAL files without a server."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import botocore

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import Manifest
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.segments import segment_name
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.times import iso
from ansible_collections.pgops.backup.plugins.module_utils._engine.host.client import client, client_of
from demo.machine import reachable, server_account, short_temp_dir
from demo.servers import PostgresServer
from tests.integration.cli_fixtures import ENGINE, HURRY
from tests.integration.conftest import run_sql

SYSTEM = 7312345678901234567
MIB = 1024 * 1024
# What botocore needs for S3; the rest of its data is a hundred services.
_DATA = ("s3", "_retry.json", "endpoints.json", "partitions.json", "sdk-default-configuration.json")


def segment(number: int, *, size: int = MIB, seed: int = 0, noise: int = 4000) -> bytes:
    """A segment as PostgreSQL writes it, with `noise` bytes that do not compress."""
    header = struct.pack("=HHIQI4xQII", 0xD110, 2, 1, number * size, 0, SYSTEM, size, 8192)
    return header + random.Random(number * 1000 + seed).randbytes(noise) + bytes(size - len(header) - noise)


def data_directory(path: Path) -> Path:
    """Make what a data directory needs for archive and fetch, without a server."""
    (path / "global").mkdir(parents=True)
    (path / "pg_wal").mkdir()
    (path / "global" / "pg_control").write_bytes(struct.pack("=Q", SYSTEM) + bytes(504))
    return path


class Commands:
    """The commands of PostgreSQL as processes, in a data directory without a server. They do not wait long for S3."""

    size = 16 * MIB

    def __init__(self, root: Path, backups: Path, **sections: Any) -> None:
        (root / "lib").mkdir(parents=True)
        (root / "lib" / "pgops").symlink_to(ENGINE)
        self.data = data_directory(root / "data")
        self.top = backups / "db1" / "wal"
        self.config = root / "config.json"
        values = {"instance": "db1", "local": {"path": str(backups)}, "state_dir": str(root / "state"), **sections}
        if "s3" in values:
            values["s3"] = {"retry_for": "20s", **values["s3"]}
        self.config.write_text(json.dumps({**values, "log_dir": ""}))
        self.config.chmod(0o600)
        self.script = (
            "%simport sys; sys.path.insert(0, %r); from pgops.cli.start import main; raise SystemExit(main())"
            % (HURRY, str(root / "lib"))
        )

    def write(self, number: int, **options: Any) -> str:
        name = segment_name(1, number, self.size)
        (self.data / "pg_wal" / name).write_bytes(segment(number, size=self.size, **options))
        return "pg_wal/%s" % name

    def start(self, action: str, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-I", "-c", self.script, "wal", action, "-c", str(self.config), *words]
        env = {**os.environ, "XDG_CACHE_HOME": str(self.config.parent / "caches")}
        return subprocess.Popen(argv, cwd=self.data, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __call__(self, action: str, *words: str, code: int = 0) -> str:
        return _said(self.start(action, *words), code)

    def client(self, **options: Any) -> Client:
        """The client of this program, which is laid down beside it."""
        root = self.config.parent
        text = "#!%s -I\n%s\n" % (sys.executable, self.script)
        return Client(self, lay_down(root / "pgops", text, **{"current": str(root / "lib"), **options}))

    @property
    def socket(self) -> Path:
        """Where the process that stays listens."""
        caches = self.config.parent / "caches" / "pgops"
        return caches / ("wal-%08x.sock" % crc32(str(self.config).encode()))

    def stored(self) -> list[Path]:
        return sorted(path for path in self.top.rglob("*") if path.is_file())


def lay_down(at: Path, text: str, *, current: str, program: str = "", **options: Any) -> Path:
    """Write the program and the client beside it, and return the client's path."""
    beside = client_of(at)
    told = client(perl="/usr/bin/perl", program=program or str(at), current=current, **options)
    for path, content in ((at, text), (beside, told)):
        path.write_text(content)
        path.chmod(0o755)
    return beside


@dataclass
class Client:
    """The client as PostgreSQL calls it."""

    commands: Commands
    path: Path

    def start(self, action: str, *words: str) -> subprocess.Popen[str]:
        argv = [str(self.path), "wal", action, "--config", str(self.commands.config), *words]
        env = {**os.environ, "XDG_CACHE_HOME": str(self.commands.config.parent / "caches")}
        return subprocess.Popen(
            argv, cwd=self.commands.data, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __call__(self, action: str, *words: str, code: int = 0) -> str:
        return _said(self.start(action, *words), code)


def _said(process: subprocess.Popen[str], code: int) -> str:
    """Return what the log of PostgreSQL gets from a call that is to end with `code`."""
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, ""), err
    assert "Traceback" not in err
    return err


@dataclass
class Host:
    """The program and its directories, where the account of the server can use them."""

    root: Path = field(default_factory=short_temp_dir)

    def __post_init__(self) -> None:
        account = server_account()
        python = Path(sys.executable).resolve()
        self.python = str(python) if reachable(python, account=account) else "/usr/bin/python3"
        shutil.copytree(ENGINE, self.root / "lib" / "pgops", ignore=shutil.ignore_patterns("__pycache__"))
        packages = Path(botocore.__file__).parents[1]
        for name in ("botocore", "jmespath", "dateutil", "urllib3"):
            shutil.copytree(packages / name, self.root / "lib" / name, ignore=_ignore)
        shutil.copy(packages / "six.py", self.root / "lib")
        self.program = self.root / "pgops"
        self.client = lay_down(
            self.program,
            "#!%s -I\nimport os, sys\nos.environ['XDG_CACHE_HOME'] = %r\nsys.path.insert(0, %r)\nfrom pgops.cli.start import main\nraise SystemExit(main())\n"
            % (self.python, str(self.root / "caches"), str(self.root / "lib")),
            current=str(self.root / "lib"),
        )
        # As the program does, whoever calls it.
        first, rest = self.client.read_text().split("\n", 1)
        self.client.write_text("%s\n$ENV{XDG_CACHE_HOME} = '%s/caches';\n%s" % (first, self.root, rest))
        (self.root / "backups").mkdir()
        self.configure()
        if account:
            for path in (self.root, *self.root.rglob("*")):
                os.chown(path, account.pw_uid, account.pw_gid)

    def configure(self, **sections: Any) -> None:
        """Write the configuration of the instance; it may hold secrets of a test's own server."""
        values = {
            "instance": "db1",
            "local": {"path": str(self.root / "backups")},
            "state_dir": str(self.root / "state"),
            "log_dir": "",
            "backup": {"min_free": "1MiB"},
            "wal": {"enabled": True},
            **sections,
        }
        path = self.root / "config.json"
        path.write_text(json.dumps(values))
        path.chmod(0o600)
        account = server_account()
        if account:
            os.chown(path, account.pw_uid, account.pw_gid)

    @property
    def wal(self) -> Path:
        return self.root / "backups" / "db1" / "wal"

    def command(self, *words: str) -> str:
        """A command of PostgreSQL."""
        return "%s wal %s -c %s/config.json %s" % (self.program, words[0], self.root, " ".join(words[1:]))

    def quick(self, *words: str) -> str:
        """The same by the client."""
        return "%s wal %s -c %s/config.json %s" % (self.client, words[0], self.root, " ".join(words[1:]))

    def run(self, *words: str, cwd: Path | str = "/", code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the program as the account of the server."""
        done = subprocess.run(
            [str(self.program), *words],
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "PGOPS_CONFIG": str(self.root / "config.json")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **as_server(),
        )
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *words: str, code: int = 0) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.run(*words, "--json", code=code).stdout)
        return result

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def _ignore(folder: str, names: list[str]) -> set[str]:
    ignored = {name for name in names if name == "__pycache__"}
    if folder.endswith("botocore/data"):
        ignored |= set(names) - set(_DATA)
    return ignored


def as_server() -> dict[str, Any]:
    """The options of subprocess that make a process one of the server's account."""
    account = server_account()
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}


def archived_up_to(server: PostgresServer, name: str = "") -> str:
    """End the current segment, wait until it is archived, and return its name."""
    if not name:
        run_sql(server, "postgres", "SELECT pg_create_restore_point('a mark'), txid_current()")
        ((name,),) = run_sql(server, "postgres", "SELECT pg_walfile_name(pg_switch_wal())")
    deadline = time.monotonic() + 60
    while True:
        ((last, failed),) = run_sql(
            server, "postgres", "SELECT last_archived_wal, last_failed_wal FROM pg_stat_archiver"
        )
        if (last or "")[:24] >= name:
            return name
        assert time.monotonic() < deadline, (name, last, failed, server.log_file.read_text()[-2000:])
        time.sleep(0.05)


def base_manifest(data: Path, system: str, *, timeline: int = 1) -> Manifest:
    """The manifest of a base backup that lies in `data`; only what the WAL has to do with is in it."""
    label = (data / "backup_label").read_text()
    start = label.split("START WAL LOCATION: ")[1].split(" ")[0]
    now = datetime.now(UTC)
    return Manifest(
        id=now.strftime("%Y%m%dT%H%M%SZ-base"),
        instance="db1",
        kind="base",
        started=iso(now),
        finished=iso(now),
        system_identifier=system,
        server_version="18.0",
        server_version_num=180000,
        tools={},
        engine="0.1.0",
        files=(),
        timeline=timeline,
        wal_start=start,
        wal_end=start,
    )
