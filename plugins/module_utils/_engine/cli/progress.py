# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Progress for people: one line that is redrawn on a terminal, plain lines elsewhere (logs, mails, pipes)."""

from __future__ import annotations

import os
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Mapping
from typing import Callable, Optional, TextIO

from ..context import Reporter
from ..core.sizes import human_size
from ..core.times import human_span
from .journal import INFO, WARNING, is_journal, levelled

_REDRAW_SECONDS = 0.2
_LINE_SECONDS = 30.0
# The rate is that of the last seconds, so that it and the remaining time follow what the network does now.
_RATE_SECONDS = 15.0
_FIRST_RATE_SECONDS = 0.5
_WARNING = "warning: "
_ERASE = "\r\033[K"


def printable(text: str, *, keep_colours: bool = False) -> str:
    """Return `text` without control characters: a database name must not steer the terminal that shows it.

    Line ends stay, and with `keep_colours` the sequences that set a colour.
    """
    escaped = []
    for index, character in enumerate(text):
        if (
            character == "\n"
            or character.isprintable()
            or character == "\t"
            or (character == "\033" and keep_colours and _is_colour(text[index : index + 6]))
        ):
            escaped.append(character)
        else:
            escaped.append(character.encode("unicode_escape").decode("ascii"))
    return "".join(escaped)


def _is_colour(text: str) -> bool:
    inner, mark, _unused = text[1:].partition("m")
    return bool(mark) and inner[:1] == "[" and all(c in "0123456789;" for c in inner[1:])


def is_terminal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether `stream` is a terminal that can redraw a line."""
    return environ.get("TERM", "") not in ("", "dumb") and stream.isatty()


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether to colour what goes to `stream`; a NO_COLOR that is not empty forbids it (no-color.org)."""
    return is_terminal(stream, environ) and not environ.get("NO_COLOR")


def columns(text: str) -> int:
    """Return how many columns of a terminal `text` takes: two for a wide character, none for an accent."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _clip(text: str, width: int) -> str:
    while columns(text) > width:
        text = text[:-1]
    return text


class _Phase:
    """What runs now: its name, how far it is, since when, and where it was some seconds ago."""

    def __init__(self, name: str, total: int, now: float) -> None:
        self.name, self.total, self.started, self.count = name, total, now, 0
        self.spoke = now
        self._seen: deque[tuple[float, int]] = deque([(now, 0)])

    def rate(self, now: float) -> float:
        """Return the bytes per second of the last while."""
        if now - self._seen[-1][0] >= 1.0:
            self._seen.append((now, self.count))
        while len(self._seen) > 1 and now - self._seen[1][0] > _RATE_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return (self.count - before) / (now - since) if now - since >= _FIRST_RATE_SECONDS else 0.0

    def facts(self, now: float) -> str:
        """Return how far it is: `3.0 MiB of 12.0 MiB, 1.5 MiB/s, 6.0 s left`."""
        parts = []
        if self.total and self.count <= self.total:
            parts.append("%s of %s" % (human_size(self.count), human_size(self.total)))
        elif self.count:
            parts.append(human_size(self.count))
        rate = self.rate(now)
        if rate:
            parts.append("%s/s" % human_size(rate))
        if rate and self.count < self.total:
            parts.append("%s left" % human_span((self.total - self.count) / rate))
        else:
            parts.append(human_span(now - self.started))
        return ", ".join(parts)

    def summary(self, now: float) -> str:
        """Return what it came to: `12.0 MiB in 8.1 s`."""
        took = human_span(now - self.started)
        return "%s in %s" % (human_size(self.count), took) if self.count else took


class ProgressReporter(Reporter):
    """Shows how the work goes on `stream`. With `quiet` it is silent; `verbose` adds each note.

    All methods may be called from any thread. close() must be called at the end; the line that is redrawn is gone then.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        quiet: bool = False,
        verbose: bool = False,
        environ: Optional[Mapping[str, str]] = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._quiet, self._verbose, self._clock = stream, quiet, verbose, clock
        environ = os.environ if environ is None else environ
        self._redraws = not quiet and is_terminal(stream, environ)
        self._colour = wants_colour(stream, environ)
        self._journal = is_journal(stream, environ)
        self._unicode = (getattr(stream, "encoding", "") or "").lower().replace("-", "") == "utf8"
        self._lock = threading.RLock()
        self._phase: Optional[_Phase] = None
        self._drawn = False
        self._warned: set[str] = set()
        self._over = threading.Event()
        self._ticker: Optional[threading.Thread] = None

    # --- what the verbs call ---

    def note(self, text: str) -> None:
        warning = text.startswith(_WARNING)
        if self._quiet or not (warning or self._verbose) or text in self._warned:
            return
        if warning:
            self._warned.add(text)  # a plan and the work that follows it find the same
            text = "%s%s" % (self._paint("warning:", "33"), text[len(_WARNING) - 1 :])
        self.line(text, level=WARNING if warning else INFO)

    def alarm(self, text: str) -> None:
        if self._quiet:
            self.line(text, level=WARNING)  # the journal, or cron's mail, is where it is heard then
        else:
            self._warned.discard(text)  # it begins once more
            self.note(text)

    def phase(self, name: str, total: int = 0) -> None:
        with self._lock:
            self.done()
            self._phase = _Phase(printable(name), max(0, total), self._clock())
            if self._quiet:
                return
            if not self._redraws:
                self.line("%s …" % self._phase.name if self._unicode else "%s ..." % self._phase.name)
            self._start_ticker()

    def advance(self, count: int) -> None:
        with self._lock:
            if self._phase is not None:
                self._phase.count += count

    def done(self) -> None:
        with self._lock:
            ended, self._phase = self._phase, None
            if ended is None or self._quiet:
                return
            if self._redraws:
                self._erase()
            if self._verbose or not self._redraws:
                self.line("%s: %s" % (ended.name, ended.summary(self._clock())))

    # --- what the command line calls ---

    def line(self, text: str, *, level: int = INFO) -> None:
        """Write a line of its own; the line that is redrawn makes room and comes back with the next tick.

        `level` is how loud it is where the journal takes it.
        """
        shown = printable(text, keep_colours=True) + "\n"
        with self._lock:
            self._erase()
            self._write(levelled(shown, level) if self._journal else shown)

    def pause(self) -> None:
        """End the phase, if there is one, without a word: somebody else writes to the terminal now."""
        with self._lock:
            self._erase()
            self._phase = None

    def close(self) -> None:
        """Stop redrawing and leave a clean line."""
        self._over.set()
        self.pause()
        if self._ticker is not None:
            self._ticker.join()

    # --- inside ---

    def _start_ticker(self) -> None:
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()

    def _tick(self) -> None:
        # A thread of its own, so that a long wait (a lock, ANALYZE) is seen to be alive and advance() stays cheap.
        while not self._over.wait(_REDRAW_SECONDS):
            self.tick()

    def tick(self) -> None:
        """Redraw the line, or write one where the last is long ago."""
        with self._lock:
            phase, now = self._phase, self._clock()
            if phase is None or self._quiet:
                return
            phase.rate(now)
            if self._redraws:
                self._draw(phase, now)
            elif now - phase.spoke >= _LINE_SECONDS:
                phase.spoke = now
                self.line("%s: %s" % (phase.name, phase.facts(now)))

    def _draw(self, phase: _Phase, now: float) -> None:
        width = self._width() - 1
        facts = phase.facts(now)
        gauge, share = "", ""
        if phase.total and phase.count <= phase.total:
            share = " %3d%%" % (100 * phase.count // phase.total)
            room = min(24, width - columns(phase.name) - len(facts) - len(share) - 6)
            gauge = " [%s]" % self._bar(phase.count / phase.total, room) if room >= 8 else ""
        text = "%s%s%s  %s" % (phase.name, gauge, share, facts)
        self._write(_ERASE + _clip(text, width))
        self._drawn = True

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def _bar(self, share: float, room: int) -> str:
        full, empty = ("█", "·") if self._unicode else ("#", ".")
        count = int(share * room)
        return full * count + empty * (room - count)

    def _erase(self) -> None:
        if self._drawn:
            self._drawn = False
            self._write(_ERASE)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # Nobody watches any more; that must not end a backup.
            self._quiet = True

    def _paint(self, text: str, code: str) -> str:
        return "\033[%sm%s\033[0m" % (code, text) if self._colour else text


__all__ = ("ProgressReporter", "columns", "is_terminal", "printable", "wants_colour")
