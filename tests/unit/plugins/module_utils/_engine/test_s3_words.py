# SPDX-License-Identifier: GPL-3.0-or-later
"""What the S3 place makes of a store's answers, without a store: refusals in words, parts and checksums compared."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from botocore.utils import parse_timestamp

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.errors import (
    MissingError,
    PgopsError,
    UnreachableError,
    UsageError,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3_client import (
    code_of,
    moment,
    not_offered,
    translate,
)
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3_sending import label
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3_trial import same_composite
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.s3_unfinished import same_part
from ansible_collections.pgops.backup.plugins.module_utils._engine.places.transfer import Part, b64


class RefusedError(Exception):
    """Shaped like botocore's ClientError."""

    def __init__(self, code: str, status: int, message: str = "") -> None:
        super().__init__(code)
        self.response: dict[str, Any] = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }


def named(name: str, text: str = "") -> Exception:
    """Return an exception whose class is called `name`, as botocore's are."""
    return type(name, (Exception,), {})(text)  # type: ignore[no-any-return]


def said(error: Exception, operation: str = "put_object") -> PgopsError:
    return translate(error, operation, "s3://bucket/a/key", "https://s3.example.com")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (RefusedError("AccessDenied", 403), PgopsError, "s3:PutObject"),
        (RefusedError("403", 403), PgopsError, "access denied"),
        (RefusedError("InvalidAccessKeyId", 403), PgopsError, "does not accept the credentials"),
        (RefusedError("ExpiredToken", 400), PgopsError, "the credentials have expired"),
        (RefusedError("RequestTimeTooSkewed", 403), PgopsError, "clock"),
        (RefusedError("InvalidObjectState", 403), PgopsError, "RestoreObject"),
        (RefusedError("NoSuchBucket", 404), MissingError, "bucket bucket does not exist"),
        (RefusedError("NoSuchKey", 404), MissingError, "no s3://bucket/a/key"),
        (RefusedError("404", 404), MissingError, "no s3://bucket/a/key"),
        (RefusedError("PermanentRedirect", 301), UsageError, "s3.region"),
        (RefusedError("SlowDown", 503), UnreachableError, "SlowDown"),
        (RefusedError("", 599), UnreachableError, "599"),
        (RefusedError("NotImplemented", 501), PgopsError, "does not offer"),
        (RefusedError("InvalidStorageClass", 400, "No such class."), PgopsError, "No such class"),
        (named("NoCredentialsError"), UsageError, "no usable credentials"),
        (named("NoRegionError"), UsageError, "s3.region"),
        (named("EndpointConnectionError"), UnreachableError, "cannot be reached"),
        (named("SSLError", "CERTIFICATE_VERIFY_FAILED"), UnreachableError, "certificate is not trusted"),
        (named("SSLError", "handshake"), UnreachableError, "TLS failed"),
        (named("ReadTimeoutError"), UnreachableError, "broke during PutObject"),
        (named("ParamValidationError", "Unknown\nparameter"), UsageError, "does not take our PutObject"),
    ],
)
def test_each_trouble_is_said_in_words(error: Exception, kind: type[PgopsError], words: str) -> None:
    found = said(error)
    assert found.__class__ is kind
    assert words in str(found)
    assert "\n" not in str(found)


def test_our_own_errors_pass_unchanged() -> None:
    own = MissingError("gone")
    assert said(own) is own


def test_the_code_is_found_behind_our_error() -> None:
    ours = said(RefusedError("NotImplemented", 501))
    ours.__cause__ = RefusedError("NotImplemented", 501)
    assert code_of(ours) == ("NotImplemented", 501)
    assert not_offered(ours)
    assert code_of(ValueError()) == ("", 0)
    unknown = UsageError("x")
    unknown.__cause__ = named("ParamValidationError")
    assert not_offered(unknown)
    assert not not_offered(RefusedError("AccessDenied", 403))


CONTENT = b"part"
SHA, MD5 = hashlib.sha256(CONTENT).digest(), hashlib.md5(CONTENT, usedforsecurity=False).digest()


@pytest.mark.parametrize(
    ("listed", "same"),
    [
        ({"Size": 4, "ChecksumSHA256": b64(SHA), "ETag": '"anything"'}, True),
        ({"Size": 4, "ChecksumSHA256": b64(MD5), "ETag": MD5.hex()}, False),
        ({"Size": 4, "ETag": '"%s"' % MD5.hex()}, True),
        ({"Size": 4, "ETag": MD5.hex().upper()}, True),
        ({"Size": 4, "ETag": '"%s"' % hashlib.md5(b"other", usedforsecurity=False).hexdigest()}, False),
        ({"Size": 4, "ETag": '"of-a-kms-key"'}, False),
        ({"Size": 5, "ETag": '"%s"' % MD5.hex()}, False),
        ({}, False),
    ],
)
def test_a_part_that_cannot_be_compared_is_sent_again(listed: dict[str, Any], same: bool) -> None:
    assert same_part(Part(1, 0, 4), listed, SHA, MD5) is same


def test_composites_with_and_without_their_count() -> None:
    assert same_composite("abc=-2", "abc=-2")
    assert same_composite("abc=", "abc=-2")
    assert not same_composite("abc=-3", "abc=-2")
    assert not same_composite("", "abc=-2")


def test_metadata_is_found_whatever_the_store_made_of_its_name() -> None:
    assert label({"Metadata": {"Sha256": "x"}}, "sha256") == "x"
    assert label({"Metadata": {}}, "sha256") == ""
    assert label({}, "sha256") == ""


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-26T01:02:03.000Z",
        "2026-11-26T01:02:03Z",
        "2026-11-26T01:02:03.5Z",
        "2026-02-28T23:59:59.123456Z",
        "2026-11-26T01:02:03+02:00",
        "2026-11-26T01:02:03.123456789Z",
        "Thu, 26 Nov 2026 01:02:03 GMT",
        "1795654923",
        1795654923,
    ],
)
def test_moments_are_what_botocore_takes_them_for(text: Any) -> None:
    assert moment(text) == parse_timestamp(text)
    assert moment(text).utcoffset() == parse_timestamp(text).utcoffset()


@pytest.mark.parametrize("text", ["2026-13-01T00:00:00Z", "2026-11-26T25:00:00.000Z", "yesterday"])
def test_what_is_no_moment_is_refused_as_botocore_does(text: str) -> None:
    for parse in (moment, parse_timestamp):
        with pytest.raises(ValueError, match=r"timestamp|month|hour"):
            parse(text)
