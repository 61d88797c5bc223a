# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Clusters as Debian keeps them: the data in one place, the configuration in another, a service of systemd for each."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

CONFIGURATIONS = Path("/etc/postgresql")
_DATA = re.compile(r"^[ \t]*data_directory[ \t]*=?[ \t]*'((?:[^'\n]|'')*)'", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Cluster:
    """A cluster by its major version and name, and its postgresql.conf."""

    version: str
    name: str
    config_file: Path

    @property
    def service(self) -> str:
        """The service of systemd that runs it."""
        return "postgresql@%s-%s" % (self.version, self.name)


def cluster_of(data: Path, configurations: Path = CONFIGURATIONS) -> Optional[Cluster]:
    """Return the cluster whose configuration names the data directory `data`, None where there is none."""
    for file in sorted(configurations.glob("*/*/postgresql.conf")):
        try:
            named = _DATA.findall(file.read_text(encoding="utf-8", errors="surrogateescape"))
        except OSError:
            continue
        # Of a setting that is there twice, PostgreSQL takes the last.
        if named and os.path.realpath(named[-1].replace("''", "'")) == os.path.realpath(data):
            return Cluster(file.parent.parent.name, file.parent.name, file)
    return None


__all__ = ("CONFIGURATIONS", "Cluster", "cluster_of")
