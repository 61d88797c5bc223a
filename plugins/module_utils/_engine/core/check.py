# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The answer of a monitoring plugin: status in, one line with performance data and a code out. Pure.

As the Monitoring Plugins guidelines have it: codes 0 to 3, ranges as `[@]start:end`, the text before the first `|`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from .errors import UsageError
from .freshness import CRITICAL, OK, WARNING, worst
from .sizes import human_size, parse_size
from .times import human_span, parse_iso, parse_span

CODES = {OK: 0, WARNING: 1, CRITICAL: 2}
UNKNOWN = 3
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_LONGEST = 400

# The findings that each check is about. `all` is about these and every other.
_ABOUT = {
    "backup": (
        *("backup", "local place", "run of backup", "missed run of backup", "late run of backup"),
        *("no databases", "uncovered database", "clock", "clusters"),
    ),
    "base": ("base backup", "run of base backup", "missed run of base backup", "late run of base backup"),
    "sync": (
        *("off-site copy", "off-site base backup", "off-site place", "no off-site place"),
        *("run of sync", "missed run of sync", "late run of sync"),
    ),
    "verify": (
        *("verification", "failed set", "damaged set"),
        *("run of verify", "missed run of verify", "late run of verify"),
    ),
    "space": ("disk", "disk forecast", "state disk"),
    "size": ("size", "no databases"),
    "wal": (
        *("wal archive", "wal timeout", "wal server", "wal shipping", "wal room"),
        *(
            "wal window",
            "wal gap",
            "wal damaged",
            "wal contradiction",
            "wal history",
            "wal timeline",
            "wal clock",
            "wal local",
            "wal s3",
        ),
    ),
    "restore": ("restore test",),
}
CHECKS = ("all", *_ABOUT)
_HINTS = {
    "seconds": "Write ages as seconds or durations: 93600, 26h, 1h:26h, @10:20.",
    "bytes": "Write sizes as bytes or sizes, the range being what is well: 10GiB: alarms below 10 GiB.",
    "percent": "Write how far the size may be off in percent: 50, or 0:50.",
}


@dataclass(frozen=True)
class Range:
    """A range of the guidelines: alarm outside `least` to `most`, both included; with `inside`, alarm within."""

    text: str
    least: float = 0.0
    most: float = math.inf
    inside: bool = False

    def alarms(self, value: float) -> bool:
        """Tell whether `value` is to raise an alarm."""
        return (self.least <= value <= self.most) == self.inside


def parse_range(text: str, unit: str) -> Range:
    """Return the range that `text` names in `unit` (seconds, bytes, percent). Raise UsageError if it names none."""
    bare = text.strip()
    inside = bare.startswith("@")
    first, colon, last = bare[inside:].partition(":")
    if not colon:
        first, last = "", first
    try:
        least = -math.inf if first == "~" else _number(first or "0", unit)
        most = _number(last, unit) if last else math.inf
    except UsageError:
        raise UsageError("%r is no range of %s." % (text, unit), hint=_HINTS[unit]) from None
    if least > most or not (first or last):
        raise UsageError("%r is no range: it says nothing, or ends before it begins." % text, hint=_HINTS[unit])
    shown = _plain(most) if least == 0 and most < math.inf else "%s:%s" % (_plain(least), _plain(most))
    return Range(("@" if inside else "") + shown, least, most, inside)


def _number(text: str, unit: str) -> float:
    if re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,9})?", text):
        return float(text)
    if unit == "seconds":
        return parse_span(text).total_seconds()
    if unit == "bytes":
        return float(parse_size(text))
    if text.endswith("%"):
        return _number(text[:-1], "")
    raise UsageError("%r is no number." % text)


def _plain(number: float) -> str:
    if math.isinf(number):
        return "" if number > 0 else "~"
    return "%d" % number if number == int(number) else "%.3f" % number


@dataclass(frozen=True)
class Value:
    """One number with its unit of measurement, the range that warns and the one that is critical (empty for none)."""

    label: str
    number: float
    uom: str
    warning: str = ""
    critical: str = ""

    def text(self) -> str:
        """Return it as performance data: `backup_age=21600s;;93600;0`."""
        return "%s=%s%s;%s;%s;0" % (self.label, _plain(round(self.number, 3)), self.uom, self.warning, self.critical)


@dataclass(frozen=True)
class Verdict:
    """The code (0 to 3), the sentence of the first line, a line for each finding, and the performance data."""

    code: int
    text: str
    details: tuple[str, ...] = ()
    values: tuple[Value, ...] = ()

    def output(self, service: str, *, verbose: bool = False) -> str:
        """Return what the plugin prints; with `verbose`, each finding has a line of its own."""
        line = "%s %s - %s" % (service, WORDS[self.code], _bounded(self.text))
        if self.values:
            line += " | " + " ".join(value.text() for value in self.values)
        return "\n".join([line, *(map(_bounded, self.details) if verbose else ())]) + "\n"


def unknown(text: str) -> Verdict:
    """Return the verdict that nothing can be told, and why."""
    return Verdict(UNKNOWN, text)


def _bounded(text: str) -> str:
    flat = " ".join(text.replace("|", "/").split())
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"


# --- the checks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measure:
    """The number that the ranges of a check are about: of which findings, where it is found and how it is said.

    Of ages, only a finding that has one is about the number; another of its name is there for another reason.
    """

    findings: tuple[str, ...]
    unit: str
    label: str
    find: Callable[[Mapping[str, Any]], Optional[float]]
    say: Callable[[float], str]
    default: Callable[[Mapping[str, Any]], tuple[str, str]]

    def is_about(self, finding: Mapping[str, Any]) -> bool:
        """Tell whether `finding` says how large the number is, and nothing else."""
        return finding["check"] in self.findings and (self.unit != "seconds" or finding["age_seconds"] is not None)


def _age_of(check: str) -> Callable[[Mapping[str, Any]], Optional[float]]:
    def find(result: Mapping[str, Any]) -> Optional[float]:
        for finding in result["findings"]:
            if finding["check"] == check and finding["age_seconds"] is not None:
                return max(0.0, float(finding["age_seconds"]))
        return None

    return find


def _limits(name: str) -> Callable[[Mapping[str, Any]], tuple[str, str]]:
    def find(result: Mapping[str, Any]) -> tuple[str, str]:
        found = result["limits"][name]
        warning, critical = found["warning_seconds"], found["critical_seconds"]
        return ("" if warning is None else _plain(warning), "" if critical is None else _plain(critical))

    return find


def _age(seconds: float) -> str:
    return "%s old" % human_span(seconds)


def _wal_lag(result: Mapping[str, Any]) -> Optional[float]:
    """Return for how long the oldest WAL has been waiting to be archived, or for S3; None where the server does not tell."""
    wal = result["wal"]
    if not wal or not wal["server"]:
        return None
    server, shipping = wal["server"], wal["shipping"]
    since = [server["ready_since"] if server["ready"] else None]
    since.append(shipping["pending_since"] if shipping and shipping["pending"] else None)
    now = parse_iso(result["now"])
    ages = [(now - parse_iso(moment)).total_seconds() for moment in since if moment]
    # A role that may not look into pg_wal cannot tell how long its files wait, only when the last one was archived.
    ages += [float(server["lag_seconds"])] if server["ready"] is None else []
    return max([0.0, *ages])


def _untested(result: Mapping[str, Any]) -> Optional[float]:
    age = result["restore_test"]["age_seconds"]
    return None if age is None else float(age)


_MEASURES = {
    "backup": _Measure(("backup",), "seconds", "backup_age", _age_of("backup"), _age, _limits("backup")),
    "base": _Measure(("base backup",), "seconds", "base_age", _age_of("base backup"), _age, _limits("base")),
    "sync": _Measure(("off-site copy",), "seconds", "sync_age", _age_of("off-site copy"), _age, _limits("offsite")),
    "verify": _Measure(
        ("verification",), "seconds", "verify_age", _age_of("verification"), _age, _limits("verification")
    ),
    "space": _Measure(
        ("disk",),
        "bytes",
        "space_free",
        lambda result: float(result["disk"]["free_bytes"]),
        lambda number: "%s free" % human_size(number),
        lambda result: ("", "%d:" % result["disk"]["min_free_bytes"]),
    ),
    "size": _Measure(
        ("size",),
        "percent",
        "size_off",
        lambda result: None if result["size"]["deviation"] is None else abs(100.0 * result["size"]["deviation"]),
        lambda number: "%.0f %% off the usual size" % number,
        lambda result: (_plain(100.0 * result["size"]["allowed"]), ""),
    ),
    "wal": _Measure(
        ("wal archive", "wal shipping"),
        "seconds",
        "wal_lag",
        _wal_lag,
        lambda seconds: "WAL waits for %s" % human_span(seconds),
        _limits("wal"),
    ),
    "restore": _Measure(
        ("restore test",),
        "seconds",
        "restore_age",
        _untested,
        lambda seconds: "none was tried for %s" % human_span(seconds),
        _limits("restore_test"),
    ),
}
UNITS = {name: measure.unit for name, measure in _MEASURES.items()}
_UOM = {"seconds": "s", "bytes": "B", "percent": "%"}


def judge(
    result: Mapping[str, Any], which: str, warning: Optional[Range] = None, critical: Optional[Range] = None
) -> Verdict:
    """Return the verdict of the check `which` on the result of status().

    A range takes the place of the limit that follows from the schedule. A failed run or a set that is damaged counts all the
    same, and so does a backup that is not there at all. `all` takes no ranges.
    """
    if which == "wal" and not result["wal"]:
        return unknown("The configuration does not archive WAL (wal.enabled), so that there is nothing to ask about.")
    findings = [f for f in result["findings"] if which == "all" or f["check"] in _ABOUT[which]]
    if warning is not None or critical is not None:
        findings = _overridden(result, which, findings, warning, critical)
    severity = worst(f["severity"] for f in findings)
    said = [f["text"] for f in findings if f["severity"] == severity] or [_nothing(result, which)]
    return Verdict(
        code=CODES[severity],
        text=" ".join(said),
        details=tuple(
            "%s: %s" % (f["severity"], f["text"]) for f in [*findings, *_notices(result if which == "all" else {})]
        ),
        values=tuple(_values(result, which, warning, critical)),
    )


def _notices(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the notices, which are told with -v and alarm nobody."""
    return [{**notice, "severity": "notice"} for notice in result.get("notices", ())]


def _nothing(result: Mapping[str, Any], which: str) -> str:
    """Say that there is nothing to say: sizes that are as usual, and what nobody waits for or demands, leave no finding."""
    if which == "base":
        return "No base backups are scheduled (schedule.base)."
    if which == "restore":
        return _nothing_demanded(result["restore_test"])
    size = result["size"]
    if size["deviation"] is None:
        return "There are too few sets yet to know a usual size."
    return "The newest set is as large as usual: %s, the median being %s." % (
        human_size(size["bytes"]),
        human_size(size["median_bytes"]),
    )


def _nothing_demanded(tested: Mapping[str, Any]) -> str:
    said = "No restore was tried here yet"
    if tested["when"]:
        said = "The last restore was tried %s ago (%s)" % (human_span(tested["age_seconds"]), tested["verb"])
    return "%s; none is demanded (alerts.restore_test)." % said


def _overridden(
    result: Mapping[str, Any],
    which: str,
    findings: Sequence[Mapping[str, Any]],
    warning: Optional[Range],
    critical: Optional[Range],
) -> list[Mapping[str, Any]]:
    """Return the findings with the one that is measured judged by the ranges, where there is anything to measure."""
    measure = _MEASURES[which]
    number = measure.find(result)
    if number is None:
        return list(findings)
    severity, limit = OK, None
    for found, range_ in ((WARNING, warning), (CRITICAL, critical)):
        if range_ is not None and range_.alarms(number):
            severity, limit = found, range_
    measured = [f for f in findings if measure.is_about(f)]
    said = " ".join(f["text"] for f in measured)
    text = "%s: %s%s." % (which, measure.say(number), ", the range is %s" % limit.text if limit else "")
    judged = {"check": measure.findings[0], "severity": severity, "text": text}
    if severity == OK and said.endswith(".") and measure.unit == "seconds" and len(measured) == 1:
        judged["text"] = said.partition("; it must")[0].partition(". Run:")[0].rstrip(".") + "."
    return [judged, *(f for f in findings if not measure.is_about(f))]


def _values(result: Mapping[str, Any], which: str, warning: Optional[Range], critical: Optional[Range]) -> list[Value]:
    found = []
    for name in _MEASURES if which == "all" else (which,):
        measure = _MEASURES[name]
        number = measure.find(result)
        if number is None:
            continue
        limits = measure.default(result)
        if warning is not None or critical is not None:
            limits = (warning.text if warning else "", critical.text if critical else "")
        found.append(Value(measure.label, number, _UOM[measure.unit], *limits))
    if which in ("all", "size", "backup") and result["size"]["bytes"] is not None:
        found.append(Value("backup_size", float(result["size"]["bytes"]), "B"))
    if which in ("all", "wal"):
        found += _wal_values(result)
    if which == "all":
        levels = [incident["level"] for incident in result["incidents"]]
        found += [Value("incidents_%s" % level, levels.count(level), "") for level in (CRITICAL, WARNING)]
    if which in ("all", "backup"):
        good = result["runs"].get("backup", {}).get("last_ok")
        if good is not None:
            found.append(Value("backup_time", float(good["seconds"]), "s"))
    return found


def _wal_values(result: Mapping[str, Any]) -> Iterator[Value]:
    """Yield what waits to be archived and for S3, and how far behind a recovery would end: from the place that counts first."""
    wal = result["wal"]
    if not wal:
        return
    most = "%d" % wal["max_backlog_bytes"]
    if wal["server"]:
        yield Value("wal_waiting", float(wal["server"]["lag_bytes"]), "B", most)
    if wal["shipping"]:
        yield Value("wal_pending", float(wal["shipping"]["pending_bytes"]), "B", most)
    behind = {place["place"]: place["rpo_seconds"] for place in wal["places"]}
    # What a lost host would cost is what S3 lacks, where there is one: the spool is lost with the host.
    counts = "s3" if "s3" in behind else "local"
    for place in sorted(behind, key=lambda name: (name != counts, name)):
        if behind[place] is not None:
            yield Value("wal_rpo" if place == counts else "wal_rpo_%s" % place, float(behind[place]), "s")


__all__ = (
    "CHECKS",
    "CODES",
    "UNITS",
    "UNKNOWN",
    "WORDS",
    "Range",
    "Value",
    "Verdict",
    "judge",
    "parse_range",
    "unknown",
)
