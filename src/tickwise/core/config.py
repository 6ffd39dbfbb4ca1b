"""Frozen dataclasses from and to plain dictionaries, JSON and YAML; unknown keys are errors."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from tickwise.core.errors import ConfigError

T = TypeVar("T")


def closest(word: str, options: typing.Iterable[str]) -> str:
    """A ``; did you mean 'x'?`` suffix, or nothing when no option is near."""
    near = difflib.get_close_matches(word, list(options), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _coerce(value: Any, annotation: Any, where: str) -> Any:
    origin = get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        options = get_args(annotation)
        if value is None and type(None) in options:
            return None
        for option in options:
            if option is type(None):
                continue
            try:
                return _coerce(value, option, where)
            except ConfigError:
                if option is options[-1] or (options[-1] is type(None) and option is options[-2]):
                    raise
        raise ConfigError(f"{where}: null is not allowed; give a value")
    if origin is typing.Literal:
        if value not in get_args(annotation):
            raise ConfigError(f"{where}: {value!r} is not one of {', '.join(map(str, get_args(annotation)))}")
        return value
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        item = get_args(annotation)[0] if get_args(annotation) else Any
        return (tuple if origin is tuple else list)(_coerce(v, item, where) for v in value)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping, got {value!r}")
        return from_dict(annotation, value, where=where)
    if annotation is Path:
        return Path(str(value))
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if annotation is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        try:
            return float(value)
        except ValueError:
            raise ConfigError(f"{where}: expected a number, got {value!r}") from None
    if annotation in (int, float, str, bool) and (
        not isinstance(value, annotation) or (annotation is int and isinstance(value, bool))
    ):
        raise ConfigError(f"{where}: expected {annotation.__name__}, got {value!r}")
    return value


def from_dict(cls: type[T], values: Mapping[str, Any], *, where: str = "config", default: T | None = None) -> T:
    """Build the frozen dataclass ``cls`` from ``values``; keys that are left out come from ``default``
    or from the field's own default.

    Raises ``ConfigError`` naming the key for an unknown key, a wrong type or a missing required key.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    given: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in fields:
            raise ConfigError(f"{where}: unknown key '{key}'{closest(name, fields)}")
        current = getattr(default, name, None) if default is not None else None
        if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
            given[name] = from_dict(type(current), value, where=f"{where}.{key}", default=current)
        else:
            given[name] = _coerce(value, hints[name], f"{where}.{key}")
    if default is not None:
        return dataclasses.replace(default, **given)  # type: ignore[type-var]
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in given:
            raise ConfigError(f"{where}: key '{name}' is missing")
    return cls(**given)


def refuse_unused(config: Any, names: typing.Iterable[str], why: str) -> None:
    """``ConfigError`` for the first setting among ``names`` (``name``, or ``part.name``) that differs from what its
    class says by itself: it was given, and would change nothing. ``why`` ends the sentence "has no effect …"."""
    fields = {field.name: field for field in dataclasses.fields(config)}
    for name in names:
        first, *rest = name.split(".")
        factory = fields[first].default_factory
        given, usual = getattr(config, first), fields[first].default if factory is dataclasses.MISSING else factory()
        for part in rest:
            given, usual = getattr(given, part), getattr(usual, part)
        if given != usual:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag}: has no effect {why}; leave it out")


def to_dict(config: Any) -> dict[str, Any]:
    """The dataclass as JSON-ready values (paths as strings, tuples as lists)."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if isinstance(value, Mapping):
            return {str(k): plain(v) for k, v in value.items()}
        return value

    result = plain(config)
    assert isinstance(result, dict)
    return result


def read_json(path: Path, what: str, error: type[ValueError] = ConfigError) -> dict[str, Any]:
    """The JSON object in ``path``; ``error`` in one line when it is missing, cut off or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: {what} is missing") from None
    except OSError as problem:
        raise error(f"{path}: cannot read {what}: {problem.strerror}") from None
    except ValueError as problem:
        raise error(f"{path}: {what} is not valid JSON ({problem})") from None
    if not isinstance(value, dict):
        raise error(f"{path}: {what} must be a JSON object")
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """The YAML mapping in ``path``."""
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: config file not found") from None
    except OSError as problem:
        raise ConfigError(f"{path}: cannot read the config file: {problem.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}: not valid YAML{line}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines at the top level")
    return value


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of what differs between two nested mappings, sorted at each level."""
    found = []
    for key in sorted({*one, *other}):
        first, second = one.get(key), other.get(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            found += differing_keys(first, second, f"{prefix}{key}.")
        elif first != second:
            found.append(prefix + key)
    return found
