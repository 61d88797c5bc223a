# SPDX-License-Identifier: GPL-3.0-or-later
"""Base backups, what changed since, WAL and the way back, on PostgreSQL 17 of Debian 13, against its pgBackRest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from demo.servers import RcloneS3
from tests.benchmarks.databases import describe, fill, size_of
from tests.benchmarks.debian import Debian
from tests.benchmarks.race import Bench, CannotRunError, race
from tests.benchmarks.table import OURS, Found, Run, say
from tests.tools.collection_tree import ROOT

sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from _engine.host.client import client
from _engine.host.program import _LAUNCHER
from _engine.system.lock import holder

FULL, RESTORE = "pgBackRest full", "pgBackRest restore"
INCREMENTALS = INCREMENTAL, BLOCKS = "pgBackRest incr", "pgBackRest incr, blocks"
PUSH, GET = "pgBackRest archive-push", "pgBackRest archive-get"
GROUPS = ("base-full", "base-restore", "base-incremental", "base-archive", "base-again", "base-replay")

_CORES = 2
_SEGMENT = 16 * 1024 * 1024
_ARCHIVED, _AGAIN, _REPLAYED = 60, 20, 200
_BUCKET = "bench"
_PORT = 5433
_SETTINGS = {"summarize_wal": "on", "archive_mode": "on", "wal_keep_size": "16GB", "wal_level": "replica"}

# What both are told alike: zstd, at level 3 for base backups and at 1 for WAL, and a checkpoint at once.
_THEIRS = """\
[global]
repo1-path={repo}
log-path=/mnt/log
lock-path=/mnt/lock
spool-path=/mnt/spool
log-level-console=warn
log-level-file=off
compress-type=zst
compress-level=3
process-max={cores}
start-fast=y
expire-auto=n
repo1-retention-full=1
{more}
[global:archive-push]
compress-level=1
[bench]
pg1-path=/mnt/data
pg1-socket-path=/mnt/run
pg1-user=postgres
"""
_IN_S3 = """\
repo1-type=s3
repo1-s3-bucket={bucket}
repo1-s3-endpoint=localhost
repo1-storage-port={port}
repo1-storage-ca-file=/mnt/ca.pem
repo1-s3-region={region}
repo1-s3-uri-style=path
repo1-s3-key={access}
repo1-s3-key-secret={secret}
[global:archive-get]
archive-async=y
"""


def scene(bench: Bench, wanted: set[str]) -> Iterator[tuple[str, Found]]:
    """Yield the runs of the GROUPS that are wanted."""
    with Debian(bench, "trixie", 17, packages=("pgbackrest",), settings=_SETTINGS) as debian:
        describe(bench, debian)
        bench.note("pgBackRest", debian.ask("pgbackrest", "version"))
        contest = _Contest(bench, debian)
        contest.keep_empty()
        fill(bench, debian)
        bench.note("how pgops takes it", contest.prepare())
        if "base-full" in wanted:
            yield "base-full", race({OURS: contest.full, FULL: contest.their_full}, bench.rounds)
        elif {"base-restore", "base-incremental"} & wanted:
            contest.full()
            contest.their_full()
        if "base-restore" in wanted:
            yield "base-restore", race({OURS: contest.restore, RESTORE: contest.their_restore}, bench.rounds)
        if "base-incremental" in wanted:
            contest.change()
            rivals = {INCREMENTAL: contest.their_incremental, BLOCKS: contest.their_blocks}
            yield "base-incremental", race({OURS: contest.incremental, **rivals}, bench.rounds)
        if "base-archive" in wanted:
            yield "base-archive", race({OURS: contest.archive, PUSH: contest.push}, bench.rounds)
        if "base-again" in wanted:
            contest.archive()
            contest.push()
            yield "base-again", race({OURS: contest.archive_again, PUSH: contest.push_again}, bench.rounds)
        if "base-replay" in wanted:
            with _Store(bench, debian) as store:
                contest.stored(store)
                yield "base-replay", race({OURS: contest.replay, GET: contest.their_replay}, bench.rounds)


class _Store(RcloneS3):
    """rclone's S3 server behind TLS, as pgBackRest speaks nothing else; its certificate lies in /mnt/ca.pem."""

    def __init__(self, bench: Bench, debian: Debian) -> None:
        super().__init__(bench.scratch)
        self._pem = debian.folder / "ca.pem"
        self._key = self.root / "key.pem"
        options = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
        names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
        said = subprocess.run(
            ["openssl", "req", *options, *names, "-keyout", self._key, "-out", self._pem],
            capture_output=True,
            text=True,
            check=False,
        )
        if said.returncode:
            raise CannotRunError(f"openssl made no certificate: {said.stderr}")
        self._pem.chmod(0o644)

    def _command(self, port: int) -> list[str]:
        self.port = port
        return [*super()._command(port), "--cert", str(self._pem), "--key", str(self._key)]

    def __enter__(self) -> Self:
        super().__enter__()
        self.endpoint_url = f"https://localhost:{self.port}"
        (self.data_dir / _BUCKET).mkdir()
        return self


class _Contest:
    """The contestants. Each clears away what an earlier run of its own left, before its time starts."""

    def __init__(self, bench: Bench, debian: Debian) -> None:
        self._bench, self._debian, self._folder = bench, debian, debian.folder
        self._parent = ""
        self._segments: list[str] = []
        self._target = ""
        for name in ("lock", "spool", "repo", "blocks", "pushed", "archived"):
            self._make(name)
        self._config("config.json")
        self._config("archived.json", local={"path": "/mnt/archived"})
        # As it lies on hosts, by which PostgreSQL calls it.
        self._write("pgops", _LAUNCHER % {"python": "/usr/bin/python3", "current": "/mnt/program"}, mode=0o755)
        quick = client(perl="/usr/bin/perl", program="/mnt/pgops", current="/mnt/program")
        self._write("pgops-wal", quick, mode=0o755)
        self._theirs("pgbackrest.conf", "/mnt/repo")
        # Their archive is not where these look for WAL, so they do not wait for it either.
        self._theirs("blocks.conf", "/mnt/blocks", "repo1-bundle=y\nrepo1-block=y\narchive-check=n\n")
        self._theirs("pushed.conf", "/mnt/pushed")

    def keep_empty(self) -> None:
        """Keep a copy of the cluster from before it was filled, from which its WAL is replayed."""
        self._debian.sql("ALTER SYSTEM SET archive_command = 'true'", "SELECT pg_reload_conf()")
        self._debian.ask("pg_basebackup", "--pgdata=/mnt/empty", "--checkpoint=fast", "--wal-method=none")

    def prepare(self) -> str:
        """Have their archive ready and the programs in memory; return how pgops takes a base backup."""
        self._look_for_segments()
        for name in ("pgbackrest.conf", "blocks.conf"):
            self._debian.ask(*self._rival(name, "stanza-create"))
        push = " ".join(self._rival("pgbackrest.conf", "archive-push"))
        self._debian.sql(f"ALTER SYSTEM SET archive_command = '{push} %p'", "SELECT pg_reload_conf()")
        say("    warming up")
        self._debian.timed("sh", "-c", "tar -cf - -C /mnt/data . 2>/dev/null | cat > /dev/null; true")
        _run, result = self._pgops("backup", "--kind", "base", "--incremental", "never")
        return json.dumps(result["choices"]["base"])

    def _look_for_segments(self) -> None:
        segments = sorted(name for name in os.listdir(self._folder / "data/pg_wal") if len(name) == 24)
        current = self._debian.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
        self._segments = [name for name in segments if name < current]

    # --- full ---

    def full(self) -> Run:
        """Take a base backup, hashed, flushed and listed."""
        sets = self._folder / "backups/bench/sets"
        shutil.rmtree(sets, ignore_errors=True)
        self._rest()
        run, result = self._pgops("backup", "--kind", "base", "--incremental", "never")
        self._parent = result["set"]
        return run | {"bytes": size_of(sets)}

    def their_full(self) -> Run:
        """Take theirs, with as many processes as there are cores."""
        run = self._their_backup("pgbackrest.conf", "full")
        # It keeps the backups before it until it is told otherwise.
        self._debian.ask(*self._rival("pgbackrest.conf", "expire"))
        return run | {"bytes": self._latest("repo")}

    def _latest(self, repo: str) -> int:
        """Return the bytes of the newest backup in their `repo`."""
        folders = [path for path in (self._folder / repo / "backup/bench").glob("2*") if path.is_dir()]
        return size_of(max(folders, key=lambda path: path.name))

    def _their_backup(self, config: str, kind: str) -> Run:
        self._rest()
        return self._debian.timed(*self._rival(config, f"--type={kind}", "backup"))

    # --- the way back ---

    def restore(self) -> Run:
        """Restore it to a server that runs and takes writes, with its proof."""
        self._without_copy()
        where = ("--data-directory", "/mnt/copy", "--port", str(_PORT))
        run, result = self._pgops("recover", "auto", "--place", "local", *where, "--to-immediate", "--yes")
        self._without_copy()
        phases: dict[str, float] = result["phases"]
        return run | phases

    def their_restore(self) -> Run:
        """Restore theirs, start the server, and wait until it takes writes."""
        self._without_copy()
        options = ("--pg1-path=/mnt/copy", "--type=immediate", "--target-action=promote", "--archive-mode=off")
        restore = " ".join(self._rival("pgbackrest.conf", *options, "restore"))
        settings = f"-c port={_PORT} -c unix_socket_directories=/mnt/run -c listen_addresses="
        start = f"pg_ctl start -w -s -D /mnt/copy -l /mnt/copy.log -o '{settings}'"
        writes = f"psql -XAtq -p {_PORT} -c 'SELECT pg_is_in_recovery()' 2>&1"
        run = self._debian.timed(
            "bash", "-euc", f'{restore}; {start}; until [ "$({writes})" = f ]; do sleep 0.05; done'
        )
        self._without_copy()
        return _whole(run)

    def _without_copy(self) -> None:
        copy = self._folder / "copy"
        if (copy / "postmaster.pid").exists():
            self._debian.ask("pg_ctl", "stop", "-s", "-m", "immediate", "-D", "/mnt/copy")
        shutil.rmtree(copy, ignore_errors=True)
        copy.with_suffix(".log").unlink(missing_ok=True)

    # --- what changed since ---

    def change(self) -> None:
        """Change one row in a hundred of the largest table, those beside each other; theirs builds on a full one of each kind."""
        self._debian.timed(*self._rival("blocks.conf", "--type=full", "backup"))
        self._debian.sql(
            "UPDATE events SET value = coalesce(value, 0) + 1 WHERE id <= (SELECT max(id) / 100 FROM events)",
            "CHECKPOINT",
            dbname="shop",
        )

    def incremental(self) -> Run:
        """Take what changed since the full one."""
        sets = self._folder / "backups/bench/sets"
        for left in sets.glob("*-incremental"):
            shutil.rmtree(left)
        self._rest()
        run, result = self._pgops("backup", "--kind", "base", "--incremental", self._parent)
        return run | {"bytes": size_of(sets / result["set"])}

    def their_incremental(self) -> Run:
        """Take what changed by theirs: whole files."""
        return self._their_incremental("pgbackrest.conf", "repo")

    def their_blocks(self) -> Run:
        """Take what changed by theirs where it is told to keep blocks."""
        return self._their_incremental("blocks.conf", "blocks")

    def _their_incremental(self, config: str, repo: str) -> Run:
        folder = self._folder / repo / "backup/bench"
        for left in sorted(path.name for path in folder.glob("2*F_*I") if path.is_dir()):
            self._debian.ask(*self._rival(config, f"--set={left}", "expire"))
        run = self._their_backup(config, "incr")
        return run | {"bytes": self._latest(repo)}

    # --- WAL ---

    def archive(self) -> Run:
        """Archive segments one after another, as the server does."""
        self._make("archived")
        return self._each(self._ours("archived.json", "archive"), self._some(_ARCHIVED))

    def push(self) -> Run:
        """Archive the same by theirs."""
        self._make("pushed")
        self._debian.ask(*self._rival("pushed.conf", "stanza-create"))
        return self._each(" ".join(self._rival("pushed.conf", "archive-push")), self._some(_ARCHIVED))

    def archive_again(self) -> Run:
        """Archive one that is archived already: what a call costs by itself. The seconds are those of one call."""
        return self._one(self._ours("archived.json", "archive"))

    def push_again(self) -> Run:
        """Do the same by theirs."""
        return self._one(" ".join(self._rival("pushed.conf", "archive-push")))

    def _some(self, count: int) -> list[str]:
        wanted = max(4, int(count * self._bench.scale))
        if len(self._segments) < wanted:
            raise CannotRunError(f"the database made {len(self._segments)} segments, and {wanted} are wanted")
        return self._segments[:wanted]

    def _one(self, command: str) -> Run:
        run = self._each(command, [self._segments[0]] * _AGAIN)
        return run | {key: run[key] / _AGAIN for key in ("seconds", "cpu")}

    def _each(self, command: str, segments: list[str]) -> Run:
        """Have `command` called for each of the segments, from the data directory, and the first failure end it."""
        (self._folder / "segments").write_text("".join(f"pg_wal/{name}\n" for name in segments))
        script = f"cd /mnt/data; while read -r path; do {command} $path </dev/null; done </mnt/segments"
        return self._with_what_stays("sh", "-euc", script)

    def _with_what_stays(self, *command: str) -> Run:
        """Run it; its CPU is also that of the processes of pgops that stay, as far as they do at its end."""
        before = self._staying()
        run = _whole(self._debian.timed(*command))
        after = self._staying()
        return run | {"cpu": run["cpu"] + sum(spent - before.get(pid, 0.0) for pid, spent in after.items())}

    def _staying(self) -> dict[int, float]:
        """Return the CPU seconds of each process of pgops that answers the calls of PostgreSQL."""
        found = {}
        for lock in (self._folder / ".cache/pgops").glob("*.lock"):
            who = holder(lock)
            if who is not None and who.alive:
                fields = Path(f"/proc/{who.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
                found[who.pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return found

    # --- WAL from S3 ---

    def stored(self, store: _Store) -> None:
        """Have all segments in S3, of both, and say how they are replayed."""
        keys = {"access_key": store.access_key, "secret_key": store.secret_key, "region": store.region}
        where = {"bucket": _BUCKET, "endpoint_url": store.endpoint_url, "addressing_style": "path", **keys}
        self._config("s3.json", local={"path": "/mnt/archived"}, s3={**where, "ca_bundle": "/mnt/ca.pem"})
        facts = {"port": store.port, "region": store.region, "access": store.access_key, "secret": store.secret_key}
        self._theirs("s3.conf", "/theirs", _IN_S3.format(bucket=_BUCKET, **facts))
        self._debian.ask(*self._rival("s3.conf", "stanza-create"))
        self._make("archived")
        # Loading alone makes some fewer now and then: one row in fifty is changed until there are enough.
        for number in range(50):
            self._look_for_segments()
            if len(self._segments) > int(_REPLAYED * self._bench.scale):
                break
            change = "UPDATE events SET value = coalesce(value, 0) + 1 WHERE id % 50 = "
            self._debian.sql(f"{change}{number}", dbname="shop")
        # One more than is replayed, as it stops at its beginning.
        segments = self._some(_REPLAYED)[: len(self._segments) - 1]
        segments.append(self._segments[len(segments)])
        for command in (self._ours("s3.json", "archive"), " ".join(self._rival("s3.conf", "archive-push"))):
            self._each(command, segments)
        self._debian.timed(*self._debian.pgops, "--config", "/mnt/s3.json", "--quiet", "wal", "ship")
        high, low = int(segments[-1][8:16], 16), int(segments[-1][16:], 16)
        self._target = f"{high:X}/{low * _SEGMENT:X}"
        say(f"    {len(segments)} segments are in S3")

    def replay(self) -> Run:
        """Replay WAL that comes from S3."""
        return self._recover(self._ours("s3.json", "fetch") + " --place s3")

    def their_replay(self) -> Run:
        """Replay the same from theirs, which fetches ahead by two processes."""
        self._make("spool")
        return self._recover(" ".join(self._rival("s3.conf", "--pg1-path=/mnt/copy", "archive-get")))

    def _recover(self, command: str) -> Run:
        copy = self._folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        self._debian.ask("cp", "-a", "/mnt/empty", "/mnt/copy")
        self._debian.ask("touch", "/mnt/copy/recovery.signal")
        settings = {
            "port": _PORT,
            "listen_addresses": "",
            "unix_socket_directories": "/mnt/run",
            "shared_buffers": "512MB",
            "max_wal_size": "4GB",
            "archive_mode": "off",
            "restore_command": f"{command} %f %p",
            "recovery_target_lsn": self._target,
            "recovery_target_action": "shutdown",
        }
        (copy / "postgresql.auto.conf").write_text(
            "".join(f"{name} = '{str(value).replace(chr(39), 2 * chr(39))}'\n" for name, value in settings.items())
        )
        said = self._folder / "said.log"
        said.write_text("")
        run = self._with_what_stays("postgres", "-D", "/mnt/copy")
        if "recovery stopping" not in said.read_text(errors="replace"):
            raise CannotRunError(f"the server did not come to its target: {said.read_text(errors='replace')[-2000:]}")
        shutil.rmtree(copy)
        return run

    # --- helpers ---

    def _make(self, name: str) -> None:
        """Have an empty folder of the server's account."""
        shutil.rmtree(self._folder / name, ignore_errors=True)
        (self._folder / name).mkdir(mode=0o700)
        facts = self._folder.stat()
        os.chown(self._folder / name, facts.st_uid, facts.st_gid)

    def _config(self, name: str, **others: Any) -> None:
        config = {
            "instance": "bench",
            "postgres": {"login_unix_socket": "/mnt/run", "login_user": "postgres"},
            "local": {"path": "/mnt/backups"},
            "state_dir": "/mnt/state",
            "log_dir": "/mnt/log",
            **others,
        }
        self._write(name, json.dumps(config))

    def _theirs(self, name: str, repo: str, more: str = "") -> None:
        self._write(name, _THEIRS.format(repo=repo, cores=_CORES, more=more))

    def _write(self, name: str, text: str, mode: int = 0o600) -> None:
        path = self._folder / name
        path.touch(mode=mode)
        path.chmod(mode)
        path.write_text(text)
        facts = self._folder.stat()
        os.chown(path, facts.st_uid, facts.st_gid)

    def _rival(self, config: str, *words: str) -> tuple[str, ...]:
        return ("pgbackrest", f"--config=/mnt/{config}", "--stanza=bench", *words)

    def _ours(self, config: str, action: str) -> str:
        """Return the shell's words for what PostgreSQL calls."""
        return f"/mnt/pgops-wal wal {action} --config /mnt/{config}"

    def _rest(self) -> None:
        """Have nothing left to write."""
        self._debian.sql("CHECKPOINT")

    def _pgops(self, *arguments: str) -> tuple[Run, dict[str, Any]]:
        out = self._folder / "result.json"
        options = ("--config", "/mnt/config.json", "--json")
        run = self._debian.timed(*self._debian.pgops, *options, *arguments, out=out)
        result: dict[str, Any] = json.loads(out.read_text())
        return run, result


def _whole(run: Run) -> Run:
    """Return the run of a shell without its memory, which is only that."""
    return {name: value for name, value in run.items() if name != "memory"}
