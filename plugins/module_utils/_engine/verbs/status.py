# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Status: are we safe? Sets, proofs, the newest runs and the free space in one result, and on one screen."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Optional

from ..alerts.health import findings as alert_findings
from ..alerts.health import health
from ..alerts.health import lines as alert_lines
from ..context import Context
from ..core import volume
from ..core.calendar import last_before, next_after
from ..core.commands import addressed
from ..core.freshness import CRITICAL, OK, WARNING, Finding, restore_limit, tried, worst
from ..core.naming import is_physical
from ..core.sizes import human_size, parse_size
from ..core.times import human_span, iso, parse_iso, parse_span
from ..host.schedule import Places, started_by
from ..runs import BASE_BACKUP, first_run, history
from ..system.durable import free_bytes
from ..system.zones import named_zone
from .info import Request, calendars, expected, info
from .survey import survey
from .wal_status import wal_status, window_lines

VERBS = ("backup", BASE_BACKUP, "sync", "verify", "prune", "restore", "recover", "rescue")
# Those that somebody runs by hand have been heard of when they end; one that was refused is no trouble that lasts.
_BY_HAND = ("restore", "recover", "rescue")
_COLOURS = {OK: "32", WARNING: "33", CRITICAL: "31"}


def status(context: Context) -> dict[str, Any]:
    """Return what info() says plus `runs` (per verb the newest record and the newest success), `schedule`, `disk`, `size`,
    `restore_test` (the newest restore that succeeded), `limits` (seconds), `alerts`, `wal` (wal_status(), None where the WAL
    is not archived), all `findings` (the worst first), `safe` and `next` (sentences) and the overall `state`. It changes
    nothing.
    """
    surveyed = survey(context)
    known = info(context, Request(), surveyed)
    runs = {verb: _newest_runs(context.state, verb) for verb in VERBS}
    disk = {
        "path": context.config.local.path,
        "free_bytes": free_bytes(Path(context.config.local.path)),
        "min_free_bytes": parse_size(context.config.backup.min_free),
    }
    alerts = health(context)
    wal = wal_status(context, surveyed) if context.config.wal.enabled else None
    tested = _restore_test(context, runs)
    proven = any(described["verified"] for place in known["places"] for described in place["sets"])
    wanted = restore_limit(context.config.alerts.restore_test, by_hand=bool(tested["when"]), proven=proven)
    size = volume.measure(described for place in known["places"] for described in place["sets"])
    judged = alert_findings(alerts) + _damage(known["places"]) + _failed_runs(runs) + _space(disk, known["places"])
    judged += volume.judge(size, none_allowed=context.config.backup.allow_no_databases) + _tested(
        context, tested, wanted
    )
    findings = [*known["freshness"], *(wal["findings"] if wal else []), *(finding.as_data() for finding in judged)]
    findings = [{**f, "text": addressed(f["text"], context.config_file)} for f in findings]
    findings.sort(key=lambda f: (CRITICAL, WARNING, OK).index(f["severity"]))
    return {
        **known,
        "host": context.host,
        "instance": context.config.instance,
        "now": iso(context.clock()),
        "runs": runs,
        "schedule": _schedule(context),
        "disk": disk,
        "size": size,
        "restore_test": tested,
        "limits": _limits(context, wanted),
        "alerts": alerts,
        "wal": wal,
        "findings": findings,
        "safe": _safe(known["places"]),
        "next": [addressed(step, context.config_file) for step in _next(findings)],
        "state": worst(f["severity"] for f in findings),
    }


def _newest_runs(state: Path, verb: str) -> dict[str, Any]:
    """Return the newest record of `verb` and the newest successful one (None where there is none)."""
    last: Optional[dict[str, Any]] = None
    for record in history(state, verb):
        last = last or record
        if record.get("outcome") == "ok":
            return {"last": last, "last_ok": record}
    return {"last": last, "last_ok": None}


def _limits(context: Context, tested: Optional[timedelta]) -> dict[str, dict[str, Optional[float]]]:
    """Return how old things may become, in seconds; None where nothing warns before it is critical."""
    limits = expected(context)
    waits = parse_span(context.config.wal.max_lag).total_seconds()
    return {
        "wal": {"warning_seconds": waits, "critical_seconds": None},
        "restore_test": {
            "warning_seconds": tested.total_seconds() if tested else None,
            "critical_seconds": None,
        },
        "backup": {"warning_seconds": None, "critical_seconds": limits.backup.total_seconds()},
        "offsite": {"warning_seconds": None, "critical_seconds": limits.offsite.total_seconds()},
        "verification": {
            "warning_seconds": limits.verified_warning.total_seconds(),
            "critical_seconds": limits.verified_critical.total_seconds(),
        },
        "base": {"warning_seconds": None, "critical_seconds": limits.base.total_seconds() if limits.base else None},
    }


def _schedule(context: Context) -> dict[str, Any]:
    """Return when each verb runs next and was due last, and who on this host starts it: cron, systemd, or nobody (None)."""
    zone = named_zone(context.config.schedule.timezone)
    runs = {}
    for verb, calendar in calendars(context).items():
        moment = next_after(calendar, context.clock(), zone)
        due = last_before(calendar, context.clock(), zone)
        runs[verb] = {
            "calendar": calendar.text,
            "next_run": iso(moment) if moment else None,
            "last_due": iso(due) if due else None,
        }
    return {"started_by": started_by(Places(), context.config.instance) or None, "runs": runs}


def _damage(places: list[dict[str, Any]]) -> list[Finding]:
    """A set that is not whole, or that failed its newest check, is heard of."""
    found = []
    for place in places:
        for described in place["sets"]:
            where = "%s in %s" % (described["id"], place["root"])
            if described.get("problem"):
                text = "The set %s cannot be relied on. %s" % (where, described["problem"])
                found.append(Finding("damaged set", WARNING, text))
            failed = sorted(level for level, proof in described["proofs"].items() if proof["outcome"] == "failed")
            if failed and not described["verified"]:
                text = "The set %s failed its verification (%s)." % (where, ", ".join(failed))
                found.append(Finding("failed set", WARNING, text))
    return found


def _failed_runs(runs: dict[str, dict[str, Any]]) -> list[Finding]:
    found = []
    for verb, records in runs.items():
        last = records["last"]
        if verb not in _BY_HAND and last is not None and last.get("outcome") != "ok":
            text = "The last %s %s: %s" % (verb, _ended(last), last.get("reason") or "it gave no reason.")
            found.append(Finding("run of %s" % verb, WARNING, text, since=parse_iso(last["ended"])))
    return found


def _restore_test(context: Context, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return when a restore last succeeded (`when`, by which `verb`), since when one is waited for, and how long that is."""
    good = [
        (records["last_ok"]["ended"], verb) for verb, records in runs.items() if verb in _BY_HAND if records["last_ok"]
    ]
    when, verb = max(good, key=lambda one: parse_iso(one[0]), default=(None, None))
    since = when or first_run(context.state)
    age = (context.clock() - parse_iso(since)).total_seconds() if since else None
    return {"when": when, "verb": verb, "since": since, "age_seconds": age}


def _tested(context: Context, tested: dict[str, Any], wanted: Optional[timedelta]) -> list[Finding]:
    if not wanted:
        return []
    last, start = (parse_iso(tested[key]) if tested[key] else None for key in ("when", "since"))
    return [tried(last, start, wanted, context.clock())]


def _ended(record: dict[str, Any]) -> str:
    how = {"busy": "did not start", "refused": "was refused", "interrupted": "was interrupted"}
    return how.get(str(record.get("outcome")), "failed")


def _space(disk: dict[str, Any], places: list[dict[str, Any]]) -> list[Finding]:
    free, floor = disk["free_bytes"], disk["min_free_bytes"]
    said = "%s has %s free" % (disk["path"], human_size(free))
    if free < floor:
        text = "%s, less than the %s that must stay free: the next backup will not run." % (said, human_size(floor))
        return [Finding("disk", CRITICAL, text)]
    whole = [s for place in places for s in place["sets"] if s["complete"]]
    # Dumps, where there are any: they come by themselves.
    newest = max([s for s in whole if not is_physical(s["id"])] or whole, key=lambda s: str(s["id"]), default=None)
    if newest is not None and free < floor + newest["bytes"]:
        text = "%s; a backup as large as the newest (%s) would not fit." % (said, human_size(newest["bytes"]))
        return [Finding("disk", WARNING, text)]
    return [Finding("disk", OK, said + ".")]


def _safe(places: list[dict[str, Any]]) -> list[str]:
    """Say what a recovery could start from, whatever else is wrong."""
    said = []
    for place in places:
        if not place["reachable"]:
            said.append("%s: unknown, as it cannot be read." % place["place"])
        elif place["newest_verified"]:
            said.append("%s: %s is proven to restore." % (place["place"], place["newest_verified"]))
        elif place["newest"]:
            said.append("%s: %s is whole, but nothing there is proven to restore." % (place["place"], place["newest"]))
        else:
            said.append("%s: nothing." % place["place"])
    return said


_STEPS = (
    ("disk", "Make room in the backup directory, or run: pgops prune."),
    ("local place", "Make the backup directory readable for this account."),
    ("off-site place", "Find out why the S3 place cannot be read: pgops probe."),
    ("run of backup", "Read why the backup failed, then run: pgops backup."),
    ("backup", "Run: pgops backup."),
    ("no databases", "Check backup.databases and exclude_databases, then run: pgops backup."),
    ("run of base backup", "Read why the base backup failed, then run: pgops backup --kind base."),
    ("base backup", "Run: pgops backup --kind base."),
    ("run of sync", "Read why the copy failed, then run: pgops sync."),
    ("off-site copy", "Run: pgops sync."),
    ("off-site base backup", "Run: pgops sync."),
    ("failed set", "Verify another set at once (pgops verify --level restore); do not count on the failed one."),
    ("damaged set", "Do not restore from the damaged set; take another, and back up again."),
    ("run of verify", "Read why the verification failed, then run: pgops verify --level restore."),
    ("verification", "Run: pgops verify --level restore."),
    ("restore test", "Restore beside the original: pgops restore --database NAME --rename NAME NAME_test."),
    ("size", "Compare the newest sets (pgops info --details): has a database gone, or grown?"),
    ("run of prune", "Read why pruning failed, then run: pgops prune."),
    ("wal archive", "Look into the server's log why WAL is not archived: pgops wal status."),
    ("wal shipping", "Find out why WAL does not get to S3 (pgops probe), and see that pgops wal ship --loop runs."),
    ("wal room", "Make room for WAL: have it copied to S3, or move local.path to a larger disk."),
    ("wal gap", "Take a new base backup: recovery to moments after the gap needs one."),
    ("wal contradiction", "Find the second server that archives to this instance, and stop it."),
    ("wal window", "Take a base backup: WAL alone restores nothing."),
    ("wal timeout", "Set archive_timeout to a minute."),
    ("no off-site place", "Add an S3 place to the configuration (section s3)."),
    ("alerts", "Find out why nobody is told: pgops alert test."),
    ("clock", "Set the clock (timedatectl), then back up again."),
)


def _next(findings: list[dict[str, Any]]) -> list[str]:
    """Return the steps that the findings call for, in the order in which they help."""
    bad = {f["check"] for f in findings if f["severity"] != OK}
    for verb, check in (
        ("backup", "backup"),
        (BASE_BACKUP, "base backup"),
        ("sync", "off-site copy"),
        ("sync", "off-site base backup"),
        ("verify", "verification"),
    ):
        if "run of %s" % verb in bad:
            bad.discard(check)  # the same command is named already, with more advice
    return list(dict.fromkeys(text for check, text in _STEPS if check in bad))


# --- for a person ---------------------------------------------------------------------------------------------------


def render(result: dict[str, Any], colour: bool, *, config_file: str = "") -> str:
    """Return the result of status() as one screen of text; with `colour` for a terminal, its commands about `config_file`."""
    now = parse_iso(result["now"])
    state = result["state"]
    lines = ["%s on %s: %s" % (result["instance"], result["host"], _paint(state.upper(), state, colour)), ""]
    for finding in result["findings"]:
        since = " (since %s)" % _minute(finding["since"]) if finding["since"] else ""
        label = _paint("%-8s" % finding["severity"], finding["severity"], colour)
        lines.append("  %s  %s%s" % (label, _one_line(finding["text"]), since))
    lines += ["", "Places"]
    for place in result["places"]:
        lines.append("  %-6s %s" % (place["place"], _place_line(place, now)))
    if result["wal"]:
        lines += ["", "Recoverable to any moment"]
        for place in result["places"]:
            lines += ["  %-6s %s" % (place["place"], text) for text in window_lines(place["windows"]) or ["nothing"]]
        for held in result["wal"]["places"]:
            if held["rpo_seconds"] is not None:
                said = "RPO now: what was written in the last %s would be lost" % human_span(
                    max(0.0, held["rpo_seconds"])
                )
                lines.append("  %-6s %s" % (held["place"], said))
    lines += ["", "Runs"]
    for verb, records in result["runs"].items():
        lines.append("  %-8s %s" % (verb, _run_line(records, now)))
    schedule = result["schedule"]
    lines += [
        "",
        "Scheduled (%s)" % (schedule["started_by"] or "but nothing on this host starts it: see pgops_schedule"),
    ]
    for verb, run in schedule["runs"].items():
        lines.append("  %-8s %s" % (verb, _minute(run["next_run"]) if run["next_run"] else "never"))
    told = (addressed(text, config_file) for text in alert_lines(result["alerts"], now))
    lines += ["", "Alerts"] + ["  %s" % _one_line(text) for text in told]
    lines += ["", "Still safe"] + ["  %s" % text for text in result["safe"]]
    if result["next"]:
        lines += ["", "Next"] + ["  %s" % text for text in result["next"]]
    return "\n".join(lines) + "\n"


def _place_line(place: dict[str, Any], now: datetime) -> str:
    if not place["reachable"]:
        return "%s: %s" % (place["root"], _one_line(place["error"] or "cannot be read"))
    count = len(place["sets"])
    parts = ["%s: %d set%s, %s" % (place["root"], count, "" if count == 1 else "s", human_size(place["total_bytes"]))]
    sets = {s["id"]: s for s in place["sets"]}
    for label, key in (("newest", "newest"), ("newest verified", "newest_verified")):
        described = sets.get(place[key])
        if described is None:
            parts.append("%s none" % label)
        else:
            parts.append("%s %s (%s)" % (label, _ago(described["begun"], now), human_size(described["bytes"])))
    if place["retention"]["remove"]:
        parts.append("%d due for prune" % len(place["retention"]["remove"]))
    return "; ".join(parts)


def _run_line(records: dict[str, Any], now: datetime) -> str:
    last = records["last"]
    if last is None:
        return "never"
    line = "%s %s, took %s" % (last["outcome"], _ago(last["ended"], now), human_span(last["seconds"]))
    if last["outcome"] != "ok":
        good = records["last_ok"]
        line += "; last ok %s" % (_ago(good["ended"], now) if good else "never")
    if last.get("skipped"):
        line += "; %s" % last["skipped"]
    return line


def _ago(moment: str, now: datetime) -> str:
    return "%s ago" % human_span(max(0.0, (now - parse_iso(moment)).total_seconds()))


def _minute(moment: str) -> str:
    return parse_iso(moment).strftime("%Y-%m-%d %H:%M UTC")


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 300 else flat[:299] + "…"


def _paint(text: str, severity: str, colour: bool) -> str:
    return "\033[%sm%s\033[0m" % (_COLOURS[severity], text) if colour else text


__all__ = ("VERBS", "render", "status")
