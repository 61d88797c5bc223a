# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Read the configuration and check all of it at once; reference.py writes its commented example."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import stat
import typing
from collections.abc import Iterator, Mapping
from datetime import timezone
from pathlib import Path
from typing import Any, Callable, Optional
from urllib.parse import parse_qs, unquote, urlsplit

from .core.calendar import parse as parse_calendar
from .core.commands import DEFAULT_CONFIG, whom
from .core.errors import UsageError
from .core.group import split_member
from .core.naming import check_instance, split_qualified
from .core.quiet import parse_quiet
from .core.sizes import parse_size
from .core.times import parse_span
from .settings import S3, Alerts, Backup, Base, Checklist, Config, Postgres
from .system.account import owner_name
from .system.zones import named_zone

NONE = type(None)
DEFAULT_PATH = DEFAULT_CONFIG
_LEAST_MEMBERS = 2
_RATES = (32 * 1024, 1024 * 1024 * 1024)


def load(path: Path, *, environ: Mapping[str, str], host: str) -> Config:
    """Return the configuration that the YAML (or JSON) file `path` holds.

    Raise UsageError that lists every error with its path in the file, or says why the file cannot be read.
    """
    return build(read(path), environ=environ, host=host, source=str(path))


def read(path: Path) -> dict[str, Any]:
    """Return what the file `path` says, unchecked. Raise UsageError if it cannot be read or says no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            "There is no configuration file %s." % path,
            hint="Name one with --config, or begin with 'pgops config --example > FILE'.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        hint = "Run it %s." % whom(owner_name(path)) if isinstance(error, PermissionError) else ""
        raise UsageError("The configuration file %s cannot be read: %s." % (path, error), hint=hint) from error
    data = _parse(text, path)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise UsageError("%s must hold keys and values, not %s." % (path, type(data).__name__))
    if _holds_secret(Config, data):
        check_private(path, "it holds a secret")
    return data


def _parse(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        import yaml
    except ImportError:
        raise UsageError(
            "%s is not JSON, and PyYAML, which reads YAML, is not installed." % path,
            hint="Install python3-yaml (Debian) or python3-pyyaml (EL).",
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = " in line %d" % (mark.line + 1) if mark else ""
        raise UsageError(
            "%s is not valid YAML%s: %s." % (path, where, getattr(error, "problem", "unreadable"))
        ) from None


def build(data: Mapping[str, Any], *, environ: Mapping[str, str], host: str, source: str = "the options") -> Config:
    """Return the checked configuration made of `data`, of `environ` (only DATABASE_URL is read) and the `host` name.

    Raise UsageError that lists every error of `source` with its path.
    """
    errors: list[str] = []
    config: Config = _section(Config, data, "", errors)
    if not errors:
        config = _complete(config, environ, host, errors)
    if errors:
        raise UsageError(
            "%s has %s:\n%s"
            % (
                source,
                "an error" if len(errors) == 1 else "%d errors" % len(errors),
                "\n".join("  - %s" % e for e in errors),
            ),
            hint="'pgops config --example' shows every key.",
        )
    return config


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid on it; sections are merged, other values replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


# --- checks -----------------------------------------------------------------------------------------------------------


def _section(cls: type[Any], data: Any, path: str, errors: list[str]) -> Any:
    if not isinstance(data, Mapping):
        errors.append("%s: expected keys and values, found %s." % (path or "top level", _show(data)))
        return cls()
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = [str(key) for key in data if key not in fields]
    errors += ["%s: unknown key.%s" % (join(path, key), _did_you_mean(key, fields)) for key in unknown]
    values: dict[str, Any] = {}
    for name, spec in fields.items():
        if name in data and data[name] is not None:
            values[name] = _value(hints[name], data[name], spec.metadata, join(path, name), errors)
            if dataclasses.is_dataclass(values[name]) and spec.default_factory is not dataclasses.MISSING:
                values[name] = _over_default(spec.default_factory(), values[name], data[name])
    return cls(**values)


def _over_default(default: Any, value: Any, data: Any) -> Any:
    """A section with defaults of its own (retention) keeps those for what the file does not say."""
    if not isinstance(data, Mapping):
        return default
    said = [spec.name for spec in dataclasses.fields(default) if data.get(spec.name) is not None]
    return dataclasses.replace(default, **{name: getattr(value, name) for name in said})


def _value(hint: Any, value: Any, metadata: Mapping[str, Any], path: str, errors: list[str]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union:
        return _value(next(a for a in arguments if a is not NONE), value, metadata, path, errors)
    if dataclasses.is_dataclass(hint):
        return _section(typing.cast(type[Any], hint), value, path, errors)
    if origin is list:
        if not isinstance(value, (list, tuple)):
            errors.append("%s: expected a list, found %s." % (path, _show(value)))
            return []
        return [_value(arguments[0], item, {}, "%s[%d]" % (path, i), errors) for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping):
            errors.append("%s: expected keys and values, found %s." % (path, _show(value)))
            return {}
        return {str(k): _value(str, v, {}, join(path, str(k)), errors) for k, v in value.items()}
    return _scalar(hint, value, metadata, path, errors)


def _scalar(hint: Any, value: Any, metadata: Mapping[str, Any], path: str, errors: list[str]) -> Any:
    shown = "a secret" if metadata.get("secret") else _show(value)
    if hint is bool:
        if not isinstance(value, bool):
            errors.append("%s: expected true or false, found %s." % (path, shown))
        return bool(value)
    if hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            errors.append("%s: expected a whole number, found %s." % (path, shown))
            return 0
        least, most = metadata.get("least"), metadata.get("most")
        if (least is not None and value < least) or (most is not None and value > most):
            errors.append("%s: expected %s to %s, found %s." % (path, least, most, shown))
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        errors.append("%s: expected a text, found %s." % (path, shown))
        return ""
    text = str(value)
    choices = metadata.get("choices")
    if choices and text not in choices:
        errors.append("%s: expected one of %s, found %s." % (path, ", ".join(c for c in choices if c), shown))
    _check_form(metadata.get("form", ""), text, path, errors)
    return text


def _check_form(form: str, text: str, path: str, errors: list[str]) -> None:
    if not text:
        return
    if form == "calendar or auto":
        form = "calendar" if text != "auto" else ""
    if form == "span or auto":
        form = "span" if text != "auto" else ""
    if form == "path" and not text.startswith("/"):
        errors.append("%s: expected a path from the root (/…), found %r." % (path, text))
        return
    check: Optional[Callable[[str], object]] = {
        "size": parse_size,
        "span": parse_span,
        "instance": check_instance,
        "calendar": parse_calendar,
        "timezone": named_zone,
        "hours": _hours,
    }.get(form)
    if check:
        try:
            check(text)
        except UsageError as error:
            errors.append("%s: %s" % (path, error))


def _hours(text: str) -> None:
    parse_quiet(text, timezone.utc, "critical")


def _complete(config: Config, environ: Mapping[str, str], host: str, errors: list[str]) -> Config:
    """Fill in what follows from other keys, and check the keys against each other."""
    postgres = config.postgres
    single = postgres.login_host or postgres.login_port or postgres.login_user or postgres.login_unix_socket
    url = postgres.database_url
    if postgres.database_url_file:
        url = read_secret(Path(postgres.database_url_file), "postgres.database_url_file", errors)
    elif not url and not single:
        url = environ.get("DATABASE_URL", "")
    if url:
        postgres = dataclasses.replace(postgres, **_from_url(url, config, errors))
    if postgres.login_password_file and not postgres.login_password:
        password = read_secret(Path(postgres.login_password_file), "postgres.login_password_file", errors)
        postgres = dataclasses.replace(postgres, login_password=password)
    _check_backup(config.backup, errors)
    _check_base(config.base, errors)
    if config.s3 is not None:
        _check_s3(config.s3, errors)
    _check_alerts(config.alerts, errors)
    _check_checklist(config, errors)
    config = _with_node(config, host, errors)
    instance = config.instance or _instance_name(postgres, host)
    if not config.instance:
        _check_form("instance", instance, "instance", errors)
    return dataclasses.replace(config, postgres=postgres, instance=instance)


def _instance_name(postgres: Postgres, host: str) -> str:
    """Return a name for the instance from where its server runs: two hosts of one short name stay apart in a bucket."""
    where = postgres.login_host if postgres.login_host not in ("", "localhost", "127.0.0.1", "::1") else host
    return "%s-%s" % (re.sub(r"[^A-Za-z0-9._-]", "-", where).strip("-."), postgres.login_port or 5432)


def _check_backup(backup: Backup, errors: list[str]) -> None:
    if backup.encryption == "age" and not backup.recipients:
        errors.append("backup.recipients: encryption age needs at least one public key.")
    if backup.encryption == "none" and backup.recipients:
        errors.append("backup.recipients: there are recipients, but backup.encryption is none; say encryption: age.")
    if backup.encryption == "age" and backup.format == "directory":
        errors.append(
            "backup.format: directory cannot be encrypted without plaintext on disk; use auto, custom or plain."
        )
    for key in ("tables", "exclude_tables", "exclude_table_data"):
        for name in getattr(backup, key):
            try:
                split_qualified(name)
            except UsageError as error:
                errors.append("backup.%s: %s" % (key, error))


def _check_base(base: Base, errors: list[str]) -> None:
    if base.max_rate and not _RATES[0] <= parse_size(base.max_rate) <= _RATES[1]:
        errors.append("base.max_rate: pg_basebackup takes 32KiB to 1GiB per second, not %s." % base.max_rate)


def _check_s3(s3: S3, errors: list[str]) -> None:
    if not s3.bucket:
        errors.append("s3.bucket: missing. Leave the whole section s3 out when there is no bucket.")
    if bool(s3.access_key) != bool(s3.secret_key):
        errors.append("s3: access_key and secret_key go together.")
    if parse_size(s3.part_size) < 5 * 1024 * 1024:
        errors.append("s3.part_size: S3 takes no parts below 5MiB.")


def _check_alerts(alerts: Alerts, errors: list[str]) -> None:
    unknown = [verb for verb in alerts.watched if verb not in ("backup", "sync", "verify", "prune")]
    if unknown:
        errors.append("alerts.watched: expected some of backup, sync, verify, prune, found %s." % ", ".join(unknown))
    for index, address in enumerate([*alerts.email.to, alerts.email.sender]):
        name = "alerts.email.sender" if index == len(alerts.email.to) else "alerts.email.to[%d]" % index
        if address and not re.fullmatch(r"[^\s@<>,;\"]+@[^\s@<>,;\"]+", address):
            errors.append("%s: expected an address like oncall@example.com, found %s." % (name, _show(address)))
    if not _environment(alerts.sentry.environment):
        errors.append(
            "alerts.sentry.environment: Sentry takes up to 64 characters in a line, without / and not None, found %s."
            % _show(alerts.sentry.environment)
        )
    if not alerts.pagerduty.url.startswith(("https://", "http://")):
        errors.append("alerts.pagerduty.url: expected https://…, found %s." % _show(alerts.pagerduty.url))


def _check_checklist(config: Config, errors: list[str]) -> None:
    for index, path in enumerate(config.checklist.files):
        if not path.startswith("/"):
            errors.append("checklist.files[%d]: expected a path from the root (/…), found %r." % (index, path))
    if config.checklist.lines:
        from .core.checklist import line_errors

        errors += line_errors(("checklist.lines[%d]" % i, line) for i, line in enumerate(own_lines(config)))


def own_lines(config: Config) -> list[Any]:
    """Return the lines of checklists that stand in the configuration itself, as core.checklist.Line."""
    from .core.checklist import Line

    return [Line(**dataclasses.asdict(line)) for line in config.checklist.lines]


def read_lines(config: Config) -> list[Any]:
    """Return all lines of checklists of the configuration and of the files that it names, as core.checklist.Line.

    Raise UsageError that lists every error of all the files.
    """
    from .core.checklist import Line, line_errors

    errors: list[str] = []
    found = [("checklist.lines[%d]" % i, line) for i, line in enumerate(own_lines(config))]
    for path in config.checklist.files:
        try:
            data = read(Path(path))
        except UsageError as error:
            errors.append(error.message)
            continue
        section: Checklist = _section(Checklist, data, path, errors)
        if section.files:
            errors.append("%s.files: a file of lines names no other files." % path)
        found += [
            ("%s.lines[%d]" % (path, i), Line(**dataclasses.asdict(line))) for i, line in enumerate(section.lines)
        ]
    errors += line_errors(found)
    if errors:
        raise UsageError(
            "The lines of the checklists have %s:\n%s"
            % ("an error" if len(errors) == 1 else "%d errors" % len(errors), "\n".join("  - %s" % e for e in errors)),
            hint="docs/checklists.md shows how a line is written.",
        )
    return [line for _where, line in found]


def _environment(name: str) -> bool:
    return len(name) <= 64 and not re.search(r"[/\r\n\f]", name) and name.lower() != "none"


def _with_node(config: Config, host: str, errors: list[str]) -> Config:
    """Check the group, if there is one, and return `config` with this node's own entry in it."""
    group = config.group
    if not group.members:
        if group.node:
            errors.append("group.node: there is a node, but group.members is empty; list all nodes of the group.")
        return config
    hosts: dict[str, str] = {}
    for index, entry in enumerate(group.members):
        try:
            hosts[entry] = split_member(entry)[0]
        except UsageError as error:
            errors.append("group.members[%d]: %s" % (index, error))
    if len(set(group.members)) < len(group.members):
        errors.append("group.members: a member is listed twice.")
    if len(group.members) < _LEAST_MEMBERS:
        errors.append("group.members: a group has two members at least; leave the section out for a server of its own.")
    if not config.instance:
        errors.append("instance: missing. All nodes of a group share one name, so it cannot be made from the host's.")
    if group.node:
        if group.node not in group.members:
            errors.append("group.node: %r is not among group.members, as they are written there." % group.node)
        return config
    own = [entry for entry, name in hosts.items() if name == host or name.split(".", 1)[0] == host.split(".", 1)[0]]
    if len(own) != 1:
        errors.append(
            "group.node: missing, and this host's name (%s) fits %s of group.members; say which one it is."
            % (host, "none" if not own else "several")
        )
        return config
    return dataclasses.replace(config, group=dataclasses.replace(group, node=own[0]))


def _from_url(url: str, config: Config, errors: list[str]) -> dict[str, Any]:
    """Return the login options that the connection URI `url` gives and `config` does not."""
    where = "postgres.database_url"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        errors.append("%s: not a connection URI." % where)
        return {}
    if parts.scheme not in ("postgresql", "postgres"):
        errors.append("%s: expected postgresql://…" % where)
        return {}
    # libpq takes a + for a +, not for a blank.
    query = {key: values[-1] for key, values in parse_qs(parts.query.replace("+", "%2B")).items()}
    known = {
        "host": "login_host",
        "port": "login_port",
        "user": "login_user",
        "password": "login_password",
        "sslmode": "ssl_mode",
        "sslrootcert": "ca_cert",
        "sslcert": "ssl_cert",
        "sslkey": "ssl_key",
        "connect_timeout": "connect_timeout",
    }
    unknown = sorted(set(query) - set(known))
    if unknown:
        errors.append("%s: does not take %s." % (where, ", ".join(unknown)))
    values: dict[str, Any] = {
        "login_host": unquote(parts.hostname or ""),
        "login_port": port,
        "login_user": unquote(parts.username or ""),
        "login_password": unquote(parts.password or ""),
        "login_db": unquote(parts.path.lstrip("/")),
    }
    for key, name in known.items():
        if key in query:
            if name in ("login_port", "connect_timeout"):
                if not query[key].isdigit():
                    errors.append("%s: %s is not a number." % (where, key))
                    continue
                values[name] = int(query[key])
            else:
                values[name] = query[key]
    if str(values["login_host"]).startswith("/"):
        values["login_unix_socket"] = values.pop("login_host")
    defaults = type(config.postgres)()
    return {k: v for k, v in values.items() if v and getattr(config.postgres, k) == getattr(defaults, k)}


def read_secret(path: Path, where: str, errors: list[str]) -> str:
    """Return the first line of the secret file `path`; add to `errors` what is wrong with it."""
    try:
        check_private(path, "it holds a secret")
        return path.read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except UsageError as error:
        errors.append("%s: %s" % (where, error))
    except (OSError, UnicodeDecodeError) as error:
        errors.append("%s: %s cannot be read: %s." % (where, path, getattr(error, "strerror", None) or "not a text"))
    return ""


def check_private(path: Path, why: str) -> None:
    """Raise UsageError if others than the owner may read the file `path`, saying `why` they must not; OSError if it is gone."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        raise UsageError(
            "%s is open to others (mode %04o) although %s." % (path, mode, why), hint="chmod 600 %s" % path
        )


def _holds_secret(cls: type[Any], data: Mapping[str, Any]) -> bool:
    return next(_secrets(cls, data), None) is not None


def _secrets(cls: type[Any], data: Any) -> Iterator[str]:
    if not isinstance(data, Mapping):
        return
    hints = typing.get_type_hints(cls)
    for spec in dataclasses.fields(cls):
        value = data.get(spec.name)
        if spec.metadata.get("secret") and isinstance(value, (str, int, float)) and value not in ("", False):
            # A URI is a secret only when it holds a password.
            yield from [str(value)] if spec.name != "database_url" or has_password(str(value)) else []
        section = section_of(hints[spec.name])
        if section is not None and not isinstance(value, list):
            yield from _secrets(section, value)


def has_password(url: str) -> bool:
    """Tell whether the connection URI holds a password, as far as it can be read at all."""
    try:
        parts = urlsplit(url)
        return bool(parts.password or parse_qs(parts.query).get("password"))
    except ValueError:
        return "@" in url or "password" in url


def secrets_of(config: Config) -> list[str]:
    """Return every secret that `config` holds, for the redactor."""
    found = list(_secrets(Config, dataclasses.asdict(config)))
    password = urlsplit(config.postgres.database_url).password
    return found + ([password, unquote(password)] if password else [])


def section_of(hint: Any) -> Optional[type[Any]]:
    """Return the settings class that the type `hint` holds, None if it holds none."""
    for candidate in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(candidate):
            return typing.cast(type[Any], candidate)
    return None


def join(path: str, key: str) -> str:
    """Return the path of `key` in the section `path`."""
    return "%s.%s" % (path, key) if path else key


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _did_you_mean(key: str, known: Mapping[str, Any]) -> str:
    import difflib

    close = difflib.get_close_matches(key, list(known), n=1)
    return " Did you mean %s?" % close[0] if close else ""


__all__ = (
    "DEFAULT_PATH",
    "NONE",
    "build",
    "check_private",
    "has_password",
    "join",
    "load",
    "merge",
    "own_lines",
    "read",
    "read_lines",
    "read_secret",
    "section_of",
    "secrets_of",
)
