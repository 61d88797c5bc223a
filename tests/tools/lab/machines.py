# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines of the lab: how each kind is started, asked whether it is up, and ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from tests.tools import roots

from .network import LabError, namespace

BOOT_SECONDS = 120
OFF_SECONDS = 90
_HERE = Path(__file__).parent
_CEPH_NODE = _HERE.parents[1] / "stores" / "ceph_node.sh"
# What the first process of a host takes as `poweroff`.
_POWER_OFF = signal.SIGRTMIN + 4
# When the first process of these namespaces ends, the kernel ends all others in them and removes what was mounted.
_SPACES = (
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "--pid",
    "--mount-proc",
    "--fork",
    "--kill-child=KILL",
    "--",
)

S3_PORT = 8000
_MON_PORTS = ("3300", "6789")

# What is on a host before any role has seen it: a server with PostgreSQL that somebody looks after.
_HOST_PACKAGES = (
    *roots.BOOTABLE,
    "apt-utils",
    "ca-certificates",
    "cron",
    "logrotate",
    "openssh-server",
    "postgresql",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "tzdata",
)
# What the apt of every host can install; cron, where it was taken away.
_OFFERED = (
    "acl",
    "age",
    "apprise",
    "bash-completion",
    "cron",
    "lz4",
    "monitoring-plugins-basic",
    "nagios-nrpe-plugin",
    "nagios-nrpe-server",
    "pigz",
    "postfix",
    "postgresql-client",
    "prometheus",
    "prometheus-node-exporter",
    "python3-boto3",
    "python3-psycopg2",
    "python3-yaml",
    "zstd",
)
# By the release: that, and what the scenarios bring to their hosts before the collection comes. NAME/RELEASE is a package of
# another release, as a server has that was upgraded and kept its older PostgreSQL.
OFFERED: Mapping[str, tuple[str, ...]] = {
    "bookworm": _OFFERED,
    "trixie": (*_OFFERED, "etcd-server", "patroni", "postgresql-15/bookworm", "python3-etcd"),
}
SUITES = tuple(OFFERED)
STORE = "ceph"


def host_recipe(suite: str) -> roots.Recipe:
    """Return the root file system of a host."""
    return roots.Recipe(suite, _HOST_PACKAGES, _HERE / "root.sh", OFFERED[suite])


@dataclass
class Facts:
    """What is remembered of a machine: what it is, who needs it, and its process, if it is on."""

    name: str
    kind: str
    address: str
    users: list[str] = field(default_factory=list)
    pid: int = 0
    started: str = ""


class Machine(ABC):
    """One machine. Its folder holds what it wrote, its log and what we remember of it."""

    def __init__(self, facts: Facts, folder: Path) -> None:
        self.facts, self.folder = facts, folder
        self.log = folder / "log"

    @property
    def name(self) -> str:
        """Its name, by which the others reach it, too."""
        return self.facts.name

    def save(self) -> None:
        """Write down what we remember of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.folder / "facts.new"
        beside.write_text(json.dumps(vars(self.facts)), encoding="utf-8")
        beside.rename(self.folder / "facts.json")

    def is_on(self) -> bool:
        """Tell whether its process runs."""
        return bool(self.facts.pid) and _started(self.facts.pid) == self.facts.started

    def start(self) -> None:
        """Start it; `wait` tells when it is up."""
        if self.is_on():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                self._command(),
                env={**os.environ, **self._environment()},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.facts.pid, self.facts.started = process.pid, _started(process.pid)
        self.save()

    def wait(self) -> None:
        """Wait until it answers. Raises LabError with the end of its log when it does not."""
        deadline = time.monotonic() + BOOT_SECONDS
        while not self._answers():
            if not self.is_on():
                raise LabError(f"{self.name} ended while it started:\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} did not answer within {BOOT_SECONDS} s:\n{self.last_words()}")
            time.sleep(0.1)

    def stop(self, *, cut: bool = False) -> None:
        """Power it off as `poweroff` does, or cut its power. What it wrote stays."""
        if self.is_on():
            (self._cut if cut else self._power_off)()
            deadline = time.monotonic() + OFF_SECONDS
            while self.is_on():
                if time.monotonic() > deadline:
                    if cut:
                        raise LabError(f"{self.name} does not end, process {self.facts.pid}")
                    self._cut()
                    deadline, cut = time.monotonic() + OFF_SECONDS, True
                time.sleep(0.05)
        self.facts.pid, self.facts.started = 0, ""
        if self.folder.is_dir():
            self.save()
        _remove_control_groups(self.name)

    def last_words(self) -> str:
        """Return the end of what it wrote to its console."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    @abstractmethod
    def prepare(self) -> None:
        """Make what it needs from this machine. Raises LabError."""

    @abstractmethod
    def _command(self) -> Sequence[str]: ...

    def _environment(self) -> Mapping[str, str]:
        return {}

    @abstractmethod
    def _answers(self) -> bool: ...

    def _cut(self) -> None:
        _signal(self.facts.pid, signal.SIGKILL)

    @abstractmethod
    def _power_off(self) -> None: ...


class Host(Machine):
    """A Debian host: systemd, cron, sshd; the account `ops` has sudo."""

    def __init__(self, facts: Facts, folder: Path, shared: Path) -> None:
        super().__init__(facts, folder)
        self._shared = shared

    def prepare(self) -> None:
        """Build its root, and give it an identity of its own."""
        _root(host_recipe(self.facts.kind))
        etc = self.folder / "upper" / "etc"
        etc.mkdir(parents=True, exist_ok=True)
        (etc / "hostname").write_text(f"{self.name}\n", encoding="utf-8")
        # Without one, systemd takes this for the first boot of an image and enables everything.
        seed = f"{self.folder} {time.time_ns()}"
        (etc / "machine-id").write_text(f"{hashlib.sha256(seed.encode()).hexdigest()[:32]}\n", encoding="utf-8")

    def _command(self) -> Sequence[str]:
        root = _root(host_recipe(self.facts.kind))
        key = f"--bind-ro={self._shared / 'key.pub'}:/home/ops/.ssh/authorized_keys"
        names = str(self._shared / "hosts")
        words = (str(root), str(self.folder), self.name, str(namespace(self.name)), names, key)
        return (*_SPACES, str(_HERE / "boot.sh"), *words)

    def _answers(self) -> bool:
        """Tell whether somebody can log in; until the end of the boot nobody may."""
        with contextlib.suppress(OSError), socket.create_connection((self.facts.address, 22), timeout=2) as line:
            line.settimeout(5)
            if line.recv(4) == b"SSH-":
                words = ("ssh", "-F", str(self._shared / "ssh_config"), self.name, "true")
                return not subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode
        return False

    def _power_off(self) -> None:
        for nspawn in _children(self.facts.pid):
            for first in _children(nspawn):
                _signal(first, _POWER_OFF)


class Store(Machine):
    """A Ceph of one node with its S3 gateway, all in memory: its buckets live as long as it is on."""

    @property
    def url(self) -> str:
        """Where the S3 gateway is."""
        return f"http://{self.facts.address}:{S3_PORT}"

    def prepare(self) -> None:
        """Build its root."""
        _root(roots.Recipe(roots.CEPH_SUITE, roots.CEPH_PACKAGES))

    def _command(self) -> Sequence[str]:
        root = _root(roots.Recipe(roots.CEPH_SUITE, roots.CEPH_PACKAGES))
        node = ("bash", str(_CEPH_NODE), str(root), *_MON_PORTS, str(S3_PORT))
        return ("nsenter", f"--net={namespace(self.name)}", "--", *_SPACES, *node)

    def _environment(self) -> Mapping[str, str]:
        keys = {name: os.environ.get(f"LAB_{name}", "") for name in ("ACCESS_KEY", "SECRET_KEY")}
        if not all(keys.values()):
            raise LabError("the S3 store needs its user's keys in LAB_ACCESS_KEY and LAB_SECRET_KEY")
        return {**keys, "LISTEN": self.facts.address}

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            opener.open(self.url, timeout=10).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True

    def _power_off(self) -> None:
        self._cut()


def prepare_all() -> None:
    """Build the root of every kind of machine. Raises LabError."""
    for suite in SUITES:
        _root(host_recipe(suite))
    _root(roots.Recipe(roots.CEPH_SUITE, roots.CEPH_PACKAGES))


def _root(recipe: roots.Recipe) -> Path:
    try:
        return roots.built(recipe)
    except roots.RootError as problem:
        raise LabError(str(problem)) from problem


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _started(pid: int) -> str:
    """Return when a process started, by which it is told from a later one of the same number; "" when it has ended."""
    with contextlib.suppress(OSError):
        fields = Path("/proc", str(pid), "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        # A process that has ended stays as a zombie until its parent has looked at it.
        return "" if fields[0] in "ZX" else fields[19]
    return ""


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]
    return []


def _remove_control_groups(name: str) -> None:
    for tree in ("", "systemd", "unified"):
        top = Path("/sys/fs/cgroup", tree, "pgops-lab", name)
        for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
        with contextlib.suppress(OSError):
            top.rmdir()


def forget(folder: Path) -> None:
    """Remove all that a machine wrote."""
    shutil.rmtree(folder, ignore_errors=True)


def until(true: Callable[[], bool], seconds: float) -> Optional[float]:
    """Wait until something is true and return how long it took, or None when it never was."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if true():
            return time.monotonic() - began
        time.sleep(0.1)
    return None
