"""Span corruption is T5's: its published example, its counts, its partitions."""

import numpy as np
import pytest

from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.data.span_corruption import (
    corrupt,
    corrupted_lengths,
    n_noise,
    noise_mask,
    sentinel_ids,
    text_length,
    with_sentinels,
)
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import train_tokenizer


def test_the_example_of_the_paper():
    """Figure 2 of Raffel et al. 2020: "for inviting" and "last" are hidden."""
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week", "."]
    hidden = np.array([word in ("for", "inviting", "last") for word in words])
    ids = np.arange(len(words))
    source, target = corrupt(ids, hidden, sentinels=[100, 99, 98])
    names = dict(enumerate(words)) | {100: "<X>", 99: "<Y>", 98: "<Z>"}
    assert " ".join(names[i] for i in source) == "Thank you <X> me to your party <Y> week ."
    assert " ".join(names[i] for i in target) == "<X> for inviting <Y> last <Z>"


def test_a_text_that_ends_with_a_hidden_span_has_no_sentinel_behind_it():
    source, target = corrupt(np.arange(5), np.array([False, True, False, True, True]), [9, 8, 7])
    assert (source.tolist(), target.tolist()) == ([0, 9, 2, 8], [9, 1, 8, 3, 4])


@pytest.mark.parametrize(("length", "density", "mean_span"), [(568, 0.15, 3.0), (20, 0.15, 3.0), (2, 0.15, 3.0),
                                                              (50, 0.5, 1.0), (10, 0.9, 1.0)])
def test_masks_have_the_counts_and_begin_with_what_stays(length, density, mean_span):
    draws = np.random.default_rng(0)
    tokens, spans = n_noise(length, density, mean_span)
    for _ in range(50):
        mask = noise_mask(length, density, mean_span, draws)
        assert len(mask) == length
        assert mask.sum() == tokens
        assert (np.diff(mask.astype(int)) == 1).sum() == spans
        assert not mask[0]
        assert mask[-1]


def test_every_partition_is_as_likely():
    """Of 6 tokens 3 are hidden in 2 spans: (1, 2) or (2, 1) of each kind, so 4 masks."""
    draws = np.random.default_rng(1)
    found = [tuple(noise_mask(6, 0.5, 1.5, draws)) for _ in range(2000)]
    counts = [found.count(mask) for mask in sorted(set(found))]
    assert len(counts) == 4
    assert all(abs(count - 500) < 100 for count in counts)


def test_lengths_are_those_of_the_published_settings():
    """The T5 code's ``random_spans_helper`` gives 568 and 114 for sources of 512 tokens."""
    assert text_length(512, 0.15, 3.0) == 568
    assert corrupted_lengths(568, 0.15, 3.0) == (512, 114)
    source, target = corrupt(np.arange(568), noise_mask(568, 0.15, 3.0, np.random.default_rng(3)), range(1000, 1100))
    assert (len(source) + 1, len(target) + 1) == (512, 114)


def test_sentinels_join_a_tokenizer_once_and_are_kept(tmp_path):
    plain = train_tokenizer("bpe", iter(["some text to learn from, some text"]), vocab_size=270)
    with pytest.raises(CheckpointError, match="extra_id_0"):
        sentinel_ids(plain)
    tokenizer = with_sentinels(plain, 5)
    assert sentinel_ids(tokenizer) == list(range(plain.vocab_size + 4, plain.vocab_size - 1, -1))
    assert with_sentinels(tokenizer) is tokenizer
    assert tokenizer.encode("some text") == plain.encode("some text")
    tokenizer.save(tmp_path)
    assert sentinel_ids(Tokenizer.load(tmp_path)) == sentinel_ids(tokenizer)


def test_too_few_sentinels_and_too_short_texts_are_refused():
    with pytest.raises(ConfigError, match="2 spans, and the tokenizer 1 sentinels"):
        corrupt(np.arange(4), np.array([False, True, False, True]), [9])
    with pytest.raises(ConfigError, match="at least 2 tokens"):
        noise_mask(1, 0.15, 3.0, np.random.default_rng(0))
