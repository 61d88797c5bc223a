# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""Read the configuration, check all of it at once, and write its commented example."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import typing
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple, Type
from urllib.parse import parse_qs, unquote, urlsplit

from .errors import UsageError
from .naming import check_instance, split_qualified
from .settings import Config
from .sizes import parse_size
from .times import parse_span

DEFAULT_PATH = "/etc/pgops/config.yml"


def load(path: Path, *, environ: Mapping[str, str], host: str) -> Config:
    """Return the configuration that the YAML (or JSON) file `path` holds.

    Raise UsageError that lists every error with its path in the file, or says why the file cannot be read.
    """
    return build(read(path), environ=environ, host=host, source=str(path))


def read(path: Path) -> Dict[str, Any]:
    """Return what the file `path` says, unchecked. Raise UsageError if it cannot be read or says no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            "There is no configuration file %s." % path,
            hint="Name one with --config, or begin with 'pgops config --example > FILE'.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("The configuration file %s cannot be read: %s." % (path, error)) from error
    data = _parse(text, path)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise UsageError("%s must hold keys and values, not %s." % (path, type(data).__name__))
    if _holds_secret(Config, data):
        _check_private(path, "it holds a secret")
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
        raise UsageError("%s is not valid YAML%s: %s." % (path, where, getattr(error, "problem", "unreadable"))) from None


def build(data: Mapping[str, Any], *, environ: Mapping[str, str], host: str, source: str = "the options") -> Config:
    """Return the checked configuration made of `data`, of `environ` (only DATABASE_URL is read) and the `host` name.

    Raise UsageError that lists every error of `source` with its path.
    """
    errors: List[str] = []
    config: Config = _section(Config, data, "", errors)
    if not errors:
        config = _complete(config, environ, host, errors)
    if errors:
        raise UsageError(
            "%s has %s:\n%s" % (source, "an error" if len(errors) == 1 else "%d errors" % len(errors), "\n".join("  - %s" % e for e in errors)),
            hint="'pgops config --example' shows every key.",
        )
    return config


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Dict[str, Any]:
    """Return `base` with `over` laid on it; sections are merged, other values replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


# --- checks -----------------------------------------------------------------------------------------------------------


def _section(cls: Type[Any], data: Any, path: str, errors: List[str]) -> Any:
    if not isinstance(data, Mapping):
        errors.append("%s: expected keys and values, found %s." % (path or "top level", _show(data)))
        return cls()
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            errors.append("%s: unknown key.%s" % (_join(path, str(key)), _did_you_mean(str(key), fields)))
    values: Dict[str, Any] = {}
    for name, spec in fields.items():
        if name in data and data[name] is not None:
            values[name] = _value(hints[name], data[name], spec.metadata, _join(path, name), errors)
            if dataclasses.is_dataclass(values[name]) and spec.default_factory is not dataclasses.MISSING:
                values[name] = _over_default(spec.default_factory(), values[name], data[name])
    return cls(**values)


def _over_default(default: Any, value: Any, data: Any) -> Any:
    """A section with defaults of its own (retention) keeps those for what the file does not say."""
    if not isinstance(data, Mapping):
        return default
    return dataclasses.replace(default, **{key: getattr(value, key) for key in data if hasattr(value, str(key))})


def _value(hint: Any, value: Any, metadata: Mapping[str, Any], path: str, errors: List[str]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union:
        return _value(next(a for a in arguments if a is not type(None)), value, metadata, path, errors)
    if dataclasses.is_dataclass(hint):
        return _section(typing.cast(Type[Any], hint), value, path, errors)
    if origin is list:
        if not isinstance(value, (list, tuple)):
            errors.append("%s: expected a list, found %s." % (path, _show(value)))
            return []
        return [_value(arguments[0], item, {}, "%s[%d]" % (path, i), errors) for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping):
            errors.append("%s: expected keys and values, found %s." % (path, _show(value)))
            return {}
        return {str(k): _value(str, v, {}, _join(path, str(k)), errors) for k, v in value.items()}
    return _scalar(hint, value, metadata, path, errors)


def _scalar(hint: Any, value: Any, metadata: Mapping[str, Any], path: str, errors: List[str]) -> Any:
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


def _check_form(form: str, text: str, path: str, errors: List[str]) -> None:
    if not text:
        return
    if form == "path" and not text.startswith("/"):
        errors.append("%s: expected a path from the root (/…), found %r." % (path, text))
        return
    check = {"size": parse_size, "span": parse_span, "instance": check_instance}.get(form)
    if check:
        try:
            check(text)
        except UsageError as error:
            errors.append("%s: %s" % (path, error))


def _complete(config: Config, environ: Mapping[str, str], host: str, errors: List[str]) -> Config:
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
    backup = config.backup
    if backup.encryption == "age" and not backup.recipients:
        errors.append("backup.recipients: encryption age needs at least one public key.")
    if backup.encryption == "none" and backup.recipients:
        errors.append("backup.recipients: there are recipients, but backup.encryption is none; say encryption: age.")
    if backup.encryption == "age" and backup.format == "directory":
        errors.append("backup.format: directory cannot be encrypted without plaintext on disk; use auto, custom or plain.")
    for key in ("tables", "exclude_tables", "exclude_table_data"):
        for name in getattr(backup, key):
            try:
                split_qualified(name)
            except UsageError as error:
                errors.append("backup.%s: %s" % (key, error))
    if config.s3 is not None:
        if not config.s3.bucket:
            errors.append("s3.bucket: missing. Leave the whole section s3 out when there is no bucket.")
        if bool(config.s3.access_key) != bool(config.s3.secret_key):
            errors.append("s3: access_key and secret_key go together.")
        if parse_size(config.s3.part_size) < 5 * 1024 * 1024:
            errors.append("s3.part_size: S3 takes no parts below 5MiB.")
    instance = config.instance or "%s-%s" % (host.split(".")[0], postgres.login_port or 5432)
    if not config.instance:
        _check_form("instance", instance, "instance", errors)
    return dataclasses.replace(config, postgres=postgres, instance=instance)


def _from_url(url: str, config: Config, errors: List[str]) -> Dict[str, Any]:
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
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
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
    values: Dict[str, Any] = {
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


def read_secret(path: Path, where: str, errors: List[str]) -> str:
    """Return the first line of the secret file `path`; add to `errors` what is wrong with it."""
    try:
        _check_private(path, "it holds a secret")
        return path.read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except UsageError as error:
        errors.append("%s: %s" % (where, error))
    except (OSError, UnicodeDecodeError) as error:
        errors.append("%s: %s cannot be read: %s." % (where, path, getattr(error, "strerror", None) or "not a text"))
    return ""


def _check_private(path: Path, why: str) -> None:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        raise UsageError("%s is open to others (mode %04o) although %s." % (path, mode, why), hint="chmod 600 %s" % path)


def _holds_secret(cls: Type[Any], data: Mapping[str, Any]) -> bool:
    return any(True for _ in _secrets(cls, data))


def _secrets(cls: Type[Any], data: Any) -> Iterator[str]:
    if not isinstance(data, Mapping):
        return
    hints = typing.get_type_hints(cls)
    for spec in dataclasses.fields(cls):
        value = data.get(spec.name)
        if spec.metadata.get("secret") and isinstance(value, str) and value:
            if spec.name != "database_url" or urlsplit(value).password:
                yield value
        section = _section_of(hints[spec.name])
        if section is not None and not isinstance(value, list):
            yield from _secrets(section, value)


def secrets_of(config: Config) -> List[str]:
    """Return every secret that `config` holds, for the redactor."""
    found = list(_secrets(Config, dataclasses.asdict(config)))
    password = urlsplit(config.postgres.database_url).password
    return found + ([password, unquote(password)] if password else [])


def _section_of(hint: Any) -> Optional[Type[Any]]:
    for candidate in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(candidate):
            return typing.cast(Type[Any], candidate)
    return None


def _join(path: str, key: str) -> str:
    return "%s.%s" % (path, key) if path else key


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _did_you_mean(key: str, known: Mapping[str, Any]) -> str:
    import difflib

    close = difflib.get_close_matches(key, list(known), n=1)
    return " Did you mean %s?" % close[0] if close else ""


# --- documentation ----------------------------------------------------------------------------------------------------


def describe(cls: Type[Any] = Config, path: str = "") -> Iterator[Tuple[str, Dict[str, Any]]]:
    """Yield (`path.of.key`, facts) for each key below `cls`, in the order of the file.

    Facts: `text`, `default`, `example`, `choices`, `secret`, `type`, and `section` (true for a heading).
    """
    hints = typing.get_type_hints(cls)
    for spec in dataclasses.fields(cls):
        where = _join(path, spec.name)
        section = _section_of(hints[spec.name])
        many = typing.get_origin(hints[spec.name]) is list
        default = spec.default if spec.default is not dataclasses.MISSING else None
        if spec.default_factory is not dataclasses.MISSING:
            default = spec.default_factory()
        if section is not None:
            text = spec.metadata.get("text") or (section.__doc__ or "").strip()
            yield where, {"section": True, "many": many, "text": text, "default": default}
            yield from describe(section, where + ("[]" if many else ""))
            continue
        yield where, {
            "section": False,
            "text": spec.metadata["text"],
            "default": default,
            "example": spec.metadata["example"],
            "choices": [c for c in spec.metadata["choices"] if c],
            "secret": spec.metadata["secret"],
            "form": spec.metadata["form"],
            "type": _type_name(hints[spec.name]),
        }


def _type_name(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union:
        return _type_name(next(a for a in arguments if a is not type(None)))
    if origin is list:
        return "list of %s" % _type_name(arguments[0])
    if origin is dict:
        return "mapping"
    return {str: "text", int: "number", bool: "true or false"}[hint]


def example() -> str:
    """Return a commented configuration that lists each key with its meaning, and that load() accepts as it stands."""
    lines = ["# Configuration of pgops. Keys that are commented out show an example; the others show their default."]
    for path, facts in describe():
        depth = path.count(".")
        pad = "  " * depth
        key = path.rsplit(".", 1)[-1]
        if "[]" in path:
            continue
        if facts["section"] and facts["many"]:
            lines += ["", "%s# %s" % (pad, facts["text"]), "%s%s: []" % (pad, key)]
            first, rest = True, [(p, f) for p, f in describe() if p.startswith(path + "[].")]
            for sub, sub_facts in rest:
                lines.append("%s# %s %s: %s" % (pad, "-" if first else " ", sub.rsplit(".", 1)[-1], json.dumps(sub_facts["example"] or sub_facts["default"])))
                first = False
            continue
        if facts["section"]:
            optional = facts["default"] is None
            lines += ["", "%s# %s" % (pad, facts["text"])]
            lines.append("%s%s:%s" % (pad, key, "" if not optional else ""))
            continue
        comment = facts["text"] + (" One of %s." % ", ".join(facts["choices"]) if facts["choices"] else "")
        lines.append("%s# %s" % (pad, comment))
        default = _nested_default(path, facts["default"])
        if default in (None, "", [], {}):
            shown = facts["example"] if facts["example"] is not None else ""
            lines.append("%s# %s: %s" % (pad, key, json.dumps(shown)))
        else:
            lines.append("%s%s: %s" % (pad, key, json.dumps(default)))
    text = "\n".join(lines) + "\n"
    # The one key without which the section s3 would be wrong stands as an example value.
    return text.replace('# bucket: "example-backups"', 'bucket: "example-backups"')


def _nested_default(path: str, default: Any) -> Any:
    return {"local.retention.keep_within": "7d", "s3.retention.keep_within": "30d"}.get(path, default)


__all__ = ("DEFAULT_PATH", "build", "describe", "example", "load", "merge", "read", "read_secret", "secrets_of")
