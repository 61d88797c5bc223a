# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""One family of errors, named by what the caller can do about them; each carries its exit code and a next step."""

from __future__ import annotations

TYPE_CHECKING = False  # typing.TYPE_CHECKING without the import: an archive_command starts many times a minute
if TYPE_CHECKING:
    from typing import Any

NO_SPACE = "No space left on device"  # as programs and servers say it that end with an error
DISK_FULL = "Make room (pgops prune), or move local.path or work_dir to a larger disk; then run it again."


class PgopsError(Exception):
    """The work failed. `message` says what is wrong, `hint` what to do next; neither ever holds a secret.

    `details` is what the verb can still report, in the shape of its result.
    """

    exit_code = 1
    outcome = "failed"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = {}

    def __str__(self) -> str:
        return "%s %s" % (self.message, self.hint) if self.hint else self.message


class UsageError(PgopsError):
    """The request or the configuration is wrong; nothing was touched."""

    exit_code = 2
    outcome = "misused"


class BusyError(PgopsError):
    """Another run holds the lock."""

    exit_code = 3
    outcome = "busy"


class UnreachableError(PgopsError):
    """A dependency (program, library, server, bucket) or the network could not be reached."""

    exit_code = 4
    outcome = "unreachable"


class RefusedError(PgopsError):
    """The work would not be safe; nothing was touched."""

    exit_code = 5
    outcome = "refused"


class DamagedError(PgopsError):
    """What is stored is not what the manifest says."""


class MissingError(PgopsError):
    """A set, a file, a database or a bucket that the request names does not exist."""


class CommandError(PgopsError):
    """A program that we ran ended with an error; `stderr` is its redacted tail."""

    def __init__(self, message: str, *, hint: str = "", stderr: str = "", returncode: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.stderr = stderr
        self.returncode = returncode


__all__ = (
    "DISK_FULL",
    "NO_SPACE",
    "BusyError",
    "CommandError",
    "DamagedError",
    "MissingError",
    "PgopsError",
    "RefusedError",
    "UnreachableError",
    "UsageError",
)
