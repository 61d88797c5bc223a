# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""How we speak to an S3 store: the client, the boundary between botocore's errors and ours, what the store can do."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Optional

from ..core.errors import MissingError, PgopsError, UnreachableError, UsageError
from ..core.json_text import to_json
from ..core.times import parse_span
from ..settings import S3
from ..system.durable import make_dirs, write_bytes
from .s3_wire import Wire
from .transfer import Patience, Slice

_LIBRARY_HINT = "Install the package python3-boto3 (or 'pip install boto3') for the Python that runs this: %s."

_AGAIN = (
    "Try again later: an upload that broke goes on from its last finished part, a pull with the parts that are whole."
)

# What an identity must be allowed to, by the client's method.
_PERMISSIONS = {
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "complete_multipart_upload": "s3:PutObject",
    "create_bucket": "s3:CreateBucket",
    "create_multipart_upload": "s3:PutObject",
    "delete_bucket_lifecycle": "s3:PutLifecycleConfiguration",
    "delete_object": "s3:DeleteObject",
    "delete_objects": "s3:DeleteObject",
    "get_bucket_lifecycle_configuration": "s3:GetLifecycleConfiguration",
    "get_bucket_tagging": "s3:GetBucketTagging",
    "get_bucket_versioning": "s3:GetBucketVersioning",
    "get_object": "s3:GetObject",
    "get_object_lock_configuration": "s3:GetBucketObjectLockConfiguration",
    "get_public_access_block": "s3:GetBucketPublicAccessBlock",
    "head_object": "s3:GetObject",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
    "list_objects_v2": "s3:ListBucket",
    "list_parts": "s3:ListMultipartUploadParts",
    "put_bucket_lifecycle_configuration": "s3:PutLifecycleConfiguration",
    "put_bucket_tagging": "s3:PutBucketTagging",
    "put_bucket_versioning": "s3:PutBucketVersioning",
    "put_object": "s3:PutObject",
    "put_object_lock_configuration": "s3:PutBucketObjectLockConfiguration",
    "put_public_access_block": "s3:PutBucketPublicAccessBlock",
    "upload_part": "s3:PutObject",
}
_DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_BAD_KEY = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidToken",
        "AuthorizationHeaderMalformed",
    }
)
_GONE = frozenset({"NoSuchKey", "NoSuchUpload", "NoSuchVersion", "NotFound", "404"})
_BUSY = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "InternalError",
        "RequestTimeout",
        "503",
        "500",
        "502",
        "504",
    }
)
# The bytes or the answer were hurt on the way: worth another try, as an altered source is found by its own hash.
_HURT = frozenset({"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"})
# Requests that say something about a bucket, or remove many objects, must come with a checksum.
_CHECKED = (
    "DeleteObjects",
    "PutBucketLifecycleConfiguration",
    "PutBucketTagging",
    "PutBucketVersioning",
    "PutObjectLockConfiguration",
    "PutPublicAccessBlock",
)
# How listings tell moments.
_MOMENT = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?Z")
_UNKNOWN_TO_STORE = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405", "MissingContentMD5"})


def code_of(error: Optional[BaseException]) -> tuple[str, int]:
    """Return the store's error code and HTTP status that `error`, or what it was made from, carries; else ("", 0)."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return str(response.get("Error", {}).get("Code", "")), int(status or 0)
        error = error.__cause__
    return "", 0


def not_offered(error: BaseException) -> bool:
    """Tell whether the store (or this host's botocore) says that it does not know what we asked for."""
    code, status = code_of(error)
    cause = error.__cause__ if isinstance(error, PgopsError) else error
    return code in _UNKNOWN_TO_STORE or status in (405, 501) or type(cause).__name__ == "ParamValidationError"


def passing(error: Exception) -> bool:
    """Tell whether `error` may be gone when the request is made again."""
    import botocore.exceptions as faults

    code, status = code_of(error)
    if code or status:
        return code in _BUSY or code in _HURT or (status >= 500 and not not_offered(error))
    if isinstance(error, faults.SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    if isinstance(error, (faults.ProxyConnectionError, faults.InvalidProxiesConfigError)):
        return False
    kinds = (faults.HTTPClientError, faults.ConnectionError, faults.IncompleteReadError, ConnectionError, TimeoutError)
    return isinstance(error, kinds) or type(error).__name__ in (
        "ResponseStreamingError",
        "ReadTimeoutError",
        "ProtocolError",
        "IncompleteRead",
    )


def translate(error: Exception, operation: str, where: str, endpoint: str) -> PgopsError:
    """Return `error`, raised by `operation` on `where` (an s3:// address), as one of ours."""
    if isinstance(error, PgopsError):
        return error
    code, status = code_of(error)
    if code or status:
        return _refusal(error, code, status, operation, where, endpoint)
    return _trouble(error, operation, where, endpoint)


def _refusal(error: Exception, code: str, status: int, operation: str, where: str, endpoint: str) -> PgopsError:
    verb = _verb(operation)
    bucket = where.split("/")[2]
    if code == "NoSuchBucket":
        return MissingError(
            "The bucket %s does not exist at %s." % (bucket, endpoint), hint="Create it, or correct s3.bucket."
        )
    if code in ("PermanentRedirect", "IllegalLocationConstraintException") or status == 301:
        return UsageError(
            "The bucket %s lies in another region (%s)." % (bucket, code or status),
            hint="Set s3.region to the bucket's region.",
        )
    denied = _denial(code, status, operation, where, endpoint)
    if denied is not None:
        return denied
    if code in _GONE or status == 404:
        return MissingError("There is no %s." % where)
    if code in _UNKNOWN_TO_STORE or status in (405, 501):
        return PgopsError("The store at %s does not offer this %s (%s)." % (endpoint, verb, code or status))
    if code in _BUSY or status >= 500:
        return UnreachableError(
            "The store at %s could not do %s (%s), also when asked again." % (endpoint, verb, code or status),
            hint=_AGAIN,
        )
    said = str(getattr(error, "response", {}).get("Error", {}).get("Message", "") or "").strip().rstrip(".")
    return PgopsError(
        "The store refused %s on %s: %s%s."
        % (verb, where, code or status, ": " + said if said and said != code else "")
    )


def _denial(code: str, status: int, operation: str, where: str, endpoint: str) -> Optional[PgopsError]:
    """Return the error for a store that does not let us in or do this, or None if it is something else."""
    verb = _verb(operation)
    if code == "RequestTimeTooSkewed":
        return PgopsError(
            "The store refused %s: this host's clock is too far from the store's." % verb,
            hint="Set the clock (chrony or systemd-timesyncd), then try again.",
        )
    if code == "InvalidObjectState":
        return PgopsError(
            "The store refused %s on %s: the object lies in an archive (%s)." % (verb, where, code),
            hint="Have the store thaw the objects of this set first (RestoreObject), and wait until it has, "
            "or take the local copy.",
        )
    if code in _EXPIRED:
        return PgopsError(
            "The store at %s refused %s: the credentials have expired (%s)." % (endpoint, verb, code),
            hint="Renew them, the session token too. Jobs that run by themselves need some that last or renew themselves: keys without"
            " a token, an instance role, or a profile (s3.profile).",
        )
    if status == 400 and operation.startswith("head_"):  # such an answer has no body, so no reason either
        return PgopsError(
            "The store at %s refused %s on %s, and says no more than 400." % (endpoint, verb, where),
            hint="So it does with credentials that have expired, and where s3.region is wrong: pgops probe tells more.",
        )
    if code in _BAD_KEY:
        return PgopsError(
            "The store at %s refused %s: it does not accept the credentials (%s)." % (endpoint, verb, code),
            hint="Check the access key, the secret key, the session token and s3.region.",
        )
    if code in _DENIED or status == 403:
        permission = _PERMISSIONS.get(operation, "the action")
        return PgopsError(
            "The store refused %s on %s: access denied." % (verb, where),
            hint="Allow these credentials %s there; KMS also needs kms:GenerateDataKey, tags s3:PutObjectTagging."
            % permission,
        )
    return None


def _trouble(error: Exception, operation: str, where: str, endpoint: str) -> PgopsError:
    name = type(error).__name__
    if name in (
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
        "SSOTokenLoadError",
    ):
        return UsageError(
            "There are no usable credentials for %s (%s)." % (where, name),
            hint="Set s3.credentials_file, s3.profile or s3.access_key, or give the host an instance role.",
        )
    if name in ("InvalidRegionError", "NoRegionError"):
        return UsageError(
            "s3.region is missing or wrong.", hint="Set s3.region to the bucket's region, for example eu-central-1."
        )
    if name == "ParamValidationError":
        return UsageError(
            "This host's botocore does not take our %s on %s: %s"
            % (_verb(operation), where, str(error).replace("\n", " "))
        )
    if name == "SSLError":
        why = "its certificate is not trusted" if "CERTIFICATE_VERIFY_FAILED" in str(error) else "TLS failed"
        return UnreachableError(
            "The store at %s cannot be reached: %s." % (endpoint, why), hint="Check s3.ca_bundle and s3.endpoint_url."
        )
    if name in ("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"):
        return UnreachableError(
            "The store at %s cannot be reached (%s)." % (endpoint, name),
            hint="Check s3.endpoint_url, the network and the firewall.",
        )
    return UnreachableError(
        "The connection to the store at %s broke during %s (%s), also when tried again."
        % (endpoint, _verb(operation), name),
        hint=_AGAIN,
    )


def _verb(operation: str) -> str:
    return "".join(word.capitalize() for word in operation.split("_"))


class Store:
    """A bucket and the client that speaks to it. The client is made at the first request; all threads share it."""

    def __init__(
        self, settings: S3, *, patience: Optional[Patience] = None, warn: Optional[Callable[[str], None]] = None
    ) -> None:
        """`warn` hears what the store does not let us do where the work goes on without it."""
        self.bucket = settings.bucket
        self.endpoint = settings.endpoint_url or "AWS"
        self.patience = patience or Patience(parse_span(settings.retry_for).total_seconds())
        self._warn, self._told = warn, set[str]()
        self._settings = settings
        self._client: Any = None
        self._wire: Optional[Wire] = None
        self._lock = threading.Lock()

    @property
    def client(self) -> Any:
        """The botocore client. Raise UnreachableError without the library, UsageError for wrong credentials options."""
        with self._lock:
            if self._client is None:
                self._client, self._wire = _connect(self._settings)
        return self._client

    @property
    def wire(self) -> Optional[Wire]:
        """Our own way to send content, None where it cannot be used. Raise what `client` raises."""
        return None if self.client is None or self._wire is None or self._wire.off else self._wire

    def try_once(self, operation: str, key: str = "", **arguments: Any) -> Any:
        """Make one request (botocore itself repeats it after passing troubles) and return the answer.

        The `Body` of an answer has read(), or read1() where it came over our own wire.
        """
        client = self.client
        if self._wire is not None:
            answer = self._wire.attempt(operation, key, arguments)
            if answer is not None:
                return answer
            if isinstance(arguments.get("Body"), Slice):
                arguments["Body"].seek(0)
        if key:
            arguments["Key"] = key
        try:
            return getattr(client, operation)(Bucket=self.bucket, **arguments)
        except Exception as error:
            if not _is_library_error(error):
                raise
            # botocore wraps whatever a body raises while it is being sent.
            inner = getattr(error, "kwargs", {}).get("error")
            raise inner if isinstance(inner, PgopsError) else self.translated(error, operation, key) from error

    def call(self, operation: str, key: str = "", **arguments: Any) -> Any:
        """Make a request, again and again while the trouble may pass; raise our errors."""
        return self.patience.call(lambda: self.try_once(operation, key, **arguments), self.may_pass)

    def tell_if_denied(self, error: PgopsError, operation: str, so: str) -> None:
        """Warn, once for each `operation`, where `error` says that it is not allowed; `so` is what comes of that."""
        code, status = code_of(error)
        if code not in _DENIED and status != 403:
            return
        with self._lock:
            told = operation in self._told
            self._told.add(operation)
        if self._warn is not None and not told:
            self._warn("%s %s %s" % (so, error.message, error.hint))

    def translated(self, error: Exception, operation: str, key: str = "") -> PgopsError:
        """Return what botocore raised as one of our errors."""
        return translate(error, operation, "s3://%s/%s" % (self.bucket, key), self.endpoint)

    @staticmethod
    def may_pass(error: Exception) -> bool:
        """Tell whether one of our errors was made from a passing trouble."""
        cause = error.__cause__ if isinstance(error, PgopsError) else error
        return isinstance(cause, Exception) and passing(cause)


def _is_library_error(error: Exception) -> bool:
    import botocore.exceptions as faults

    # urllib3's own errors and plain OSErrors come through while a body is read.
    return isinstance(error, (faults.BotoCoreError, faults.ClientError, OSError)) or type(error).__module__.startswith(
        ("urllib3", "botocore", "http.")
    )


def _connect(settings: S3) -> tuple[Any, Optional[Wire]]:
    try:
        import botocore.exceptions as faults
        import botocore.session
    except ImportError:
        import sys

        raise UnreachableError(
            "The Python library botocore, which speaks S3, is not installed.", hint=_LIBRARY_HINT % sys.executable
        ) from None
    session = botocore.session.Session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=moment)
    try:
        _credentials(session, settings)
        region = (
            settings.region or session.get_config_variable("region") or ("us-east-1" if settings.endpoint_url else None)
        )
        client = session.create_client(
            "s3",
            region_name=region,
            endpoint_url=settings.endpoint_url or None,
            verify=settings.ca_bundle or None,
            config=_client_config(settings),
        )
    except faults.ProfileNotFound:
        raise UsageError(
            "The AWS profile %r does not exist." % (settings.profile or "default"),
            hint="Check s3.profile and s3.credentials_file.",
        ) from None
    except (ValueError, faults.BotoCoreError) as error:
        raise UsageError(
            "The S3 settings are not usable: %s" % error, hint="Check the section s3 and the AWS configuration files."
        ) from error
    client.meta.events.register("before-send.s3", _count_what_is_sent)
    for operation in _CHECKED:
        client.meta.events.register("before-sign.s3.%s" % operation, _add_content_md5)
    return client, _wire(client, session, settings)


def moment(said: Any) -> datetime:
    """Return a moment that a store tells; dateutil, which botocore asks, takes most of the time of a listing."""
    found = _MOMENT.fullmatch(said) if isinstance(said, str) else None
    if found:
        year, month, day, hour, minute, second = map(int, found.groups()[:6])
        return datetime(year, month, day, hour, minute, second, int((found[7] or "").ljust(6, "0")), timezone.utc)
    import botocore.utils

    parsed: datetime = botocore.utils.parse_timestamp(said)
    return parsed


def _wire(client: Any, session: Any, settings: S3) -> Optional[Wire]:
    """Return our own way to send content, or None where it cannot be had; botocore does it all then."""
    try:
        bundle = settings.ca_bundle or str(session.get_config_variable("ca_bundle") or "")
        return Wire(client, session.get_credentials(), settings.bucket, ca_bundle=bundle)
    except Exception:  # noqa: BLE001  # what is wrong, the first request by botocore says in the right place
        return None


def _credentials(session: Any, settings: S3) -> None:
    if settings.credentials_file:
        path = Path(settings.credentials_file)
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            os.close(os.open(path, os.O_RDONLY))
        except OSError as error:
            raise UsageError("s3.credentials_file: %s cannot be read: %s." % (path, error.strerror)) from error
        if mode & 0o077:
            raise UsageError(
                "s3.credentials_file: %s is open to others (mode %04o)." % (path, mode), hint="chmod 600 %s" % path
            )
        session.set_config_variable("credentials_file", str(path))
    if settings.credentials_file or settings.profile:
        # A profile that is named keeps AWS_ACCESS_KEY_ID of the environment from winning over the file.
        session.set_config_variable("profile", settings.profile or "default")
    if settings.access_key:
        session.set_credentials(settings.access_key, settings.secret_key, settings.session_token or None)


def _client_config(settings: S3) -> Any:
    from botocore.config import Config

    options: dict[str, Any] = {
        # Four attempts: a store that is away is told of within half a minute.
        "connect_timeout": 5,
        "read_timeout": 60,
        "retries": {"mode": "standard", "max_attempts": 4},
        "max_pool_connections": 5 * settings.concurrency + 4,
        "s3": {"addressing_style": settings.addressing_style},
    }
    try:
        # The newer default adds checksums that many stores other than Amazon's refuse.
        return Config(
            request_checksum_calculation="when_required", response_checksum_validation="when_required", **options
        )
    except TypeError:  # a botocore older than 1.36, which adds none by itself
        return Config(**options)


def _count_what_is_sent(request: Any, **_others: Any) -> None:
    if isinstance(request.body, Slice):
        request.body.metered()


def _add_content_md5(request: Any, **_others: Any) -> None:
    # Newer botocore sends a CRC instead, which many other stores do not take for the MD5 that they demand.
    body = request.data if isinstance(request.data, bytes) else str(request.data or "").encode("utf-8")
    if "Content-MD5" not in request.headers:
        request.headers["Content-MD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(
            "ascii"
        )


class Capabilities:
    """What we learned about a store, remembered in `<state>/s3-capabilities.json` by endpoint and bucket."""

    def __init__(self, state: Path, settings: S3, warn: Callable[[str], None]) -> None:
        self._path = state / "s3-capabilities.json"
        self._key = "%s %s" % (settings.endpoint_url or "aws", settings.bucket)
        self._warn = warn
        self._lock = threading.Lock()
        self._facts: Optional[dict[str, Any]] = None

    def get(self, name: str) -> Any:
        """Return the fact `name`, or None when it is not known or another version of botocore learned it."""
        with self._lock:
            if self._facts is None:
                facts = self._read().get(self._key)
                self._facts = facts if isinstance(facts, dict) and facts.get("botocore") == _library_version() else {}
            return self._facts.get(name)

    def put(self, **facts: Any) -> None:
        """Remember `facts`. If they cannot be written, warn: the next run asks the store again."""
        self.get("")
        with self._lock:
            self._facts = {**(self._facts or {}), **facts, "botocore": _library_version()}
            everything = {**self._read(), self._key: self._facts}
            try:
                make_dirs(self._path.parent)
                write_bytes(self._path, to_json(everything))
            except OSError as error:
                self._warn("%s cannot be written: %s." % (self._path, error.strerror))

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _library_version() -> str:
    try:
        import botocore
    except ImportError:
        return ""
    return str(botocore.__version__)


__all__ = ("Capabilities", "Store", "code_of", "moment", "not_offered", "passing", "translate")
