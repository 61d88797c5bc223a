# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Fetch: one WAL file from the archive for a server that recovers. PostgreSQL's restore_command.

What lies on this host comes first. From S3 the segments that follow are brought along, as asking for each alone costs more
than it is long: they wait in `.pgops` beside the target, still packed.
"""

from __future__ import annotations

import os

from ..core.errors import DamagedError, PgopsError, UnreachableError
from ..core.segments import SEGMENT, kind, parse_stored
from .origin import known_identifier
from .spool import AbsentError, find, folder_of, lineage_dir, one_content, open_to, read_file
from .tablespaces import look_into

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional

    from .brief import Brief

    Bring = Callable[[Brief, str, str, str, str, str, Optional[Callable[[bytes], bytes]], Callable[[str], None]], None]

AHEAD = ".pgops"


class Way:
    """How a process that stays does it: the data directory of its caller, and how it gets a file from S3, with a connection that stays."""

    def __init__(self, directory: str, bring: Bring) -> None:
        self.directory, self.bring = directory, bring


def fetch(
    brief: Brief,
    name: str,
    target: str,
    *,
    system_identifier: str = "",
    place: str = "auto",
    config_path: str = "",
    say: Callable[[str], None] = lambda _text: None,
    way: Way | None = None,
) -> str:
    """Write the WAL file `name` to `target` and return where it came from: ahead, local or s3.

    `place` is auto, local or s3; `way` that of a process that stays, which looks into what it hands over; `say` hears warnings.
    Raise AbsentError when the archive, which was read, does not have it;
    every other PgopsError means that nobody can tell, or that the server must not replay it.
    """
    source = _bring(brief, name, target, system_identifier, place, config_path, say, way)
    if way is None:
        look_into_or_remove(os.getcwd(), name, target)
    return source


def look_into_or_remove(directory: str, name: str, path: str) -> None:
    """Do as look_into() does; a file that must not be replayed does not stay."""
    try:
        look_into(directory, name, path)
    except BaseException:
        os.unlink(path)
        raise


def _bring(
    brief: Brief,
    name: str,
    target: str,
    system_identifier: str,
    place: str,
    config_path: str,
    say: Callable[[str], None],
    way: Way | None,
) -> str:
    if not kind(name):
        # PostgreSQL asks for nothing else; whatever it is, the archive does not have it.
        raise AbsentError("%s is no name of a WAL file." % name)
    identifier = known_identifier(system_identifier, way.directory if way else os.getcwd())
    ahead = ahead_of(target)
    decrypt = decryption(brief.identity_file)
    directories = {"ahead": ahead, "local": folder_of(brief.home, identifier, name)}
    if place == "s3":
        del directories["local"]
    source, trouble = _from_host(directories, name, target, decrypt, say)
    if source:
        return source
    if brief.s3 and place != "local":
        if way is None:
            from . import remote
        try:
            (way.bring if way else remote.bring)(brief, config_path, identifier, name, target, ahead, decrypt, say)
        except AbsentError:
            if trouble is None:
                raise
        else:
            return "s3"
    if trouble is not None:
        raise trouble
    top = lineage_dir(brief.home, identifier)
    if not os.path.isdir(top):
        # Not the end of the WAL, but the wrong place: recovery must not stop here.
        raise UnreachableError(
            "There is no WAL archive of the cluster %s here: %s does not exist." % (identifier, top),
            hint="Check local.path and instance in the configuration, or mount the disk.",
        )
    raise AbsentError("%s is not in %s." % (name, top))


def _from_host(
    directories: dict[str, str],
    name: str,
    target: str,
    decrypt: Callable[[bytes], bytes] | None,
    say: Callable[[str], None],
) -> tuple[str, PgopsError | None]:
    """Return which of the directories had the file, empty for none, and what is wrong with those that should have."""
    trouble: PgopsError | None = None
    for source, directory in directories.items():
        found = find(directory, name)
        if not found:
            continue
        try:
            stored = one_content(found, name, directory)
            blob = _read(directory, stored)
            if blob is None:
                continue
            open_to(blob, stored, directory, decrypt, target)
        except (DamagedError, UnreachableError) as error:
            trouble = error
            say("warning: %s" % error.message)
            continue
        if source == "ahead":
            drop(directory, name)
        return source, None
    return "", trouble


def _read(directory: str, stored: str) -> bytes | None:
    """Return the bytes of a stored file; None if it was removed since it was found."""
    try:
        return read_file(os.path.join(directory, stored))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreachableError("%s/%s cannot be read: %s." % (directory, stored, error.strerror)) from error


def ahead_of(target: str) -> str:
    """Return the directory of what comes before it is asked for, beside `target`, which may lie in it itself."""
    inner = os.path.dirname(target) or "."
    return inner if os.path.basename(inner) == AHEAD else os.path.join(inner, AHEAD)


def drop(ahead: str, name: str) -> None:
    """Remove what was brought ahead, still packed, and is used or passed by now."""
    for stored in os.listdir(ahead):
        held = parse_stored(stored)[0]
        if held == name or (kind(held) == SEGMENT == kind(name) and held[8:24] < name[8:24]):
            try:
                os.unlink(os.path.join(ahead, stored))
            except OSError:
                return


def decryption(identity_file: str) -> Callable[[bytes], bytes] | None:
    """Return what decrypts with the private key in `identity_file`; None without one."""
    if not identity_file:
        return None

    def decrypt(blob: bytes) -> bytes:
        from ..system.codec import unwrap
        from ..system.runner import Runner

        runner, output = Runner(), list[bytes]()
        runner.pipe(unwrap(runner, ["age"], identity_file=identity_file), source=[blob], sink=output.append)
        return b"".join(output)

    return decrypt


__all__ = ("AHEAD", "Way", "ahead_of", "decryption", "drop", "fetch", "look_into_or_remove")
