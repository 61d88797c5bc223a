# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What making a set of any kind shares: its id, its list of files, and what is kept of the server's own files."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

from ..context import Context
from ..core.errors import RefusedError
from ..core.group import may_name
from ..core.json_text import to_json
from ..core.manifest import File, Payload
from ..core.naming import set_id
from ..core.sizes import human_size, parse_size
from ..postgres.connection import Session
from ..postgres.dumping import Sink, write_payload
from ..system.durable import free_bytes, no_inode, sha256_file, sync_file


def free_id(context: Context, kind: str) -> str:
    """Return an id that comes after every other: ids have whole seconds, so a run right after another, of any kind, waits.

    In a group of servers it waits for a second of this node, too.
    """
    group = context.config.group
    while True:
        now = context.clock()
        name = set_id(now, kind)
        ours = not group.members or may_name(now, members=group.members, node=group.node)
        if ours and not any(context.local.path("sets").glob("%s-*" % name.partition("-")[0])):
            return name
        time.sleep(0.1)


def check_room(context: Context, estimate: int, *, elsewhere: bool = False) -> int:
    """Return the bytes that are free in the local place. Raise RefusedError if `estimate` of them would take what must stay free.

    `elsewhere` says that such a set can be made straight in S3, where that is configured.
    """
    free, floor = free_bytes(Path(context.config.local.path)), parse_size(context.config.backup.min_free)
    if free - estimate < floor:
        straight = "back up straight to S3 (--to s3), " if elsewhere and context.config.s3 is not None else ""
        raise RefusedError(
            "%s has %s free%s; this backup needs about %s, and %s must stay free."
            % (
                context.config.local.path,
                human_size(free),
                " (no inode is left: df -i)" if no_inode(Path(context.config.local.path)) else "",
                human_size(estimate),
                human_size(floor),
            ),
            hint="Make room (pgops prune), %smove local.path to a larger disk, or lower backup.min_free." % straight,
        )
    return free


def server_files(context: Context, session: Session, sink: Sink, left_out: list[dict[str, str]]) -> dict[str, Payload]:
    """Store the settings that are not defaults, pg_hba.conf and pg_ident.conf, as far as this role may read them; add to `left_out`."""
    found: dict[str, Payload] = {}
    rows = session.rows(
        "SELECT name, setting, unit, source, sourcefile FROM pg_settings WHERE source NOT IN ('default', 'client', 'session', 'override') ORDER BY 1"
    )
    # A connection string is a setting too; its password is not ours to keep.
    settings = [dict(zip(("name", "setting", "unit", "source", "file"), row)) for row in rows]
    found["settings"] = write_payload(context, sink, "settings.json", "json", to_json(context.redactor.data(settings)))
    for key, setting, file in (("hba", "hba_file", "pg_hba.conf"), ("ident", "ident_file", "pg_ident.conf")):
        content = session.allowed("SELECT pg_read_file(current_setting(%s))", (setting,))
        if content is None:
            left_out.append({"what": file, "why": "this role may not read it (server_files of pg_backup_role lets it)"})
            context.warn("%s is not in the set: this role may not read it." % file)
        else:
            found[key] = write_payload(context, sink, file, "conf", content[0][0].encode())
    return found


def files_of(folder: Path, known: Optional[Mapping[Path, tuple[int, str]]] = None) -> tuple[File, ...]:
    """Return the files of a set that is being written, as its manifest lists them; they become private.

    While they are read they go to the disk, so that little is left to wait for when the set is published. Those whose bytes
    and SHA-256 are `known` are not read again.
    """

    def sha256(path: Path) -> str:
        size, digest = (known or {}).get(path, (-1, ""))
        return digest if size == path.stat().st_size else sha256_file(path)

    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in paths:
        path.chmod(0o600)
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1, "pgops-files") as pool:
        work = [(pool.submit(sync_file, path), pool.submit(sha256, path)) for path in paths]
    found = []
    for path, (flushed, digest) in zip(paths, work):
        flushed.result()
        found.append(File(path.relative_to(folder).as_posix(), path.stat().st_size, digest.result()))
    return tuple(found)


__all__ = ("check_room", "files_of", "free_id", "server_files")
