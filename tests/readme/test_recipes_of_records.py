"""Recipes of recorded results have the settings of the commands that stand in the records."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest

from tickwise.cli.dispatch import find_verb, parse

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {
    "ag_news": "families.1", "sst2": "families.2", "hotel_reviews": "families.3", "online_shopping": "families.3",
    "thucnews": "families.4", "trec": "families.5", "conll2003": "families.7.conll2003",
    "resume_ner": "families.7.resume", "wnut17": "families.7.wnut17",
}
PLACES = ("config", "out", "train", "dev", "test")
"""What says where data lies and where a model goes; and by which recipe."""


def recorded(row_id):
    """The commands of a record; of several under one name the last."""
    rows = [json.loads(line) for line in (ROOT / "records" / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    command = [row["command"] for row in rows if row["id"] == row_id][-1]
    return [part.strip() for part in re.sub(r" \(2, 3\)", "", command).split(";")]


def commands_in(recipe):
    lines = [line.removeprefix("#").strip() for line in recipe.read_text(encoding="utf-8").splitlines()
             if line.startswith("#")]
    return [line for line in "\n".join(lines).replace("\\\n", " ").splitlines()
            if f"--config recipes/{recipe.name}" in line]


def settings(command):
    """Verb and settings of a command line, but for the places; the seed is 1 where it is left out."""
    verb, words = find_verb(shlex.split(command.replace("recipes/", f"{ROOT}/recipes/"))[1:])
    arguments = parse(verb, words)
    return verb, {f.name: getattr(arguments, f.name) for f in dataclasses.fields(arguments) if f.name not in PLACES}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_settings_of_its_record(name):
    (command,) = commands_in(ROOT / "recipes" / f"{name}.yaml")
    verb, own = settings(command)
    found = [settings(line) for line in recorded(RECIPES[name]) if line.startswith("tickwise run ")]
    assert (verb, own) in found


def test_the_spam_recipe_is_the_verbs_default():
    (command,) = commands_in(ROOT / "recipes" / "sms_spam.yaml")
    assert settings(command) == settings("tickwise run spam --train x --out y --test-share 0.2 --seed 1")
