# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets never reach a message, whatever spelling they travel in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.redaction import MASK, Redactor, masked_command

UNKNOWN = Redactor()  # knows no secret: only the spelling gives it away


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://backup:hunter2@db/orders",
        "postgres://backup:hunter2@db:5432/orders?sslmode=require",
        "could not connect to postgresql://:hunter2@db/",
        "https://key:hunter2@proxy.example.com/",
        "host=db password=hunter2 user=x",
        "host=db password = hunter2",
        "password='hunter2 with blanks' host=db",
        r"password='hunter2\' still' host=db",
        'password="hunter2 with blanks" host=db',
        "PGPASSWORD=hunter2 psql",
        "sslpassword=hunter2",
        "login_password=hunter2",
        "login_password: hunter2",
        '{"password": "hunter2"}',
        "{'login_password': 'hunter2'}",
        "postgresql://db/orders?password=hunter2&user=x",
        "ALTER ROLE x PASSWORD 'hunter2'",
        "CREATE ROLE x ENCRYPTED PASSWORD 'hunter2''s'",
        "ALTER ROLE x PASSWORD E'hunter2\\''",
        "ALTER ROLE x PASSWORD 'hunter2\\'",
        "ALTER ROLE x PASSWORD 'hunter2 blanks and the line was cut",
        "password=a,hunter2;hunter2",
        "AWS_SECRET_ACCESS_KEY=hunter2",
        "aws_secret_access_key = hunter2",
        "secret_key: hunter2",
        "AWS_SESSION_TOKEN=hunter2",
        "https://s3/x?X-Amz-Signature=hunter2&X-Amz-Date=1",
        "https://s3/x?X-Amz-Security-Token=hunter2",
    ],
)
def test_a_secret_is_known_by_its_spelling(text: str) -> None:
    shown = UNKNOWN.text(text)
    assert "hunter2" not in shown
    assert "blanks" not in shown
    assert "still" not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "secret",
    [
        "SCRAM-SHA-256$4096:abcdABCD0123456789+/==$c3RvcmVk+/a=:c2VydmVy+/b=",
        "md5" + "0123456789abcdef" * 2,
        "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ",
    ],
)
def test_verifiers_and_keys_are_masked_wherever_they_stand(secret: str) -> None:
    assert UNKNOWN.text("rolpassword is %s here" % secret) == "rolpassword is %s here" % MASK


@pytest.mark.parametrize(
    "text",
    [
        'password authentication failed for user "backup"',
        "The password file must not be open to others.",
        "postgresql://backup@db/orders",
        "https://s3.example.com/bucket/key",
        "2026-11-22T02:00:00+00:00",
        "sets/20261122T020000Z-logical/manifest.json",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert UNKNOWN.text(text) == text


def test_what_surrounds_a_secret_stays_readable() -> None:
    assert UNKNOWN.text("host=db password=hunter2 user=x") == "host=db password=%s user=x" % MASK
    assert UNKNOWN.text("postgresql://me:hunter2@db/x") == "postgresql://me:%s@db/x" % MASK


@given(st.text(min_size=4).filter(lambda s: s not in MASK), st.text(), st.text())
def test_a_known_secret_is_masked_in_any_text(secret: str, before: str, after: str) -> None:
    shown = Redactor([secret]).text(before + secret + after)
    assert secret not in shown.replace(MASK, "")
    assert MASK in shown


def test_of_secrets_within_secrets_nothing_is_left_over() -> None:
    assert Redactor(["hunter2", "hunter2-and-more"]).text("x hunter2-and-more y") == "x %s y" % MASK


def test_a_tiny_secret_does_not_make_every_message_unreadable() -> None:
    assert Redactor(["a", ""]).text("a backup") == "a backup"


def test_data_is_masked_at_every_depth_and_keeps_its_shape() -> None:
    data = {"a": ["hunter2", {"b": "x hunter2"}, 1, None, True], "hunter2-key": ("hunter2",)}
    shown = Redactor(["hunter2"]).data(data)
    assert shown == {"a": [MASK, {"b": "x " + MASK}, 1, None, True], "hunter2-key": [MASK]}
    assert "hunter2" not in json.dumps(list(shown.values()))


def test_what_is_no_word_is_masked_wherever_it_stands() -> None:
    known = Redactor(["hush-hush"])
    assert known.data({"place": "https://h/hush-hush", "state": "hush-hush="}) == {
        "place": "https://h/%s" % MASK,
        "state": "%s=" % MASK,
    }


def test_a_secret_that_is_a_word_of_ours_hides_no_finding() -> None:
    finding = {"check": "backup", "severity": "critical", "text": "No backup."}
    assert Redactor(["backup", "critical"]).data([finding]) == [{**finding, "text": "No %s." % MASK}]
    assert Redactor(["backup"]).data({"state": ["backup"]}) == {"state": [MASK]}, "a list is no word of ours"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("PGBACKREST_REPO1_CIPHER_PASS=hush pgbackrest push %p", "PGBACKREST_REPO1_CIPHER_PASS=<> pgbackrest push %p"),
        (
            "pgbackrest --repo1-s3-key-secret='hu sh' --stanza=main %p",
            "pgbackrest --repo1-s3-key-secret=<> --stanza=main %p",
        ),
        ("x --token hush --password -v %p", "x --token <> --password -v %p"),
        ("WALG_LIBSODIUM_KEY=hush;wal-g %p --passive yes", "WALG_LIBSODIUM_KEY=<>;wal-g %p --passive yes"),
        ('f --api-key "hu\\"sh" %p', "f --api-key <> %p"),
        ("curl https://me:hush@store/%f -T %p", "curl https://me:<>@store/%f -T %p"),
        ("cp %p /mnt/wal/%f --compression=zstd", "cp %p /mnt/wal/%f --compression=zstd"),
    ],
)
def test_a_command_of_somebody_else_is_shown_without_its_secrets(command: str, shown: str) -> None:
    assert masked_command(command) == shown.replace("<>", MASK)
