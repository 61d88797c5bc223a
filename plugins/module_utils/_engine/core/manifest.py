# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The manifest: what a set is and holds. A folder without one is not a backup. docs/manifest.md describes the format."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Optional

from .errors import DamagedError, UsageError
from .json_text import to_json
from .naming import is_physical, is_set_id
from .segments import is_size, parse_lsn
from .times import parse_iso

FORMAT = 1
NAME = "manifest.json"
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class File:
    """A payload file: its path inside the set, size in bytes and SHA-256."""

    __slots__ = ("path", "sha256", "size")  # there may be hundreds of thousands

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Payload:
    """What one or several files hold together.

    `path` is a file, or a folder for pg_dump's directory format. `layers` are the wrappers around the file, innermost
    first (`zstd`, `gzip`, `lz4`, `age`); compression that PostgreSQL's own tool put inside its format is no layer.
    """

    path: str
    format: str
    compression: str = "none"
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Database:
    """A database in the set: its dump, the properties to create it with, and its fingerprint (fingerprint.py)."""

    name: str
    dump: Payload
    properties: dict[str, Any]
    fingerprint: Optional[dict[str, Any]] = None
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Tablespace:
    """A tablespace in a base backup: its number, its name, the directory that it had, and its tar.

    `bytes` is what it takes unpacked, -1 where nobody knows; of an incremental one its own files take `own_bytes`.
    """

    oid: str
    name: str
    path: str
    payload: Payload
    bytes: int = -1
    own_bytes: int = 0


@dataclass(frozen=True)
class Base:
    """A base backup: the tar of the data directory with the WAL that makes it consistent, and those of the tablespaces.

    `wal` is the tar of that WAL where it came from the WAL archive, None where it lies in that of the data directory.
    `listing` is PostgreSQL's own backup_manifest, None when it lies inside the tar; `list_sha256` is its hash then, where the host
    that took it kept a copy. `databases` are {name, bytes}; `bytes` is
    what it takes unpacked. `stopped` is the moment of its end by the server's clock, `next_xid` the first transaction
    that began after it, `wal_segment_bytes` the size of a WAL file. Of an incremental one the files hold only what changed
    since its parent, whose manifest has the SHA-256 `parent_content`; `own_bytes` is what they take unpacked. `wal_directory` is
    where pg_wal lay outside of the data directory, empty for inside of it, None where nobody knows.
    """

    payload: Payload
    stopped: str
    next_xid: int
    wal_segment_bytes: int
    bytes: int
    checksums: bool
    algorithm: str
    listing: Optional[Payload] = None
    tablespaces: tuple[Tablespace, ...] = ()
    databases: tuple[dict[str, Any], ...] = ()
    parent_content: str = ""
    own_bytes: int = 0
    list_sha256: str = ""
    wal_directory: Optional[str] = None
    wal: Optional[Payload] = None

    @property
    def payloads(self) -> tuple[Payload, ...]:
        """All payloads of the base backup."""
        inner = (self.payload, *(t.payload for t in self.tablespaces))
        return (*inner, *(one for one in (self.wal, self.listing) if one is not None))


@dataclass(frozen=True)
class Manifest:
    """One backup set. Times are ISO 8601 in UTC; `left_out` lists what is missing and why."""

    id: str
    instance: str
    kind: str
    started: str
    finished: str
    system_identifier: str
    server_version: str
    server_version_num: int
    tools: dict[str, str]
    engine: str
    files: tuple[File, ...]
    databases: tuple[Database, ...] = ()
    parent: Optional[str] = None
    timeline: Optional[int] = None
    wal_start: Optional[str] = None
    wal_end: Optional[str] = None
    base: Optional[Base] = None
    from_standby: bool = False
    host: str = ""
    globals: Optional[Payload] = None
    globals_passwords: bool = False
    settings: Optional[Payload] = None
    hba: Optional[Payload] = None
    ident: Optional[Payload] = None
    roles: Optional[dict[str, Any]] = None
    encryption: str = "none"
    recipients: tuple[str, ...] = ()
    choices: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[dict[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    format: int = FORMAT

    @property
    def begun(self) -> datetime:
        """The moment at which the backup began."""
        return parse_iso(self.started)

    @property
    def ended(self) -> datetime:
        """The moment at which the backup was whole."""
        return parse_iso(self.finished)

    @property
    def size(self) -> int:
        """Bytes of all payload files."""
        return sum(entry.size for entry in self.files)

    @property
    def database_names(self) -> list[str]:
        """The names of all databases in the set, of whichever kind it is."""
        more = self.base.databases if self.base is not None else ()
        return [d.name for d in self.databases] + [str(d.get("name")) for d in more]

    def database(self, name: str) -> Optional[Database]:
        """Return the database called `name`, or None."""
        return next((d for d in self.databases if d.name == name), None)

    def files_of(self, payload: Payload) -> list[File]:
        """Return the files that make up `payload`."""
        return [f for f in self.files if f.path == payload.path or f.path.startswith(payload.path + "/")]

    def encode(self) -> bytes:
        """Return the bytes of manifest.json."""
        return to_json(dataclasses.asdict(self))


def content_hash(encoded: bytes) -> str:
    """Return the SHA-256 of a manifest's bytes: it names the set's content, since the manifest holds every file's hash."""
    return hashlib.sha256(encoded).hexdigest()


def decode(encoded: bytes, *, set_id: str) -> Manifest:
    """Return the manifest that `encoded` holds, which must be of the set `set_id`.

    Raise DamagedError if it is none, contradicts itself or names a path outside its set; UsageError if a newer
    version of this program wrote it.
    """
    try:
        data = json.loads(encoded.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError("The manifest of %s is not JSON: %s." % (set_id, error)) from None
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise DamagedError("The manifest of %s has no format number." % set_id)
    if data["format"] > FORMAT:
        raise UsageError(
            "The set %s was written in format %d; this version knows formats up to %d."
            % (set_id, data["format"], FORMAT),
            hint="Update pgops.backup, or restore by hand (docs/restore-by-hand.md).",
        )
    try:
        manifest: Manifest = _from_data(Manifest, data)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError("The manifest of %s is incomplete: %s." % (set_id, error)) from None
    _check(manifest, set_id)
    return manifest


def _from_data(cls: type[Any], data: Any) -> Any:
    if not isinstance(data, Mapping):
        raise TypeError("%s is %s" % (cls.__name__, type(data).__name__))
    return cls(
        **{name: _value(hint, data[name], name) for name, hint in _fields(typing.cast(Any, cls)) if name in data}
    )


@functools.cache
def _fields(cls: type[Any]) -> list[tuple[str, Any]]:
    """Return the names and types of the fields of a dataclass: asked for each file of a set, and dear to find out."""
    hints = typing.get_type_hints(cls)
    return [(field.name, hints[field.name]) for field in dataclasses.fields(cls)]


def _value(hint: Any, value: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union:
        return None if value is None else _value(arguments[0], value, name)
    if dataclasses.is_dataclass(hint):
        return _from_data(typing.cast(type[Any], hint), value)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError("%s is no list" % name)
        return tuple(_value(arguments[0], item, name) for item in value)
    expected = origin or hint
    if expected is float and isinstance(value, int):
        return float(value)
    if expected is not Any and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
        raise TypeError("%s is %s" % (name, type(value).__name__))
    return value


def _check(manifest: Manifest, set_id: str) -> None:
    if manifest.id != set_id or not is_set_id(manifest.id):
        raise DamagedError("The manifest of %s calls itself %r." % (set_id, manifest.id))
    for moment in (manifest.started, manifest.finished):
        try:
            parse_iso(moment)
        except UsageError as error:
            raise DamagedError("The manifest of %s tells no true time: %s" % (set_id, error.message)) from None
    seen = set()
    for entry in manifest.files:
        if not safe_path(entry.path) or entry.path == NAME:
            raise DamagedError(
                "The manifest of %s names the path %r, which is not inside its set." % (set_id, entry.path)
            )
        if entry.path in seen:
            raise DamagedError("The manifest of %s names %r twice." % (set_id, entry.path))
        if entry.size < 0 or not _SHA256.fullmatch(entry.sha256):
            raise DamagedError("The manifest of %s has no true size or hash for %r." % (set_id, entry.path))
        seen.add(entry.path)
    payloads = [p for p in (manifest.globals, manifest.settings, manifest.hba, manifest.ident) if p]
    payloads += [d.dump for d in manifest.databases] + list(manifest.base.payloads if manifest.base else ())
    if (manifest.kind == "logical" and manifest.base is not None) or not set_id.endswith("-" + manifest.kind):
        raise DamagedError("The manifest of %s is of the kind %r, and holds something else." % (set_id, manifest.kind))
    if manifest.base is not None:
        _check_base(manifest, manifest.base)
    for payload in payloads:
        if not manifest.files_of(payload):
            raise DamagedError("The manifest of %s lists no file for %r." % (set_id, payload.path))


def _check_base(manifest: Manifest, base: Base) -> None:
    """Distrust what becomes a path, a position or a moment. Raise DamagedError."""
    try:
        parse_iso(base.stopped)
        parse_lsn(manifest.wal_start or "")
        parse_lsn(manifest.wal_end or "")
    except (UsageError, ValueError) as error:
        raise DamagedError("The manifest of %s does not say where it ends: %s" % (manifest.id, error)) from None
    oids = [tablespace.oid for tablespace in base.tablespaces]
    if not all(re.fullmatch("[0-9]{1,10}", oid) for oid in oids) or len(set(oids)) < len(oids):
        raise DamagedError("The manifest of %s names no true tablespaces." % manifest.id)
    builds = manifest.parent is not None and is_set_id(manifest.parent) and is_physical(manifest.parent)
    if builds if manifest.kind == "base" else not builds:
        raise DamagedError("The manifest of %s does not say rightly what it builds on." % manifest.id)
    if not is_size(base.wal_segment_bytes) or manifest.timeline is None:
        raise DamagedError("The manifest of %s does not say which WAL it needs." % manifest.id)


def safe_path(path: str) -> bool:
    """Tell whether `path` stays inside the folder that it is relative to, and is written in one way only."""
    parts = path.split("/")
    return bool(path) and "\0" not in path and "\\" not in path and not any(p in ("", ".", "..") for p in parts)


__all__ = (
    "FORMAT",
    "NAME",
    "Base",
    "Database",
    "File",
    "Manifest",
    "Payload",
    "Tablespace",
    "content_hash",
    "decode",
    "safe_path",
)
