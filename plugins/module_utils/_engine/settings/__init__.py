# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Every key of the configuration, once: its type, default, meaning and example.

From these classes come the checks (config.py), the commented example, the reference page and the options that the
modules share. A section is a class; `option()` describes a key.
"""

from __future__ import annotations

from .alerts import HEARTBEAT, SENTRY_MONITOR, Alerts, AppriseUrls, Email, Heartbeat, PagerDuty, Sentry, Slack, Webhook
from .backup import Backup, Base, Wal
from .option import option
from .places import S3, Local, Retention
from .proof import Assertion, Restore, Verify
from .schedule import Schedule, base_calendar
from .server import Group, Postgres
from .watching import Checklist, ChecklistLine, Metrics
from .whole import Config

__all__ = (
    "HEARTBEAT",
    "SENTRY_MONITOR",
    "Alerts",
    "AppriseUrls",
    "Assertion",
    "Backup",
    "Base",
    "Checklist",
    "ChecklistLine",
    "Config",
    "Email",
    "Group",
    "Heartbeat",
    "Local",
    "Metrics",
    "PagerDuty",
    "Postgres",
    "Restore",
    "Retention",
    "S3",
    "Schedule",
    "Sentry",
    "Slack",
    "Verify",
    "Wal",
    "Webhook",
    "base_calendar",
    "option",
)
