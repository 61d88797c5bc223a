# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The configuration of an instance on a host: its file, the files of its secrets, and the directories that it names.

All of it is checked by the one schema before anything is touched. A secret lies in a file of its own, never in the
configuration, so that the configuration can be read aloud.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from .. import config as configuration
from ..core.errors import PgopsError, RefusedError, UsageError
from ..core.naming import check_instance
from ..masking import holds_secret, masked
from ..reference import describe
from ..settings import Config
from . import archiving, changes
from .changes import Host, Owner
from .emit import to_yaml

HEAD = "# Written by Ansible (pgops.backup.pgops_config): changes made here are lost.\n"
_FOLDER = "secrets"
_KEYS = ("s3_access_key", "s3_secret_key", "s3_session_token")
# The file of each secret, by the last part of its name, and the key of the configuration that leads to it.
_FILES = {
    "postgres_password": ("postgres", "login_password_file"),
    "database_url": ("postgres", "database_url_file"),
    "aws_credentials": ("s3", "credentials_file"),
    "slack_webhook_url": ("alerts", "slack", "webhook_url_file"),
    "pagerduty_routing_key": ("alerts", "pagerduty", "routing_key_file"),
    "sentry_dsn": ("alerts", "sentry", "dsn_file"),
    "smtp_password": ("alerts", "email", "password_file"),
    "webhook_url": ("alerts", "webhook", "url_file"),
    "webhook_secret": ("alerts", "webhook", "secret_file"),
    "heartbeat_url": ("alerts", "heartbeat", "url_file"),
    "apprise_urls": ("alerts", "apprise", "urls_file"),
}
# A file of its own, to the letter; the keys of S3 share one that has a form.
_PLAIN = tuple(name for name in _FILES if name != "aws_credentials")
_IN_PLACE_OF = {
    "postgres_password": ("postgres.login_password", "postgres.login_password_file"),
    "database_url": ("postgres.database_url", "postgres.database_url_file"),
    "aws_credentials": ("s3.access_key", "s3.secret_key", "s3.session_token", "s3.credentials_file"),
    **{name: (".".join(keys)[: -len("_file")], ".".join(keys)) for name, keys in _FILES.items() if keys[0] == "alerts"},
}
# Directories of the system: to give one of these to the account of the backups would break the host.
_SHARED = frozenset(
    [
        *("/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root"),
        *(
            "/run",
            "/sbin",
            "/srv",
            "/sys",
            "/tmp",  # noqa: S108 - named to be refused
            "/usr",
            "/usr/local",
            "/var",
            "/var/backups",
            "/var/cache",
            "/var/lib",
        ),
        *("/var/lib/pgsql", "/var/lib/postgresql", "/var/log", "/var/log/postgresql", "/var/spool", "/var/tmp"),  # noqa: S108 - named to be refused
    ]
)
_DATA_DIRECTORIES = ("/var/lib/postgresql/*/*", "/var/lib/pgsql/*/data", "/var/lib/pgsql/data")


@dataclass(frozen=True)
class Request:
    """What to lay down where, and whose it is. Empty secrets are none."""

    path: Path = Path(configuration.DEFAULT_PATH)
    content: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    account: str = "postgres"
    group: str = "postgres"
    # The configurations of all instances of this host. When given, any other one of ours that lies beside them goes, unless WAL is
    # archived by it, which is found out from these files.
    instances: Sequence[Path] = ()
    archiving: Sequence[str] = archiving.FILES


def inline_secrets(content: Any) -> Iterator[str]:
    """Yield the secrets that stand in `content`, where none may; and every text that lies deeper where one should stand."""
    for keys in _secret_keys():
        found = _at(content, keys)
        if holds_secret(found):
            yield from texts(found)


def texts(value: Any) -> Iterator[str]:
    """Yield every text and number in `value`, however deep it stands."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts(inner)
    elif value not in (None, "", False, True):
        yield str(value)


def _secret_keys() -> Iterator[tuple[str, ...]]:
    for path, facts in describe():
        if facts.get("secret"):
            yield tuple(path.split("."))


def lay_down(host: Host, request: Request, *, name: str) -> dict[str, Any]:
    """Lay the configuration down and return `instance`, `config`, `files`, `directories`, `staying` and what Host.settle() says.

    Where the request names all instances, the configurations of those that are no more go.
    `name` is that of the host, for an instance without a name. Raise UsageError that lists every error of the content
    and the secrets; RefusedError for a directory that must not be given away.
    """
    _check_path(request.path)
    secrets = {key: str(value) for key, value in request.secrets.items() if value not in (None, "")}
    files, errors = _secret_files(request, secrets)
    errors += _inline(request.content)
    if not isinstance(request.content.get("s3"), Mapping) and files.pop("aws_credentials", None) is not None:
        host.warn("The credentials of S3 are not laid down, as the configuration has no section s3.")
        secrets = {key: value for key, value in secrets.items() if key not in _KEYS}
    errors += _given_twice(request.content, files)
    checked = _checked(host, request, secrets, errors, name)
    owned = changes.owner(host, request.account, request.group)
    _check_left_by_another(checked, owned, request)
    content = _ordered(Config, _leading_to(request, files))
    folders = _directories(checked, request.path.parent)
    for folder in folders:
        _check_directory(folder)
        host.need(changes.folder(folder, mode=0o750, owned=owned))
    _warn_of_one_disk(host, checked)
    managed = _files(host, request, files, content, owned)
    beside = _unlisted(request)
    stale = [path for path in beside if not _archived_by(host, request, path)]
    told = {_metrics_of(checked.metrics.textfile_directory, str(checked.instance))}
    for path in [request.path, *stale]:
        left, instance = _left_metrics(path)
        # Another instance may only have got a file of its own.
        others = instance != checked.instance and _is_listed(request, instance)
        if left is not None and left not in told and not others:
            host.need(changes.gone(left))
    for path in stale:
        for each in (path, *(_secret_path(path, secret) for secret in _FILES)):
            host.need(changes.gone(each, secret=each != path))
    result = host.settle()
    return {
        **result,
        "path": str(request.path),
        "instance": checked.instance,
        "files": [str(path) for path in managed],
        "directories": [str(folder) for folder in folders],
        "staying": [str(path) for path in beside if path not in stale],
        "config": masked(_as_written(checked, files, request)),
    }


def take_away(host: Host, path: Path) -> dict[str, Any]:
    """Remove the configuration `path` with its secrets, and directories that are empty then; nothing that it leads to.

    One that we did not write stays, with a warning.
    """
    _check_path(path)
    if os.path.lexists(path) and not is_ours(path):
        host.warn("%s is not of pgops_config and stays." % path)
        return _taken_away(host, path)
    left, _instance = _left_metrics(path)
    if left is not None:
        host.need(changes.gone(left))
    folder = path.parent / _FOLDER
    going = [path, *(_secret_path(path, name) for name in _FILES)]
    for each in going:
        host.need(changes.gone(each, secret=each != path))
    if host.need(changes.empty_folder_gone(folder, going)):
        going.append(folder)
    host.need(changes.empty_folder_gone(path.parent, going))
    return _taken_away(host, path)


def _taken_away(host: Host, path: Path) -> dict[str, Any]:
    return {
        **host.settle(),
        "path": str(path),
        "instance": None,
        "files": [],
        "directories": [],
        "staying": [],
        "config": {},
    }


# --- checks -----------------------------------------------------------------------------------------------------------


def _check_path(path: Path) -> None:
    if not path.is_absolute() or path.suffix not in (".yml", ".yaml", ".json"):
        raise UsageError("path: %r is not the full path of a file like /etc/pgops/config.yml." % str(path))


def _inline(content: Mapping[str, Any]) -> list[str]:
    """Return an error if a secret stands in the content."""
    if not holds_secret(content):
        return []
    known = [".".join(keys) for keys in _secret_keys() if holds_secret(_at(content, keys))]
    return ["content holds a secret (%s); give it in the option secrets." % key for key in known]


def _at(content: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return what `content` says of the one key, in its place."""
    value: Any = content
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _value_at(content: Any, path: str) -> Any:
    for key in path.split("."):
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _given_twice(content: Mapping[str, Any], files: Mapping[str, str]) -> list[str]:
    errors = []
    for name in files:
        for path in _IN_PLACE_OF[name]:
            alone = _at(content, tuple(path.split(".")))
            if _value_at(alone, path) and not holds_secret(alone):
                errors.append("%s: the option secrets gives the same; leave one of them out." % path)
    return errors


def _secret_files(request: Request, secrets: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the text of each secret file by its name, and what is wrong with the secrets."""
    errors = []
    for key, value in secrets.items():
        if any(ord(c) < 32 or ord(c) == 127 or c in "\x85\u2028\u2029" for c in value):
            errors.append("secrets: %s holds a line break or another control character." % key)
        elif value != value.strip():
            errors.append("secrets: %s begins or ends with a blank, which no reader of the file would keep." % key)
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            errors.append("secrets: %s is no text in UTF-8." % key)
    profile = _profile(request.content)
    if not profile.isprintable() or "]" in profile:
        errors.append("s3.profile: %r cannot stand in a credentials file." % profile)
    files = {key: secrets[key] + "\n" for key in _PLAIN if key in secrets}
    keys = [secrets.get(key, "") for key in _KEYS]
    if any(keys):
        if not (keys[0] and keys[1]):
            errors.append("secrets: s3_access_key and s3_secret_key go together.")
        files["aws_credentials"] = _credentials(profile, *keys)
    if "postgres_password" in files and "database_url" in files and configuration.has_password(secrets["database_url"]):
        errors.append("secrets: both postgres_password and database_url hold a password; leave one of them out.")
    return files, errors


def _profile(content: Mapping[str, Any]) -> str:
    section = content.get("s3")
    return str(section.get("profile") or "default") if isinstance(section, Mapping) else "default"


def _credentials(profile: str, access_key: str, secret_key: str, session_token: str) -> str:
    """Return the AWS credentials file. Its format has no quotes: a value is the rest of the line, without blanks around it."""
    lines = ["[%s]" % profile, "aws_access_key_id = %s" % access_key, "aws_secret_access_key = %s" % secret_key]
    lines += ["aws_session_token = %s" % session_token] if session_token else []
    return "".join("%s\n" % line for line in lines)


def _checked(host: Host, request: Request, secrets: Mapping[str, str], errors: list[str], name: str) -> Config:
    """Return the configuration as pgops will read it. Raise UsageError that lists every error, `errors` first."""
    data: dict[str, Any] = dict(request.content)
    for section, given in (
        ("postgres", {"login_password": "postgres_password", "database_url": "database_url"}),
        ("s3", {"access_key": "s3_access_key", "secret_key": "s3_secret_key", "session_token": "s3_session_token"}),
    ):
        found = {key: secrets[secret] for key, secret in given.items() if secret in secrets}
        if found and isinstance(data.get(section) or {}, Mapping):
            data[section] = {**(data.get(section) or {}), **found}
    if host.dry_run and isinstance(data.get("postgres"), Mapping):
        data["postgres"] = _without_missing(host, data["postgres"])
    try:
        checked = configuration.build(data, environ={}, host=name, source="The content of %s" % request.path)
    except UsageError as error:
        listed = error.message.partition("\n")[2].split("\n")
        # What is wrong with a secret is said once, by the name that it has here.
        raise _listed(request.path, errors + [line.strip()[2:] for line in listed]) from None
    if errors:
        raise _listed(request.path, errors)
    return checked


def _listed(path: Path, errors: list[str]) -> UsageError:
    many = "an error" if len(errors) == 1 else "%d errors" % len(errors)
    return UsageError(
        "What is to stand in %s has %s:\n%s" % (path, many, "\n".join("  - %s" % error for error in errors)),
        hint="The reference of the configuration lists every key; nothing was touched.",
    )


def _without_missing(host: Host, section: Mapping[str, Any]) -> dict[str, Any]:
    """In check mode a file that an earlier task would have made is not there yet."""
    left = dict(section)
    for key in ("login_password_file", "database_url_file"):
        if isinstance(left.get(key), str) and left[key] and not os.path.exists(left[key]):
            host.excuse("postgres.%s: %s is not there." % (key, left.pop(key)))
    return left


def _check_directory(folder: Path) -> None:
    if os.path.normpath(folder) in _SHARED:
        raise RefusedError(
            "%s belongs to the system and is not given to one account." % folder,
            hint="Choose a directory of their own for path, local.path, state_dir and log_dir.",
        )


def _check_left_by_another(checked: Config, owned: Owner, request: Request) -> None:
    """Raise RefusedError where the backups or the run records of the instance are another account's, as that of earlier jobs.

    The new one could not even read them, and the night would fail.
    """
    if not owned.known:
        return
    own = [Path(path, str(checked.instance)) for path in (checked.local.path, checked.state_dir) if path]
    left = [path for path in dict.fromkeys(own) if path.is_dir() and not _may_write(owned, path)]
    if left:
        logs = sorted(Path(checked.log_dir).glob("*.log")) if checked.log_dir else []
        others = left + [path for path in logs if path.lstat().st_uid == left[0].stat().st_uid]
        before = str(Owner(left[0].stat().st_uid, -1)).partition(":")[0]  # its number where the account is gone
        raise RefusedError(
            "%s is not of the account %s: its jobs could not go on with what is there, and would fail."
            % (" and ".join(map(str, left)), request.account),
            hint="Let the account that it had, %s, have the jobs. Or give it away first: chown -R --from=%s %s:%s %s. Nothing was "
            "touched."
            % (before, before, request.account, request.group, " ".join(shlex.quote(str(p)) for p in others)),
        )


def _may_write(owned: Owner, path: Path) -> bool:
    """Tell whether the account may read and write in the directory `path`: as its owner, or as a share is made for all or a group."""
    found = path.stat()
    mode = found.st_mode
    return (
        found.st_uid == owned.uid
        or mode & stat.S_IRWXO == stat.S_IRWXO
        or (found.st_gid == owned.gid and mode & stat.S_IRWXG == stat.S_IRWXG)
    )


# --- what is laid down ------------------------------------------------------------------------------------------------


def _secret_path(path: Path, name: str) -> Path:
    return path.parent / _FOLDER / ("%s.%s" % (path.stem, name))


def _leading_to(request: Request, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the content with the keys that lead to the secret files."""
    leads: dict[str, Any] = {}
    for name in files:
        value: Any = str(_secret_path(request.path, name))
        for key in reversed(_FILES[name]):
            value = {key: value}
        leads = configuration.merge(leads, value)
    return configuration.merge(request.content, leads)


def _ordered(cls: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `data` in the order of the settings, without what is not given."""
    import typing

    hints = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    for spec in dataclasses.fields(cls):
        value = data.get(spec.name)
        if value is None:
            continue
        section = configuration.section_of(hints[spec.name])
        if section is not None and isinstance(value, Mapping):
            value = _ordered(section, value)
        elif section is not None:
            value = [_ordered(section, item) for item in value]
        found[spec.name] = value
    return found


def _directories(checked: Config, folder: Path) -> list[Path]:
    named = [checked.local.path, checked.state_dir, checked.log_dir]
    # /var/tmp does as it is.
    named += [checked.work_dir] if checked.work_dir and os.path.normpath(checked.work_dir) not in _SHARED else []
    return [folder, *dict.fromkeys(Path(path) for path in named if path)]


def _files(
    host: Host, request: Request, files: Mapping[str, str], content: Mapping[str, Any], owned: Owner
) -> list[Path]:
    """Take on the secret files, the configuration after them, and last the removal of secrets that it no longer needs."""
    managed = []
    if files:
        host.need(changes.folder(request.path.parent / _FOLDER, mode=0o700, owned=owned))
    for name, text in files.items():
        path = _secret_path(request.path, name)
        host.need(changes.file(path, text.encode("utf-8"), mode=0o600, owned=owned, secret=True))
        managed.append(path)
    text = HEAD + to_yaml(content)
    host.need(changes.file(request.path, text.encode("utf-8"), mode=0o600, owned=owned))
    for name in _FILES:
        if name not in files:
            host.need(changes.gone(_secret_path(request.path, name), secret=True))
    return [request.path, *managed]


def _unlisted(request: Request) -> list[Path]:
    """Return the configurations that we wrote beside this one for instances that are no more."""
    if not request.instances:
        return []
    beside = sorted(set(request.path.parent.glob("*.yml")) - {request.path, *request.instances})
    return [path for path in beside if is_ours(path)]


def _archived_by(host: Host, request: Request, path: Path) -> bool:
    """Tell whether WAL is archived by the configuration `path`; warn of it then.

    A server whose archive_command fails for lack of it would keep its WAL until its disk is full.
    """
    found = archiving.archives_by(path, request.archiving)
    services = [each for each in found if each.suffix == ".service"]
    _metrics, instance = _left_metrics(path)
    if not found:
        return False
    if _is_listed(request, instance):
        what = (
            "The role wal_archive gives the server of %s its new one; this one goes then, by site at once, else with the next run."
            % instance
        )
    elif services == found:
        what = "When all of its WAL is copied, end that: systemctl disable --now %s, and rm %s." % (
            " ".join(shlex.quote(each.name) for each in services),
            " ".join(shlex.quote(str(each)) for each in services),
        )
    else:
        what = (
            "If the server is another instance's now, the role wal_archive gives it the one of that, and the next run removes this one "
            "then. If not, list the instance again, or end its archiving: the role wal_archive with wal_archive_state: absent."
        )
    host.warn(
        "%s belongs to no instance any more and stays, as WAL is archived by it: see %s. %s"
        % (path, " and ".join(map(str, found)), what)
    )
    return True


def _is_listed(request: Request, instance: str) -> bool:
    """Tell whether `instance` is one of several of this host, with the file that it has then."""
    return request.path.with_name("%s.yml" % instance) in request.instances


def is_ours(path: Path) -> bool:
    """Tell whether we wrote the file `path`. Raise OSError if it cannot be read."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(HEAD)) == HEAD.encode("utf-8")


def _metrics_of(folder: str, instance: str) -> Optional[Path]:
    return Path(folder, "pgops-%s.prom" % instance) if folder else None


def _left_metrics(path: Path) -> tuple[Optional[Path], str]:
    """Return the metrics of the instance whose configuration lies at `path`, of which monitoring would hear for ever, and its name."""
    try:
        said = configuration.read(path) if is_ours(path) else {}
        instance = check_instance(str(said.get("instance") or ""))
    except PgopsError:
        return None, ""
    section = said.get("metrics")
    folder = section.get("textfile_directory") if isinstance(section, Mapping) else None
    return _metrics_of(folder if isinstance(folder, str) else "", instance), instance


def _as_written(checked: Config, files: Mapping[str, str], request: Request) -> Config:
    """Return the configuration with the names of the secret files in place of the secrets."""
    written = checked
    for name in files:
        for path in _IN_PLACE_OF[name]:
            written = _with(written, tuple(path.split(".")), "")
        written = _with(written, _FILES[name], str(_secret_path(request.path, name)))
    return written


def _with(section: Any, keys: tuple[str, ...], value: str) -> Any:
    """Return the settings `section` with another value at `keys`; a section that is not there stays so."""
    if section is None:
        return None
    inner = value if len(keys) == 1 else _with(getattr(section, keys[0]), keys[1:], value)
    return dataclasses.replace(section, **{keys[0]: inner})


def _warn_of_one_disk(host: Host, checked: Config) -> None:
    """Warn where the backups lie on the disk of the data: who loses the one loses the other."""
    if checked.postgres.login_host not in ("", "localhost", "127.0.0.1", "::1"):
        return
    backups = Path(checked.local.path)
    while not backups.exists() and backups != backups.parent:
        backups = backups.parent
    for pattern in _DATA_DIRECTORIES:
        for data in Path("/").glob(pattern.lstrip("/")):
            if (data / "PG_VERSION").is_file() and data.stat().st_dev == backups.stat().st_dev:
                host.warn(
                    "local.path (%s) is on the same file system as the data in %s: mount another disk there, or let S3 be "
                    "the place that counts." % (checked.local.path, data)
                )
                return


__all__ = ("HEAD", "Request", "inline_secrets", "is_ours", "lay_down", "take_away", "texts")
