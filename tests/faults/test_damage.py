# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets that are damaged, here or in S3: every verb sees it, none makes it worse, and the good side repairs it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog
from demo.servers import MotoS3
from tests.faults.two_places import Host, proxied
from tests.integration.conftest import Servers, Site, create_shop, databases_of, run_sql
from tests.integration.s3_fixtures import BUCKET, Kit

DUMP, GLOBALS, MANIFEST = "databases/shop.dump", "globals.sql", "manifest.json"


@dataclass(frozen=True)
class Shelf:
    """The files of one set in one place, for whoever wants to harm them."""

    place: str
    host: Host
    set_id: str

    def _path(self, name: str) -> str:
        return self.host.stored(self.set_id, name)

    def read(self, name: str) -> bytes:
        if self.place == "s3":
            return self.host.kit.raw_read(self._path(name))
        return (self.host.site.home / self._path(name)).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Replace a file; an object keeps its metadata, our hash of the right content among them."""
        if self.place == "s3":
            raw, key = self.host.kit.raw(), self.host.kit.raw_key(self._path(name))
            held = raw.head_object(Bucket=BUCKET, Key=key)
            raw.put_object(Bucket=BUCKET, Key=key, Body=content, Metadata=held["Metadata"])
        else:
            (self.host.site.home / self._path(name)).write_bytes(content)

    def remove(self, name: str) -> None:
        if self.place == "s3":
            self.host.kit.raw().delete_object(Bucket=BUCKET, Key=self.host.kit.raw_key(self._path(name)))
        else:
            (self.host.site.home / self._path(name)).unlink()

    def flip(self, name: str, at: int | None = None) -> None:
        content = bytearray(self.read(name))
        content[len(content) // 2 if at is None else at] ^= 0x55
        self.write(name, bytes(content))

    def manifest(self, change: Callable[[dict[str, Any]], Any]) -> None:
        changed = json.loads(self.read(MANIFEST))
        change(changed)
        self.write(MANIFEST, json.dumps(changed).encode())

    def is_whole(self) -> None:
        if self.place == "s3":
            self.host.is_whole_there(self.set_id)
        else:
            self.host.is_whole_here(self.set_id)


@pytest.fixture(scope="module", name="good")
def good_set(servers: Servers, moto: MotoS3, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, str]:
    """A site with a good set of the shop in both places, plain so that its files can be looked into."""
    server = servers.get("damage", 18)
    create_shop(server)
    site = Site(tmp_path_factory.mktemp("good"), server)
    site.use_s3(moto)
    set_id = site.backup(databases=["shop"], compression="none", format="custom")["set"]
    site.push()
    return site, str(set_id)


@pytest.fixture(name="mine")
def copy_of_the_good_set(good: tuple[Site, str], moto: MotoS3, tmp_path: Path) -> Iterator[tuple[Host, str]]:
    """A host with a copy of that set in both places, which the test may harm."""
    site, set_id = good
    with proxied(Kit(moto, "moto", tmp_path), tmp_path, site.server) as host:
        host.site.home.mkdir(parents=True)
        subprocess.run(["cp", "-a", str(site.home / "sets"), str(host.site.home)], check=True)
        raw, home = moto.client(), "database-backups/%s/" % site.instance
        for item in raw.list_objects_v2(Bucket=BUCKET, Prefix=home + "sets/")["Contents"]:
            source = {"Bucket": BUCKET, "Key": item["Key"]}
            raw.copy_object(Bucket=BUCKET, CopySource=source, Key=host.kit.raw_key(item["Key"].removeprefix(home)))
        yield host, set_id


@pytest.fixture(name="shelf", params=["local", "s3"])
def set_in_each_place(request: pytest.FixtureRequest, mine: tuple[Host, str]) -> Shelf:
    """The set in one of the places, to be harmed; it is good in the other."""
    return Shelf(request.param, *mine)


# --- all levels of verify ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda s: s.flip(DUMP), "databases/shop.dump .*SHA-256 differs"),
        (lambda s: s.write(DUMP, s.read(DUMP)[:-1]), "databases/shop.dump .*has [0-9]+ bytes; the manifest says"),
        (lambda s: s.remove(DUMP), "no sets/.*/databases/shop.dump"),
        (lambda s: s.flip("pg_hba.conf"), "pg_hba.conf .*SHA-256 differs"),
        (lambda s: s.flip(GLOBALS), "globals.sql .*SHA-256 differs"),
        (lambda s: s.remove(GLOBALS), "no sets/.*/globals.sql"),
        (lambda s: s.write("settings.json", b""), "settings.json .*0 bytes"),
        (lambda s: s.manifest(lambda m: m["files"][0].update(size=m["files"][0]["size"] + 1)), "bytes; the manifest says"),
        (lambda s: s.write(MANIFEST, b""), "is not JSON"),
        (lambda s: s.flip(MANIFEST, 0), "is not JSON"),
        (lambda s: s.write(MANIFEST, b"[1, 2]"), "has no format number"),
        (lambda s: s.manifest(lambda m: m.pop("files")), "is incomplete"),
        (lambda s: s.manifest(lambda m: m.update(id="20200101T000000Z-logical")), "calls itself"),
        (
            lambda s: s.manifest(lambda m: m["files"][0].update(path="../../x")),
            "names the path '../../x', which is not inside its set",
        ),
        (lambda s: s.manifest(lambda m: m["files"].clear()), "lists no file for"),
    ],
)  # fmt: skip
def test_harm_to_a_file_is_found_at_every_level(shelf: Shelf, harm: Callable[[Shelf], Any], named: str) -> None:
    harm(shelf)
    site = shelf.host.site
    for level in ("checksum", "structure", "restore"):
        with pytest.raises(DamagedError) as caught:
            site.verify(level, place=shelf.place)
        (report,) = caught.value.details["sets"]
        assert report["outcome"] == "failed"
        assert re.search(named, " ".join(report["findings"])), (level, report["findings"])
        assert report["findings"][0] in str(caught.value)
        assert site.records()[-1]["outcome"] == "failed"
    place = site.context.local if shelf.place == "local" else site.context.s3()
    assert not Catalog(place).verified(shelf.set_id)


# --- every verb, as a program -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Harm:
    """What is done to a set, and what the verbs say of it. `listed`: what a listing alone tells, in info and status."""

    do: Callable[[Shelf], Any]
    said: str
    listed: str = ""
    verify: int = 1
    restore: int = 1


HARMS = {
    "a truncated file": Harm(
        lambda s: s.write(DUMP, s.read(DUMP)[:-100]), "shop.dump .*(has [0-9]+ bytes|not what the manifest says)", "of the wrong size: " + DUMP
    ),
    "a flipped byte": Harm(lambda s: s.flip(DUMP), "shop.dump .*(SHA-256 differs|is not what the manifest says)"),
    "a missing file": Harm(lambda s: s.remove(DUMP), "There is no sets/.*/databases/shop.dump in", "missing: " + DUMP),
    "missing globals": Harm(lambda s: s.remove(GLOBALS), "There is no sets/.*/globals.sql in", "missing: " + GLOBALS),
    "no manifest": Harm(lambda s: s.remove(MANIFEST), "There is no set"),
    "an empty manifest": Harm(lambda s: s.write(MANIFEST, b""), "The manifest of .* is not JSON", "is not JSON"),
    "a torn manifest": Harm(
        lambda s: s.write(MANIFEST, s.read(MANIFEST)[:1000]), "The manifest of .* is not JSON", "is not JSON"
    ),
    "a manifest of a later version": Harm(
        lambda s: s.manifest(lambda m: m.update(format=99)), "format 99", "format 99", verify=4, restore=2
    ),
}  # fmt: skip


@pytest.fixture(name="harmed", params=sorted(HARMS))
def set_that_is_harmed(request: pytest.FixtureRequest, shelf: Shelf) -> tuple[Shelf, Harm]:
    """The set in one place, harmed."""
    harm = HARMS[request.param]
    harm.do(shelf)
    return shelf, harm


def test_every_verb_sees_the_damage_and_the_good_side_repairs_it(harmed: tuple[Shelf, Harm]) -> None:
    shelf, harm = harmed
    host, server = shelf.host, shelf.host.site.server
    before = databases_of(server)
    verify = ("verify", "--place", shelf.place, "--level", "restore")
    host.fails(*verify, code=harm.verify, said=harm.said)
    restore = ("restore", shelf.set_id, "--place", shelf.place, "--rename", "shop", "again", "--yes")
    host.fails(*restore, code=harm.restore, said=harm.said, hint=False)
    assert databases_of(server) == before
    _looks_damaged(shelf, harm)
    _is_repaired(shelf, harm)
    assert host.site.verify("checksum", place=shelf.place)["sets"][0]["outcome"] == "passed"


def _looks_damaged(shelf: Shelf, harm: Harm) -> None:
    """Info and status tell what a listing and the manifest tell, and what the failed verification found."""
    result = shelf.host.program.json("status")
    place = next(p for p in result["places"] if p["place"] == shelf.place)
    findings = {f["check"]: f["text"] for f in result["findings"]}
    if shelf.set_id in place["unfinished"]:
        assert harm is HARMS["no manifest"] and place["sets"] == []
        return
    assert harm is not HARMS["no manifest"]
    (described,) = place["sets"]
    assert described["complete"] == (not harm.listed) and not described["verified"]
    if harm.listed:
        assert harm.listed in described["problem"]
        assert harm.listed in findings["damaged set"] and place["newest"] is None
    else:
        assert "failed its verification" in findings["failed set"]


def _is_repaired(shelf: Shelf, harm: Harm) -> None:
    """Sync from the good side makes it whole, or says that it will not decide."""
    arguments = ("sync",) if shelf.place == "s3" else ("sync", "--pull", shelf.set_id)
    if harm is HARMS["a manifest of a later version"]:
        shelf.host.fails(*arguments, code=1, said="could not be reconciled.*format 99")
        shelf.manifest(lambda m: m.update(format=1))
        return
    result = shelf.host.succeeds(*arguments)
    assert result["changed"]
    assert [r["set"] for r in result["repaired"]] + result["sets"] == [shelf.set_id]
    shelf.is_whole()


@pytest.mark.parametrize("name", ["a flipped byte", "a truncated file", "a missing file"])
def test_a_damaged_copy_does_not_spoil_the_good_one(shelf: Shelf, name: str) -> None:
    """The direction from the bad side to the good one: nothing bad is copied over what is right."""
    HARMS[name].do(shelf)
    good = Shelf("s3" if shelf.place == "local" else "local", shelf.host, shelf.set_id)
    arguments = ("sync",) if shelf.place == "local" else ("sync", "--pull", shelf.set_id)
    shelf.host.program.json(*arguments)
    good.is_whole()


def test_with_globals_lost_the_databases_still_come_back(shelf: Shelf) -> None:
    shelf.remove(GLOBALS)
    host, server = shelf.host, shelf.host.site.server
    try:
        arguments = ("restore", shelf.set_id, "--place", shelf.place, "--rename", "shop", "again", "--yes")
        host.succeeds(*arguments, "--globals", "none")
        assert run_sql(server, "again", "SELECT count(*) FROM shop.goods") == [(50,)]
    finally:
        run_sql(server, "postgres", "DROP DATABASE IF EXISTS again WITH (FORCE)")
