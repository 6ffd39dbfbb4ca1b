"""Modified Kneser–Ney: by hand, against a slow twin, and on Penn Treebank."""

import math
from collections import Counter

import numpy
import pytest
import torch

from tickwise.core.errors import ConfigError, DataError
from tickwise.training.ngram import FALLBACK_DISCOUNTS, count_ngrams, discounts_of


def test_bigrams_by_hand():
    a, b, c = 0, 1, 2
    model = count_ngrams(numpy.array([a, b, a, c, a, b]), 3, order=2)
    # Bigrams: ab 2, ba 1, ac 1, ca 1. Continuations: a after b and c, b after a, c after a: 2, 1, 1 of 4.
    # Too few for discounts of their own: 0.5, 1, 1.5. Unigrams: 2 - 1, 1 - 0.5, 1 - 0.5 of 4; the rest, 2/4, evenly.
    pa, pb = 1 / 4 + 0.5 / 3, 0.5 / 4 + 0.5 / 3
    given_a = model(torch.tensor([[a]]))[0, 0].exp()
    # After a: b 2 - 1, c 1 - 0.5 of 3; the rest, 1.5/3, as the unigrams.
    assert given_a.tolist() == pytest.approx([0.5 * pa, 1 / 3 + 0.5 * pb, 0.5 / 3 + 0.5 * pb])
    # After b: only a once, 1 - 0.5 of 1.
    assert model(torch.tensor([[b]]))[0, 0].exp().tolist() == pytest.approx([0.5 + 0.5 * pa, 0.5 * pb, 0.5 * pb])


def test_discounts_follow_chen_and_goodman():
    counts = numpy.repeat([1, 2, 3, 4, 9], [40, 20, 10, 5, 3])
    y = 40 / 80
    assert discounts_of(counts) == pytest.approx((1 - 2 * y * 20 / 40, 2 - 3 * y * 10 / 20, 3 - 4 * y * 5 / 10))
    assert discounts_of(numpy.array([1, 2, 2, 7])) == FALLBACK_DISCOUNTS


class SlowNgram:
    """The definitions, one n-gram at a time."""

    def __init__(self, ids, vocab_size, order, boundary):
        self.vocab_size, self.boundary = vocab_size, boundary
        ids = list(ids)
        first = 0
        if boundary is not None and ids[0] != boundary:
            ids, first = [boundary, *ids], 1
        raw = {k: Counter() for k in range(1, order + 1)}
        for k in raw:
            for end in range(first, len(ids)):
                gram = tuple(ids[max(0, end - k + 1) : end + 1])
                if len(gram) == k and boundary not in gram[1:-1]:
                    raw[k][gram] += 1
        self.counts = {order: raw[order]}
        for k in range(1, order):
            adjusted = Counter(gram[1:] for gram in raw[k + 1])
            adjusted.update({g: n - adjusted[g] for g, n in raw[k].items() if k > 1 and g[0] == boundary})
            self.counts[k] = adjusted
        self.discounts = {k: (0.0, *discounts_of(numpy.array(list(c.values())))) for k, c in self.counts.items()}

    def probability(self, history, word):
        usable = list(history)
        if self.boundary in usable:
            usable = usable[len(usable) - 1 - usable[::-1].index(self.boundary) :]
        return self._interpolated(tuple(usable), word)

    def _interpolated(self, history, word):
        k = len(history) + 1
        if k not in self.counts:
            return self._interpolated(history[1:], word)
        lower = self._interpolated(history[1:], word) if history else 1 / self.vocab_size
        after = {gram[-1]: n for gram, n in self.counts[k].items() if gram[:-1] == history}
        if not after:
            return lower
        total = sum(after.values())
        taken = {w: self.discounts[k][min(n, 3)] for w, n in after.items()}
        own = (after[word] - taken[word]) / total if word in after else 0.0
        return own + sum(taken.values()) / total * lower


@pytest.mark.parametrize("boundary", [None, 3])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_tables_equal_their_slow_twin(order, boundary):
    generator = numpy.random.default_rng(7)
    ids = generator.choice(9, size=400, p=numpy.array([9, 8, 7, 5, 4, 3, 2, 1, 1]) / 40)
    model, slow = count_ngrams(ids, 11, order=order, boundary=boundary), SlowNgram(ids, 11, order, boundary)
    text = torch.from_numpy(generator.integers(0, 11, size=30))
    text[5:12] = torch.from_numpy(ids[100:107])
    if boundary is not None:
        text[0] = boundary
    log_probabilities = model(text[None])[0]
    for position in range(len(text)):
        history = text[: position + 1].tolist()
        expected = [slow.probability(history, word) for word in range(11)]
        assert log_probabilities[position].exp().tolist() == pytest.approx(expected, rel=1e-5)


def test_distributions_sum_to_one_and_agree_with_single_look_ups():
    ids = numpy.random.default_rng(1).integers(0, 50, size=3000)
    model = count_ngrams(ids, 60, order=5, boundary=4)
    text = torch.from_numpy(numpy.concatenate([ids[:200], [59, 58, 3]]))
    log_probabilities = model(text[None, :-1])[0]
    assert log_probabilities.exp().sum(-1).tolist() == pytest.approx([1.0] * 202, abs=1e-5)
    single = model.target_log_probabilities(text)
    assert torch.allclose(log_probabilities.gather(1, text[1:, None])[:, 0], single, atol=1e-6)


def test_a_text_shorter_than_the_order_still_makes_a_model():
    model = count_ngrams(numpy.array([0, 1, 0]), 2, order=5, boundary=None)
    assert model(torch.tensor([[0, 1, 0, 1, 0, 1]])).exp().sum(-1).flatten().tolist() == pytest.approx([1.0] * 6)
    lines = count_ngrams(numpy.array([1, 0, 1, 0]), 2, order=5, boundary=0)
    assert lines(torch.tensor([[0, 1, 1, 1]])).exp().sum(-1).flatten().tolist() == pytest.approx([1.0] * 4)


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(DataError, match="too few"):
        count_ngrams(numpy.array([1]), 4)
    with pytest.raises(ConfigError, match="--order 0"):
        count_ngrams(numpy.array([1, 2, 3]), 4, order=0)


def test_penn_treebank_gives_the_published_perplexity(shared_data):
    index = {}

    def read(split):
        words = (shared_data / "ptb" / f"ptb.{split}.txt").read_text().replace("\n", " <eos> ").split()
        return numpy.array([index.setdefault(word, len(index)) for word in words])

    train, test = read("train"), read("test")
    end = index["<eos>"]
    model = count_ngrams(train, len(index), order=3, boundary=end)
    losses = -model.target_log_probabilities(torch.from_numpy(numpy.concatenate([[end], test])))
    assert len(losses) == 82_430
    # Kneser–Ney 3-gram: 148.3, 5-gram: 141.2 (Mikolov et al. 2011, table 1).
    assert math.exp(losses.double().mean()) == pytest.approx(148.3, abs=0.2)


def test_orders_without_estimated_discounts_are_named(capsys):
    count_ngrams(numpy.array([1, 2, 3, 1, 2, 4, 1, 2, 3]), 6, order=2)
    said = capsys.readouterr().err
    assert "n-grams of order 1:" in said
    assert "0.5, 1.0, 1.5" in said
    ids = numpy.random.default_rng(0).zipf(1.3, 20_000).clip(max=4999)
    count_ngrams(ids, 5000, order=2)
    assert capsys.readouterr().err == ""
