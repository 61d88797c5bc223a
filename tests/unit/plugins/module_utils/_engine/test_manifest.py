# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: it comes back as it was written, and a hostile one is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import posixpath
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import DamagedError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.manifest import (
    Base,
    Database,
    File,
    Manifest,
    Payload,
    Tablespace,
    content_hash,
    decode,
    safe_path,
)

ID = "20261122T020000Z-logical"
SHA = "0" * 64

# Names in PostgreSQL may hold bytes that are no UTF-8; Python shows them as lone low surrogates.
TEXT = st.text(max_size=30) | st.binary(max_size=30).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
PARTS = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=("Cs",)), min_size=1, max_size=12)
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join).filter(lambda p: safe_path(p) and p != "manifest.json")
SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
FILES = st.lists(
    st.builds(File, PATHS, st.integers(0, 2**50), st.text("0123456789abcdef", min_size=64, max_size=64)),
    min_size=1,
    max_size=5,
    unique_by=lambda f: f.path,
)


@st.composite
def manifests(draw: Any) -> Manifest:
    files = tuple(draw(FILES))
    payloads = st.builds(
        Payload,
        st.sampled_from([f.path for f in files]),
        st.sampled_from(["custom", "directory", "plain"]),
        st.sampled_from(["none", "zstd"]),
        st.lists(st.sampled_from(["zstd", "gzip", "age"]), max_size=2).map(tuple),
    )
    databases = st.builds(
        Database,
        TEXT,
        payloads,
        st.dictionaries(TEXT, JSON, max_size=3),
        st.none() | st.dictionaries(TEXT, JSON, max_size=3),
        st.integers(0, 2**50),
        st.floats(0, 1e6),
    )
    return Manifest(
        id=ID,
        instance="db1",
        kind="logical",
        started="2026-11-22T02:00:00+00:00",
        finished="2026-11-22T02:05:00.123456+00:00",
        system_identifier=draw(TEXT),
        server_version="18.3",
        server_version_num=draw(st.integers(0, 200000)),
        tools=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        engine="0.1.0",
        files=files,
        databases=tuple(draw(st.lists(databases, max_size=3))),
        parent=draw(st.none() | st.just("20261121T020000Z-base")),
        timeline=draw(st.none() | st.integers(1, 9)),
        globals=draw(st.none() | payloads),
        roles=draw(st.none() | st.dictionaries(TEXT, JSON, max_size=3)),
        recipients=tuple(draw(st.lists(TEXT, max_size=2))),
        choices=draw(st.dictionaries(TEXT, JSON, max_size=3)),
        left_out=tuple(draw(st.lists(st.dictionaries(TEXT, TEXT, max_size=2), max_size=2))),
        warnings=tuple(draw(st.lists(TEXT, max_size=2))),
    )


def plain(**changes: Any) -> dict[str, Any]:
    """The data of a small valid manifest, with `changes`."""
    manifest = Manifest(
        id=ID,
        instance="db1",
        kind="logical",
        started="2026-11-22T02:00:00+00:00",
        finished="2026-11-22T02:05:00+00:00",
        system_identifier="73",
        server_version="18.3",
        server_version_num=180003,
        tools={},
        engine="0.1.0",
        files=(File("a.dump", 1, SHA), File("dir/toc.dat", 2, SHA), File("dir/1.dat", 3, SHA)),
        databases=(Database("a", Payload("a.dump", "custom"), {}), Database("b", Payload("dir", "directory"), {})),
    )
    return {**json.loads(manifest.encode()), **changes}


def read(data: Any) -> Manifest:
    return decode(json.dumps(data).encode(), set_id=ID)


def with_path(path: str) -> dict[str, Any]:
    data = plain()
    data["files"].append({"path": path, "size": 1, "sha256": SHA})
    return data


@given(manifests())
def test_a_manifest_comes_back_as_it_was_written(manifest: Manifest) -> None:
    assert decode(manifest.encode(), set_id=ID) == manifest


def test_the_content_hash_changes_with_a_single_bit_of_any_file() -> None:
    data = plain()
    before = content_hash(read(data).encode())
    data["files"][1]["sha256"] = "1" + SHA[1:]
    assert content_hash(read(data).encode()) != before
    assert content_hash(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_manifest_answers_what_is_asked_of_it() -> None:
    manifest = read(plain())
    assert manifest.begun == datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
    assert manifest.ended == datetime(2026, 11, 22, 2, 5, tzinfo=UTC)
    assert manifest.size == 6
    found = manifest.database("b")
    assert found is not None
    assert [f.path for f in manifest.files_of(found.dump)] == ["dir/toc.dat", "dir/1.dat"]
    assert manifest.database("c") is None


def test_keys_that_a_later_version_of_this_format_adds_are_ignored() -> None:
    assert read(plain(novelty={"x": 1})) == read(plain())


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../b",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "",
        "..",
        "a\\b",
        "a\0b",
        "manifest.json",
    ],
)
def test_a_path_that_leaves_its_set_is_refused(path: str) -> None:
    with pytest.raises(DamagedError, match="not inside its set"):
        read(with_path(path))


@given(st.text(max_size=20))
@example("a/../b")
@example("a/./b")
def test_a_safe_path_never_leads_out_and_has_one_spelling(path: str) -> None:
    if safe_path(path):
        assert posixpath.normpath(path) == path
        assert not posixpath.isabs(path)
        assert not path.startswith("..") or path[2:3] not in ("", "/")


def test_a_path_named_twice_is_refused() -> None:
    with pytest.raises(DamagedError, match=r"names 'a\.dump' twice"):
        read(with_path("a.dump"))


@pytest.mark.parametrize(
    "file",
    [
        {"path": "x", "size": -1, "sha256": SHA},
        {"path": "x", "size": 1, "sha256": "00"},
        {"path": "x", "size": 1, "sha256": "z" * 64},
        {"path": "x", "size": True, "sha256": SHA},
        {"path": "x", "size": "1", "sha256": SHA},
        {"path": "x", "sha256": SHA},
        "x",
    ],
)
def test_a_file_without_true_size_and_hash_is_refused(file: Any) -> None:
    data = plain()
    data["files"].append(file)
    with pytest.raises(DamagedError, match=ID):
        read(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "20261123T020000Z-logical"},
        {"files": {}},
        {"files": None},
        {"databases": [{"name": "a"}]},
        {"databases": [{"name": "a", "dump": {"path": "gone.dump", "format": "custom"}, "properties": {}}]},
        {"globals": {"path": "gone.sql", "format": "plain"}},
        {"globals": {"path": "../a.dump", "format": "plain"}},
        {"started": "2026-11-22T02:00:00"},
        {"finished": "yesterday"},
        {"started": 5},
        {"format": None},
        {"format": "1"},
        {"server_version_num": "18"},
        {"tools": []},
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused_by_its_name(changes: dict[str, Any]) -> None:
    with pytest.raises(DamagedError, match=ID):
        read(plain(**changes))


def needed() -> list[str]:
    fields = dataclasses.fields(Manifest)
    missing = dataclasses.MISSING
    return [f.name for f in fields if f.default is missing and f.default_factory is missing]


@pytest.mark.parametrize("key", needed())
def test_a_manifest_without_a_needed_key_is_refused(key: str) -> None:
    data = plain()
    del data[key]
    with pytest.raises(DamagedError, match=ID):
        read(data)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"1", b'"x"', b"[" * 100000])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(DamagedError, match=ID):
        decode(raw, set_id=ID)


def test_a_manifest_of_a_newer_format_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"format 2.*Update pgops"):
        read(plain(format=2))


@given(st.dictionaries(st.sampled_from(sorted(plain())), JSON, min_size=1, max_size=3))
def test_no_manifest_however_odd_makes_reading_crash(changes: dict[str, Any]) -> None:
    with contextlib.suppress(DamagedError, UsageError):
        read(plain(**changes))


# --- base backups -----------------------------------------------------------------------------------------------------


def of_a_base(changes: dict[str, Any] | None = None, **base: Any) -> dict[str, Any]:
    """The manifest of a base backup as data; `base` changes its section, `changes` the rest."""
    inner = Base(
        Payload("base/base.tar.zst", "tar", "zstd", ("zstd",)),
        stopped="2026-11-22T02:05:00+00:00",
        next_xid=750,
        wal_segment_bytes=16 * 1024 * 1024,
        bytes=1024,
        checksums=True,
        algorithm="SHA256",
        listing=Payload("base/backup_manifest", "backup_manifest"),
        tablespaces=(
            Tablespace("16384", "far", "/a far place", Payload("base/16384.tar.zst", "tar", "zstd", ("zstd",))),
        ),
        databases=({"name": "orders", "bytes": 7},),
    )
    section = {**dataclasses.asdict(inner), **base}
    names = ("base/16384.tar.zst", "base/backup_manifest", "base/base.tar.zst")
    facts = {
        "id": ID.replace("logical", "base"),
        "kind": "base",
        "files": [{"path": name, "size": 1, "sha256": SHA} for name in names],
        "databases": [],
        "timeline": 1,
        "wal_start": "0/2000028",
        "wal_end": "0/2000120",
        "base": section,
    }
    whole = {**json.loads(json.dumps(plain(), default=list)), **facts}
    for payload in ("globals", "settings", "hba", "ident"):
        whole[payload] = None
    return {**whole, **(changes or {})}


def read_base(data: dict[str, Any]) -> Manifest:
    return decode(json.dumps(data).encode(), set_id=data["id"])


def test_a_base_backup_comes_back_as_it_was_written() -> None:
    manifest = read_base(of_a_base())
    assert manifest.base is not None
    assert manifest.base.tablespaces[0].path == "/a far place"
    assert [p.path for p in manifest.base.payloads] == [
        "base/base.tar.zst",
        "base/16384.tar.zst",
        "base/backup_manifest",
    ]
    assert manifest.database_names == ["orders"]
    assert decode(manifest.encode(), set_id=manifest.id) == manifest


SPACE = {"oid": "1", "name": "far", "path": "/far", "payload": {"path": "base/16384.tar.zst", "format": "tar"}}


@pytest.mark.parametrize(
    ("changes", "base"),
    [
        ({}, {"stopped": "2026-11-22T02:05:00"}),
        ({"wal_start": None}, {}),
        ({"wal_end": "somewhere"}, {}),
        ({"timeline": None}, {}),
        ({}, {"wal_segment_bytes": 4711}),
        ({}, {"tablespaces": [{**SPACE, "oid": "../../etc"}]}),
        ({}, {"tablespaces": [SPACE, SPACE]}),
        ({}, {"payload": {"path": "base/nothing.tar", "format": "tar"}}),
        ({"kind": "logical"}, {}),
        ({"id": ID}, {}),
    ],
)
def test_a_base_backup_that_contradicts_itself_is_refused(changes: dict[str, Any], base: dict[str, Any]) -> None:
    with pytest.raises(DamagedError):
        read_base(of_a_base(changes, **base))
