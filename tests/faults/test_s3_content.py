# SPDX-License-Identifier: GPL-3.0-or-later
"""Content in the bucket that is not what we stored: found, repaired from the good side or told, never overwritten blindly.

And manifests that lead out of their set: refused, and nothing is read or written elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.faults.two_places import (  # noqa: F401  # pylint: disable=unused-import  # fixtures
    Host,
    host_at_each,
    host_at_moto,
)
from tests.integration.conftest import flip
from tests.integration.s3_fixtures import BUCKET

VERIFY = ("verify", "--place", "s3", "--level", "checksum")


@pytest.mark.parametrize("name", ["a", "b/large"])
def test_an_altered_object_of_the_same_size_is_found_and_repaired_from_here(host: Host, name: str) -> None:
    set_id = host.make_set()
    host.succeeds("sync")
    path = host.stored(set_id, name)
    right = host.kit.raw_read(path)
    host.alter_there(path)
    altered = host.kit.raw_read(path)
    assert len(altered) == len(right) and altered != right
    host.fails(*VERIFY, code=1, said="1 of 1 sets .* failed the verification.*%s .*SHA-256 differs" % name)
    assert host.kit.raw_read(path) == altered, "a verification changes nothing"
    result = host.succeeds("sync")
    assert [(r["set"], r["files"]) for r in result["repaired"]] == [(set_id, [name])]
    assert "was repaired" in " ".join(result["warnings"])
    assert host.kit.raw_read(path) == right
    assert host.succeeds(*VERIFY)["sets"][0]["outcome"] == "passed"


def test_an_object_altered_on_both_sides_is_an_alarm_and_stays_as_it_is(moto_host: Host) -> None:
    host = moto_host
    bad, good = host.make_set(1), host.make_set()
    host.succeeds("sync")
    path = host.stored(bad, "a")
    host.alter_there(path)
    flip(host.site.home / path)
    here, there = (host.site.home / path).read_bytes(), host.kit.raw_read(path)
    host.fails("sync", code=1, said="1 of 2 sets could not be reconciled.*%s.*local copy is damaged" % bad)
    assert (host.site.home / path).read_bytes() == here and host.kit.raw_read(path) == there
    host.fails("sync", "--pull", bad, code=1, said="could not be reconciled.*SHA-256 differs")
    assert (host.site.home / path).read_bytes() == here
    host.is_whole_there(good)


def test_an_altered_local_file_of_the_same_size_is_repaired_from_there(host: Host) -> None:
    set_id = host.make_set()
    host.succeeds("sync")
    path = host.site.home / host.stored(set_id, "b/large")
    facts = path.stat()
    flip(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as a disk that rots
    host.fails("verify", "--place", "local", "--level", "checksum", code=1, said="b/large .*SHA-256 differs")
    result = host.succeeds("sync", "--pull")
    assert [(r["set"], r["files"]) for r in result["repaired"]] == [(set_id, ["b/large"])]
    host.is_whole_here(set_id)
    host.is_whole_there(set_id)


def test_another_set_of_the_same_name_is_an_alarm_both_ways(moto_host: Host) -> None:
    host = moto_host
    set_id = host.make_set(mark="theirs")
    host.succeeds("sync")
    theirs = {path: host.kit.raw_read(path) for path in host.kit.raw_paths()}
    home = host.site.home
    host.lose_local()
    moment = set_id.split("-")[0]
    ours = host.make_set(mark="ours")
    if ours != set_id:  # the clock has moved on since: give it the same name
        folder = (home / "sets" / ours).rename(home / "sets" / set_id)
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "id": set_id}))
    assert moment in set_id
    here = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    for arguments in (("sync",), ("sync", "--pull")):
        host.fails(*arguments, code=1, said="%s: its manifest there .*names other content than the one here" % set_id)
    assert {path: host.kit.raw_read(path) for path in host.kit.raw_paths()} == theirs
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == here


def test_an_object_that_is_gone_is_told_and_sent_again(host: Host) -> None:
    set_id = host.make_set()
    host.succeeds("sync")
    path = host.stored(set_id, "a")
    host.kit.raw().delete_object(Bucket=BUCKET, Key=host.kit.raw_key(path))
    host.fails(*VERIFY, code=1, said="There is no %s in s3://" % path)
    place = next(p for p in host.program.json("info")["places"] if p["place"] == "s3")
    assert (place["sets"][0]["complete"], place["newest"]) == (False, None)
    assert "missing: a" in place["sets"][0]["problem"]
    host.lose_local()
    host.fails("sync", "--pull", code=1, said="There is no %s" % path)
    assert host.site.sets() == []


# --- manifests that lead elsewhere ------------------------------------------------------------------------------------

ELSEWHERE = {
    "up": "../../etc/passwd",
    "absolute": "/etc/passwd",
    "far up": "../../../../../../../../etc/passwd",
    "another instance": "../../../other-instance/sets/20261122T020000Z-logical/a",
    "another bucket": "s3://other-bucket/secret",
    "its own manifest": "manifest.json",
    "backslashes": "..\\..\\etc\\passwd",
    "a folder that is left again": "b/../../../x",
}


def lead_elsewhere(manifest: dict[str, Any], path: str) -> bytes:
    """Return the manifest with one more file, which is said to lie at `path` and to be what lies there."""
    content = Path("/etc/passwd").read_bytes()
    entry = {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return json.dumps({**manifest, "files": [*manifest["files"], entry]}).encode()


def outside(host: Host) -> dict[str, bytes]:
    """Return every file of the test that is no state of the program, and what the bucket holds."""
    roots = (host.site.root.parent,)
    files = [p for root in roots for p in root.rglob("*") if p.is_file() and "/state/" not in str(p)]
    return {str(p): p.read_bytes() for p in files if "/log/" not in str(p) and p.name != "password"}


@pytest.fixture(name="hostile", params=sorted(ELSEWHERE))
def host_with_a_hostile_manifest(request: pytest.FixtureRequest, moto_host: Host) -> tuple[Host, str]:
    """A host whose newest set in the bucket names a path outside, and another instance's set beside it."""
    host = moto_host
    set_id = host.make_set()
    host.succeeds("sync")
    path = host.stored(set_id, "manifest.json")
    host.kit.raw_write(path, lead_elsewhere(json.loads(host.kit.raw_read(path)), ELSEWHERE[request.param]))
    raw = host.kit.raw()
    raw.put_object(Bucket=BUCKET, Key="database-backups/other-instance/sets/20261122T020000Z-logical/a", Body=b"theirs")
    host.lose_local()
    return host, set_id


def test_a_manifest_in_the_bucket_that_leads_elsewhere_is_refused_by_everyone(hostile: tuple[Host, str]) -> None:
    host, set_id = hostile
    before = outside(host)
    host.proxy.heal()
    said = "The manifest of %s names the path .*, which is not inside its set" % set_id
    host.fails(*VERIFY, code=1, said=said)
    host.fails("sync", "--pull", code=1, said=said)
    host.fails("restore", set_id, "--place", "s3", "--yes", code=1, said=said, hint=False)
    place = next(p for p in host.program.json("info")["places"] if p["place"] == "s3")
    assert (place["newest"], place["sets"][0]["complete"]) == (None, False)
    assert "is not inside its set" in place["sets"][0]["problem"]
    assert outside(host) == before and host.site.sets() == []
    # Nothing but what belongs to this instance was asked for.
    home = "/%s/database-backups/%s/" % (BUCKET, host.site.instance)
    assert {asked.path for asked in host.proxy.asked if not asked.path.startswith(home)} <= {"/" + BUCKET}
    assert not [asked for asked in host.proxy.asked if ".." in asked.path or "passwd" in asked.path]


def test_a_manifest_here_that_leads_elsewhere_sends_nothing(moto_host: Host) -> None:
    host = moto_host
    set_id = host.make_set()
    path = host.site.home / host.stored(set_id, "manifest.json")
    right = path.read_bytes()
    path.write_bytes(lead_elsewhere(json.loads(right), "../../../../../../../../../etc/passwd"))
    host.fails("sync", code=1, said="names the path .*etc/passwd', which is not inside its set")
    assert host.kit.raw_paths() == []
    path.write_bytes(right)
    assert host.succeeds("sync")["sets"] == [set_id]
