# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios of molecule/ test on more than one kind of host.

A scenario takes a module's tests with `from tests.hosts.… import *`; Molecule runs them over SSH.
"""

from __future__ import annotations

import json
from typing import Any

_CONFIGURATIONS = """
import glob, json, yaml
print(json.dumps({yaml.safe_load(open(path))["instance"]: path for path in sorted(glob.glob("/etc/pgops/*.yml"))}))
"""


def instances_of(host: Any) -> dict[str, str]:
    """Return the configuration file of each instance that the host backs up."""
    found: dict[str, str] = json.loads(host.check_output("python3 -c %s", _CONFIGURATIONS))
    assert found
    return found


def runs_of(host: Any, instance: str, state_dir: str = "/var/lib/pgops") -> list[dict[str, Any]]:
    """Return what is recorded of every run, the oldest first."""
    folder = f"{state_dir}/{instance}/runs"
    said = host.check_output(
        "python3 -c %s %s",
        "import glob, json, sys; print(json.dumps("
        "[json.load(open(path)) for path in glob.glob(sys.argv[1] + '/*.json')]))",
        folder,
    )
    return sorted(json.loads(said), key=lambda record: str(record["begun"]))


def files_of(host: Any, folder: str) -> dict[str, int]:
    """Return the size of every file below a folder, by its path from there."""
    listed = host.check_output("find %s -type f -printf %s", folder, r"%s %P\n")
    return {path: int(size) for size, path in (line.split(" ", 1) for line in listed.splitlines())}


def objects_of(s3: Any, bucket: str, prefix: str = "") -> dict[str, int]:
    """Return the size of every object in a bucket, by its key."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", [])}


def held(host: Any, service: str) -> list[str]:
    """Return the version of the program that a service runs: it holds that folder as long as it does."""
    process = host.check_output("systemctl show --property=MainPID --value %s", service)
    found: str = host.check_output("find /proc/%s/fd -lname %s -printf %s", process, "/usr/local/lib/pgops/*", r"%l\n")
    return found.split()
