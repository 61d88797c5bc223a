# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""How the recovered server fetches its WAL: the restore_command that it is given, and what keeps that from working."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import config
from ..context import Context
from ..core.manifest import Manifest
from ..host.client import client_of
from ..settings import Config, Restore
from ..system.runner import Command


def command_of(
    context: Context, manifest: Manifest, account: str, *, immediate: bool, local: bool
) -> tuple[str, list[str], list[str]]:
    """Return the restore_command, empty where none is needed, what forbids a recovery with it, and what there is to say of it.

    `immediate`: up to its own end a base backup has all WAL inside. `local`: the WAL is to come from this host alone.
    """
    command = context.config.restore.restore_command
    ours = command == Restore().restore_command
    refusals = list[str]()
    if immediate:
        if not ours:
            return "", [], []
        command = _our_command(context, manifest, refusals, local=local)
        return "" if refusals else _histories_alone(command), [], []
    if ours:
        command = _our_command(context, manifest, refusals, local=local)
        return command, [*refusals, *key_is_shut(context, manifest, account)], []
    if command and "wal fetch" not in command:  # which looks by itself
        looked = _looked_into(context, command)
        return looked or command, [], [] if looked else [_BLIND]
    return command, [], []


def _our_command(context: Context, manifest: Manifest, refusals: list[str], *, local: bool) -> str:
    """Return how our own program fetches WAL by this very configuration, as the server is to call it; `local`: from this host alone."""
    path = context.config_file
    key = context.config.restore.identity_file
    why, more = "", list[str]()
    unfit = [word for word in (path, context.program, key) if "\n" in word]
    if not path:
        why = "this run has none"
    elif unfit:
        why = "%r cannot stand in a setting of PostgreSQL" % unfit[0]
    else:
        written = config.load(Path(path), environ=os.environ, host=context.host)
        if written.instance != context.config.instance:
            more = ["--instance", context.config.instance]
        if _archive_of(written) != _archive_of(context.config):
            why = "%s leads to another archive than what the options lay over it" % path
        if key and key != written.restore.identity_file:  # brought for this recovery alone
            more += ["--identity-file", key]
    if why:
        refusals.append(
            "The server would fetch its WAL by pgops wal fetch, which reads a configuration file, and %s. Name one (config) that"
            " says it all, or give restore.restore_command." % why
        )
    # Its service may start it, too, with another PATH.
    program = shutil.which(context.program) or context.program
    client = str(client_of(Path(program)))
    if os.access(client, os.X_OK):  # the same, and sooner
        program = client
    more += ["--place", "local"] if local else []
    words = [program, "wal", "fetch", "--config", path, "--system-identifier", manifest.system_identifier, *more]
    return "%s %%f %%p" % " ".join(shlex.quote(word).replace("%", "%%") for word in words)


def key_is_shut(context: Context, manifest: Manifest, account: str) -> Iterator[str]:
    """Yield that the server cannot read the private key, with which its own calls open the WAL, where it has an `account` of its own."""
    key = context.config.restore.identity_file
    if not account or not key or manifest.encryption == "none":
        return
    if context.runner.run(Command(("test", "-r", key), user=account), check=False).returncode:
        yield (
            "The account %s, as which the server fetches its WAL, cannot read the private key %s: give it a copy for as long as it"
            " takes, and name that (install -m 600 -o %s %s /run/pgops-key.txt)."
            % (account, key, account, shlex.quote(key))
        )


def _looked_into(context: Context, command: str) -> str:
    """Return `command`, which is not ours, with a look into what it brings behind it; empty where the program is not found."""
    program = shutil.which(context.program) if context.program else None
    if program is None:
        return ""
    return "sh -c %s && %s wal fetch --look %%f %%p" % (shlex.quote(command), shlex.quote(program))


_BLIND = (
    "Nobody looks into the WAL for tablespaces that it makes, as the program pgops is not found on this host: each would lie in its"
    " original directory, also if a server uses that. Do not go on where it may have made one."
)


def _histories_alone(command: str) -> str:
    """Return what fetches the histories of timelines by `command`, and nothing else.

    The server looks for them to begin a timeline that is new to the archive. Where that cannot be read it goes on without.
    """
    return "case %%f in *.history) %s || exit 1;; *) exit 1;; esac" % command


def _archive_of(known: Config) -> tuple[Any, ...]:
    """Return where WAL is looked for, but for the instance, which can be named."""
    s3 = known.s3
    return (known.local.path, s3 and (s3.bucket, s3.prefix, s3.endpoint_url, s3.region))


def own_command(context: Context) -> bool:
    """Tell whether the WAL comes from our own archive, of which we know what it holds."""
    return "wal fetch" in context.config.restore.restore_command


__all__ = ("command_of", "key_is_shut", "own_command")
