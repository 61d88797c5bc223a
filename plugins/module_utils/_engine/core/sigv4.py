# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""AWS Signature Version 4 for single S3 requests, as a pure function of the request, the keys and the moment.

The rules: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Keys:
    """Who signs, and for which region. `token` is empty for keys that last."""

    access_key: str
    secret_key: str
    token: str
    region: str


def encoded_path(path: str) -> str:
    """Return `path` (with its slashes) as it stands in the address of a request."""
    return quote(path, safe="/~")


def encoded_query(pairs: Sequence[tuple[str, str]]) -> str:
    """Return the query of an address, in the order in which it is signed."""
    return "&".join("%s=%s" % (quote(name, safe="~"), quote(value, safe="~")) for name, value in sorted(pairs))


def signed(
    method: str, path: str, query: str, headers: Mapping[str, str], payload: str, keys: Keys, moment: datetime
) -> dict[str, str]:
    """Return `headers` and those that sign them.

    `path` and `query` are encoded already; `headers` have lower-case names, `host` among them, and all are signed;
    `payload` is the SHA-256 of the body in hex; `moment` is in UTC.
    """
    stamp = "%04d%02d%02dT%02d%02d%02dZ" % moment.timetuple()[:6]
    everything = {**headers, "x-amz-content-sha256": payload, "x-amz-date": stamp}
    if keys.token:
        everything["x-amz-security-token"] = keys.token
    names = sorted(everything)
    listed = ";".join(names)
    lines = "".join("%s:%s\n" % (name, " ".join(everything[name].split())) for name in names)
    request = "%s\n%s\n%s\n%s\n%s\n%s" % (method, path, query, lines, listed, payload)
    scope = "%s/%s/s3/aws4_request" % (stamp[:8], keys.region)
    text = "AWS4-HMAC-SHA256\n%s\n%s\n%s" % (stamp, scope, hashlib.sha256(request.encode("utf-8")).hexdigest())
    signature = hmac.digest(_signing_key(keys.secret_key, stamp[:8], keys.region), text.encode("utf-8"), "sha256")
    everything["authorization"] = "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (
        keys.access_key,
        scope,
        listed,
        signature.hex(),
    )
    return everything


@functools.lru_cache(maxsize=4)
def _signing_key(secret_key: str, day: str, region: str) -> bytes:
    key = ("AWS4" + secret_key).encode("utf-8")
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode("utf-8"), "sha256").digest()
    return key


__all__ = ("EMPTY_SHA256", "Keys", "encoded_path", "encoded_query", "signed")
