# SPDX-License-Identifier: GPL-3.0-or-later
"""The policies allow what the work needs and nothing else, for whatever names; an evaluator of our own says so.

A real store judges them in tests/stores.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.iam import (
    Policy,
    Scope,
    literal,
    pruner,
    writer,
)

SCOPE = Scope("example-backups", "database-backups", ["db1-main"])


def matches(pattern: str, text: str) -> bool:
    """Match as IAM does: `*` and `?` are patterns, `${*}` and its like are that character."""
    parts = re.findall(r"\$\{(.)\}|(.)", pattern, re.DOTALL)
    said = "".join(re.escape(quoted) if quoted else {"*": ".*", "?": "."}.get(p, re.escape(p)) for quoted, p in parts)
    return re.fullmatch(said, text, re.DOTALL) is not None


def allows(policy: Policy, action: str, resource: str, **facts: str) -> bool:
    return any(_applies(statement, action, resource, facts) for statement in policy["Statement"])


def _applies(statement: dict[str, Any], action: str, resource: str, facts: dict[str, str]) -> bool:
    assert statement["Effect"] == "Allow"
    if action not in statement["Action"] or not any(matches(said, resource) for said in statement["Resource"]):
        return False
    condition = statement.get("Condition", {})
    return all(
        any(matches(pattern, facts.get("prefix", "")) for pattern in patterns)
        for operator, tests in condition.items()
        for patterns in tests.values()
        if operator == "StringLike"
    )


def key(path: str, bucket: str = "example-backups") -> str:
    return "arn:aws:s3:::%s/%s" % (bucket, path)


def test_the_writer_adds_and_reads_and_removes_nothing_but_the_probe() -> None:
    policy = writer(SCOPE)
    ours = key("database-backups/db1-main/sets/20261122T020000Z-logical/manifest.json")
    for action in ("GetObject", "PutObject", "AbortMultipartUpload", "ListMultipartUploadParts"):
        assert allows(policy, "s3:" + action, ours), action
        assert not allows(policy, "s3:" + action, key("database-backups/db2-main/sets/x")), action
        assert not allows(policy, "s3:" + action, key("database-backups/db1-main2/sets/x")), action
        assert not allows(policy, "s3:" + action, key("x", "another-bucket")), action
    for action in ("DeleteObject", "DeleteObjectVersion", "PutObjectTagging", "BypassGovernanceRetention"):
        assert not allows(policy, "s3:" + action, ours), action
    assert allows(policy, "s3:DeleteObject", key("database-backups/db1-main/probe/object"))
    # A database may be called probe.
    inside = key("database-backups/db1-main/sets/20261122T020000Z-logical/databases/probe/toc.dat")
    assert not allows(policy, "s3:DeleteObject", inside)


def test_the_pruner_removes_sets_and_pins_and_adds_nothing() -> None:
    policy = pruner(SCOPE)
    for room, may in (("sets", True), ("pins", True), ("wal", True), ("evidence", False), ("probe", False)):
        assert allows(policy, "s3:DeleteObject", key("database-backups/db1-main/%s/x" % room)) is may, room
    assert allows(policy, "s3:GetObject", key("database-backups/db1-main/evidence/x"))
    granted = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert granted == {"s3:ListBucket", "s3:GetObject", "s3:DeleteObject"}


@pytest.mark.parametrize("make", [writer, pruner])
def test_only_the_instances_are_listed(make: Any) -> None:
    bucket = "arn:aws:s3:::example-backups"
    assert allows(make(SCOPE), "s3:ListBucket", bucket, prefix="database-backups/db1-main/sets/")
    for prefix in ("", "database-backups/", "database-backups/db2/sets/", "database-backups/db1-main"):
        assert not allows(make(SCOPE), "s3:ListBucket", bucket, prefix=prefix), prefix
    whole = make(Scope("example-backups", "/database-backups/"))
    assert allows(whole, "s3:ListBucket", bucket, prefix="database-backups/db2/sets/")
    assert not allows(whole, "s3:ListBucket", bucket, prefix="logs/")


def test_a_writer_for_all_instances_removes_nothing_at_all() -> None:
    policy = writer(Scope("example-backups", "database-backups"))
    assert "s3:DeleteObject" not in {action for statement in policy["Statement"] for action in statement["Action"]}
    assert allows(pruner(Scope("b", "p")), "s3:DeleteObject", key("p/any/sets/x", "b"))
    assert not allows(pruner(Scope("b", "p")), "s3:DeleteObject", key("p/any/evidence/x", "b"))


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1, max_size=30)


@given(_NAMES, _NAMES, st.text("ab*?$/{}", min_size=1, max_size=12), st.text("ab*?$/{}", max_size=12))
def test_names_mean_themselves(prefix: str, instance: str, other: str, path: str) -> None:
    """However a prefix is written, the policies hold for what lies below it and for nothing that only looks like it."""
    for name in (prefix, other):
        assume(name.strip("/"))
        home = "%s/%s/" % (name.strip("/"), instance)
        policy = writer(Scope("example-backups", name, [instance]))
        assert allows(policy, "s3:PutObject", key(home + path))
        strange = "%s/%s" % (other.strip("/"), path)
        assert allows(policy, "s3:PutObject", key(strange)) is strange.startswith(home)


@given(st.text(max_size=40))
def test_a_literal_matches_itself_only(text: str) -> None:
    assert matches(literal(text), text)
    assert not matches(literal(text), text + "x")


def test_a_bucket_without_a_prefix() -> None:
    assert allows(writer(Scope("b", "", ["db1"])), "s3:PutObject", key("db1/sets/x", "b"))
    assert allows(writer(Scope("b", "")), "s3:ListBucket", "arn:aws:s3:::b", prefix="db1/sets/")


@pytest.mark.parametrize(
    ("region", "partition"), [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"), ("", "aws")]
)
def test_the_partition_is_that_of_the_region(region: str, partition: str) -> None:
    resources = [r for s in writer(Scope("b", "p", region=region))["Statement"] for r in s["Resource"]]
    assert all(resource.startswith("arn:%s:s3:::b" % partition) for resource in resources)


@pytest.mark.parametrize(
    ("kms_key", "resource", "alias"),
    [
        ("arn:aws:kms:eu-central-1:1:key/abc", "arn:aws:kms:eu-central-1:1:key/abc", None),
        ("abc", "arn:aws:kms:eu-central-1:*:key/abc", None),
        ("alias/backups", "arn:aws:kms:eu-central-1:*:key/*", "alias/backups"),
        ("arn:aws:kms:eu-central-1:1:alias/backups", "arn:aws:kms:eu-central-1:*:key/*", "alias/backups"),
    ],
)
def test_the_key_of_the_store_may_be_used(kms_key: str, resource: str, alias: str | None) -> None:
    scope = Scope("b", "p", ["i"], region="eu-central-1", kms_key=kms_key, tagging=True)
    statement = next(s for s in writer(scope)["Statement"] if s["Sid"] == "UseTheKey")
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert statement["Resource"] == [resource]
    named = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": [alias]}}
    assert statement.get("Condition") == (named if alias else None)
    assert next(s for s in pruner(scope)["Statement"] if s["Sid"] == "UseTheKey")["Action"] == ["kms:Decrypt"]
    assert allows(writer(scope), "s3:PutObjectTagging", key("p/i/x", "b"))


def test_every_statement_has_a_name_of_letters_and_digits() -> None:
    for policy in (writer(SCOPE), pruner(SCOPE)):
        assert policy["Version"] == "2012-10-17", "older policies know no ${*}"
        assert all(re.fullmatch("[A-Za-z0-9]+", statement["Sid"]) for statement in policy["Statement"])
