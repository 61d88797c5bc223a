# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What every verb is handed: the configuration, the clock, the runner, the places and somebody to report to."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from .config import secrets_of
from .core.commands import addressed
from .core.errors import UsageError
from .core.redaction import Redactor
from .core.times import Clock, utc_now
from .places.base import Place
from .places.local import LocalPlace
from .settings import Config
from .system.durable import make_dirs
from .system.lock import hold
from .system.runner import Runner

if TYPE_CHECKING:
    from .places.s3 import S3Place


class Reporter:
    """Hears how the work goes. This one is silent; the command line has one that speaks."""

    def note(self, text: str) -> None:
        """Hear one line about what happens now."""

    def alarm(self, text: str) -> None:
        """Hear one line that a person must hear now, whatever else he wants to hear."""

    def phase(self, name: str, total: int = 0) -> None:
        """Hear that a phase begins, of `total` bytes (0 when that is unknown)."""

    def advance(self, count: int) -> None:
        """Hear that `count` more bytes of the phase are done. Called from several threads."""

    def done(self) -> None:
        """Hear that the phase has ended."""


@dataclass
class Context:
    """One run's surroundings. `warnings` gathers what the run skipped, degraded or guessed; it ends up in the result.

    `wait` is how long the run waits for others, all its locks together; `waited` is how many seconds it did. `config_file` is
    the path from the root of the file that the configuration is of, empty where there is none; `program` is what starts this
    program again. `alarm` tells people who do not watch, at once; a run that is recorded has one.
    """

    config: Config
    host: str
    clock: Clock = utc_now
    reporter: Reporter = field(default_factory=Reporter)
    warnings: list[str] = field(default_factory=list)
    wait: timedelta = timedelta(0)
    config_file: str = ""
    program: str = "pgops"
    waited: float = field(default=0.0, init=False)
    alarm: Optional[Callable[[str], None]] = field(default=None, init=False)
    runner: Runner = field(init=False)

    def __post_init__(self) -> None:
        self.runner = Runner(Redactor(secrets_of(self.config)))

    @property
    def redactor(self) -> Redactor:
        """Masks the secrets of this configuration."""
        return self.runner.redactor

    def warn(self, text: str) -> None:
        """Remember and report that something was skipped, degraded or guessed."""
        text = addressed(self.redactor.text(text), self.config_file)
        if text not in self.warnings:
            self.warnings.append(text)
            self.reporter.note("warning: " + text)

    def tell_now(self, text: str) -> None:
        """Tell what cannot wait for the end of the run, whose result has it as well: who watches, the log, and who gets alerts."""
        text = addressed(self.redactor.text(text), self.config_file)
        self.reporter.alarm("warning: " + text)
        if self.alarm is not None:
            self.alarm(text)

    @property
    def state(self) -> Path:
        """The directory of this instance's state."""
        return Path(self.config.state_dir) / self.config.instance

    @property
    def asked(self) -> Path:
        """The empty file whose age tells when pgops check was asked last."""
        return self.state / "checked"

    @property
    def local(self) -> LocalPlace:
        """The local place."""
        return LocalPlace(Path(self.config.local.path), self.config.instance)

    def s3(self) -> S3Place:
        """Return the S3 place. Raise UsageError if the configuration has none."""
        if self.config.s3 is None:
            raise UsageError("The configuration has no S3 place.", hint="Add the section s3 with at least its bucket.")
        from .places.s3 import S3Place  # loads much that a run without S3 does not need

        return S3Place(self.config.s3, self.config.instance, state=self.state, warn=self.warn)

    def place(self, name: str) -> Place:
        """Return the place called `name` (`local`, `s3`, or `auto`: S3 where there is one)."""
        if name == "auto":
            name = "s3" if self.config.s3 is not None else "local"
        return self.s3() if name == "s3" else self.local

    def places(self) -> list[Place]:
        """Return all places of the configuration, the local one first."""
        return [self.local, self.s3()] if self.config.s3 is not None else [self.local]

    @contextlib.contextmanager
    def lock(
        self, name: str, *, shared: bool = False, wait: Optional[timedelta] = None, dry_run: bool = False
    ) -> Iterator[None]:
        """Hold this instance's lock `name`. Raise BusyError if others keep it for longer than `wait`, or than this run waits.

        A dry run touches nothing, not even the file of a lock, and so holds none.

        `backup`: one backup at a time; a sync waits for it. `sets`: readers share it, whoever removes sets holds it alone.
        """
        if dry_run:
            yield
            return
        path = self.state / "locks" / ("%s.lock" % name)
        what = "%s of %s" % (name, self.config.instance)
        left = self.wait - timedelta(seconds=self.waited)
        longest = max(timedelta(0), left, wait or timedelta(0))
        with contextlib.ExitStack() as stack:
            asked = time.monotonic()
            try:
                held = hold(path, what, clock=self.clock, shared=shared, wait=longest, on_wait=self._tell_wait)
                died = stack.enter_context(held)
            finally:
                self.waited += time.monotonic() - asked
            if died:
                self.warn("A run was cut short (killed, or the host went down): %s." % died)
            yield

    def _tell_wait(self, holder: str) -> None:
        # Told while it lasts; that a run waited is in its record, and no trouble.
        self.reporter.note("warning: waiting for another run to end: %s" % holder)

    @contextlib.contextmanager
    def scratch(self, label: str) -> Iterator[Path]:
        """Yield a private directory for files that are needed for a while; it is removed at the end.

        Raise UsageError if it cannot be made.
        """
        base = Path(self.config.work_dir) if self.config.work_dir else self.state / "work"
        path = base / ("%s-%s" % (label, secrets.token_hex(4)))
        try:
            make_dirs(path, 0o700)
        except OSError as error:
            raise UsageError(
                "%s cannot be made: %s." % (path, error.strerror), hint="Check work_dir and its owner."
            ) from error
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


__all__ = ("Context", "Reporter")
