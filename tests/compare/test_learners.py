"""Models learn from the training texts, and a change goes on from what they have learnt."""

import itertools

import pytest
import torch

from tickwise.compare.cases import NEW, NOISY, SEEN, Case, Material
from tickwise.compare.learners import Budget, Translators, WordClassifiers, line_writer, mixed
from tickwise.interop.directory import load_module

ANIMALS = ("cat", "dog", "horse", "bird", "cow")
COLOURS = {"red": "rot", "green": "grün", "blue": "blau"}
PAIRS = tuple(Case(f"the {colour} {animal}", COLOURS[colour]) for animal in ANIMALS for colour in COLOURS)
OTHER = tuple(Case(case.text.upper(), case.answer) for case in PAIRS)
MATERIAL = Material(PAIRS * 4, PAIRS[:6], {SEEN: PAIRS, NEW: PAIRS, NOISY: OTHER}, OTHER, OTHER[:6], "")
LEARNERS = {"lines": line_writer(MATERIAL, context=32, seed=1), "labels": WordClassifiers(MATERIAL),
            "translations": Translators(MATERIAL, 20)}


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_a_change_starts_from_the_trained_model(name, tmp_path):
    learner = LEARNERS[name]
    learner.train(tmp_path / "model", Budget(seconds=0.5, seed=1))
    tuned = learner.tune(tmp_path / "model" / "run", tmp_path / "change", Budget(seconds=0.01, seed=2))
    assert len(tuned.answers(["the red cat", "THE RED CAT"])) == 2
    before, after = (dict(load_module(tmp_path / folder / "run", device="cpu").named_parameters())
                     for folder in ("model", "change"))
    assert before.keys() == after.keys()
    moved = sum(float((before[key] - after[key]).norm() ** 2) for key in before) ** 0.5
    size = sum(float(value.norm() ** 2) for value in before.values()) ** 0.5
    assert 0 < moved < 0.3 * size, "a step or two away; another start would be as far away as the model is large"
    assert all(torch.isfinite(value).all() for value in after.values())


def test_a_change_is_trained_on_both_forms_alike():
    found = mixed(MATERIAL, 1)
    assert sum(case in OTHER for case in found) == sum(case in PAIRS for case in found) == len(OTHER)
    assert found[: len(OTHER)] != list(OTHER), "shuffled"


def test_only_the_plain_form_is_in_what_a_decoder_trains_on():
    texts = LEARNERS["lines"].plain
    assert "the red cat=rot\n" in texts.training
    assert not any(case.text in text for case, text in itertools.product(OTHER, (texts.training, texts.development)))
    backwards = line_writer(MATERIAL, context=32, seed=1, backwards=True)
    assert "the red cat=tor\n" in backwards.plain.training
    assert "THE RED CAT=tor\n" in backwards.change.training
