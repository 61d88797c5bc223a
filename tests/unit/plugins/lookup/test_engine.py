# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup tells which program a host gets; that one does tell the same is in the integration tests."""

from __future__ import annotations

from ansible_collections.pgops.backup.plugins.lookup.engine import LookupModule
from ansible_collections.pgops.backup.plugins.module_utils._engine import __version__, identity


def test_it_is_the_engine_of_this_collection() -> None:
    assert LookupModule().run([]) == [{"version": __version__, "digest": identity.digest(identity.own_files())}]
