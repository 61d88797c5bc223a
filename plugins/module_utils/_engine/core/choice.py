# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What `auto` means: format, compression and jobs of a dump, chosen from facts, with the reasons. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ..settings import Backup
from .errors import UsageError
from .sizes import human_size

# Measured on mixed databases: zstd at 3 is a tenth smaller than at 1, and hidden behind the server's own work.
LEVELS = {"zstd": 3, "lz4": 1, "gzip": 6}
_RANGES = {"zstd": (0, 19), "lz4": (1, 12), "gzip": (1, 9)}
# Below this, starting parallel workers costs more than they save.
WORTH_PARALLEL = 256 * 1024 * 1024


@dataclass(frozen=True)
class Facts:
    """What the choice depends on: compressions inside pg_dump, programs on PATH, cores, the database's bytes and tables."""

    native: frozenset[str]
    programs: frozenset[str]
    cores: int
    bytes: int
    tables: int


@dataclass(frozen=True)
class Choice:
    """How one database is dumped. `native` is the compression inside pg_dump's format, `layers` what is put around it."""

    format: str
    native: str
    layers: tuple[str, ...]
    level: Optional[int]
    jobs: int
    reasons: tuple[str, ...]


def choose(wanted: Backup, facts: Facts) -> Choice:
    """Return how to dump a database with `facts` as `wanted`.

    Raise UsageError if what is wanted cannot be done here; `auto` always finds a way.
    """
    reasons: list[str] = []
    jobs = wanted.jobs or min(facts.cores, 4)
    form = _format(wanted, facts, jobs, reasons)
    method, inside = _compression(wanted, facts, form, reasons)
    layers: tuple[str, ...] = () if inside or method == "none" else (method,)
    if wanted.encryption == "age":
        layers += ("age",)
        reasons.append("encrypted as one stream to %d recipient(s)" % len(wanted.recipients))
    _check_level(method, wanted.compression_level)
    level = (
        None if method == "none" else (LEVELS[method] if wanted.compression_level is None else wanted.compression_level)
    )
    return Choice(form, method if inside else "none", layers, level, jobs if form == "directory" else 1, tuple(reasons))


def _check_level(method: str, level: Optional[int]) -> None:
    if method != "none" and level is not None and not _RANGES[method][0] <= level <= _RANGES[method][1]:
        raise UsageError(
            "%s has no level %d." % (method, level),
            hint="Set backup.compression_level to %d to %d, or leave it empty." % _RANGES[method],
        )


def _format(wanted: Backup, facts: Facts, jobs: int, reasons: list[str]) -> str:
    if wanted.format != "auto":
        reasons.append("format %s: asked for" % wanted.format)
        return wanted.format
    if wanted.encryption == "age":
        reasons.append("format custom: an encrypted dump is one stream")
        return "custom"
    outside = wanted.compression == "auto" and "zstd" not in facts.native and "zstd" in facts.programs
    if facts.bytes < WORTH_PARALLEL:
        reasons.append("format custom: %s need no parallel dump" % human_size(facts.bytes))
    elif facts.tables < 2 or jobs < 2:
        reasons.append(
            "format custom: %d table(s) and %d job(s) leave nothing to do in parallel" % (facts.tables, jobs)
        )
    elif outside or (wanted.compression not in ("auto", "none") and wanted.compression not in facts.native):
        reasons.append("format custom: the compression runs beside pg_dump, on all cores")
    else:
        reasons.append("format directory: %s in %d tables, %d jobs" % (human_size(facts.bytes), facts.tables, jobs))
        return "directory"
    return "custom"


def _compression(wanted: Backup, facts: Facts, form: str, reasons: list[str]) -> tuple[str, bool]:
    """Return the method and whether pg_dump does it inside its own format."""
    method = wanted.compression
    if method == "none":
        reasons.append("compression none: asked for")
        return method, False
    can_wrap = form != "directory"
    native = facts.native if form != "plain" else frozenset()
    if method == "auto":
        for method, inside in (("zstd", True), ("zstd", False), ("gzip", True), ("gzip", False)):
            if method in native if inside else (can_wrap and method in facts.programs):
                reasons.append("compression %s: %s" % (method, _why(method, inside)))
                return method, inside
        reasons.append("compression none: neither pg_dump nor a program here can compress")
        return "none", False
    if method in native:
        reasons.append("compression %s: asked for, pg_dump does it" % method)
        return method, True
    if can_wrap and method in facts.programs:
        reasons.append("compression %s: asked for, the program %s does it" % (method, method))
        return method, False
    raise UsageError(
        "Compression %s is not possible with format %s here: this build of pg_dump cannot do it%s."
        % (method, form, "" if not can_wrap else ", and the program %s is not installed" % method),
        hint="Use compression auto%s." % ("" if can_wrap else ", or format custom"),
    )


def _why(method: str, inside: bool) -> str:
    if method == "zstd":
        return "pg_dump does it" if inside else "this build of pg_dump cannot, the program zstd does it"
    lacks = "neither this build of pg_dump nor a program here can do zstd"
    return lacks if inside else lacks + "; the program gzip does it"


__all__ = ("LEVELS", "WORTH_PARALLEL", "Choice", "Facts", "choose")
