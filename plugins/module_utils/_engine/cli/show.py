# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Texts for people from the results of the verbs. Pure; warnings were told while the verb ran and are not repeated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.commands import addressed
from ..core.sizes import human_size
from ..core.times import human_span, parse_iso
from .progress import columns

Result = Mapping[str, Any]

_YELLOW, _RED = "33", "31"
_MANY = 20


def _table(rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Return `rows` as aligned lines, indented; the columns `right` are aligned to the right."""
    if not rows:
        return []
    widths = [max(columns(row[i]) for row in rows) for i in range(len(rows[0]))]
    to_right = frozenset(right)
    lines = []
    for row in rows:
        cells = []
        for index, cell in enumerate(row):
            pad = " " * (widths[index] - columns(cell))
            cells.append(pad + cell if index in to_right else cell + pad)
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _plural(count: int, noun: str) -> str:
    return "%s %s%s" % (_number(count), noun, "" if count == 1 else "s")


def _number(count: int) -> str:
    return format(count, ",")


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _few(entries: Sequence[str]) -> list[str]:
    """Return the first of many entries, and how many more there are."""
    more = len(entries) - _MANY
    return list(entries) if more <= 1 else [*entries[:_MANY], "… and %d more (see --json)" % more]


def _uncovered(result: Result) -> list[str]:
    lines = []
    for key, heading in (("uncovered", "Not covered by this backup:"), ("left_out", "Left out of the set:")):
        found = ["%s: %s" % (entry["what"], entry["why"]) for entry in result.get(key, [])]
        if found:
            lines += [heading] + ["  %s" % line for line in _few(found)]
    return lines


def _minute(moment: str) -> str:
    return parse_iso(moment).strftime("%Y-%m-%d %H:%M")


def _paint(text: str, code: str, colour: bool) -> str:
    return "\033[%sm%s\033[0m" % (code, text) if colour else text


def skipped(result: Result, anyway: str) -> str:
    """Return that another node of the group does this; `anyway` is the command that does it here all the same."""
    return _text(["Left to another node. %s" % result["skipped"], "To do it here all the same: %s" % anyway])


# --- backup -----------------------------------------------------------------------------------------------------------


def backup(result: Result, *, has_s3: bool, config_file: str = "") -> str:
    """Return what a backup made, or what a dry run would make."""
    if result.get("skipped"):
        return skipped(result, addressed("pgops backup --set group=null", config_file))
    if "plan" in result:
        return _backup_plan(result)
    lines = [
        "Backed up %s: %s in %s." % (result["instance"], human_size(result["bytes"]), human_span(result["seconds"]))
    ]
    rows = []
    for entry in result["databases"] if not _is_base(result) else ():
        counted = "%s rows" % _number(entry["rows"]) if "rows" in entry else ""
        size = "%s of %s" % (human_size(entry["bytes"]), human_size(entry["database_bytes"]))
        rows.append((entry["name"], size, human_span(entry["seconds"]), _form(entry), counted))
    lines += _table(rows, right=(1, 2, 4))
    if _is_base(result):
        lines.append(_base_facts(result))
    lines += _uncovered(result)
    lines.append("Set: %s" % result["path"])
    step = "Next: pgops sync (copy it off this server)" if has_s3 else "Next: pgops verify (prove that it restores)"
    lines.append(addressed(step, config_file))
    return _text(lines)


def _is_base(result: Result) -> bool:
    return result.get("kind") in ("base", "incremental")


def _base_facts(result: Result) -> str:
    chosen = result["choices"]["base"]
    noun = "Base backup" if not result.get("parent") else "What changed since %s" % result["parent"]
    return noun + " of %s and %s, %s by the %s; WAL %s to %s on timeline %s." % (
        _plural(len(result["databases"]), "database"),
        _plural(len(result["tablespaces"]), "tablespace"),
        chosen["compression"],
        chosen["by"],
        result["wal_start"],
        result["wal_end"],
        result["timeline"],
    )


def _form(entry: Result) -> str:
    return "%s, %s" % (entry["format"], entry["compression"])


def _backup_plan(result: Result) -> str:
    plan = result["plan"]
    lines = [
        "Would back up %s (%s) of %s, PostgreSQL %s%s."
        % (
            _plural(len(plan["databases"]), "database"),
            human_size(plan["database_bytes"]),
            result["instance"],
            plan["server_version"],
            ", a standby" if plan["from_standby"] else "",
        ),
        "It takes about %s; %s are free." % (human_size(plan["estimated_bytes"]), human_size(plan["free_bytes"])),
    ]
    rows = []
    for name in plan["databases"]:
        choice = plan["choices"].get(name)
        if choice is None:  # a base backup copies the whole
            rows.append((name, "", "", ""))
            continue
        jobs = _plural(choice["jobs"], "job")
        rows.append((name, _form(choice), jobs, "; ".join(choice["reasons"])))
    if "base" in plan["choices"] and "by" in plan["choices"]["base"]:
        chosen = plan["choices"]["base"]
        if plan.get("parent"):
            lines.append("Incremental, upon %s; a recovery needs %s." % (plan["parent"], ", ".join(plan["chain"])))
        lines.append(
            "As a base backup, %s by the %s (%s)." % (chosen["compression"], chosen["by"], "; ".join(chosen["reasons"]))
        )
    return _text(lines + _table(rows) + _uncovered(plan))


# --- restore ----------------------------------------------------------------------------------------------------------


def restore_plan(result: Result) -> str:
    """Return the plan of a restore."""
    plan = result["plan"]
    lines = [
        "Restore of %s from %s to %s, PostgreSQL %s:"
        % (plan["set"], plan["place"], result["instance"], plan["server_version"])
    ]
    rows = []
    for entry in plan["databases"]:
        if entry["replaces"]:
            what = "replaces the database of that name, which is kept under another"
        elif plan["mode"] == "into_empty":
            what = "into the empty database of that name"
        else:
            what = "new"
        renamed = (
            "%s as %s" % (entry["database"], entry["name"]) if entry["name"] != entry["database"] else entry["name"]
        )
        rows.append((renamed, "%s for %s" % (human_size(entry["bytes"]), human_size(entry["database_bytes"])), what))
    lines += _table(rows, right=(1,))
    roles = {"missing": "those that are missing", "all": "all, existing ones are changed", "none": "none"}[
        plan["globals"]
    ]
    lines.append("Roles: %s. Jobs: %d." % (roles, plan["jobs"]))
    lines += ["  note: %s" % remark for remark in plan["remarks"]]
    if plan["refusals"]:
        lines.append("It would be refused:")
        lines += ["  - %s" % refusal for refusal in plan["refusals"]]
    return _text(lines)


def restore(result: Result) -> str:
    """Return what a restore brought back."""
    lines = ["Restored %s in %s." % (_plural(len(result["databases"]), "database"), human_span(result["seconds"]))]
    rows = [(entry["name"], human_span(entry["seconds"]), _proof(entry["compared"])) for entry in result["databases"]]
    lines += _table(rows, right=(1,))
    for entry in result["databases"]:
        lines += ["  %s: left out %s" % (entry["name"], what) for what in _few(entry["left_out"])]
        lines += ["  %s: harmless error: %s" % (entry["name"], what) for what in _few(entry["benign"])]
        lines += ["  %s: %s" % (entry["name"], what) for what in _few(entry["remarks"])]
    if result["roles_created"]:
        lines.append("Roles created: %s." % ", ".join(result["roles_created"]))
    return _text(lines)


def _proof(compared: Mapping[str, int]) -> str:
    """Return what of the result was held against the fingerprint: rows, relations, and how many other kinds."""
    if not compared:
        return "not compared: the set has no fingerprint"
    first = [_plural(compared[kind + "s"], kind) for kind in ("row", "relation") if compared.get(kind + "s")]
    others = sum(1 for kind, count in compared.items() if count and kind not in ("rows", "relations"))
    return "proven the same: %s" % ", ".join([*first, *([_plural(others, "other kind")] if others else [])])


# --- prune ------------------------------------------------------------------------------------------------------------


def prune(result: Result, *, config_file: str = "") -> str:
    """Return what pruning removed, or would remove."""
    if result.get("skipped"):
        return skipped(result, addressed("pgops prune --set group=null", config_file))
    dry = result["dry_run"]
    lines = []
    for place in result["places"]:
        if place["skipped"]:
            lines.append("%s: left to another node. %s" % (place["root"], place["skipped"]))
            continue
        removed, kept = place["removed"], place["kept"]
        lines.append(
            "%s: %s%s removed, %s freed; %s kept."
            % (
                place["root"],
                _plural(len(removed), "set"),
                " would be" if dry else "",
                human_size(place["freed_bytes"]),
                _plural(len(kept), "set"),
            )
        )
        rows = [(entry["set"], human_size(entry["bytes"]), "; ".join(entry["reasons"])) for entry in removed]
        rows += [
            (entry["set"], human_size(entry["bytes"]), "an upload that was never finished")
            for entry in place["unfinished"]
        ]
        rows += [
            (entry["path"], human_size(entry["bytes"]), "left behind by a run that was cut short")
            for entry in place["leftovers"]
        ]
        lines += _table(rows, right=(1,))
        if place.get("wal_removed"):
            lines.append("  %s that no base backup needs" % _plural(place["wal_removed"], "WAL file"))
        for one in result.get("wal_clusters", ()):
            if one["place"] == place["place"]:
                what = (
                    _plural(one["files"], "WAL file"),
                    one["system_identifier"],
                    human_size(one["bytes"]),
                    one["newest"],
                )
                said = "of them all %s of the cluster %s (%s), the last of %s" % what
                if not one["removed"]:
                    said = "%s of the cluster %s (%s), the last of %s, that no base backup needs: " % what
                    said += "pgops prune --cluster %s removes them" % one["system_identifier"]
                lines.append("    " + said)
    return _text(lines)


# --- info -------------------------------------------------------------------------------------------------------------


def info(result: Result, *, colour: bool) -> str:
    """Return the catalog of the places, the newest sets first."""
    lines: list[str] = []
    for place in result["places"]:
        if lines:
            lines.append("")
        lines += _place(place, colour)
    bad = [finding for finding in result["freshness"] if finding["severity"] != "ok"]
    if bad:
        lines += ["", *("%s: %s" % (_severity(f["severity"], colour), f["text"]) for f in bad)]
    return _text(lines)


def _severity(severity: str, colour: bool) -> str:
    return _paint(severity, _RED if severity == "critical" else _YELLOW, colour)


def _place(place: Result, colour: bool) -> list[str]:
    if not place["reachable"]:
        return ["%s  %s: %s" % (place["place"], place["root"], place["error"] or "cannot be read")]
    count = _plural(len(place["sets"]), "set")
    lines = ["%s  %s: %s, %s" % (place["place"], place["root"], count, human_size(place["total_bytes"]))]
    due = {entry["set"] for entry in place["retention"]["remove"]}
    rows = [("SET", "BEGUN (UTC)", "AGE", "SIZE", "PROVEN", "DATABASES")] if place["sets"] else []
    for entry in place["sets"]:
        begun = _minute(entry["begun"]) if entry["begun"] else "?"
        age = human_span(max(0.0, entry["age_seconds"])) if entry["begun"] else "?"
        rows.append(
            (entry["id"], begun, age, human_size(entry["bytes"]), _proven(entry), _contents(entry, entry["id"] in due))
        )
    lines += _table(rows, right=(3,))
    for entry in place["sets"]:
        for inside in entry.get("contents", []):
            lines.append("  %s  %s" % (entry["id"], _inside(inside)))
        if entry["problem"]:
            lines.append("  %s  %s %s" % (entry["id"], _paint("damaged:", _RED, colour), entry["problem"]))
    if place["unfinished"]:
        lines.append("  unfinished uploads: %s" % ", ".join(place["unfinished"]))
    lines += ["  recoverable by WAL, %s" % line for line in _windows(place.get("windows", []))]
    return lines


def _windows(windows: list[Result]) -> list[str]:
    """Return one line for each stretch of the recoverable windows."""
    return [
        "cluster %s, timeline %d: %s to %s"
        % (window["system_identifier"], window["timeline"], _minute(one["start"]), _minute(one["end"]))
        for window in windows
        for one in window["stretches"]
    ]


def _proven(entry: Result) -> str:
    """Return the deepest level that passed, `failed` before all else."""
    outcomes = {level: proof["outcome"] for level, proof in entry["proofs"].items()}
    if entry["verified"]:
        return "restore"
    if "failed" in outcomes.values():
        return "FAILED"
    return next((level for level in ("structure", "checksum") if outcomes.get(level) == "passed"), "no")


def _contents(entry: Result, due: bool) -> str:
    names = entry["databases"]
    text = ", ".join(names[:5]) + (", … (%d)" % len(names) if len(names) > 5 else "")
    marks = [
        mark
        for mark, holds in (
            ("pinned", entry["pinned"]),
            ("upon %s" % entry.get("parent"), entry.get("parent")),
            (entry["encryption"], _is_encrypted(entry)),
            ("due for prune", due),
        )
        if holds
    ]
    return "%s  [%s]" % (text, ", ".join(marks)) if marks else text


def _is_encrypted(entry: Result) -> bool:
    return entry["encryption"] not in (None, "none")


def _inside(database: Result) -> str:
    counted = database["fingerprint"] or {}
    parts = [
        "%s: %s for %s" % (database["name"], human_size(database["dump_bytes"]), human_size(database["bytes"])),
        database["format"],
    ]
    parts += ["%s %s" % (_number(counted[key]), key) for key in ("tables", "rows") if key in counted]
    return ", ".join(parts)


# --- pins -------------------------------------------------------------------------------------------------------------


def pin(result: Result) -> str:
    """Return what pinning did."""
    where = "%s in %s" % (result["set"], result["root"])
    reason = (result["pin"] or {}).get("reason", "")
    if not result["changed"]:
        return "%s is pinned already: %s\n" % (where, reason)
    return "%s %s: %s\n" % ("Would pin" if result["dry_run"] else "Pinned", where, reason)


def unpin(result: Result) -> str:
    """Return what unpinning did."""
    where = "%s in %s" % (result["set"], result["root"])
    if not result["changed"]:
        return "%s is not pinned.\n" % where
    return "%s %s; retention decides about it.\n" % ("Would unpin" if result["dry_run"] else "Unpinned", where)


# --- verify -----------------------------------------------------------------------------------------------------------


def verify(result: Result, *, config_file: str = "") -> str:
    """Return what was proven, or what a dry run would prove."""
    if result.get("skipped"):
        return skipped(result, addressed("pgops verify --set group=null", config_file))
    if "plan" in result:
        planned = [(entry["set"], human_size(entry["bytes"])) for entry in result["plan"]]
        heading = "Would verify %s in %s, level %s." % (_plural(len(planned), "set"), result["place"], result["level"])
        return _text([heading, *_table(planned, right=(1,)), *_wal_read(result)])
    if not result["sets"]:
        said = "Nothing to verify in %s: every set has passed at level %s." % (result["place"], result["level"])
        return _text([said, *_wal_read(result)])
    lines = ["Verified %s in %s." % (_plural(len(result["sets"]), "set"), result["place"])]
    rows = [(entry["set"], _outcome(entry), human_span(entry["seconds"]), _checked(entry)) for entry in result["sets"]]
    return _text(lines + _table(rows, right=(2,)) + _wal_read(result))


def _wal_read(result: Result) -> list[str]:
    """Return the line about the WAL archive, where it was read or would be."""
    wal = result.get("wal")
    if not wal:
        return []
    read = "%s (%s) of %d" % (_plural(wal["read"], "WAL file"), human_size(wal["bytes"]), wal["files"])
    if result["dry_run"]:
        return ["Would read %s." % read]
    return ["Read %s: %d whole, %d never read yet." % (read, wal["passed"], wal["left"])]


def _outcome(entry: Result) -> str:
    """Return `passed: restore`; where less was proven than asked, that is said."""
    said = "%s: %s" % (entry["outcome"], entry["level"])
    return said if entry["level"] == entry["asked"] else "%s only, not %s" % (said, entry["asked"])


def _checked(entry: Result) -> str:
    checked = entry["checked"]
    parts = [_plural(checked["files"], "file")] if "files" in checked else []
    if checked.get("databases"):
        parts.append(_plural(len(checked["databases"]), "database"))
        rows = sum(counted.get("rows", 0) for counted in checked["databases"].values())
        parts += [_plural(rows, "row")] if rows else []
    parts += [_number(checked[key]) + " " + key for key in ("roles", "indexes", "assertions") if checked.get(key)]
    return ", ".join(parts)


# --- sync and probe ---------------------------------------------------------------------------------------------------


def sync(result: Result, *, config_file: str = "") -> str:
    """Return what a sync copied, or what a dry run would copy."""
    if result.get("skipped"):
        return skipped(result, addressed("pgops sync --set group=null", config_file))
    push = result["direction"] == "push"
    other = "%s %s" % ("to" if push else "from", result["place"])
    work = [step for step in result["plan"] if step["action"] not in ("skip",)]
    if result["dry_run"]:
        total = sum(step["bytes"] for step in work)
        lines = [
            "Would copy %s %s (%s); %s there already."
            % (_plural(len(work), "set"), other, human_size(total), _are(result["already"]))
        ]
    elif not work:
        lines = ["Nothing to copy %s: %s there already." % (other, _are(result["already"]))]
    else:
        lines = [
            "Copied %s %s: %s, %s in %s; %s there already."
            % (
                _plural(len(result["sets"]), "set"),
                other,
                _plural(result["files_sent"], "file"),
                human_size(result["bytes_sent"]),
                human_span(result["seconds"]),
                _are(result["already"]),
            )
        ]
    lines += _table(
        [(step["action"], step["set"], human_size(step["bytes"]), step["reason"]) for step in work], right=(2,)
    )
    for entry in result["left_out"]:
        lines.append("  left  %s: %s" % (entry["set"], entry["why"]))
    if result["only_there_count"]:
        shown = result["only_there"][:3]
        more = result["only_there_count"] - len(shown)
        lines.append(
            "Only there: %s: %s%s."
            % (
                _plural(result["only_there_count"], "set"),
                ", ".join(shown),
                ", and %s more" % _number(more) if more else "",
            )
        )
    if result["evidence_sent"]:
        lines.append("Evidence copied: %s." % _plural(result["evidence_sent"], "file"))
    if result["aborted_uploads"]:
        lines.append("Given up: %s of earlier runs." % _plural(len(result["aborted_uploads"]), "unfinished upload"))
    if push and result["sets"]:
        lines.append(addressed("Next: pgops verify (prove that it restores from there)", config_file))
    return _text(lines)


def _are(count: int) -> str:
    return "%s %s" % (_number(count), "is" if count == 1 else "are")


def alert_evaluate(result: Result) -> str:
    """Show what was found, told and left waiting."""
    lines = ["%-8s  %s  %s" % (t["level"], t["cause"], " ".join(t["text"].split())) for t in result["troubles"]]
    lines = lines or ["Nothing is wrong."]
    told = "Would tell" if result["dry_run"] else "Told"
    lines += ["%s: %s" % (told, notice["subject"]) for notice in result["told"]]
    lines += ["%s did not take it: %s" % (d["channel"], d["said"]) for d in result["deliveries"] if not d["accepted"]]
    if result["undelivered"]:
        lines.append("%s still to be taken by a channel." % _plural(result["undelivered"], "message"))
    return _text(lines)


def alert_channels(result: Result) -> str:
    """Show what each channel answered."""
    if result["dry_run"]:
        channels = ", ".join(c["channel"] for c in result["channels"])
        return _text(["Would go to %s." % channels if channels else "Nothing would be told: it is known."])
    if not result["channels"]:
        return _text(["Nothing was told: it is known."])
    rows = [[c["channel"], "accepted" if c["accepted"] else "not accepted", c["said"]] for c in result["channels"]]
    return _text(_table(rows))


def probe(result: Result, *, colour: bool) -> str:
    """Return what the S3 place can do."""
    lines = ["%s: %s" % (result["place"], "it can do all that is needed." if result["ok"] else "something is wrong.")]
    rows = [(entry["name"], "ok" if entry["ok"] else "FAILED", entry["detail"]) for entry in result["checks"]]
    for line, entry in zip(_table(rows), result["checks"]):
        lines.append(line if entry["ok"] else _paint(line, _RED, colour))
    return _text(lines)


__all__ = (
    "alert_channels",
    "alert_evaluate",
    "backup",
    "info",
    "pin",
    "probe",
    "prune",
    "restore",
    "restore_plan",
    "sync",
    "unpin",
    "verify",
)
