# SPDX-License-Identifier: GPL-3.0-or-later
"""The plugin's line: what the Monitoring Plugins guidelines ask for, and limits that follow from the schedule."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import checking, options, options_watch
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import main as cli
from ansible_collections.pgops.backup.plugins.module_utils._engine.core import check, wal_health
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import PgopsError, UsageError
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.times import iso
from ansible_collections.pgops.backup.plugins.module_utils._engine.core.wal_health import (
    Bounds,
    Holding,
    Room,
    ServerWal,
    Shipping,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.runs import perform
from ansible_collections.pgops.backup.plugins.module_utils._engine.settings import Schedule
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs import status as status_module
from ansible_collections.pgops.backup.plugins.module_utils._engine.verbs.status import status

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
# A line of a plugin: service, word, text; then label=value[UOM];[warn];[crit];[min]
LINE = re.compile(
    r"PGOPS[A-Z ]* (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+( \|( [a-z_]+=-?[0-9.]+(s|B|%)?;[^; ]*;[^; ]*;0)+)?\n"
)


def safe(world: Any, *, ago: timedelta = 6 * HOUR) -> str:
    set_id = world.add("local", world.NOW - ago)
    world.add("s3", world.NOW - ago)
    world.prove("s3", set_id, when=world.NOW - HOUR)
    return str(set_id)


def verdict(world: Any, which: str = "all", *, warning: str = "", critical: str = "") -> check.Verdict:
    ranges = [check.parse_range(text, check.UNITS[which]) if text else None for text in (warning, critical)]
    return check.judge(status(world.context()), which, *ranges)


def value(found: check.Verdict, label: str) -> check.Value:
    return next(v for v in found.values if v.label == label)


# --- what alerts would tell -------------------------------------------------------------------------------------------


def test_open_incidents_are_told_and_counted_by_level(world: Any) -> None:
    safe(world)
    found = verdict(world)
    assert (found.code, value(found, "incidents_critical").number, value(found, "incidents_warning").number) == (
        0,
        0,
        0,
    )
    assert " incidents_critical=0;;;0 incidents_warning=0;;;0" in found.output("PGOPS")
    assert LINE.fullmatch(found.output("PGOPS"))
    for names in (("old",), ("old", "new")):
        entries = [{"what": "database %s" % name, "why": "the role may not connect"} for name in names]
        perform(world.context(), "backup", lambda _context, entries=entries: {"uncovered": entries})  # type: ignore[misc]
        world.now += HOUR / 60
    for which in ("all", "backup"):
        found = verdict(world, which)
        assert (found.code, found.text) == (1, "No backup holds database new, which is new.")
    assert value(verdict(world), "incidents_warning").number == 1
    assert verdict(world, "sync").code == 0


def test_a_notice_alarms_nobody_and_is_told_by_who_asks_for_more(world: Any) -> None:
    safe(world)
    found = verdict(world)
    assert found.code == 0
    assert "people of trouble" not in found.output("PGOPS")
    assert "\nnotice: No channel tells people of trouble; there should be 2.\n" in found.output("PGOPS", verbose=True)
    assert "notice" not in verdict(world, "backup").output("PGOPS", verbose=True)


# --- ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "alarms", "well"),
    [
        ("10", (-0.1, 10.1), (0, 10)),
        ("10:", (9.9, -5), (10, 1e9)),
        ("~:10", (10.1,), (-1e9, 10)),
        ("10:20", (9, 21), (10, 15, 20)),
        ("@10:20", (10, 15, 20), (9, 21)),
        (":10", (11, -1), (0, 10)),
        ("26h", (93601,), (0, 93600)),
        ("1h:2d", (3599, 172801), (3600, 172800)),
    ],
)
def test_a_range_is_what_the_guidelines_say(text: str, alarms: tuple[float, ...], well: tuple[float, ...]) -> None:
    found = check.parse_range(text, "seconds")
    assert [v for v in alarms if not found.alarms(v)] == []
    assert [v for v in well if found.alarms(v)] == []


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        *((text, "seconds") for text in ("", ":", "@", "5:1", "x", "1:2:3", "10GiB", "nan", "~")),
        *(("26h", "bytes"), ("1e5", "bytes"), ("5s", "percent"), ("²", "percent")),
    ],
)
def test_what_is_no_range_is_refused_with_an_example(text: str, unit: str) -> None:
    with pytest.raises(UsageError) as raised:
        check.parse_range(text, unit)
    assert raised.value.hint


@given(st.integers(-(10**9), 10**9), st.integers(0, 10**9), st.booleans(), st.integers(-(10**10), 10**10))
def test_a_range_alarms_on_one_side_of_its_ends_only(least: int, span: int, inside: bool, number: int) -> None:
    found = check.parse_range("%s%d:%d" % ("@" if inside else "", least, least + span), "bytes")
    assert found.alarms(number) == ((least <= number <= least + span) == inside)
    assert check.parse_range(found.text, "bytes") == found


def test_sizes_and_percent_have_their_own_units() -> None:
    assert check.parse_range("10GiB:", "bytes").least == 10 * 1024**3
    assert check.parse_range("30%", "percent").most == 30
    assert math.isinf(check.parse_range("~:", "bytes").most)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_when_all_is_well_it_is_ok_with_the_numbers(world: Any) -> None:
    safe(world)
    found = verdict(world)
    assert found.code == 0
    assert "The newest backup" in found.text
    assert value(found, "backup_age").text() == "backup_age=21600s;;93600;0"
    assert value(found, "verify_age").text() == "verify_age=3600s;604800;1209600;0"
    assert LINE.fullmatch(found.output("PGOPS"))


def test_a_daily_backup_is_late_after_26_hours_and_a_weekly_one_is_not(world: Any) -> None:
    safe(world, ago=26 * HOUR)
    assert verdict(world, "backup").code == 0
    world.now += timedelta(seconds=1)
    late = verdict(world, "backup")
    assert (late.code, verdict(world, "sync").code, verdict(world, "verify").code) == (2, 0, 0)
    assert "must not be older than 1 d 2 h" in late.text
    context = world.context()
    context.config = dataclasses.replace(context.config, schedule=Schedule(backup="0 2 * * 0", sync="0 4 * * 0"))
    assert check.judge(status(context), "backup").code == 0


@pytest.mark.parametrize(
    ("warning", "critical", "code"), [("1h", "", 1), ("1h", "5h", 2), ("7h", "8h", 0), ("", "1d:", 2)]
)
def test_ranges_take_the_place_of_the_limit(world: Any, warning: str, critical: str, code: int) -> None:
    safe(world)
    found = verdict(world, "backup", warning=warning, critical=critical)
    assert found.code == code
    shown = value(found, "backup_age")
    assert (shown.warning == "", shown.critical == "") == (warning == "", critical == "")
    world.now += 9 * DAY
    assert verdict(world, "backup", warning="30d").code == 0
    assert "it must not be" not in verdict(world, "backup", warning="30d").text


def test_ranges_do_not_hide_a_failed_run_or_that_there_is_nothing(world: Any) -> None:
    assert verdict(world, "backup", critical="30d").code == 2
    safe(world)

    def work(context: Any) -> dict[str, Any]:
        del context
        raise PgopsError("The disk | is full.")

    with pytest.raises(PgopsError):
        perform(world.context(), "backup", work)
    found = verdict(world, "backup", critical="30d")
    assert found.code == 2
    assert "The disk / is full." in found.output("PGOPS BACKUP")
    assert verdict(world, "sync").code == 0


def test_without_a_place_off_the_server_sync_warns(make_world: Any) -> None:
    world = make_world(s3=None)
    world.prove("local", world.add("local", world.NOW - HOUR))
    assert (verdict(world, "sync").code, verdict(world, "backup").code, verdict(world).code) == (1, 0, 1)


def test_a_store_that_does_not_answer_is_critical_not_unknown(world: Any) -> None:
    safe(world)
    world.memory.down = True
    assert (verdict(world, "sync").code, verdict(world, "backup").code) == (2, 0)


def test_space_is_bytes(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    safe(world)
    monkeypatch.setattr(status_module, "free_bytes", lambda _path: 5 * 1024**3)
    assert verdict(world, "space").code == 0
    assert value(verdict(world, "space"), "space_free").text() == "space_free=5368709120B;;1:;0"
    assert verdict(world, "space", critical="10GiB:").code == 2
    assert verdict(world, "space", warning="10GiB:", critical="1GiB:").code == 1


def sized(world: Any, *sizes: int) -> None:
    """Make a set a day, the last of them newest."""
    for n, size in enumerate(reversed(sizes)):
        world.add("local", world.NOW - n * DAY, payload=b"x" * size)


def test_a_size_that_is_off_warns_and_ranges_say_by_how_much(world: Any) -> None:
    two = 2 * 1024**2
    sized(world, two, two, two, two // 4)
    found = verdict(world, "size")
    assert found.code == 1
    assert "75 % less than usual" in found.text
    assert verdict(world, "size", critical="60").code == 2
    assert verdict(world, "size", critical="80").code == 0


def test_a_size_that_is_as_usual_is_told_and_too_few_sets_know_none(world: Any) -> None:
    assert "too few sets" in verdict(world, "size").text
    sized(world, 4, 4, 4, 400)  # small sets change by more than half without any harm
    found = verdict(world, "size")
    assert found.code == 0
    assert "as large as usual" in found.text


# --- WAL and restores -------------------------------------------------------------------------------------------------


def archived(world: Any, **facts: Any) -> dict[str, Any]:
    """Return the status of an instance whose WAL is archived as `facts` of the server and of the shipping say."""
    shipping = {name: facts.pop(name) for name in ("pending", "pending_bytes", "pending_since") if name in facts}
    server = {**dict.fromkeys(("last_archived_time", "last_failed_time", "ready_since")), **facts}
    known = ServerWal(
        **{  # type: ignore[arg-type]
            "archive_mode": "on",
            "archive_command": "pgops wal archive %p",
            "archive_timeout": 60,
            "segment_size": 1 << 24,
            "lag_bytes": 4711,
            "last_archived": "000000010000000000000007",
            "last_failed": "",
            "failed_count": 0,
            "ready": 0,
            **server,
        }
    )
    sent = Shipping(
        shipping.get("pending", 0), shipping.get("pending_bytes", 0), shipping.get("pending_since"), "", None
    )
    bounds = Bounds(timedelta(minutes=10), 1 << 30)
    room = Room(1 << 40, 1, 0.0)
    told = wal_health.judge(known, "", sent, room, [Holding("s3", recoverable_to=world.now)], bounds, world.now)
    moments = {"ready_since": known.ready_since, "pending_since": sent.pending_since}
    texts = {name: iso(moment) if moment else None for name, moment in moments.items()}
    result = status(world.context())
    findings = [f for f in result["findings"] if not f["check"].startswith("wal ")]
    findings += [finding.as_data() for finding in told]
    wal = {
        "server": {"lag_bytes": known.lag_bytes, "lag_seconds": 17.0, "ready": known.ready, **texts},
        "shipping": {"pending": sent.pending, "pending_bytes": sent.pending_bytes, **texts},
        "max_backlog_bytes": 1 << 30,
        "places": [{"place": "local", "rpo_seconds": None}, {"place": "s3", "rpo_seconds": 42.0}],
    }
    return {**result, "findings": findings, "wal": wal}


def of_wal(world: Any, *, warning: str = "", critical: str = "", **facts: Any) -> check.Verdict:
    ranges = [check.parse_range(text, "seconds") if text else None for text in (warning, critical)]
    return check.judge(archived(world, **facts), "wal", *ranges)


def test_wal_that_is_archived_and_away_is_well_and_says_how_far_behind_a_recovery_would_be(world: Any) -> None:
    safe(world)
    found = of_wal(world)
    assert (found.code, [v.text() for v in found.values]) == (
        0,
        [
            "wal_lag=0s;600;;0",
            "wal_waiting=4711B;1073741824;;0",
            "wal_pending=0B;1073741824;;0",
            "wal_rpo=42s;;;0",
        ],
    )
    assert LINE.fullmatch(found.output("PGOPS WAL"))
    # The spool knows the newest WAL, and is lost with the host.
    for local, s3, told in (
        (3.0, 7200.0, ["wal_rpo=7200s;;;0", "wal_rpo_local=3s;;;0"]),
        (3.0, None, ["wal_rpo_local=3s;;;0"]),
    ):
        result = archived(world)
        result["wal"]["places"] = [{"place": "local", "rpo_seconds": local}, {"place": "s3", "rpo_seconds": s3}]
        values = [value.text() for value in check.judge(result, "wal").values]
        assert [text for text in values if text.startswith("wal_rpo")] == told
    result["wal"]["places"].pop()
    assert "wal_rpo=3s;;;0" in [value.text() for value in check.judge(result, "wal").values]
    assert {v.label for v in check.judge(archived(world), "all").values} >= {"wal_lag", "wal_rpo", "backup_age"}


def test_wal_that_waits_longer_than_it_may_warns_and_ranges_say_how_long_that_is(world: Any) -> None:
    late = {"ready": 3, "ready_since": world.now - timedelta(minutes=20)}
    found = of_wal(world, **late)
    assert (found.code, value(found, "wal_lag").number) == (1, 1200)
    assert "3 files wait, the oldest for 20 min" in found.text
    assert of_wal(world, warning="30min", **late).code == 0
    assert of_wal(world, warning="5min", critical="15min", **late).code == 2
    pending = {"pending": 2, "pending_bytes": 100, "pending_since": world.now - HOUR}
    assert (of_wal(world, **pending).code, value(of_wal(world, **pending), "wal_lag").number) == (1, 3600)
    assert of_wal(world, warning="2h", **late, **pending).code == 0
    assert of_wal(world, critical="30min", **late, **pending).code == 2


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"archive_mode": "off"}, "archive_mode is off"),
        ({"archive_command": "/bin/true"}, "does not call pgops"),
        ({"lag_bytes": 2 << 30}, "2.0 GiB of WAL are not archived"),
        ({"pending": 9, "pending_bytes": 2 << 30}, "wait for S3"),
        ({"archive_timeout": 0}, "archive_timeout is 0"),
    ],
)
def test_a_range_of_time_hides_nothing_else_that_is_wrong_with_wal(
    world: Any, facts: dict[str, Any], said: str
) -> None:
    found = of_wal(world, critical="1d", **facts)
    assert found.code > 0
    assert said in found.text


def test_a_role_that_may_not_look_into_pg_wal_is_judged_by_what_was_archived_last(world: Any) -> None:
    assert value(of_wal(world, ready=None), "wal_lag").number == 17


def test_a_server_that_says_nothing_of_its_wal_has_no_number_and_warns(make_world: Any) -> None:
    world = make_world(wal={"enabled": True}, postgres={"login_unix_socket": "/nowhere"})
    safe(world)
    found = verdict(world, "wal", critical="1h")
    assert found.code == 1
    assert "How the server archives is unknown" in found.text
    assert [v.label for v in found.values] == ["wal_pending"]


def test_where_wal_is_not_archived_there_is_nothing_to_ask(world: Any) -> None:
    safe(world)
    found = verdict(world, "wal", warning="5min")
    assert (found.code, found.values) == (3, ())
    assert "wal.enabled" in found.text


def restored(world: Any, verb: str = "restore", error: Any = None) -> None:
    def work(context: Any) -> dict[str, Any]:
        del context
        if error:
            raise error
        return {}

    with contextlib.suppress(PgopsError):
        perform(world.context(), verb, work)


def test_a_restore_that_nobody_tries_is_told_where_one_is_wanted(make_world: Any) -> None:
    world = make_world(alerts={"restore_test": "90d"})
    safe(world)
    assert verdict(world, "restore").text == "No restore was tried yet, as nothing has run here."
    restored(world, "backup")
    assert (verdict(world, "restore").code, value(verdict(world, "restore"), "restore_age").warning) == (0, "7776000")
    world.now += 91 * DAY
    late = verdict(world, "restore")
    assert late.code == 1
    assert "No restore has been tried for 91 d 0 h; one is wanted every 90 d 0 h." in late.text
    restored(world, error=PgopsError("No."))
    assert verdict(world, "restore").code == 1
    restored(world, "recover")
    assert verdict(world, "restore").code == 0
    assert verdict(world, "restore").text == "The last restore was tried 0.0 s ago."
    assert "restore_age" in {v.label for v in verdict(world).values}


def test_where_no_restore_is_demanded_that_is_said(make_world: Any) -> None:
    world = make_world(alerts={"restore_test": ""})
    assert verdict(world, "restore").text == "No restore was tried here yet; none is demanded (alerts.restore_test)."
    restored(world)
    world.now += 400 * DAY
    assert "400 d 0 h ago (restore); none is demanded (alerts.restore_test)." in verdict(world, "restore").text


def test_ranges_ask_for_restores_where_the_configuration_does_not(world: Any) -> None:
    safe(world)
    assert verdict(world, "restore", warning="30d").code == 0
    assert verdict(world, "restore").text == "No restore was tried yet, as nothing has run here."
    restored(world)
    world.now += 31 * DAY
    assert verdict(world, "restore").code == 0
    assert "The last restore was tried 31 d 0 h ago." in verdict(world, "restore").text
    assert verdict(world, "restore", warning="30d").code == 1
    assert (
        "restore: none was tried for 31 d 0 h, the range is 2592000." in verdict(world, "restore", critical="30d").text
    )


@given(st.text(max_size=900), st.integers(0, 3))
def test_the_line_is_one_line_whatever_it_says(text: str, code: int) -> None:
    out = check.Verdict(code, "x" + text, ("y" + text,), (check.Value("age", 1.5, "s"),)).output("PGOPS", verbose=True)
    first, second, rest = out.split("\n")
    assert rest == ""
    assert first.count("|") == 1
    assert "|" not in second
    assert len(first) < 500


# --- the program ------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {"instance": "db1", "local": {"path": str(tmp_path / "backups")}, "state_dir": str(tmp_path / "state")}
        )
    )
    return path


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli.main(list(arguments))
    out, err = capfd.readouterr()
    assert err == ""
    assert code in (0, 1, 2, 3)
    return code, out


def test_that_somebody_asked_is_remembered(capfd: pytest.CaptureFixture[str], config: Path, tmp_path: Path) -> None:
    run(capfd, "--config", str(config), "check")
    assert not (tmp_path / "state").exists(), "a question makes no directories"
    (tmp_path / "state" / "db1").mkdir(parents=True)
    run(capfd, "--config", str(config), "check")
    assert (tmp_path / "state" / "db1" / "checked").stat().st_size == 0


def test_the_program_answers_with_the_code_of_its_word(capfd: pytest.CaptureFixture[str], config: Path) -> None:
    code, out = run(capfd, "--config", str(config), "check")
    assert (code, out.startswith("PGOPS CRITICAL - There is no backup at all.")) == (2, True)
    assert LINE.fullmatch(out)
    code, out = run(capfd, "check", "space", "--config", str(config), "-c", "1:", "-v")
    assert (code, out.count("\n")) == (0, 2)
    assert out.startswith("PGOPS SPACE OK - ")
    code, out = run(capfd, "--json", "--config", str(config), "check", "backup")
    said = json.loads(out)
    assert (code, said["exit_code"], said["state"], said["instance"], said["check"]) == (
        2,
        2,
        "critical",
        "db1",
        "backup",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--config", "/nowhere/config.yml"),
        ("check", "backups"),
        ("check", "backup", "-w", "soon", "--config", "{config}"),
        ("check", "-w", "5", "--config", "{config}"),
        ("check", "-t", "0"),
        ("check", "--set", "nonsense"),
        ("check", "--config", "{broken}"),
        ("check", "--what"),
    ],
)
def test_whatever_is_wrong_with_the_question_is_unknown(
    capfd: pytest.CaptureFixture[str], config: Path, arguments: tuple[str, ...]
) -> None:
    broken = config.with_name("broken.json")
    broken.write_text('{"backup": {"jobs": "many"}, "s4": {}}')
    code, out = run(capfd, *(a.format(config=config, broken=broken) for a in arguments))
    assert code == 3
    assert re.match(r"PGOPS[A-Z ]* UNKNOWN - ", out)
    assert out.count("\n") == 1


@pytest.fixture
def closed(config: Path) -> Path:
    config.chmod(0)
    return config


def test_an_account_that_may_not_read_is_told_whom_to_ask_as(
    capfd: pytest.CaptureFixture[str], closed: Path, as_ordinary_user: None
) -> None:
    code, out = run(capfd, "check", "--config", str(closed))
    assert code == 3
    assert "cannot be read" in out
    assert "Run it as root. The role monitoring lets others ask so." in out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("no"), "ZeroDivisionError: no"),
        (KeyboardInterrupt(), "interrupted"),
        (PgopsError("Oh."), "Oh."),
    ],
)
def test_what_nobody_foresaw_is_unknown_too(
    capfd: pytest.CaptureFixture[str], config: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str
) -> None:
    def fail(context: Any) -> dict[str, Any]:
        del context
        raise error

    monkeypatch.setattr(status_module, "status", fail)
    code, out = run(capfd, "check", "--config", str(config))
    assert code == 3
    assert said in out


def test_a_place_that_hangs_is_unknown_in_time(
    capfd: pytest.CaptureFixture[str], config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(context: Any) -> dict[str, Any]:
        del context
        with contextlib.suppress(Exception):  # as a handler of errors on the way would
            signal.pause()
        return {}

    monkeypatch.setattr(status_module, "status", hang)
    code, out = run(capfd, "check", "-t", "0.2", "--config", str(config))
    assert code == 3
    assert "no answer within 0.2 s" in out
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_reader_that_has_gone_is_unknown(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _text: str) -> None:
            raise BrokenPipeError

        def fileno(self) -> int:
            raise OSError

    monkeypatch.setattr(checking.sys, "stdout", Gone())
    assert checking.answer(options.parse(["check", "space", "--config", str(config)])) == 3


def test_the_checks_of_the_options_are_those_of_the_engine() -> None:
    assert options_watch.CHECKS == check.CHECKS


# --- base backups -----------------------------------------------------------------------------------------------------


def test_base_backups_are_asked_for_where_they_are_scheduled(world: Any) -> None:
    safe(world)
    assert verdict(world, "base").text == "No base backups are scheduled (schedule.base)."
    assert verdict(world, "base").code == 0
    context = world.context()
    context.config = dataclasses.replace(context.config, schedule=Schedule(base="0 0 * * 0"))
    found = check.judge(status(context), "base")
    assert found.code == 2
    assert "There is no base backup" in found.text
    base = world.add("local", world.NOW - 2 * DAY, kind="base")
    assert base.endswith("-base")
    found = check.judge(status(context), "base")
    assert found.code == 0
    assert value(found, "base_age").text() == "base_age=172800s;;648000;0"
    # A copy that is missing is the sync's business.
    assert "no base backup off this server" in check.judge(status(context), "sync").text
