# SPDX-License-Identifier: GPL-3.0-or-later
"""A Debian release with its own PostgreSQL, Python and zstd, in which programs run as the account postgres.

Its root file system is shared and stays as it is: a mount namespace of our own lays a folder of this machine over
/mnt, where everything is that a run writes. The namespace ends with the server.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from demo.guard import Guard
from tests.benchmarks.race import Bench, CannotRunError, timed
from tests.benchmarks.table import Run
from tests.tools import program
from tests.tools.roots import RootError, root_of

_PACKAGES = ("gzip", "python3", "python3-boto3", "python3-psycopg2", "zstd")

# A small dedicated server as people set it up; everything else is the default, durability included.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": "/mnt/run",
    "shared_buffers": "512MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}

# $1 root, $2 the folder for /mnt, $3 uid:gid, $4 PostgreSQL's programs; then the server's options.
_START = """
root=$1 folder=$2 account=$3 programs=$4; shift 4
mount --bind "$folder" "$root/mnt"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
[ -d "$folder/data" ] || chroot --userspec="$account" --groups="${account#*:}" "$root" \
  "$programs/initdb" -D /mnt/data -U postgres --auth=trust --locale=C.UTF-8 --encoding=UTF8 --data-checksums
exec chroot --userspec="$account" --groups="${account#*:}" "$root" "$programs/postgres" -D /mnt/data "$@"
"""


class Debian:
    """PostgreSQL `major` of the Debian release `suite`, running within the `with` block, with more `packages` and
    `settings` where they are given. Raises CannotRunError.
    """

    def __init__(
        self,
        bench: Bench,
        suite: str,
        major: int,
        *,
        packages: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.suite, self.major = suite, major
        self._settings = _SETTINGS | dict(settings or {})
        self.folder = bench.scratch / f"postgresql-{major}"
        self.log = bench.scratch / f"postgresql-{major}.log"
        self._programs = f"/usr/lib/postgresql/{major}/bin"
        lacking = [name for name in ("unshare", "nsenter", "chroot") if shutil.which(name) is None]
        if lacking:
            raise CannotRunError(f"{', '.join(lacking)} is not installed")
        try:
            self._root = root_of(suite, (f"postgresql-{major}", *_PACKAGES, *packages))
        except RootError as error:
            raise CannotRunError(str(error)) from error
        self._uid, self._gid = self._account()
        for name in ("", "run", "backups", "state", "log", "program"):
            (self.folder / name).mkdir(mode=0o700)
            os.chown(self.folder / name, self._uid, self._gid)
        self.pgops: tuple[str, ...] = ()
        self._guard = Guard()
        self._pid = 0

    def _account(self) -> tuple[int, int]:
        for line in (self._root / "etc/passwd").read_text(encoding="utf-8").splitlines():
            name, _password, uid, gid = line.split(":")[:4]
            if name == "postgres":
                return int(uid), int(gid)
        raise CannotRunError(f"{self._root} has no account postgres")

    def __enter__(self) -> Self:
        try:
            options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
            shell = ["sh", "-euc", _START, "sh", str(self._root), str(self.folder)]
            self._pid = self._guard.start(
                ["unshare", "--mount", "--propagation=private", *shell, self._as, self._programs, *options],
                log=self.log,
                env=self.env,
                stop_signals=(signal.SIGINT, signal.SIGQUIT),
            )
            self._wait()
            self._lay_down()
        except BaseException:
            self._guard.close()
            raise
        return self

    def __exit__(self, *_unused: object) -> None:
        self._guard.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _lay_down(self) -> None:
        """Have pgops there as it is on a host, with the bytecode of the Python in there."""
        python = self.words("python3")
        self.pgops = ("python3", *program.lay_down(self.folder / "program", *python, seen="/mnt/program"))

    def _wait(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self._guard.poll() is None:
            asked = subprocess.run(self.words("pg_isready", "-q"), env=self.env, capture_output=True, check=False)
            if not asked.returncode:
                return
            time.sleep(0.2)
        raise CannotRunError(f"PostgreSQL {self.major} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")

    @property
    def _as(self) -> str:
        return f"{self._uid}:{self._gid}"

    @property
    def env(self) -> dict[str, str]:
        """The environment of all programs in there. The real programs come before Debian's wrappers."""
        path = f"{self._programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        home = {"HOME": "/mnt", "XDG_CACHE_HOME": "/mnt/.cache"}
        return {"PATH": path, **home, "LC_ALL": "C.UTF-8", "PGHOST": "/mnt/run", "PGUSER": "postgres"}

    def words(self, *command: str) -> list[str]:
        """Return what runs `command` in there as postgres; the process keeps its id all the way."""
        chroot = ("chroot", f"--userspec={self._as}", f"--groups={self._gid}", str(self._root))
        return ["nsenter", f"--mount=/proc/{self._pid}/ns/mnt", *chroot, *command]

    def timed(self, *command: str, out: Path | None = None) -> Run:
        """Run `command` in there and return its seconds, CPU (with the server's) and memory. Raises CannotRunError."""
        before = self._spent()
        run = timed(self.words(*command), env=self.env, log=self.folder / "said.log", out=out)
        return run | {"cpu": run["cpu"] + self._spent() - before}

    def _spent(self) -> float:
        """Return the CPU seconds of all server processes that have ended, once none is left that worked for a client."""
        while any(self._serves_client(pid) for pid in self._children()):
            time.sleep(0.02)
        fields = Path(f"/proc/{self._pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def _children(self) -> list[str]:
        return Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text(encoding="ascii").split()

    @staticmethod
    def _serves_client(pid: str) -> bool:
        """Say whether it serves a client, works for one that does, or has ended and is not counted yet."""
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        return not title or b"[local]" in title or b"parallel worker" in title

    def ask(self, *command: str) -> str:
        """Run a short `command` in there and return what it prints. Raises CannotRunError."""
        done = subprocess.run(self.words(*command), env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotRunError(f"{' '.join(command[:3])} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout.strip()

    def sql(self, *statements: str, dbname: str = "postgres") -> str:
        """Run SQL as a superuser and return what psql prints of it."""
        commands = [word for statement in statements for word in ("-c", statement)]
        return self.ask("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", dbname, *commands)
