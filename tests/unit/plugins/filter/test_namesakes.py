# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that would keep different clusters under one name are found, and groups are left in peace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible.errors import AnsibleError

from ansible_collections.pgops.backup.plugins.filter.namesakes import FilterModule

namesakes = FilterModule().filters()["namesakes"]
BUCKET = {"bucket": "backups"}
MAIN = [{"name": "main"}]


def of(**known: Mapping[str, Any]) -> list[str]:
    said: list[str] = namesakes(list(reversed(known)), known)
    return said


def test_hosts_with_one_name_in_one_bucket_are_named() -> None:
    shared = {"pgops_instances": MAIN, "pgops_s3": BUCKET}
    home = "each call an instance main, and would keep it in s3://backups/database-backups/main."
    assert of(db1=shared, db2=shared) == ["db1 and db2 " + home]
    assert of(db1=shared, db2=shared, db3=shared, db4={"pgops_s3": BUCKET}) == ["db1, db2 and db3 " + home]


@pytest.mark.parametrize(
    "other",
    [
        {"pgops_s3": BUCKET},
        {"pgops_instances": MAIN},
        {"pgops_instances": MAIN, "pgops_s3": {"bucket": "others"}},
        {"pgops_instances": MAIN, "pgops_s3": {**BUCKET, "prefix": "db2"}},
        {"pgops_instances": MAIN, "pgops_s3": {**BUCKET, "endpoint_url": "https://s3.example.com"}},
        {"pgops_instances": [{"name": "main", "s3": None}], "pgops_s3": BUCKET},
        {"pgops_instances": MAIN, "pgops_s3": BUCKET, "pgops_other": {"s3": {**BUCKET, "prefix": "own"}}},
        {"pgops_instances": MAIN, "pgops_s3": BUCKET, "agent_state": "absent"},
        {"pgops_instances": [{"name": "main", "s3": {"prefix": "own"}}], "pgops_s3": BUCKET},
    ],
)
def test_hosts_that_share_no_place_are_left_in_peace(other: Mapping[str, Any]) -> None:
    assert of(db1={"pgops_instances": MAIN, "pgops_s3": BUCKET}, db2=other) == []


def test_the_prefix_is_compared_as_it_is_used() -> None:
    one = {"pgops_instances": MAIN, "pgops_s3": {**BUCKET, "prefix": "/database-backups/"}}
    two = {"pgops_instances": [{"name": "main", "s3": BUCKET}]}
    three = {"pgops_instances": MAIN, "pgops_s3": {**BUCKET, "prefix": None}}
    assert len(of(db1=one, db2=two)) == len(of(db1=one, db2=three)) == 1
    same = [{**BUCKET, "endpoint_url": url} for url in ("https://s3.example.com", "https://S3.example.com/")]
    assert len(of(db1={**two, "pgops_s3": same[0]}, db2={**two, "pgops_s3": same[1]})) == 1


def test_members_of_a_group_share_their_name() -> None:
    shared = {"pgops_instances": MAIN, "pgops_s3": BUCKET}
    group = {**shared, "pgops_group": {"members": ["db1", "db2"]}}
    other = {**shared, "pgops_group": {"members": ["db3", "db4"]}}
    assert of(db1=group, db2=group) == []
    assert len(of(db1=group, db2=group, db3=other)) == 1
    assert len(of(db1=group, db2=shared)) == 1
    own = {"pgops_instances": [{"name": "main", "group": {"members": ["db2", "db1"]}}], "pgops_s3": BUCKET}
    assert of(db1=group, db2=own) == []


class Untold(dict[str, Any]):
    """The variables of a host of which one names another that is not there."""

    def get(self, key: str, default: Any = None) -> Any:
        raise AnsibleError("'bucket_of_all' is undefined")


def test_a_host_whose_variables_cannot_be_told_is_no_trouble_here() -> None:
    shared = {"pgops_instances": MAIN, "pgops_s3": BUCKET}
    assert of(db1=shared, db2=Untold(), db3={"pgops_instances": "main", "pgops_s3": BUCKET}) == []
