# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Status: are we safe? Sets, proofs, the newest runs and the free space in one result, and on one screen."""

from __future__ import annotations

import textwrap
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Optional

from ..alerts.health import findings as alert_findings
from ..alerts.health import health
from ..alerts.health import lines as alert_lines
from ..alerts.health import ways as alert_ways
from ..alerts.state import NAME, State, load
from ..context import Context
from ..core import open_troubles, volume
from ..core.alerting import Trouble
from ..core.calendar import last_before, next_after
from ..core.commands import addressed, unbroken
from ..core.freshness import CRITICAL, OK, WARNING, Finding, restore_limit, tried, worst
from ..core.naming import is_physical
from ..core.sizes import human_size, parse_size
from ..core.times import human_span, iso, parse_iso, parse_span
from ..host.schedule import Places, started_by
from ..run_records import BASE_BACKUP, first_run, history
from ..system.durable import free_bytes
from ..system.zones import named_zone
from ..wal.newest import ARRIVAL
from .alert_facts import known as known_facts
from .alert_facts import limits as alert_limits
from .info import Request, calendars, expected, info
from .survey import survey
from .wal_status import wal_status

VERBS = ("backup", BASE_BACKUP, "sync", "verify", "prune", "restore", "recover", "rescue")
# Those that somebody runs by hand have been heard of when they end; one that was refused is no trouble that lasts.
_BY_HAND = ("restore", "recover", "rescue")
_DRILL = "drill"
_COLOURS = {OK: "32", WARNING: "33", CRITICAL: "31"}


def status(context: Context) -> dict[str, Any]:
    """Return what info() says plus `runs` (per verb the newest record and the newest success), `schedule`, `disk`, `size`,
    `restore_test` (the newest restore that succeeded), `rto` (per verb how long its newest recovery took), `limits` (seconds),
    `alerts`, `wal` (wal_status(), None where the WAL is not archived), `incidents` (what alerts would tell now, whether anybody
    is told or not; what they are compared with was `remembered` then), all `findings` (the worst first; every incident is among
    them), `notices` (shaped like findings, no part of the state), `safe` and `next` (sentences) and the overall `state`. It
    changes nothing.
    """
    surveyed = survey(context)
    known = info(context, Request(), surveyed)
    runs = {verb: _newest_runs(context.state, verb) for verb in VERBS}
    disk = {
        "path": context.config.local.path,
        "free_bytes": free_bytes(Path(context.config.local.path)),
        "min_free_bytes": parse_size(context.config.backup.min_free),
    }
    remembered, trouble = load(context.state)
    remembered_at = _modified(context.state / NAME)
    alerts = health(context, remembered, trouble)
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
    every, untold = _troubles(context, remembered, known["places"], findings)
    findings += [finding.as_data() for finding in open_troubles.as_findings(untold, findings)]
    findings = open_troubles.levelled(findings, every)
    findings = [{**f, "text": addressed(f["text"], context.config_file)} for f in findings]
    findings.sort(key=lambda f: (CRITICAL, WARNING, OK).index(f["severity"]))
    notices = open_troubles.ways(alert_ways(context), context.config.scheduled_jobs(), context.config.alerts.ways)
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
        "rto": _rto(context, runs),
        "limits": _limits(context, wanted),
        "alerts": alerts,
        "wal": wal,
        "incidents": open_troubles.shown(every, remembered.incidents if alerts["channels"] else {}),
        "remembered": remembered_at,
        "findings": findings,
        "notices": [notice.as_data() for notice in notices],
        "safe": _safe(known["places"]),
        "next": [
            addressed(step, context.config_file)
            for step in dict.fromkeys([*_next(findings), *open_troubles.steps(untold)])
        ],
        "state": worst(f["severity"] for f in findings),
    }


def _troubles(
    context: Context, remembered: State, places: list[dict[str, Any]], findings: list[dict[str, Any]]
) -> tuple[list[Trouble], list[Trouble]]:
    """Return what alerts would tell now, and what of it no finding tells yet.

    It is judged anew. Only what has to be compared with earlier days comes from what the newest run remembered.
    """
    begun = first_run(context.state)
    if begun is not None:
        remembered.watched_since = min(parse_iso(begun), remembered.watched_since or context.clock())
    facts = known_facts(context, remembered, places)
    return open_troubles.found(facts, alert_limits(context, facts), findings, context.clock())


def _modified(path: Path) -> Optional[str]:
    """Return when `path` was written last, None where it is not there."""
    try:
        return iso(datetime.fromtimestamp(path.stat().st_mtime, timezone.utc))
    except OSError:
        return None


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
        "base_offsite": {
            "warning_seconds": None,
            "critical_seconds": limits.base_offsite.total_seconds() if limits.base_offsite else None,
        },
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


def _rto(context: Context, runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return how many `seconds` the newest recovery took that succeeded, and `when` it ended, for each verb that recovers."""
    good = {verb: records["last_ok"] for verb, records in runs.items() if verb in _BY_HAND}
    good[_DRILL] = _newest_runs(context.state, _DRILL)["last_ok"]
    return {verb: {"seconds": record["seconds"], "when": record["ended"]} for verb, record in good.items() if record}


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
    ("wal damaged", "Take a new base backup (pgops backup --kind base): no recovery gets across damaged WAL."),
    ("wal history", "Hand the history of the timeline over, as pgops wal status says (pgops wal archive)."),
    ("wal timeline", "Take a base backup on the new timeline: pgops backup --kind base."),
    ("wal contradiction", "Find the second server that archives to this instance, and stop it."),
    ("wal window", "Take a base backup: WAL alone restores nothing."),
    ("wal clock", "Set the clocks of this host, of the server and of the store (timedatectl, chrony)."),
    ("wal timeout", "Set archive_timeout to a minute."),
    ("no off-site place", "Add an S3 place to the configuration (section s3)."),
    ("alerts", "Find out why nobody is told: pgops alert test."),
    ("clusters", "Give the instance of each host a name of its own (docs/setup.md, 'Names in a bucket')."),
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


_WIDTH, _LABEL = 80, 12
_UNBROKEN = "\N{NO-BREAK SPACE}"
_MANY_FINDINGS, _MANY_STEPS, _MANY_LINES = 5, 4, 3


def render(result: dict[str, Any], colour: bool, *, config_file: str = "") -> str:
    """Return the result of status() as one screen of text, 80 columns wide; with `colour` for a terminal.

    Its commands are about `config_file`. What is well is only named. Of long lists the most important are shown,
    and how many more there are.
    """
    now = parse_iso(result["now"])
    state = result["state"]
    lines = ["%s on %s: %s" % (result["instance"], result["host"], _paint(state.upper(), state, colour))]
    lines += _finding_lines(result, colour)
    lines += _section("Places", _place_lines(result, now))
    if result["wal"]:
        lines += _section("Recoverable", _window_lines(result))
    lines += _section("Runs", _runs_lines(result, now))
    lines += _section("Alerts", _alerts_lines(result, now, config_file))
    lines += _section("Still safe", result["safe"])
    lines += _section("Next", _bounded(result["next"], _MANY_STEPS))
    return "".join("%s\n" % addressed(line, config_file) for line in lines)


def _section(label: str, entries: list[str], indent: int = 2) -> list[str]:
    """Return `entries` beside `label`, each from a line of its own on and wrapped; nothing without any."""
    lines: list[str] = []
    for entry in entries:
        head = " " * _LABEL if lines else "%-*s" % (_LABEL, label)
        after = " " * (_LABEL + indent)
        lines += _wrapped(entry, head, after)
    return lines


def _wrapped(text: str, head: str, after: str) -> list[str]:
    """Return `text` in lines that break no command: who is tired copies one line."""
    wrapper = textwrap.TextWrapper(_WIDTH, initial_indent=head, subsequent_indent=after, break_on_hyphens=False)
    wrapper.break_long_words = False  # a long path is longer than the screen rather than cut
    return [line.replace(_UNBROKEN, " ") for line in wrapper.wrap(unbroken(text, _UNBROKEN))]


def _bounded(entries: list[str], most: int) -> list[str]:
    """Return the first of `entries`, and how many more there are."""
    more = len(entries) - most
    return entries if more <= 1 else [*entries[:most], "and %d more: pgops status --json" % more]


def _finding_lines(result: dict[str, Any], colour: bool) -> list[str]:
    bad = [f for f in result["findings"] if f["severity"] != OK]
    more = len(bad) - _MANY_FINDINGS if len(bad) > _MANY_FINDINGS + 1 else 0
    lines: list[str] = []
    for finding in bad[: len(bad) - more]:
        since = " (since %s)" % _minute(finding["since"]) if finding["since"] else ""
        found = _section("  %s" % finding["severity"], [_one_line(finding["text"]) + since], indent=0)
        severity = finding["severity"]
        lines += [line.replace(severity, _paint(severity, severity, colour), 1) for line in found[:1]] + found[1:]
    lines += _section("", ["and %d more: pgops status --json" % more] if more else [])
    lines += _section("  notice", [n["text"] for n in result["notices"]], indent=0)
    well = list(dict.fromkeys(f["check"] for f in result["findings"] if f["severity"] == OK))
    found = _section("  ok", [", ".join(well)] if well else [], indent=0)
    return lines + [line.replace("ok", _paint("ok", OK, colour), 1) for line in found[:1]] + found[1:]


def _place_lines(result: dict[str, Any], now: datetime) -> list[str]:
    return ["%-6s %s" % (place["place"], _place_line(place, now)) for place in result["places"]]


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
        if place["newest"] and place["newest"] == place["newest_verified"]:
            parts[-1] += ", verified"
            break
    if place["retention"]["remove"]:
        parts.append("%d due for prune" % len(place["retention"]["remove"]))
    return "; ".join(parts)


def _window_lines(result: dict[str, Any]) -> list[str]:
    """Say to which moments each place can go back, and what would be lost now; of several clusters and timelines which one."""
    lost = {held["place"]: held for held in result["wal"]["places"]}
    lines = []
    for place in result["places"]:
        found = [(window, one) for window in place["windows"] for one in window["stretches"]]
        said = []
        for window, one in found:
            text = "%s to %s" % (_minute(one["start"]).rpartition(" ")[0], _minute(one["end"]))
            if len(place["windows"]) > 1:
                text += " (cluster %s, timeline %d)" % (window["system_identifier"], window["timeline"])
            said.append(text)
        held = lost.get(place["place"], {})
        if said and held.get("rpo_seconds") is not None:
            said[-1] += "; RPO now %s" % human_span(max(0.0, held["rpo_seconds"]))
        elif said and held.get("ahead_seconds") is not None:
            said[-1] += "; RPO now unknown: WAL is %s ahead of our clock" % human_span(held["ahead_seconds"])
        elif said and held.get("rpo_by") == ARRIVAL:
            said[-1] += "; RPO now unknown: when its newest WAL was written is not known here"
        # The newest moments count most.
        kept = said[-_MANY_LINES:] or ["nothing"]
        lines += ["%-6s %s" % (place["place"], text) for text in kept]
        if len(said) > len(kept):
            lines.append("%-6s and %d stretches before: pgops wal status" % (place["place"], len(said) - len(kept)))
    return lines


def _runs_lines(result: dict[str, Any], now: datetime) -> list[str]:
    """Say of each verb that ran, or is to run, how and when."""
    schedule = result["schedule"]
    started = bool(schedule["started_by"])
    lines, never = [], []
    for verb, records in result["runs"].items():
        planned = schedule["runs"].get(verb)
        if records["last"] is None and not (planned and started):
            never += [verb] if planned else []
            continue
        line = "%-11s %s" % (verb, _run_line(records, now))
        if planned and started:
            line += "; next %s" % (_minute(planned["next_run"]) if planned["next_run"] else "never")
        lines.append(line)
    if never:
        lines.append("never ran: %s" % ", ".join(never))
    if not started:
        lines.append("Nothing on this host starts them (see pgops_schedule).")
    return lines


def _alerts_lines(result: dict[str, Any], now: datetime, config_file: str) -> list[str]:
    opened = ["%s since %s (%s)" % (i["cause"], _ago(i["since"], now), i["level"]) for i in result["incidents"]]
    more = ["and %d more: pgops status --json" % (len(opened) - _MANY_LINES)] if len(opened) > _MANY_LINES else []
    told = [addressed(text, config_file) for text in alert_lines(result["alerts"], now)]
    said = _bounded(told, _MANY_LINES)
    return said + (["open: %s" % ", ".join(opened[:_MANY_LINES] + more)] if opened else [])


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
