# SPDX-License-Identifier: GPL-3.0-or-later
"""Encrypted sets: no plaintext ever lies on the disk, only the key's holder can read them, and they restore in full."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.filter.assessment import assessment
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    DamagedError,
    PgopsError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.catalog import Catalog
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.status import status
from demo import compare
from demo.servers import MotoS3, PostgresServer
from tests.integration.conftest import Key, Poll, Site, create_database, databases_of, flip, run_sql

MakeSite = Callable[..., Site]
MakeKey = Callable[[str], Key]
MARK = b"THE-MARK-THAT-MUST-NOT-BE-READ"


@pytest.fixture
def keys(age_key: MakeKey) -> tuple[Key, Key]:
    """The key of the set, and another one."""
    return age_key("right"), age_key("wrong")


def encrypted(site: Site, *keys: Key, **options: Any) -> dict[str, Any]:
    return site.backup(databases=["shop"], encryption="age", recipients=[key.public for key in keys], **options)


def with_key(key: Key) -> dict[str, Any]:
    return {"restore": {"identity_file": str(key.file)}}


def needs_of(site: Site) -> tuple[list[str], list[str]]:
    """Return what the playbook site would still do, where a proof is required and where it is not."""
    said = json.loads(json.dumps(status(site.engine())))
    answer = [{"instance": site.instance, "said": said}]
    every, some = assessment(answer), assessment(answer, require=["backup", "off-site copy"])
    return every[0]["needs"], some[0]["needs"]


def test_every_payload_is_encrypted_and_the_manifest_is_not(
    shop: PostgresServer, make_site: MakeSite, keys: tuple[Key, Key]
) -> None:
    site = make_site(shop)
    result = encrypted(site, keys[0])
    manifest, folder = site.manifest(result["set"]), site.set_folder(result["set"])
    assert manifest.encryption == "age" and manifest.recipients == (keys[0].public,)
    assert len(manifest.files) >= 5
    for file in manifest.files:
        assert file.path.endswith(".age")
        assert (folder / file.path).read_bytes().startswith(b"age-encryption.org/v1\n")
    database = manifest.database("shop")
    assert database is not None and database.dump.layers[-1] == "age" and database.dump.format == "custom"
    assert any("encrypted" in reason for reason in result["choices"]["shop"]["reasons"])
    secret = keys[0].file.read_text().splitlines()[-1]
    assert secret not in json.dumps(result) and secret not in (folder / "manifest.json").read_text()


def test_age_itself_reads_what_was_written(shop: PostgresServer, make_site: MakeSite, keys: tuple[Key, Key]) -> None:
    site = make_site(shop)
    folder = site.set_folder(encrypted(site, keys[0], compression="none")["set"])

    def opened(path: str, key: Key) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["age", "-d", "-i", str(key.file), str(folder / path)], capture_output=True, check=False)

    assert b"CREATE ROLE clerk" in opened("globals.sql.age", keys[0]).stdout
    assert opened("databases/shop.dump.age", keys[0]).stdout.startswith(b"PGDMP")
    assert opened("databases/shop.dump.age", keys[1]).returncode != 0


@pytest.mark.parametrize(("form", "compression"), [("auto", "none"), ("auto", "auto"), ("plain", "none")])
def test_no_plaintext_touches_the_disk(
    bench: PostgresServer, make_site: MakeSite, keys: tuple[Key, Key], form: str, compression: str
) -> None:
    create_database(
        bench, "shop", "CREATE TABLE t AS SELECT '%s' || i AS x FROM generate_series(1, 60000) i" % MARK.decode()
    )
    site = make_site(bench)
    seen: list[int] = []

    def look() -> bool:
        found = False
        # os.walk() goes on where a folder is renamed or removed meanwhile; rglob() would end the polling.
        for path in [Path(folder) / name for folder, _folders, names in os.walk(site.root) for name in names]:
            try:
                content = path.read_bytes() if path.is_file() else b""
            except OSError:
                continue
            seen.append(len(content))
            found = found or MARK in content or b"PGDMP" in content or b"CREATE ROLE" in content
        return found

    with Poll(look) as poll:
        encrypted(site, keys[0], format=form, compression=compression)
    look()
    assert not poll.found and poll.looked > 3
    assert max(seen) > (1000000 if compression == "none" else 10000)


def test_the_polling_would_have_seen_plaintext(bench: PostgresServer, make_site: MakeSite) -> None:
    create_database(bench, "shop", "CREATE TABLE t AS SELECT '%s' AS x" % MARK.decode())
    site = make_site(bench)
    site.backup(databases=["shop"], compression="none", format="plain")
    assert any(MARK in path.read_bytes() for path in site.root.rglob("*") if path.is_file())


def test_without_the_key_only_the_checksums_are_verified_and_that_is_said(
    shop: PostgresServer, make_site: MakeSite, keys: tuple[Key, Key]
) -> None:
    site = make_site(shop)
    set_id = encrypted(site, keys[0])["set"]
    assert needs_of(site) == (["verify"], ["verify"])
    (report,) = site.verify("restore")["sets"]
    assert needs_of(site) == (["verify"], []), "where no proof is required, a second run of site has nothing to do"
    assert (report["outcome"], report["level"], report["asked"]) == ("passed", "checksum", "restore")
    assert any("only its checksums were verified" in remark for remark in report["remarks"])
    assert "_checksum_passed_%s" % set_id in site.evidence()[-1].name
    assert not Catalog(site.context.local).verified(set_id)
    flip(site.set_folder(set_id) / "databases" / "shop.dump.zst.age")
    with pytest.raises(DamagedError):
        site.verify("restore")


def test_without_the_key_nothing_is_restored(
    shop: PostgresServer, bench: PostgresServer, make_site: MakeSite, keys: tuple[Key, Key]
) -> None:
    site = make_site(shop)
    encrypted(site, keys[0])
    with pytest.raises(UsageError, match="encrypted, and no private key was given") as caught:
        site.restore(to=bench)
    assert "identity_file" in caught.value.hint
    assert databases_of(bench) == {"postgres"}


def test_with_a_wrong_key_nothing_is_restored(
    shop: PostgresServer, bench: PostgresServer, make_site: MakeSite, keys: tuple[Key, Key]
) -> None:
    site = make_site(shop)
    encrypted(site, keys[0])
    for globals_ in ("missing", "none"):
        with pytest.raises(UsageError, match="no identity matched any of the recipients") as caught:
            site.restore(to=bench, globals=globals_, ownership=False, sections=with_key(keys[1]))
        assert keys[0].public in caught.value.hint
    assert databases_of(bench) == {"postgres"}
    assert run_sql(bench, "postgres", "SELECT count(*) FROM pg_roles WHERE oid >= 16384") == [(0,)]


def test_a_key_that_cannot_be_read_is_told_before_anything_is_touched(
    shop: PostgresServer, bench: PostgresServer, make_site: MakeSite, keys: tuple[Key, Key]
) -> None:
    site = make_site(shop)
    encrypted(site, keys[0])
    folder = site.root / "folder"
    folder.mkdir(mode=0o700)  # which root can open no more than others a key that is not theirs
    for path, why in ((site.root / "gone", "No such file"), (folder, "Is a directory")):
        with pytest.raises(UsageError, match="cannot read the private key %s: %s" % (path, why)) as caught:
            site.restore(to=bench, sections={"restore": {"identity_file": str(path)}})
        assert "install -m 600 -o" in caught.value.hint
    assert databases_of(bench) == {"postgres"}


def test_a_wrong_key_does_not_damn_a_good_set(shop: PostgresServer, make_site: MakeSite, keys: tuple[Key, Key]) -> None:
    site = make_site(shop)
    encrypted(site, keys[0])
    (site.root / "nonsense").write_text("no key at all\n")
    for file, said in ((keys[1].file, "no identity matched"), (site.root / "nonsense", "nonsense")):
        with pytest.raises(UsageError, match=said):
            site.verify("restore", sections={"restore": {"identity_file": str(file)}})
    assert site.evidence() == []
    plain = site.backup(databases=["shop"])["set"]
    with pytest.raises(UsageError, match="no identity matched") as caught:
        site.verify("structure", sets=("all",), sections=with_key(keys[1]))
    assert [(r["set"], r["outcome"]) for r in caught.value.details["sets"]] == [(plain, "passed")]


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_with_the_key_everything_comes_back(
    shop: PostgresServer, bench: PostgresServer, make_site: MakeSite, keys: tuple[Key, Key], form: str
) -> None:
    site = make_site(shop)
    set_id = encrypted(site, *keys, format=form)["set"]  # two recipients: each of them can
    for number, key in enumerate(keys):
        name = "copy %d" % number
        site.restore(to=bench, rename={"shop": name}, sections=with_key(key))
        one, other = compare.snapshot(shop)['database "shop"'], compare.snapshot(bench)['database "%s"' % name]
        assert compare.differences({"x": one}, {"x": other}) == []
    (report,) = site.verify("restore", sections=with_key(keys[0]))["sets"]
    assert (report["outcome"], report["level"]) == ("passed", "restore")
    assert Catalog(site.context.local).verified(set_id)


def test_from_s3_with_the_key_and_no_plaintext_on_the_way(
    shop: PostgresServer, bench: PostgresServer, make_site: MakeSite, keys: tuple[Key, Key], store: MotoS3
) -> None:
    site = make_site(shop)
    site.use_s3(store)
    encrypted(site, keys[0], compression="none")
    site.push()

    def look() -> bool:
        for path in (*site.root.rglob("*"), *Path("/var/tmp").glob("pgops-*%s*/*" % site.instance)):
            try:
                if path.is_file() and b"PGDMP" in path.read_bytes():
                    return True
            except OSError:
                continue
        return False

    with Poll(look) as poll:
        site.restore(to=bench, place="s3", jobs=4, sections=with_key(keys[0]))
        site.restore(
            to=bench,
            place="s3",
            databases=("shop",),
            tables=("shop.goods",),
            rename={"shop": "goods"},
            sections=with_key(keys[0]),
        )
    assert not poll.found and poll.looked > 3
    assert run_sql(bench, "goods", "SELECT count(*) FROM shop.goods") == [(50,)]


def test_a_cut_in_an_encrypted_archive_with_right_hashes_is_found(
    shop: PostgresServer, make_site: MakeSite, keys: tuple[Key, Key]
) -> None:
    site = make_site(shop)
    set_id = encrypted(site, keys[0])["set"]
    path = "databases/shop.dump.zst.age"
    whole = (site.set_folder(set_id) / path).read_bytes()
    site.forge(set_id, files={path: whole[:-1]})
    with pytest.raises(DamagedError, match="cannot be read to its end"):
        site.verify("structure", sections=with_key(keys[0]))


def test_a_recipient_that_is_no_key_makes_no_set(shop: PostgresServer, make_site: MakeSite, age_key: MakeKey) -> None:
    site = make_site(shop)
    with pytest.raises(PgopsError, match="age ended with status 1"):
        site.backup(databases=["shop"], encryption="age", recipients=["age1nonsense"])
    assert site.sets() == []


def test_without_the_program_nothing_begins(
    shop: PostgresServer, make_site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    site = make_site(shop)
    with pytest.raises(UnreachableError, match="The program age is not installed"):
        site.backup(databases=["shop"], encryption="age", recipients=["age1x"])
    assert site.sets() == []


def test_a_configuration_that_contradicts_itself_is_refused(shop: PostgresServer, make_site: MakeSite) -> None:
    site = make_site(shop)
    for options, said in (
        ({"encryption": "age"}, "needs at least one public key"),
        ({"recipients": ["age1x"]}, "encryption is none"),
        ({"encryption": "age", "recipients": ["age1x"], "format": "directory"}, "directory cannot be encrypted"),
    ):
        with pytest.raises(UsageError, match=said):
            site.backup(**options)
