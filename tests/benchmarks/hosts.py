# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to run the playbook `site` over hosts that are protected already: one of them, and eight at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.race import Bench, CannotRunError, race, timed
from tests.benchmarks.table import OURS, Found, Run, say
from tests.tools.bench import VENV
from tests.tools.collection_tree import ROOT
from tests.tools.lab import Lab, LabError
from tests.tools.lab.lab import HOME
from tests.tools.lab.machines import S3_PORT, prepare_all
from tests.tools.roots import RootError

ONE = "one host"
_HOSTS = [f"site{number}" for number in range(1, 9)]
_STORE, _STORE_ADDRESS = "s3", "10.213.0.10"
_USER = "bench"
_KEYS = {"LAB_ACCESS_KEY": "BENCHACCESS", "LAB_SECRET_KEY": "bench-secret"}


def scene(bench: Bench, wanted: set[str]) -> Iterator[tuple[str, Found]]:
    """Yield the runs of `site-one` and `site-eight`, as far as they are wanted."""
    lab = Lab()
    try:
        if lab.machines():
            raise CannotRunError("the lab is in use; end it with: python -m tests.tools.lab down")
        prepare_all()
        os.environ.update(_KEYS)
        addresses = {name: f"10.213.0.{number}" for number, name in enumerate(_HOSTS, 41)}
        lab.up(
            [(_STORE, "ceph", _STORE_ADDRESS), *((name, "trixie", at) for name, at in addresses.items())],
            _USER,
        )
        site = _Site(bench)
        say("    protecting the hosts for the first time")
        site.prepare()
        first = site.run("databases")
        bench.note("site, the first run on eight hosts", f"{first['seconds']:.1f} s")
        contestants = {OURS: lambda: site.run("databases"), ONE: lambda: site.run(_HOSTS[0])}
        found = race(contestants, bench.rounds)
        if "site-one" in wanted:
            yield "site-one", {OURS: found[ONE]}
        if "site-eight" in wanted:
            yield "site-eight", found
    except (LabError, RootError) as problem:
        raise CannotRunError(str(problem)) from problem
    finally:
        if any(_USER in machine.facts.users for machine in lab.machines()):
            lab.down(_USER)


class _Site:
    """The inventory of the hosts, and playbooks over it."""

    def __init__(self, bench: Bench) -> None:
        self._log = bench.scratch / "site.log"
        self._inventory = bench.scratch / "inventory.json"
        variables = {
            "ansible_python_interpreter": "/usr/bin/python3",
            "lab_clusters": [{"name": "main", "port": 5432, "filled": False}],
            "pgops_s3": {
                "bucket": "bench",
                "region": "us-east-1",
                "endpoint_url": f"http://{_STORE_ADDRESS}:{S3_PORT}",
            },
            "pgops_secrets": {"s3_access_key": _KEYS["LAB_ACCESS_KEY"], "s3_secret_key": _KEYS["LAB_SECRET_KEY"]},
            "pgops_storage": True,
        }
        hosts = {name: {} for name in _HOSTS}
        self._inventory.write_text(json.dumps({"databases": {"hosts": hosts, "vars": variables}}))
        self._inventory.chmod(0o600)
        self._env = {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".venv" / "collections"),
            "ANSIBLE_FORKS": "8",
            "ANSIBLE_HOME": str(bench.scratch / "ansible"),
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_SSH_ARGS": f"-F {HOME / 'ssh_config'}",
            "HOME": str(bench.scratch),
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "PATH": os.pathsep.join([str(VENV), os.environ.get("PATH", os.defpath)]),
        }

    def prepare(self) -> None:
        """Give every host a database server."""
        self._play(str(ROOT / "molecule" / "hosts" / "prepare.yml"))

    def run(self, target: str) -> Run:
        """Run `site` over hosts. Raises CannotRunError when one of them is not protected afterwards."""
        return self._play("pgops.backup.site", "-e", f"target={target}")

    def _play(self, *words: str) -> Run:
        playbook = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(self._inventory), *words]
        return timed(playbook, env=self._env, log=self._log)
