# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventory makes configurations that the engine takes, and its secrets are kept as vault.sh shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.pgops.backup.plugins.filter.instances import instances
from ansible_collections.pgops.backup.plugins.module_utils._engine.config import build
from tests.tools.collection_tree import ROOT

EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent
SECTIONS = ("postgres", "backup", "base", "local", "s3", "verify", "restore", "wal", "schedule", "group", "alerts")


def inventory(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the variables of each host of the example, its vault in the plain."""
    shutil.copytree(EXAMPLES / "inventory", folder)
    shutil.copy(EXAMPLES / "vault.yml", folder / "group_vars" / "databases" / "vault.yml")
    told: dict[str, dict[str, Any]] = {}
    listed = run(folder, "ansible.cli.inventory", "-i", str(folder), "--list")
    for host in json.loads(listed)["_meta"]["hostvars"]:
        told[host] = json.loads(
            run(
                folder,
                "ansible.cli.adhoc",
                "-i",
                str(folder),
                "-c",
                "local",
                "-o",
                "-m",
                "debug",
                "-a",
                "var=hostvars[inventory_hostname]",
                host,
            ).partition("=> ")[2]
        )["hostvars[inventory_hostname]"]
    return told


def run(folder: Path, module: str, *words: str) -> str:
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "ANSIBLE_LOCALHOST_WARNING": "False"}
    done = subprocess.run(
        [sys.executable, "-m", module, *words], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_host_of_the_example_gets_a_configuration_that_the_engine_takes(tmp_path: Path) -> None:
    hosts = inventory(tmp_path / "inventory")
    assert set(hosts) >= {"db1.example.com", "db2.example.com", "shop1.example.com", "shop2.example.com"}
    for host, told in hosts.items():
        given = told.get("pgops_instances", [{"name": "%s-main" % host}])
        sections = {name: told.get("pgops_" + name, {}) for name in SECTIONS}
        for one in instances(given, sections=sections, secrets=told["pgops_secrets"]):
            built = build({"instance": one["name"], **one["content"]}, environ={}, host=host)
            assert built.instance == one["name"]
            assert set(one["secrets"]) == {"s3_access_key", "s3_secret_key"}


def test_what_the_example_leaves_to_be_uncommented_is_a_configuration_too() -> None:
    text = (EXAMPLES / "inventory" / "group_vars" / "databases" / "pgops.yml").read_text()
    told = yaml.safe_load(re.sub(r"^# ?(?=(?:pgops|wal_archive)_\w+:| {2,}\w+:)", "", text, flags=re.MULTILINE))
    assert {"pgops_wal", "pgops_alerts", "wal_archive_restart"} <= set(told)
    sections = {name: told.get("pgops_" + name, {}) for name in SECTIONS}
    (one,) = instances([{"name": "db1-main"}], sections=sections)
    built = build({"instance": "db1-main", **one["content"]}, environ={}, host="db1")
    assert (built.wal.enabled, built.alerts.channels()) == (True, ["email"])


def test_the_vault_of_the_example_keeps_what_is_in_it(tmp_path: Path) -> None:
    secret = next(line for line in (EXAMPLES / "vault.yml").read_text().splitlines() if "secret_key" in line)
    done = subprocess.run(
        ["sh", str(EXAMPLES / "vault.sh")],
        env={
            "PATH": "%s:%s" % (BIN, os.environ["PATH"]),
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "LANG": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown, _vault, after = done.stdout.partition("$ANSIBLE_VAULT;1.1;AES256")
    assert secret in shown
    assert secret.partition(": ")[2].strip("'\"") not in after
    assert "_letters_of_the_access_key" in after
    assert [path for path in tmp_path.iterdir() if (path / "inventory").exists()] == [], "it leaves nothing"
