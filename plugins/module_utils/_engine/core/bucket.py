# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What a bucket for backups is to be like: from what it is like now and what is wanted to what it will be like.

Settings are plain values by name (NAMES): `versioning` is Enabled, Suspended or Off; `object_lock` has enabled, mode and
days; `lifecycle` is the list of the bucket's rules as S3 words them; `public_access_block` is true when nobody gets in by it;
`tags` are a mapping. None stands for what the store does not know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from .errors import RefusedError, UsageError

Settings = dict[str, Any]
Rule = dict[str, Any]

# In the order in which they are written: nobody is to look in while the rest is on its way, and locks need versions.
NAMES = ("public_access_block", "versioning", "object_lock", "lifecycle", "tags")

# Objects in these classes must be thawed, for hours, before anyone can read them.
FROZEN = frozenset({"GLACIER", "DEEP_ARCHIVE"})
# Manifests, evidence and pins are smaller. Without them nobody would know what is in the archive.
FROZEN_FROM_BYTES = 8 * 1024 * 1024
_WARM_FIRST = frozenset({"STANDARD_IA", "ONEZONE_IA"})
_WARM_FIRST_DAYS = 30
_LONGEST_ID = 255
_LONGEST_DAYS = 36500


@dataclass(frozen=True)
class Lock:
    """How long each new version is kept from being removed, by anybody (COMPLIANCE) or by most (GOVERNANCE)."""

    mode: str
    days: int


@dataclass(frozen=True)
class Lifecycle:
    """What the store does by itself below our prefix, in days; 0 for never."""

    archive_after: int = 0
    archive_class: str = "GLACIER_IR"
    noncurrent_days: int = 0
    abort_multipart_days: int = 7


@dataclass(frozen=True)
class Wanted:
    """What is asked for. None, no tags and a block that is not asked for leave what there is."""

    versioning: Optional[bool] = None
    object_lock: Optional[Lock] = None
    lifecycle: Optional[Lifecycle] = None
    public_access_block: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)


def check(wanted: Wanted, *, amazon: bool) -> None:
    """Raise UsageError that names all that cannot be wanted. `amazon` tells whether Amazon's own limits hold."""
    errors = []
    lock, cycle = wanted.object_lock, wanted.lifecycle
    if lock is not None and not 1 <= lock.days <= _LONGEST_DAYS:
        errors.append("object_lock.days: expected 1 to %d, found %d." % (_LONGEST_DAYS, lock.days))
    if lock is not None and wanted.versioning is False:
        errors.append("versioning: Object Lock needs versions; leave it out or set it to true.")
    if cycle is not None:
        days = ("archive_after", "noncurrent_days", "abort_multipart_days")
        wrong = [name for name in days if not 0 <= getattr(cycle, name) <= _LONGEST_DAYS]
        errors += ["lifecycle.%s: expected 0 to %d days." % (name, _LONGEST_DAYS) for name in wrong]
        if cycle.archive_after and not cycle.archive_class:
            errors.append("lifecycle.archive_class: which class is to be the colder one?")
        if amazon and cycle.archive_class in _WARM_FIRST and 0 < cycle.archive_after < _WARM_FIRST_DAYS:
            errors.append(
                "lifecycle.archive_after: Amazon moves nothing to %s before %d days."
                % (cycle.archive_class, _WARM_FIRST_DAYS)
            )
    if errors:
        raise UsageError("The bucket cannot be so:\n%s" % "\n".join("  - %s" % error for error in errors))


def fresh(wanted: Wanted) -> Settings:
    """Return the settings of a bucket that is made for `wanted`, before anything else is set."""
    locked = wanted.object_lock is not None
    return {
        "public_access_block": False,
        "versioning": "Enabled" if locked else "Off",
        "object_lock": {"enabled": locked, "mode": "", "days": 0},
        "lifecycle": [],
        "tags": {},
    }


def planned(found: Mapping[str, Any], wanted: Wanted, home: str) -> Settings:
    """Return the settings that the bucket is to have; what the store does not know stays None.

    `home` is what our keys begin with. Raise RefusedError for what an existing bucket cannot become.
    """
    goal = dict(found)
    lock = found["object_lock"] or {"enabled": False}
    if wanted.object_lock is not None:
        if not lock["enabled"]:
            raise RefusedError(
                "Object Lock cannot be given to this bucket: it was made without.",
                hint="Name a new bucket, which is made with it, or leave object_lock out. Where the store lets you turn it "
                "on later, do that yourself first: it cannot be turned off again, and it binds all that the bucket holds.",
            )
        goal["object_lock"] = {"enabled": True, "mode": wanted.object_lock.mode, "days": wanted.object_lock.days}
    if wanted.versioning is False and lock["enabled"]:
        raise RefusedError(
            "A bucket with Object Lock cannot be without versions.", hint="Set versioning to true, or leave it out."
        )
    if found["versioning"] is not None and wanted.versioning is not None:
        off = "Off" if found["versioning"] == "Off" else "Suspended"
        goal["versioning"] = "Enabled" if wanted.versioning else off
    if found["lifecycle"] is not None and wanted.lifecycle is not None:
        goal["lifecycle"] = with_rules(found["lifecycle"], rules(wanted.lifecycle, home), home)
    if found["public_access_block"] is not None and wanted.public_access_block:
        goal["public_access_block"] = True
    if found["tags"] is not None:
        goal["tags"] = {**found["tags"], **wanted.tags}
    return goal


def unknown_to_store(found: Mapping[str, Any], wanted: Wanted) -> list[str]:
    """Return the names of the settings that are wanted and that the store does not know."""
    asked = {
        "public_access_block": wanted.public_access_block,
        "versioning": bool(wanted.versioning),
        "lifecycle": wanted.lifecycle is not None,
        "tags": bool(wanted.tags),
    }
    return [name for name in NAMES if asked.get(name) and found[name] is None]


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that differ, in the order in which they are written."""
    return [name for name in NAMES if before[name] != after[name]]


# --- life cycle -------------------------------------------------------------------------------------------------------


def home_of(prefix: str) -> str:
    """Return what the keys below `prefix` begin with."""
    inner = prefix.strip("/")
    return inner + "/" if inner else ""


def rules(cycle: Lifecycle, home: str) -> list[Rule]:
    """Return our rules for what lies below `home`."""
    made: list[Rule] = []
    clean: Rule = {}
    if cycle.abort_multipart_days:
        clean["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": cycle.abort_multipart_days}
    if cycle.noncurrent_days:
        clean["NoncurrentVersionExpiration"] = {"NoncurrentDays": cycle.noncurrent_days}
        # The marker of a removal has no use once the versions below it are gone.
        clean["Expiration"] = {"ExpiredObjectDeleteMarker": True}
    if clean:
        made.append({"ID": _id("clean", home), "Status": "Enabled", "Filter": {"Prefix": home}, **clean})
    if cycle.archive_after:
        chosen: Rule = {"Prefix": home}
        if cycle.archive_class in FROZEN:
            chosen = {"And": {"Prefix": home, "ObjectSizeGreaterThan": FROZEN_FROM_BYTES - 1}}
        move = {"Days": cycle.archive_after, "StorageClass": cycle.archive_class}
        made.append({"ID": _id("archive", home), "Status": "Enabled", "Filter": chosen, "Transitions": [move]})
    return made


def _id(purpose: str, home: str) -> str:
    """Return the name of one of our rules, which is how it is found again."""
    name = "pgops %s: %s" % (purpose, home or "the whole bucket")
    if len(name) <= _LONGEST_ID:
        return name
    return "pgops %s: %s" % (purpose, hashlib.sha256(home.encode("utf-8")).hexdigest())


def in_order(found: Sequence[Rule]) -> list[Rule]:
    """Return rules by their names. Their order means nothing, and stores do not keep it."""
    return sorted(found, key=lambda rule: str(rule.get("ID")))


def with_rules(found: Sequence[Rule], ours: Sequence[Rule], home: str) -> list[Rule]:
    """Return `found` with `ours` in place of those that we made for `home` before. Rules of others stay as they are."""
    names = {_id(purpose, home) for purpose in ("clean", "archive")}
    return in_order([rule for rule in found if rule.get("ID") not in names] + list(ours))


def freezes_everything(asked: Sequence[Rule], kept: Sequence[Rule]) -> bool:
    """Tell whether a rule that was to spare small objects was `kept` without saying so."""
    spare = {str(r["ID"]): r["Filter"] for r in asked if "ObjectSizeGreaterThan" in r.get("Filter", {}).get("And", {})}
    return any(str(rule.get("ID")) in spare and rule.get("Filter") != spare[str(rule["ID"])] for rule in kept)


def concerns(wanted: Wanted, after: Mapping[str, Any]) -> list[str]:
    """Return what a person should know about a bucket with the settings `after`, one sentence or two each."""
    said = []
    if after["versioning"] != "Enabled" and wanted.versioning is None:
        said.append(
            "The bucket keeps no versions: whoever may write there can overwrite what is there. Set versioning to true."
        )
    expiring = [
        r for r in after["lifecycle"] or () if r.get("Status") == "Enabled" and "NoncurrentVersionExpiration" in r
    ]
    if after["versioning"] == "Enabled" and not expiring:
        said.append(
            "The bucket keeps versions, and nothing ever removes old ones: what prune removes still takes room. "
            "Set lifecycle.noncurrent_days."
        )
    cycle = wanted.lifecycle
    if cycle is not None and cycle.archive_after and cycle.archive_class in FROZEN:
        said.append(
            "After %d days files of %d MiB and more lie in %s: they must be thawed, which takes hours, before they can be "
            "verified or restored." % (cycle.archive_after, FROZEN_FROM_BYTES // 1024**2, cycle.archive_class)
        )
    return said


__all__ = (
    "FROZEN",
    "FROZEN_FROM_BYTES",
    "NAMES",
    "Lifecycle",
    "Lock",
    "Rule",
    "Settings",
    "Wanted",
    "check",
    "concerns",
    "differing",
    "freezes_everything",
    "fresh",
    "home_of",
    "in_order",
    "planned",
    "rules",
    "unknown_to_store",
    "with_rules",
)
