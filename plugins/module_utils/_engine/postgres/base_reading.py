# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Read the tars of a base backup as a stream: each file in them against PostgreSQL's own list. Nothing is unpacked for it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from ..core import base_list
from ..core.errors import CommandError, DamagedError
from ..core.manifest import Base, Manifest, Payload
from ..core.segments import HISTORY, kind, parse_history, parse_lsn, show_lsn
from ..source import Source

_CHUNK = 1024 * 1024
_MOST_FINDINGS = 50
_WAL = "pg_wal/"


@dataclass
class _Seen:
    """What the tars hold: the size and SHA-256 of each file by its path in the data directory, and the list, if it is inside."""

    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    listing: Optional[bytes] = None
    label: bytes = b""
    histories: dict[str, bytes] = field(default_factory=dict)


def check_base(source: Source, base: Base, parent: Optional[Manifest] = None) -> list[str]:
    """Return what is wrong with a base backup: files that differ from PostgreSQL's list, miss or are too many, and missing WAL.

    An incremental one must hold what changed since `parent`.

    Every tar is decrypted, decompressed and read to its last byte. Raise DamagedError for bytes that are not what the
    manifest of the set says, UsageError without a key.
    """
    seen = _Seen()
    tars = [(base.payload, ""), *((t.payload, "pg_tblspc/%s/" % t.oid) for t in base.tablespaces)]
    tars += [(base.wal, _WAL)] if base.wal is not None else []
    for payload, prefix in tars:
        source.context.reporter.phase("structure of %s" % payload.path, source.size(payload))
        try:
            _read_tar(source, payload, prefix, seen)
        except CommandError as error:
            return ["%s cannot be read to its end: %s" % (payload.path, error.message)]
        except tarfile.TarError as error:
            return ["%s is no whole tar: %s." % (payload.path, error)]
        finally:
            source.context.reporter.done()
    raw = source.content_of(base.listing) if base.listing is not None else seen.listing
    if raw is None:
        return ["There is no %s in %s." % (base_list.NAME, base.payload.path)]
    try:
        listed = base_list.parse_list(raw)
    except DamagedError as error:
        return [error.message]
    findings = _compare(seen, listed) + _missing_wal(source, base, seen)
    if listed.system_identifier and listed.system_identifier != source.manifest.system_identifier:
        findings.append("It is of the cluster %s, and not of that in the manifest." % listed.system_identifier)
    findings += _built_wrong(source.manifest, seen, parent)
    more = len(findings) - _MOST_FINDINGS
    return findings[:_MOST_FINDINGS] + (["And %d more." % more] if more > 0 else [])


class _Reader(io.RawIOBase):
    """A stream of chunks as a file that can be read forwards."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks, self._left = chunks, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        parts, wanted = [], size
        while wanted > 0:
            if not self._left:
                self._left = next(self._chunks, b"")
                if not self._left:
                    break
            part = self._left[:wanted]
            self._left = self._left[len(part) :]
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    def drain(self) -> None:
        """Read to the end: only there it shows whether the bytes are what the manifest says."""
        for _chunk in self._chunks:
            pass


def _read_tar(source: Source, payload: Payload, prefix: str, seen: _Seen) -> None:
    chunks = source.plain(payload)
    try:
        reader = _Reader(chunks)
        with tarfile.open(fileobj=reader, mode="r|", bufsize=_CHUNK, errorlevel=2) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                if content is None:
                    continue
                path = prefix + member.name[2:] if member.name.startswith("./") else prefix + member.name
                if path == base_list.NAME:
                    seen.listing = content.read()
                    continue
                name = path[len(_WAL) :] if path.startswith(_WAL) else ""
                if path == base_list.LABEL or kind(name) == HISTORY:
                    small = content.read()
                    if name:
                        seen.histories[name] = small
                    else:
                        seen.label = small
                    seen.files[path] = (len(small), hashlib.sha256(small).hexdigest())
                    continue
                digest, size = hashlib.sha256(), 0
                while True:
                    chunk = content.read(_CHUNK)
                    if not chunk:
                        break
                    digest.update(chunk)
                    size += len(chunk)
                seen.files[path] = (size, digest.hexdigest())
        reader.drain()
    finally:
        chunks.close()


def _compare(seen: _Seen, listed: base_list.BaseList) -> list[str]:
    findings = []
    for path, wanted in listed.files.items():
        if path not in seen.files:
            findings.append("%s is missing." % path)
            continue
        size, sha256 = seen.files[path]
        if size != wanted.size:
            findings.append("%s has %d bytes; PostgreSQL's list says %d." % (path, size, wanted.size))
        elif wanted.algorithm == "SHA256" and sha256 != wanted.checksum:
            findings.append("%s is not what PostgreSQL's list says (SHA-256 differs)." % path)
    more = [path for path in seen.files if path not in listed.files and not path.startswith(base_list.UNLISTED)]
    return findings + ["%s is in no list of PostgreSQL's." % path for path in more]


def _built_wrong(manifest: Manifest, seen: _Seen, parent: Optional[Manifest]) -> list[str]:
    since = base_list.built_on(seen.label)
    if parent is None:
        return ["It is an incremental one, and its manifest does not say so."] if since else []
    if since != parent.wal_start:
        return [
            "It holds what changed since %s, and %s began at %s."
            % (since or "the beginning", parent.id, parent.wal_start)
        ]
    return _forked(manifest, seen, parent)


def _forked(manifest: Manifest, seen: _Seen, parent: Manifest) -> list[str]:
    """Return that the parent ended behind the point where this one's timeline left its own: together they are no one's past."""
    own, before = manifest.timeline or 1, parent.timeline or 1
    raw = seen.histories.get("%08X.history" % own)
    if own == before or raw is None:
        return []
    try:
        ancestors = parse_history(raw.decode("utf-8", "replace"))
    except ValueError as error:
        return ["The history of timeline %d in it cannot be read: %s." % (own, error)]
    fork = next((position for number, position, _reason in ancestors if number == before), None)
    if fork is None:
        return ["It is of timeline %d, which does not come from timeline %d, that of %s." % (own, before, parent.id)]
    if fork < parse_lsn(parent.wal_end or "0/0"):
        return [
            "Its timeline left that of %s at %s, before %s was whole (%s): they hold two histories."
            % (parent.id, show_lsn(fork), parent.id, parent.wal_end)
        ]
    return []


def _missing_wal(source: Source, base: Base, seen: _Seen) -> list[str]:
    manifest = source.manifest
    needed = base_list.wal_files(
        manifest.timeline or 1, manifest.wal_start or "0/0", manifest.wal_end or "0/0", base.wal_segment_bytes
    )
    return ["The WAL file %s that it needs is missing." % name for name in needed if "pg_wal/" + name not in seen.files]


__all__ = ("check_base",)
