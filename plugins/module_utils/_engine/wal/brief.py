# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""What the commands of PostgreSQL need of the configuration, remembered so that YAML need not be read for each segment.

It is kept in the account's own `~/.cache/pgops/` (or `$XDG_CACHE_HOME/pgops/`), holds no secret, and counts only for the
very file it was made of.
"""

from __future__ import annotations

import os

from .. import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_LONGEST_SOCKET = 107
_FIELDS = ("home", "compression", "level", "prefetch", "s3", "recipients", "identity_file")


class Brief:
    """The directory of the instance, how WAL is compressed and encrypted, and whether there is an S3 place."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.home = values["home"]
        self.compression = values["compression"]
        self.level = int(values["level"]) if values["level"] else None
        self.prefetch = int(values["prefetch"])
        self.s3 = values["s3"] == "yes"
        self.recipients = tuple(key for key in values["recipients"].split("\t") if key)
        self.identity_file = values["identity_file"]
        # Another one than that of the configuration, empty otherwise.
        self.instance = ""
        self._values = values

    def of(self, instance: str) -> Brief:
        """Return the same for another instance."""
        home = os.path.join(os.path.dirname(self.home), instance)
        found = Brief({**self._values, "home": home})
        found.instance = instance
        return found

    def opened_by(self, identity_file: str) -> Brief:
        """Return the same with another private key."""
        found = Brief({**self._values, "identity_file": identity_file})
        found.instance = self.instance
        return found


def read_brief(config_path: str) -> Brief:
    """Return what the configuration file says. Raise UsageError that lists what is wrong with it."""
    stamp = stamp_of(config_path)
    cache = _cache_path(config_path)
    values = _remembered(cache, stamp) if stamp else None
    if values is None:
        values, lasting = _from_config(config_path)
        if stamp and lasting and stamp == stamp_of(config_path):
            _remember(cache, stamp, values)
    return Brief(values)


def _from_config(config_path: str) -> tuple[dict[str, str], bool]:
    """Return the values, and whether they follow from the file alone."""
    from pathlib import Path

    from .. import config

    data = config.read(Path(config_path))
    built = config.build(data, environ=os.environ, host=os.uname().nodename, source=config_path)
    return values_of(built), bool(data.get("instance"))


def values_of(config: Any) -> dict[str, str]:
    """Return the values of a Brief that the configuration `config` gives."""
    recipients = config.backup.recipients if config.backup.encryption == "age" else []
    level = config.wal.compression_level
    return {
        "home": os.path.join(config.local.path, config.instance),
        "compression": config.wal.compression,
        "level": "" if level is None else str(level),
        "prefetch": str(config.wal.prefetch),
        "s3": "yes" if config.s3 is not None else "no",
        "recipients": "\t".join(recipients),
        "identity_file": config.restore.identity_file,
    }


def stamp_of(path: str) -> str:
    """Return what changes whenever the file does; empty if it cannot be looked at."""
    try:
        facts = os.stat(path)
    except OSError:
        return ""
    return "%s %d %d %d %d %d" % (
        __version__,
        facts.st_dev,
        facts.st_ino,
        facts.st_size,
        facts.st_mtime_ns,
        facts.st_ctime_ns,
    )


def _cache_path(config_path: str, account: int | None = None) -> str:
    import pwd
    from zlib import crc32

    own = account is None or account == os.geteuid()
    caches = os.environ.get("XDG_CACHE_HOME", "") if own else ""
    if not os.path.isabs(caches):
        try:
            caches = os.path.join(pwd.getpwuid(os.geteuid() if account is None else account).pw_dir, ".cache")
        except KeyError:
            return ""
    path = os.path.abspath(config_path)
    return os.path.join(caches, "pgops", "wal-%08x" % crc32(path.encode("utf-8", "surrogateescape")))


def _remembered(cache: str, stamp: str) -> dict[str, str] | None:
    """Return the values that were remembered for `stamp`; None if there are none that only we can have written."""
    try:
        handle = os.open(cache, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as stream:
        facts = os.fstat(handle)
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            return None
        lines = stream.read().decode("utf-8", "surrogateescape").split("\n")
    if len(lines) != len(_FIELDS) + 2 or lines[0] != stamp or lines[-1] != "end":
        return None
    return dict(zip(_FIELDS, lines[1:-1]))


def _remember(cache: str, stamp: str, values: Mapping[str, str]) -> None:
    """Keep the values. Where that cannot be, each call reads the configuration itself."""
    lines = [stamp, *(values[field] for field in _FIELDS), "end"]
    if not cache or any("\n" in line for line in lines):
        return
    temporary = "%s.%d.tmp" % (cache, os.getpid())
    try:
        os.makedirs(os.path.dirname(cache), 0o700, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write("\n".join(lines).encode("utf-8", "surrogateescape"))
        os.rename(temporary, cache)
    except OSError:
        return


def socket_path(config_path: str, account: int | None = None) -> str:
    """Return where a process that stays for this configuration listens, empty where there can be none. The client makes it up, too.

    It is that of the `account` with this number, or of our own.
    """
    cache = _cache_path(config_path, account)
    path = cache and "%s.sock" % cache
    return path if len(os.fsencode(path)) <= _LONGEST_SOCKET else ""


__all__ = ("Brief", "read_brief", "socket_path", "stamp_of", "values_of")
