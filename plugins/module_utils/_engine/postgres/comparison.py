# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Hold a database against the fingerprint that was taken with its dump."""

from __future__ import annotations

from typing import Any

from ..core.errors import PgopsError
from ..core.fingerprint import Comparison, Rules, compare, counted, plain_acl
from ..core.manifest import Database
from . import inventory
from .databases import known_settings
from .target import Target


def compare_database(database: Database, target: Target, name: str, rules: Rules) -> Comparison:
    """Compare the database `name` on the server with the fingerprint of `database`. Raise PgopsError if it has none."""
    expected = database.fingerprint
    if expected is None:
        raise PgopsError("The set has no fingerprint of %r to compare with." % database.name)
    with target.session(name) as session:
        actual = inventory.take(session, inventory.Scope())
        actual["rows"] = inventory.count_rows(session, counted(expected, actual))
        actual["sequences"] = inventory.sequence_positions(session, actual)
        comparison = compare(expected, actual, rules)
        found = inventory.database_properties(session, name)
    for fact in ("owner", "acl", "encoding", "settings", "comment", "connection_limit"):
        if fact not in database.properties or rules.selected is not None:
            continue
        wanted, is_now = (_comparable(fact, properties.get(fact)) for properties in (database.properties, found))
        if (rules.ownership or fact not in ("owner", "acl", "settings")) and wanted != is_now:
            comparison.differences.append("database: %s was %s, is %s" % (fact.replace("_", " "), wanted, is_now))
    return comparison


def _comparable(fact: str, value: Any) -> Any:
    """Return a property of a database without the settings that no restore can bring back."""
    if fact == "acl":
        return plain_acl(value or {})
    if fact != "settings":
        return value
    known = [{"role": entry["role"], "settings": known_settings(entry["settings"])} for entry in value]
    return [entry for entry in known if entry["settings"]]


__all__ = ("compare_database",)
