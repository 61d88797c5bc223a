# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as a whole: which machines there are, who needs them, and what they share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from . import network
from .machines import STORE, SUITES, Facts, Host, Machine, Store, forget
from .network import LabError, told

# All that the lab keeps is in memory, below one mount.
HOME = Path("/run/pgops-lab")
_SIZE = "10g"
_TOOLS = {"ip": "iproute2", "ssh": "openssh-client", "systemd-nspawn": "systemd-container", "unshare": "util-linux"}
# Ten characters, because the name of its cable has a prefix and at most fifteen.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,9}")
_SSH = """Host *
  User ops
  IdentityFile {home}/key
  IdentitiesOnly yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  GlobalKnownHostsFile /dev/null
  LogLevel ERROR
  ConnectTimeout 10
  ServerAliveInterval 5
  ServerAliveCountMax 3
  ControlMaster auto
  ControlPath {home}/ssh-%C
  ControlPersist 60
"""


class Lab:
    """The machines of the lab."""

    def machines(self) -> list[Machine]:
        """Return every machine."""
        found = sorted(HOME.glob("machines/*/facts.json"))
        return [self._made(Facts(**json.loads(path.read_text(encoding="utf-8")))) for path in found]

    def machine(self, name: str) -> Machine:
        """Return one machine. Raises LabError."""
        for machine in self.machines():
            if machine.name == name:
                return machine
        raise LabError(f"there is no machine {name} in the lab; there are {_listed(self.machines())}")

    def up(self, wanted: Sequence[tuple[str, str, str]], user: str) -> list[str]:
        """Start the machines (name, kind, address) that `user` needs; return the names of those that are new."""
        _need_root()
        with self._alone():
            self._lay_ground()
            machines, new = [], []
            for name, kind, address in wanted:
                machine, fresh = self._claim(Facts(name, kind, address), user)
                machines.append(machine)
                new += [name] if fresh else []
            # Everything that can fail for lack of a package happens before the first boot.
            for machine in machines:
                if machine.name in new:
                    machine.prepare()
                    network.connect(machine.name, machine.facts.address)
            self._write_names()
            for machine in machines:
                machine.start()
            with ThreadPoolExecutor(max_workers=len(machines) or 1) as pool:
                list(pool.map(lambda machine: machine.wait(), machines))
        return new

    def down(self, user: str = "", names: Sequence[str] = ()) -> list[str]:
        """Remove the machines that only `user` needs; without one, `names`, or all. Return the names of what went."""
        if not HOME.is_dir() and not network.left_namespaces():
            return []
        _need_root()
        with self._alone():
            going = []
            for machine in self.machines():
                users = [one for one in machine.facts.users if one != user] if user else []
                if names and machine.name not in names:
                    continue
                if users:
                    machine.facts.users = users
                    machine.save()
                elif not user or user in machine.facts.users:
                    going.append(machine)
            with ThreadPoolExecutor(max_workers=len(going) or 1) as pool:
                list(pool.map(_remove, going))
            if not self.machines():
                self._clear_ground()
            else:
                self._write_names()
        return [machine.name for machine in going]

    def _made(self, facts: Facts) -> Machine:
        folder = HOME / "machines" / facts.name
        return Store(facts, folder) if facts.kind == STORE else Host(facts, folder, HOME)

    def _claim(self, facts: Facts, user: str) -> tuple[Machine, bool]:
        """Return a machine that is used by `user` from now on, and whether it is new. Raises LabError."""
        if not _NAME.fullmatch(facts.name):
            raise LabError(f"{facts.name!r} is no name for a machine: ten of a-z, 0-9 and -, a letter first")
        if facts.kind not in (*SUITES, STORE):
            raise LabError(f"{facts.name}: there is no kind {facts.kind!r}; there are {', '.join((*SUITES, STORE))}")
        if not facts.address.startswith(network.NETWORK):
            raise LabError(f"{facts.name}: {facts.address} is not in {network.NETWORK}0/24")
        for machine in self.machines():
            other = machine.facts
            if (other.name, other.kind, other.address) == (facts.name, facts.kind, facts.address):
                other.users = sorted({*other.users, user})
                machine.save()
                return machine, False
            if other.name == facts.name or other.address == facts.address:
                raise LabError(
                    f"{facts.name} at {facts.address} would be in the way of {other.name} at {other.address}, which "
                    f"{', '.join(other.users)} use; remove it with: python -m tests.tools.lab down {other.name}"
                )
        facts.users = [user]
        machine = self._made(facts)
        machine.save()
        return machine, True

    def _lay_ground(self) -> None:
        """Make what all machines share: the mount, the bridge, a key for SSH."""
        lacking = [f"{tool} (package {package})" for tool, package in _TOOLS.items() if not shutil.which(tool)]
        if lacking:
            raise LabError(f"this machine lacks {', '.join(lacking)}; install it with apt-get")
        network.lay_bridge()
        if not (HOME / "key").exists():
            told("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(HOME / "key"))
        if not (HOME / "ssh_config").exists():
            (HOME / "ssh_config").write_text(_SSH.format(home=HOME), encoding="utf-8")

    def _clear_ground(self) -> None:
        for socket in HOME.glob("ssh-*"):
            subprocess.run(
                ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "lab"], capture_output=True, check=False
            )
        for name in network.left_namespaces():
            network.disconnect(name)
        network.remove_bridge()
        for tree in ("", "systemd", "unified"):
            with contextlib.suppress(OSError):
                Path("/sys/fs/cgroup", tree, "pgops-lab").rmdir()
        if os.path.ismount(HOME):
            told("umount", "--lazy", str(HOME))
        with contextlib.suppress(OSError):
            HOME.rmdir()

    def _write_names(self) -> None:
        """Tell every machine the others' addresses, and ssh on this one. The hosts have bound the file: it stays the same one."""
        machines = self.machines()
        names = [("127.0.0.1", "localhost"), *((one.facts.address, one.name) for one in machines)]
        with (HOME / "hosts").open("a+", encoding="utf-8") as file:
            file.truncate(0)
            file.write("".join(f"{address}\t{name}\n" for address, name in names))
        for_each = [f"Host {one.name}\n  HostName {one.facts.address}\n" for one in machines]
        # Other scenarios log in meanwhile.
        (HOME / "ssh_config.new").write_text("".join([*for_each, _SSH.format(home=HOME)]), encoding="utf-8")
        (HOME / "ssh_config.new").replace(HOME / "ssh_config")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time change the lab. The lock is on the folder below our mount, which may come and go."""
        HOME.parent.mkdir(exist_ok=True)
        with (HOME.parent / "pgops-lab.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            HOME.mkdir(mode=0o755, exist_ok=True)
            if not os.path.ismount(HOME):
                told("mount", "-t", "tmpfs", "-o", f"mode=0755,size={_SIZE}", "tmpfs", str(HOME))
            yield


def _remove(machine: Machine) -> None:
    machine.stop(cut=True)
    network.disconnect(machine.name)
    forget(machine.folder)


def _need_root() -> None:
    if sys.platform != "linux" or os.geteuid():
        raise LabError("only root on Linux can boot hosts: run this as root on Debian")


def _listed(machines: Sequence[Machine]) -> str:
    return ", ".join(machine.name for machine in machines) or "none"
