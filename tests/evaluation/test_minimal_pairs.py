"""Minimal pairs: scores of texts in batches, and the mean of sets."""

import json
from collections import Counter

import numpy
import pytest
import torch

from tickwise.core.errors import DataError
from tickwise.engine.language_model import LanguageModel
from tickwise.evaluation.likelihood import TokenRow, score_rows, text_row
from tickwise.evaluation.minimal_pairs import PairSet, evaluate_pairs, read_pair_sets
from tickwise.tokenizers.train import char_tokenizer
from tickwise.training.ngram import count_ngrams

TEXTS = ["a cat", "the dog sat down", "x", "no, no, no.", "0123456789"]


def test_scores_of_a_batch_are_those_of_single_texts(model):
    rows = [text_row(model, text) for text in TEXTS]
    together = [score.log_probability for score in score_rows(model, rows)]
    alone = [-model.score(text).nats for text in TEXTS]
    assert together == pytest.approx(alone, abs=1e-4)


def test_a_text_without_a_token_for_its_beginning_follows_a_line_end(tiny_model):
    model = tiny_model(end_of_text=False)
    row = text_row(model, "cat")
    assert model.tokenizer.decode(row.ids) == "\ncat"
    assert score_rows(model, [row])[0].log_probability == pytest.approx(-model.score("\ncat").nats, abs=1e-4)


def test_greedy_tells_whether_the_model_would_write_it(model):
    written = model.generate("the ", max_tokens=4, temperature=0, ignore_eos=True)
    start = model.tokenizer.encode("the ")
    score, other = score_rows(model, [TokenRow([*start, *written.token_ids], len(start)),
                                      TokenRow([*start, *reversed(written.token_ids), 5], len(start))], greedy=True)
    assert score.greedy
    assert not other.greedy


def test_long_rows_lose_their_beginning(model):
    ids = text_row(model, "abcdefghijklmnopqrstuvwxyz").ids
    whole, end = score_rows(model, [TokenRow(ids, len(ids) - 2), TokenRow(ids[-17:], 15)])
    assert whole.log_probability == pytest.approx(end.log_probability, abs=1e-5)


def test_the_mean_weighs_sets_alike(model):
    likely, unlikely = "the the", "q@>=<5Zx"
    a, b = (model.score(text).nats for text in (likely, unlikely))
    good, bad = (likely, unlikely) if a < b else (unlikely, likely)
    scores = evaluate_pairs(model, [PairSet("right", ((good, bad),) * 10), PairSet("wrong", ((bad, good),) * 2),
                                    PairSet("tie", ((good, good),) * 3)])
    assert [score.value for score in scores.sets.values()] == [1, 0, 0]
    assert scores.mean.value == pytest.approx(1 / 3)
    assert scores.ties == 3
    results = scores.to_json()["results"]
    assert results["blimp"]["acc,none"] == pytest.approx(1 / 3)
    assert results["blimp_right"]["acc,none"] == 1


def test_the_interval_is_over_pairs_within_sets(model):
    mixed = [("the cat", "zq@ 9"), ("zq@ 9", "the cat")] * 50
    mean = evaluate_pairs(model, [PairSet("a", tuple(mixed)), PairSet("b", tuple(mixed))]).mean
    assert mean.value == pytest.approx(0.5)
    # Two sets of 100 fair coins: a standard error of sqrt(1/4 / 200).
    assert mean.interval.stderr == pytest.approx(0.0354, rel=0.15)


def test_reading(shared_data, tmp_path):
    sets = read_pair_sets(shared_data / "blimp_12")
    assert len(sets) == 12
    assert {len(one.pairs) for one in sets} == {1000}
    good, bad = sets[0].pairs[0]
    assert (good, bad) == ("Who should Derek hug after shocking Richard?",
                           "Who should Derek hug Richard after shocking?")
    (tmp_path / "x.jsonl").write_text(json.dumps({"sentence_good": "a"}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 1: needs the texts"):
        read_pair_sets(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.jsonl"):
        read_pair_sets(tmp_path / "empty")


def test_models_that_look_up_their_targets():
    tokenizer = char_tokenizer(Counter("abc "), vocab_size=None, end_of_text=True, unknown=False)
    ids = numpy.array([*tokenizer.encode("abc abc abb cab"), tokenizer.eos_id])
    model = LanguageModel(count_ngrams(ids, tokenizer.vocab_size, order=3), tokenizer)
    rows = [text_row(model, text) for text in ("abc", "cb a", "b")]
    fast, slow = score_rows(model, rows), score_rows(model, rows, greedy=True)
    assert [s.log_probability for s in fast] == pytest.approx([s.log_probability for s in slow], abs=1e-5)


def test_torch_is_left_without_gradients(model):
    score_rows(model, [text_row(model, "a cat")])
    assert all(not p.requires_grad for p in model.module.parameters())
    assert torch.is_grad_enabled()
