# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""`pgops wal archive` and `pgops wal fetch`, as PostgreSQL calls them: no parser, no terminal, and its own exit codes.

archive: 0 only when the file is durable, else the code of the contract; PostgreSQL tries again.
fetch: 0; 1 when the archive does not have the file, at which a recovery ends; otherwise 200 and more, at which PostgreSQL
stops instead (above 125: "recovery will abort and the server will not start up", manual, restore_command).
"""

from __future__ import annotations

import os
import sys

from ..core.errors import UsageError
from ..wal.calls import ABORTS_RECOVERY, CALLER, FLAGS, carry_out, line, parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STAY = "stay"  # between the client and the program; for nobody to type


def run(action: str, arguments: Sequence[str]) -> int:
    """Do what `pgops wal <action> <arguments>` says and return the exit code."""
    if action == STAY:
        from ..wal.stay import stay

        return stay(arguments[0]) if len(arguments) == 1 else UsageError.exit_code
    verbose = any(argument in FLAGS and FLAGS[argument] == "verbose" for argument in arguments)
    try:
        code = carry_out(action, arguments, _say)
    except Exception as error:  # noqa: BLE001 - PostgreSQL's log gets a sentence, not a traceback
        if verbose:
            import traceback

            traceback.print_exc()
        _say("Something went wrong that should not: %s: %s" % (type(error).__name__, error))
        return 1 if action == "archive" else ABORTS_RECOVERY + 1
    if CALLER in os.environ and not code:
        _leave_behind(action, arguments)
    return code


def _leave_behind(action: str, arguments: Sequence[str]) -> None:
    """Have the next calls answered sooner, where they come soon. What keeps it from that is no failure of this one."""
    try:
        from ..wal.leaving import leave_behind

        options, _words = parsed(action, arguments)
        if os.path.isabs(options["config"]):
            leave_behind(options["config"], {name: value for name, value in os.environ.items() if name != CALLER})
    except Exception:  # noqa: BLE001 - the file is where it is to be, and each call can do its own work
        return


def _say(text: str) -> None:
    """Say one thing in PostgreSQL's log; a log that is gone must not turn a file that is durable into a failure."""
    try:
        sys.stderr.write(line(text))
        sys.stderr.flush()
    except (OSError, ValueError):
        return


__all__ = ("STAY", "run")
