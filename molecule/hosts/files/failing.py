# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a table for cron beside ours: our own backup, word for word, of a server that is not there."""

from __future__ import annotations

import re
from pathlib import Path

OTHER = "--set postgres.login_port=1 --set state_dir=/var/lib/postgresql/lab --set log_dir= "
lines = Path("/etc/cron.d/pgops").read_text(encoding="utf-8").splitlines()
kept = [line for line in lines if re.match("[A-Z_]+=", line)]
kept += [line.replace("pgops backup ", "pgops backup " + OTHER) for line in lines if "pgops backup " in line]
Path("/etc/cron.d/lab-failing").write_text("\n".join(kept) + "\n", encoding="utf-8")
