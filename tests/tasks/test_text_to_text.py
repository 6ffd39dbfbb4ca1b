"""Text to text: parts, training that resumes bit for bit, translations of one and of many."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tickwise.core.errors import CheckpointError, DataError
from tickwise.data.pairs import Pairs, ReadPairs, read_pairs
from tickwise.engine.batch_beam import BeamOptions
from tickwise.interop.directory import read_tensors
from tickwise.tasks.text_to_text import TextToText, read_parts, train_text_to_text
from tickwise.tasks.text_to_text_options import TextToTextOptions

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "dog": "Hund", "cat": "Katze"}
OPTIONS = TextToTextOptions(vocab_size=400, width=64, encoder_layers=1, decoder_layers=1, n_heads=2, longest=40,
                            dropout=0.1, batch_tokens=500, epochs=20, lr=0.03)


def corpus(n=1000, seed=0):
    chooser = np.random.default_rng(seed)
    sources = [" ".join(chooser.choice(list(WORDS), chooser.integers(1, 5)).tolist()) for _ in range(n)]
    return Pairs(sources, [" ".join(WORDS[word] for word in text.split()) for text in sources], "numbers")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    pairs = corpus()
    path = tmp_path_factory.mktemp("pairs") / "numbers.tsv"
    path.write_text("".join(f"{s}\t{t}\n" for s, t in zip(pairs.sources, pairs.targets, strict=True)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "numbers"
    parts = read_parts([table], [], ReadPairs(), 20)
    return parts, train_text_to_text(parts, out=out, options=OPTIONS, device="cpu")


def test_parts_share_no_side(table):
    parts = read_parts([table], [], ReadPairs(), 20)
    assert len(parts.held_out) == 20
    for name in ("sources", "targets"):
        sides = [set(getattr(part, name)) for part in (parts.training, parts.development, parts.held_out)]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]


def test_it_learns_to_translate_what_it_never_saw(trained):
    parts, result = trained
    model = TextToText.load(result.out, device="cpu")
    for beam in (1, 4):
        translations = model.translate(parts.held_out.sources, BeamOptions(width=beam))
        right = sum(a == b for a, b in zip(translations, parts.held_out.targets, strict=True))
        assert right >= 12
    assert model.score(translations, parts.held_out.targets).bleu.value > 60
    assert model.perplexity(parts.held_out) == pytest.approx(result.validation["perplexity"], abs=0.5)
    assert read_pairs([str(result.out / "held-out.jsonl")], ReadPairs()).targets == parts.held_out.targets


def test_texts_come_back_in_order_and_blank_ones_stay_blank(trained):
    model = TextToText.load(trained[1].model, device="cpu")
    done = []
    texts = ["two dog", "", "one", "  ", "five four three two", "one"]
    translations = model.translate(texts, advance=done.append)
    assert sum(done) == len(texts)
    assert translations[1] == translations[3] == ""
    assert translations[2] == translations[5] == model.translate(["one"])[0]
    assert model.translate([]) == []


def test_a_text_of_a_language_it_never_saw_gets_some_answer_and_one_too_long_is_named(trained):
    model = TextToText.load(trained[1].model, device="cpu")
    assert isinstance(model.translate(["狗"])[0], str)
    with pytest.raises(DataError, match=r"text 12 \('dog dog .* the model reads at most 39"):
        model.translate(["one", "dog " * 300], first_number=11)


def test_a_run_that_was_cut_off_ends_with_the_same_weights(table, tmp_path):
    parts = read_parts([table], [], ReadPairs(), 0)
    options = dataclasses.replace(OPTIONS, epochs=2, vocab_size=300)
    whole = train_text_to_text(parts, out=tmp_path / "whole", options=options, device="cpu")
    assert whole.step > 8
    cut = tmp_path / "cut"
    interrupt_after(7, parts, cut, options)
    assert json.loads((cut / "run.json").read_text())["result"]["step"] == 7
    resumed = train_text_to_text(parts, out=cut, options=options, device="cpu", resume=True)
    first, second = (read_tensors(r.out / "checkpoints" / f"step-{whole.step}" / "model.safetensors")
                     for r in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def interrupt_after(steps, parts, out, options):
    """A run that Ctrl-C ends after so many steps."""
    import os
    import signal

    from tickwise.training import text_to_text

    class Counted(text_to_text.TextToTextObjective):
        def next_batch(self):
            if self.batches.position == steps - 1 and self.batches.epoch == 0:
                os.kill(os.getpid(), signal.SIGINT)
            return super().next_batch()

    from tickwise.tasks import pair_training as task

    original = task.TextToTextObjective
    task.TextToTextObjective = Counted
    try:
        assert train_text_to_text(parts, out=out, options=options, device="cpu").interrupted
    finally:
        task.TextToTextObjective = original


def test_a_lower_case_model_stays_one(table, tmp_path):
    parts = read_parts([table], [], ReadPairs(), 0)
    options = dataclasses.replace(OPTIONS, epochs=0.3, vocab_size=300)
    result = train_text_to_text(parts, out=tmp_path / "run", options=options, lowercase=True, device="cpu")
    model = TextToText.load(result.out, device="cpu")
    assert model.lowercase
    assert model.encode(["ONE Dog"]) == model.encode(["one dog"])
    scores = model.score(["hund"], ["Hund"])
    assert "case:lc" in scores.signatures["bleu"]


def test_other_models_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such model directory"):
        TextToText.load(tmp_path / "nowhere")
