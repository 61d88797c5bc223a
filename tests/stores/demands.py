# SPDX-License-Identifier: GPL-3.0-or-later
"""What some stores demand of a request and others refuse, as faults for the proxy in front of a store."""

from __future__ import annotations

from tests.integration.s3_fixtures import Asked, Refuse


def names_a_checksum(asked: Asked) -> bool:
    """Say whether a request carries or mentions one of S3's own checksums."""
    return any(name.startswith(("x-amz-checksum", "x-amz-sdk-checksum")) for name in asked.headers)


def demand_checksums(asked: Asked) -> Refuse | None:
    """Refuse content without Content-MD5 or checksum, as Amazon does in a bucket with Object Lock."""
    content = asked.kind in ("put", "part") or (asked.method == "POST" and asked.kind == "delete")
    carries = "content-md5" in asked.headers or any(
        name.startswith("x-amz-checksum-") and name != "x-amz-checksum-mode" for name in asked.headers
    )
    return Refuse(400, "InvalidRequest") if content and not carries else None


def refuse_checksums(asked: Asked) -> Refuse | None:
    """Refuse every request with a checksum, as stores do that are older than those."""
    return Refuse(501, "NotImplemented") if names_a_checksum(asked) else None
