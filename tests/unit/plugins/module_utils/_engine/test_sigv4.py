# SPDX-License-Identifier: GPL-3.0-or-later
"""Our signature of a request must be the one that botocore makes for the same request."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.pgops.backup.plugins.module_utils._engine.core.sigv4 import (
    Keys,
    encoded_path,
    encoded_query,
    signed,
)

MOMENT = datetime(2026, 3, 1, 2, 0, 0, tzinfo=UTC)
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"  # the key of Amazon's own examples
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20)


class _At(datetime):
    """A clock that stands still, as botocore reads it."""

    @classmethod
    def utcnow(cls) -> datetime:
        return MOMENT.replace(tzinfo=None)

    @classmethod
    def now(cls, tz=None) -> datetime:  # datetime's own signature
        return MOMENT if tz else MOMENT.replace(tzinfo=None)


def by_botocore(method: str, path: str, query: str, headers: dict[str, str], body: bytes, keys: Keys) -> str:
    request = AWSRequest(
        method, "http://%s%s%s" % (headers["host"], path, "?" + query if query else ""), headers=dict(headers)
    )
    request.data = body
    signer = botocore.auth.S3SigV4Auth(
        Credentials(keys.access_key, keys.secret_key, keys.token or None), "s3", keys.region
    )
    signer.add_auth(request)
    return str(request.headers["Authorization"])


@given(
    key=st.lists(TEXT, min_size=1, max_size=4).map("/".join),
    upload=st.none() | TEXT,
    extra=st.dictionaries(st.sampled_from(["range", "if-match", "content-md5", "x-amz-meta-sha256"]), st.just("a  b")),
    token=st.sampled_from(["", "a/token+of=time"]),
    body=st.binary(max_size=50),
)
def test_it_signs_as_botocore_does(
    key: str, upload: str | None, extra: dict[str, str], token: str, body: bytes
) -> None:
    keys = Keys("AKIDEXAMPLE", SECRET, token, "eu-central-1")
    headers = {"host": "127.0.0.1:9000", **extra}
    path = encoded_path("/bucket/" + key)
    query = encoded_query([("uploadId", upload), ("partNumber", "7")]) if upload else ""
    found = signed("PUT", path, query, headers, hashlib.sha256(body).hexdigest(), keys, MOMENT)
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(botocore.auth, "get_current_datetime"):
            patch.setattr(botocore.auth, "get_current_datetime", lambda *_a, **_k: MOMENT.replace(tzinfo=None))
        else:
            patch.setattr(botocore.auth.datetime, "datetime", _At)
        assert found["authorization"] == by_botocore("PUT", path, query, headers, body, keys)


def test_a_path_is_encoded_once_and_keeps_its_slashes() -> None:
    assert encoded_path("/b/ä b/c+d~e") == "/b/%s/c%%2Bd~e" % quote("ä b")


def test_a_query_is_sorted_and_encodes_slashes() -> None:
    assert encoded_query([("uploadId", "a/b="), ("partNumber", "1")]) == "partNumber=1&uploadId=a%2Fb%3D"
