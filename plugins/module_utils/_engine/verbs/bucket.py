# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Make the bucket of the S3 place fit for backups, and say what an identity needs to work in it.

All that cannot be is said before anything is touched. What the store does not take is a warning, but for two things that
somebody would rely on: a lock that does not hold, and an archive that swallows the manifests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..context import Context
from ..core import iam
from ..core.bucket import (
    Settings,
    Wanted,
    check,
    concerns,
    differing,
    freezes_everything,
    fresh,
    home_of,
    planned,
    unknown_to_store,
)
from ..core.errors import PgopsError, UsageError
from ..core.naming import check_instance
from ..places.s3_bucket import Bucket, is_amazon
from ..places.s3_client import Store
from ..settings import S3

Result = dict[str, Any]
_WORDS = {
    "public_access_block": "a block of public access",
    "versioning": "versions",
    "object_lock": "Object Lock",
    "lifecycle": "this life cycle",
    "tags": "tags of a bucket",
}


@dataclass(frozen=True)
class Request:
    """What the bucket is to be like, and which instances the policies are for (all below the prefix when empty).

    `policies` asks for more of them: by any name, such as that of a host, the instances that they are for.
    """

    wanted: Wanted
    instances: Sequence[str] = ()
    policies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    dry_run: bool = False


def prepare(context: Context, request: Request) -> Result:
    """Make the bucket as it is wanted and return what was changed, its settings, what it offers, and the policies.

    Raise UsageError or RefusedError before anything is touched; PgopsError if the store does not do what must hold.
    """
    settings = _settings(context)
    _check_names(request)
    amazon = is_amazon(settings.endpoint_url)
    check(request.wanted, amazon=amazon)
    bucket = Bucket(Store(settings), amazon=amazon)
    work = _Work(context, bucket, request.wanted, home_of(settings.prefix))
    work.run(request.dry_run)
    scope = iam.Scope(
        bucket=settings.bucket,
        prefix=settings.prefix,
        instances=tuple(request.instances),
        region=bucket.region if amazon else "",
        kms_key=settings.sse_kms_key_id,
        tagging=bool(settings.tags),
    )
    own = {name: replace(scope, instances=tuple(instances)) for name, instances in request.policies.items()}
    return {
        **work.result(),
        "policy_writer": iam.writer(scope),
        "policy_pruner": iam.pruner(scope),
        "policies": {name: {"writer": iam.writer(one), "pruner": iam.pruner(one)} for name, one in own.items()},
    }


def _check_names(request: Request) -> None:
    for name, instances in request.policies.items():
        if isinstance(instances, str) or not isinstance(instances, Sequence):
            raise UsageError("policies: expected a list of instances for %s." % name)
    for instance in [*request.instances, *(each for one in request.policies.values() for each in one)]:
        check_instance(instance)


def look(context: Context) -> Settings:
    """Return the settings that the bucket has now, nothing where there is no bucket."""
    settings = _settings(context)
    bucket = Bucket(Store(settings), amazon=is_amazon(settings.endpoint_url))
    return bucket.read() if bucket.exists() else {}


def _settings(context: Context) -> S3:
    if context.config.s3 is None:
        raise UsageError("No bucket is named.", hint="Set s3.bucket, or config to a file that does.")
    return context.config.s3


class _Work:
    """The way from what there is to what is wanted."""

    def __init__(self, context: Context, bucket: Bucket, wanted: Wanted, home: str) -> None:
        self._context, self._bucket, self._wanted, self._home = context, bucket, wanted, home
        self._created = False
        self._before: Settings = {}
        self._after: Settings = {}
        self._refused: list[str] = []

    def run(self, dry_run: bool) -> None:
        there = self._bucket.exists()
        found = self._bucket.read() if there else fresh(self._wanted)
        goal = planned(found, self._wanted, self._home)
        self._created = not there
        self._before = self._after = found
        if dry_run:
            self._after = goal
        else:
            try:
                self._write(there)
            except PgopsError as error:
                error.details = self.result()
                raise
        for name in unknown_to_store(self._after, self._wanted):
            self._refuse(name, "it does not know them")
        if self._wanted.public_access_block and self._bucket.blocks_little:
            self._context.warn(
                "Only IgnorePublicAcls of the block of public access is turned on: Ceph denies every write, or every policy of "
                "a bucket, under the others."
            )
        for said in concerns(self._wanted, self._after):
            self._context.warn(said)

    def _write(self, there: bool) -> None:
        if not there:
            self._context.reporter.note("making the bucket %s" % self._bucket.store.bucket)
            self._bucket.create(lock=self._wanted.object_lock is not None)
            self._before = self._after = self._bucket.read()
            self._demand_lock()
        goal = planned(self._before, self._wanted, self._home)
        due = differing(self._before, goal)
        try:
            for name in due:
                why = self._bucket.write(name, goal[name])
                if why:
                    self._refuse(name, why)
        finally:
            if due:
                self._after = self._bucket.read()
        self._hold_against(goal)

    def _demand_lock(self) -> None:
        """Raise PgopsError if Object Lock was asked for and the new bucket has none."""
        if self._wanted.object_lock is not None and not (self._after["object_lock"] or {}).get("enabled"):
            raise PgopsError(
                "The store made the bucket without Object Lock.",
                hint="It does not offer it: leave object_lock out, or use another store. Remove the empty bucket by hand.",
            )

    def _hold_against(self, goal: Settings) -> None:
        """Tell what the store took and did not keep."""
        if freezes_everything(goal["lifecycle"] or (), self._after["lifecycle"] or ()):
            self._bucket.write("lifecycle", self._before["lifecycle"])
            self._after = self._bucket.read()
            raise PgopsError(
                "The store does not keep the size in a life cycle rule: it would archive the manifests, too, and nobody "
                "could tell what the bucket holds. The rules are as they were.",
                hint="Choose a lifecycle.archive_class that can be read at once.",
            )
        for name in differing(self._after, goal):
            self._refuse(name, "it says yes and keeps what it had")
        lock = self._wanted.object_lock
        if lock is not None and "object_lock" in self._refused:
            raise PgopsError("The store does not keep the lock of %d days." % lock.days, hint="Use another store.")

    def _refuse(self, name: str, why: str) -> None:
        if name not in self._refused:
            self._refused.append(name)
            self._context.warn(
                "The store at %s does not offer %s (%s): left as it is."
                % (self._bucket.store.endpoint, _WORDS[name], why)
            )

    def result(self) -> Result:
        """Return what there is to tell so far."""
        names = differing(self._before, self._after)
        changes = [{"setting": n, "before": self._before[n], "after": self._after[n]} for n in names]
        return {
            "changed": self._created or bool(changes),
            "bucket": self._bucket.store.bucket,
            "created": self._created,
            "changes": changes,
            "settings": self._after,
            "refused": list(self._refused),
            "capabilities": {
                name: value is not None and name not in self._refused for name, value in self._after.items()
            },
        }


__all__ = ("Request", "look", "prepare")
