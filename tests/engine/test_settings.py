import copy
import math
import pickle
from pathlib import Path

import pytest

from tickwise.core.errors import ConfigError
from tickwise.engine.options import EngineOptions
from tickwise.engine.requests import Request
from tickwise.engine.settings import GenerationSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", math.nan), ("temperature", -0.1), ("temperature", math.inf), ("temperature", "0.7"),
        ("temperature", 10**400), ("top_p", 0.0), ("top_p", 1.1), ("top_p", math.nan), ("top_k", -1), ("top_k", 2.5),
        ("min_p", -0.1), ("min_p", 1.5), ("typical_p", 0.0), ("typical_p", 1.5), ("typical_p", math.nan),
        ("repetition_penalty", 0.0), ("repetition_penalty", math.nan), ("presence_penalty", 2.1),
        ("presence_penalty", math.nan), ("frequency_penalty", -2.1), ("max_tokens", 0), ("max_tokens", -5),
        ("max_tokens", True), ("max_tokens", 1.0), ("min_tokens", -1), ("n", 0), ("seed", -1), ("stop", ("",)),
        ("stop", 3), ("stop_token_ids", [-1]), ("stop_token_ids", ["a"]), ("logprobs", -1), ("logprobs", True),
        ("logit_bias", {"a": math.nan}), ("logit_bias", {"a": -101}), ("logit_bias", {1.5: 1}), ("logit_bias", {"": 1}),
        ("logit_bias", [1, 2]), ("logit_bias", "a"), ("json_schema", "{"), ("json_schema", "[]"), ("json_schema", 3),
        ("json_schema", {"const": {1, 2}}), ("json_schema", {"const": math.nan}), ("json_schema", '{"a":' * 60_000),
        ("beam_width", 0), ("length_penalty", math.inf), ("length_penalty", 1000), ("speculate", "always"),
        ("n", 10**9), ("beam_width", 10**9), ("repetition_penalty", 1e300), ("repetition_penalty", 1e-300),
        ("regex", ""), ("regex", 3), ("choice", ("a", "")), ("grammar", " "), ("grammar", 3),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_line_that_names_it(name, value):
    with pytest.raises(ConfigError, match=name) as caught:
        GenerationSettings(**{name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"regex": "a", "json_schema": {}}, {"choice": ["a"], "grammar": "start: /a/"},
        {"regex": "a", "ignore_eos": True}, {"json_schema": {}, "min_tokens": 3}, {"min_tokens": 11, "max_tokens": 10},
        {"regex": "a", "beam_width": 2}, {"n": 3, "beam_width": 2}, {"beam_width": 2, "speculate": "lookup"},
        {"beam_width": 2, "logit_bias": {1: 5}}, {"beam_width": 2, "stop_token_ids": [1]},
        {"beam_width": 2, "min_tokens": 1},
        {"beam_width": 2, "logprobs": 1}, {"beam_width": 2, "repetition_penalty": 1.1},
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(settings):
    with pytest.raises(ConfigError) as caught:
        GenerationSettings(**settings)
    assert all(name in str(caught.value) for name in settings)


@pytest.mark.parametrize(
    "settings", [{"regex": "("}, {"json_schema": {"type": "strnig"}}, {"grammar": "start: ("}])
def test_a_structure_that_cannot_be_is_refused_where_it_is_asked_for(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))) as caught:
        GenerationSettings(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "near"), [(GenerationSettings, "seed"), (Request, "tenant"), (EngineOptions, "max_rows")])
def test_a_field_that_does_not_exist_is_a_users_mistake(kind, near):
    with pytest.raises(ConfigError, match=f"no setting '{near}x'; did you mean '{near}'"):
        kind(**{f"{near}x": 1})
    with pytest.raises(ConfigError, match="by its name"):
        kind("abc")


def test_a_request_needs_a_prompt():
    for fields in ({}, {"prompt": None}):
        with pytest.raises(ConfigError, match="prompt: give text"):
            Request(**fields)
    request = Request(prompt="a", tenant="b")
    assert copy.deepcopy(request) == pickle.loads(pickle.dumps(request)) == request


def test_a_grammar_in_another_notation_is_told_which_one_is_read():
    with pytest.raises(ConfigError, match="looks like GBNF: write it in Lark's notation"):
        GenerationSettings(grammar='root ::= "yes" | "no"')


def test_a_max_tokens_that_nobody_means_is_refused():
    assert GenerationSettings(max_tokens=10**9).max_tokens == 10**9
    for huge in (10**9 + 1, 10**30, 10**5000):
        with pytest.raises(ConfigError, match=r"^max_tokens: at most 1,000,000,000; .*end mark"):
            GenerationSettings(max_tokens=huge)


def test_a_single_string_is_not_taken_as_its_letters():
    assert GenerationSettings(stop="END").stop == ("END",)
    assert GenerationSettings(stop=["a", "b"]).stop == ("a", "b")
    assert GenerationSettings(choice="yes").choice == ("yes",)
    assert GenerationSettings(stop_token_ids=5).stop_token_ids == (5,)


def test_settings_are_values_that_can_be_compared_hashed_and_given_again():
    settings = GenerationSettings(logit_bias={5: -100, "a": 1}, json_schema={"b": 1, "a": [2]}, stop=["x"])
    again = GenerationSettings(logit_bias=settings.logit_bias, json_schema=settings.json_schema, stop=settings.stop)
    assert again == settings
    assert hash(again) == hash(settings)
    assert settings.logit_bias == ((5, -100.0), ("a", 1.0))


def test_a_schema_keeps_the_order_of_its_keys():
    assert GenerationSettings(json_schema='{"b": 1, "a": 2}').structure == ("json_schema", '{"b": 1, "a": 2}')


def test_only_a_path_reads_a_file(tmp_path):
    file = tmp_path / "schema.json"
    file.write_text('{"type": "null"}', encoding="utf-8")
    assert GenerationSettings(json_schema=file).structure == ("json_schema", '{"type": "null"}')
    with pytest.raises(ConfigError, match="not JSON"):
        GenerationSettings(json_schema=str(file))


@pytest.mark.parametrize("name", ["json_schema", "grammar"])
def test_a_file_that_cannot_be_read_is_named(name, tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.txt: cannot read"):
        GenerationSettings(**{name: tmp_path / "missing.txt"})
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        GenerationSettings(**{name: Path(binary)})


@pytest.mark.parametrize(
    ("settings", "structure"),
    [
        ({}, None), ({"regex": "a+"}, ("regex", "a+")), ({"choice": ["a", "é"]}, ("choice", '["a", "é"]')),
        ({"grammar": "start: /a/"}, ("grammar", "start: /a/")), ({"json_schema": True}, ("json_schema", "true")),
        ({"json_schema": {}}, ("json_schema", "{}")),
    ],
)
def test_structure_says_what_the_text_must_look_like(settings, structure):
    assert GenerationSettings(**settings).structure == structure
