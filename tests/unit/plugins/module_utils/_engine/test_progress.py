# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import os
import re
import threading
from typing import Any

import pytest

from ansible_collections.pgops.backup.plugins.module_utils._engine.cli import progress
from ansible_collections.pgops.backup.plugins.module_utils._engine.cli.progress import (
    ProgressReporter,
    columns,
    is_terminal,
    printable,
    wants_colour,
)

MIB = 1024 * 1024


class Screen(io.StringIO):
    """A stream that may be a terminal."""

    encoding = "utf-8"

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def no_ticker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests tick by hand."""
    monkeypatch.setattr(ProgressReporter, "_start_ticker", lambda self: None)


def reporter(screen: Screen, clock: Clock, **options: Any) -> ProgressReporter:
    environ = options.pop("environ", {"TERM": "xterm"})
    return ProgressReporter(screen, environ=environ, clock=clock, **options)


def test_plain_lines_tell_begin_and_end_and_speak_up_every_half_minute() -> None:
    screen, clock = Screen(), Clock()
    told = reporter(screen, clock)
    told.phase("push", 12 * MIB)
    for _unused in range(6):
        clock.now += 10
        told.advance(MIB)
        told.tick()
    told.done()
    told.close()
    lines = screen.getvalue().splitlines()
    assert lines[0] == "push …"
    assert [line for line in lines if " of " in line] == [
        "push: 3.0 MiB of 12.0 MiB, 102.4 KiB/s, 1 min 30 s left",
        "push: 6.0 MiB of 12.0 MiB, 102.4 KiB/s, 1 min 0 s left",
    ]
    assert lines[-1] == "push: 6.0 MiB in 1 min 0 s"


def test_a_terminal_has_one_line_with_a_bar() -> None:
    screen, clock = Screen(terminal=True), Clock()
    told = reporter(screen, clock)
    told.phase("push", 10 * MIB)
    clock.now += 2
    told.advance(5 * MIB)
    told.tick()
    drawn = screen.getvalue()
    assert re.fullmatch("\r\033\\[Kpush \\[█{11}·{11}\\]  50%  5.0 MiB of 10.0 MiB, 2.5 MiB/s, 2.0 s left", drawn)
    told.done()
    told.close()
    assert screen.getvalue().endswith("\r\033[K")
    assert "\n" not in screen.getvalue()


def test_an_unknown_total_has_no_bar() -> None:
    screen, clock = Screen(terminal=True), Clock()
    told = reporter(screen, clock)
    told.phase("backup")
    clock.now += 4
    told.advance(8 * MIB)
    told.tick()
    assert screen.getvalue() == "\r\033[Kbackup  8.0 MiB, 2.0 MiB/s, 4.0 s"


def test_more_than_the_total_is_no_more_than_a_count() -> None:
    screen, clock = Screen(terminal=True), Clock()
    told = reporter(screen, clock)
    told.phase("verify", MIB)
    told.advance(3 * MIB)
    told.tick()
    assert "%" not in screen.getvalue()
    assert "3.0 MiB" in screen.getvalue()


def test_no_line_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProgressReporter, "_width", lambda self: 30)
    screen, clock = Screen(terminal=True), Clock()
    told = reporter(screen, clock)
    told.phase("restore of 注文システム注文システム注文システム", 10 * MIB)
    told.tick()
    assert columns(screen.getvalue().split("\033[K")[-1]) <= 29


def test_notes_are_for_verbose_and_warnings_for_all_but_quiet_once() -> None:
    for options, expected in (
        ({}, "warning: disk\n"),
        ({"verbose": True}, "step\nwarning: disk\n"),
        ({"quiet": True}, ""),
    ):
        screen = Screen()
        told = reporter(screen, Clock(), **options)
        told.note("step")
        told.note("warning: disk")
        told.note("warning: disk")
        told.phase("x")
        told.close()
        assert screen.getvalue().replace("x …\n", "") == expected


@pytest.mark.parametrize("quiet", [False, True])
def test_an_alarm_is_for_the_quiet_too(quiet: bool) -> None:
    screen = Screen(terminal=False)
    shown = reporter(screen, Clock(), quiet=quiet)
    shown.alarm("warning: process 7 waits")
    assert screen.getvalue() == "warning: process 7 waits\n"
    # It waits once more.
    shown.alarm("warning: process 7 waits")
    assert screen.getvalue() == "warning: process 7 waits\n" * 2


def test_a_warning_makes_the_line_go_and_come_back() -> None:
    screen, clock = Screen(terminal=True), Clock()
    told = reporter(screen, clock)
    told.phase("push", MIB)
    told.tick()
    told.note("warning: slow")
    told.tick()
    assert "\r\033[K\033[33mwarning:\033[0m slow\n\r\033[Kpush" in screen.getvalue()


@pytest.mark.parametrize(
    ("environ", "redraws", "colours"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, False, False),
        ({}, False, False),
    ],
)
def test_what_a_terminal_may_get(environ: dict[str, str], redraws: bool, colours: bool) -> None:
    assert is_terminal(Screen(terminal=True), environ) is redraws
    assert wants_colour(Screen(terminal=True), environ) is colours
    assert not is_terminal(Screen(), environ)


def test_a_phase_that_follows_another_ends_it_and_done_may_come_twice() -> None:
    screen = Screen()
    told = reporter(screen, Clock())
    told.phase("one")
    told.phase("two")
    told.done()
    told.done()
    told.advance(5)
    assert screen.getvalue() == "one …\none: 0.0 s\ntwo …\ntwo: 0.0 s\n"


def test_many_threads_count_every_byte() -> None:
    told = reporter(Screen(), Clock())
    told.phase("push")
    threads = [threading.Thread(target=lambda: [told.advance(1) for _unused in range(2000)]) for _unused in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told._phase is not None
    assert told._phase.count == 16000


def test_a_stream_that_is_gone_ends_nothing() -> None:
    screen = Screen()
    told = reporter(screen, Clock())
    screen.close()
    told.phase("push")
    told.note("warning: x")
    told.done()
    told.close()


def test_the_ticker_redraws_by_itself_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(progress, "_REDRAW_SECONDS", 0.01)
    screen = Screen(terminal=True)
    told = ProgressReporter(screen, environ={"TERM": "xterm"})
    told.phase("lock")
    for _unused in range(6000):
        if "lock" in screen.getvalue():
            break
        threading.Event().wait(0.01)
    told.close()
    assert "lock" in screen.getvalue()
    assert not any(thread.name == "progress" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe_λ_注文", "größe_λ_注文"),
        ("a\033]0;title\007b", "a\\x1b]0;title\\x07b"),
        ("a\rb", "a\\rb"),
        ("two\nlines", "two\nlines"),
        ("\u202eback", "\\u202eback"),
        ("\033[31mred\033[0m", "\\x1b[31mred\\x1b[0m"),
    ],
)
def test_names_do_not_steer_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_colours_of_our_own_stay() -> None:
    assert printable("\033[31mred\033[0m \033[2J", keep_colours=True) == "\033[31mred\033[0m \\x1b[2J"


def test_the_journal_hears_how_loud_a_line_is_and_nobody_else_does(tmp_path: Any) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        found = os.fstat(stream.fileno())
        for named in ("%d:%d" % (found.st_dev, found.st_ino), "%d:%d" % (found.st_dev, found.st_ino + 1), ""):
            told = ProgressReporter(stream, verbose=True, environ={"JOURNAL_STREAM": named})
            told.note("warning: a name with\n<0>a second line")
            told.note("a note")
            told.close()
        stream.seek(0)
        lines = stream.read().splitlines()
    # What somebody wrote into a name makes no line louder.
    assert lines[:3] == ["<4>warning: a name with", "<4><0>a second line", "<6>a note"]
    assert lines[3:] == ["warning: a name with", "<0>a second line", "a note"] * 2


def test_who_writes_to_no_file_has_no_journal() -> None:
    screen, clock = Screen(), Clock()
    reporter(screen, clock, environ={"JOURNAL_STREAM": "8:1"}).note("warning: here")
    assert screen.getvalue() == "warning: here\n"
