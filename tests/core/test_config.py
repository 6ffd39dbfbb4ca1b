"""Configs from dictionaries and YAML: unknown keys, wrong types, defaults."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tickwise.core.config import from_dict, read_json, read_yaml, to_dict
from tickwise.core.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    size: int
    name: str = "x"
    path: Path | None = None
    inner: Inner = field(default_factory=Inner)
    widths: tuple[int, ...] = ()


def test_round_trip():
    value = Outer(size=3, path=Path("a/b"), inner=Inner(0.5, "b"), widths=(1, 2))
    assert from_dict(Outer, to_dict(value)) == value


@pytest.mark.parametrize(("values", "said"), [
    ({"size": 1, "nmae": "y"}, "unknown key 'nmae'; did you mean 'name'"),
    ({"size": 1, "inner": {"rat": 1}}, "config.inner: unknown key 'rat'"),
    ({}, "'size' is missing"),
    ({"size": "3"}, "config.size: expected int"),
    ({"size": True}, "config.size: expected int"),
    ({"size": 1.5}, "config.size: expected int"),
    ({"size": 1, "inner": {"kind": "c"}}, "'c' is not one of a, b"),
    ({"size": 1, "inner": 4}, "config.inner: expected a mapping"),
    ({"size": 1, "widths": 4}, "config.widths: expected a list"),
    ({"size": 1, "widths": ["x"]}, "config.widths: expected int"),
    ({"size": None}, "config.size: expected int"),
])
def test_mistakes_name_the_key(values, said):
    with pytest.raises(ConfigError) as caught:
        from_dict(Outer, values)
    assert said in str(caught.value)


def test_defaults_keep_what_is_not_given():
    start = Outer(size=9, inner=Inner(rate=0.7))
    changed = from_dict(Outer, {"inner": {"kind": "b"}}, default=start)
    assert changed == Outer(size=9, inner=Inner(rate=0.7, kind="b"))


def test_yaml_numbers_dashes_and_nothing(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("size: 2\ninner:\n  rate: 1e-3\n")
    assert from_dict(Outer, read_yaml(file)).inner.rate == 1e-3
    file.write_text("# only a comment\n")
    assert read_yaml(file) == {}


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "\ttab: 1"])
def test_broken_yaml_is_one_line(tmp_path, text):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        read_yaml(file)
    with pytest.raises(ConfigError, match="not found"):
        read_yaml(tmp_path / "no.yaml")


def test_broken_json_is_named(tmp_path):
    file = tmp_path / "a.json"
    for text in ("{", "[1]", ""):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"a\.json"):
            read_json(file, "the file")
