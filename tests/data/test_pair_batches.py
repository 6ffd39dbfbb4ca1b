"""Tokenized pairs: joint vocabulary, padding, batches of like lengths, resuming."""

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from tickwise.core.errors import CheckpointError, DataError
from tickwise.data.pair_batches import (
    PairBatches,
    ResegmentedPairs,
    batches_by_length,
    encode_pairs,
    pairs_from_ids,
    train_pair_tokenizer,
)
from tickwise.data.pairs import Pairs


def pairs(n=300):
    chooser = np.random.default_rng(0)
    words = ["Dog", "cat", "sees", "the", "red", "house", "Männer", "läuft", "über", "狗"]

    def text():
        return " ".join(chooser.choice(words, chooser.integers(1, 20)).tolist())

    return Pairs([text() for _ in range(n)], [text() for _ in range(n)], "made")


@pytest.fixture(scope="module")
def tokenizer():
    return train_pair_tokenizer(pairs(), vocab_size=320, lowercase=True)


def test_the_tokenizer_lowers_case_and_words_have_the_same_tokens_everywhere(tokenizer):
    first, later = tokenizer.encode_plain(["Dog", "the Dog"])
    assert later[-len(first) :] == first
    assert tokenizer.decode(first) == " dog"
    cased = train_pair_tokenizer(pairs(), vocab_size=320, lowercase=False)
    assert cased.decode(cased.encode("Dog")) == " Dog"


def test_lower_case_is_kept_with_the_saved_tokenizer(tokenizer, tmp_path):
    from tickwise.tokenizers.tokenizer import Tokenizer

    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).encode("DOG") == tokenizer.encode("dog")


def test_an_end_mark_that_is_written_in_a_text_is_text(tokenizer):
    text = "the<|endoftext|> cat"
    assert tokenizer.eos_id in tokenizer.encode(text)
    (ids,) = tokenizer.encode_plain([text])
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids).strip() == text
    encoded = encode_pairs(Pairs([text], [text], "one"), tokenizer, 50)
    assert encoded.sources.ids(0) == encoded.targets.ids(0) == ids


def test_a_batch_says_what_is_predicted_where(tokenizer):
    encoded = encode_pairs(Pairs(["the cat", "dog"], ["cat", "the red house"], "two"), tokenizer, 50)
    eos = tokenizer.eos_id
    source, target = tokenizer.encode_plain(["the cat", "the red house"])
    batch = encoded.collate(np.array([0, 1]))
    assert batch.source[0].tolist() == [*source, eos]
    assert batch.source_lengths[0] == len(source) + 1
    assert batch.source[1].tolist() == [*tokenizer.encode_plain(["dog"])[0], eos, eos][: len(source) + 1]
    assert batch.target[1].tolist() == [eos, *target]
    cat = tokenizer.encode_plain(["cat"])[0]
    assert batch.target_lengths.tolist() == [len(cat) + 1, len(target) + 1]
    assert batch.labels.tolist() == [*cat, eos, *target, eos]
    assert encoded.n_target_tokens == len(batch.labels)


def test_long_pairs_are_left_out(tokenizer):
    encoded = encode_pairs(Pairs(["cat", "the " * 30], ["cat", "cat"], "two"), tokenizer, 20)
    assert encoded.numbers.tolist() == [0]
    with pytest.raises(DataError, match="no pair has at most 2 tokens"):
        encode_pairs(Pairs(["the red house"], ["cat cat cat"], "one"), tokenizer, 2)


def test_targets_may_start_with_another_mark_and_have_a_limit_of_their_own(tokenizer):
    encoded = pairs_from_ids([[5], [5, 6, 7], [8]], [[6, 7], [9], [5, 6, 7]], (3, 3), eos_id=1, start_id=4)
    assert encoded.numbers.tolist() == [0]
    assert encoded.collate(np.array([0])).target.tolist() == [[4, 6, 7]]
    assert encoded.collate(np.array([0])).labels.tolist() == [6, 7, 1]
    assert pairs_from_ids([[5, 6, 7]], [[5]], (3, 3), eos_id=1) is None
    two = Pairs(["cat", "the red house"], ["the red house", "cat"], "two")
    n = len(tokenizer.encode_plain(["the red house"])[0])
    assert encode_pairs(two, tokenizer, 50, n).numbers.tolist() == [1]


def test_batches_stay_within_their_tokens():
    chooser = np.random.default_rng(0)
    sources, targets = chooser.integers(1, 60, (2, 500))
    batches = batches_by_length(sources, targets, 200)
    assert sorted(index for batch in batches for index in batch) == list(range(500))
    for batch in batches:
        assert len(batch) * max(sources[batch].max(), targets[batch].max()) <= 200
    assert batches_by_length(np.array([900]), np.array([3]), 200) == [[0]]


def test_an_epoch_has_every_pair_once_and_the_next_one_another_order(tokenizer):
    encoded = encode_pairs(pairs(), tokenizer, 100)
    batches = PairBatches(encoded, batch_tokens=200, seed=1)
    epochs = []
    for _ in range(2):
        drawn = []
        start = int(batches.epochs_done)
        while batches.epochs_done < start + 1:
            drawn.append(batches.next_batch())
        epochs.append(drawn)
        assert sorted(np.concatenate(drawn)) == list(range(300))
    assert [b.tolist() for b in epochs[0]] != [b.tolist() for b in epochs[1]]
    longer = np.maximum(encoded.sources.lengths, encoded.targets.lengths) + 1
    assert sum(len(batch) * longer[batch].max() for batch in epochs[0]) < 1.15 * longer.sum()


def test_it_goes_on_with_the_very_next_batch(tokenizer):
    encoded = encode_pairs(pairs(), tokenizer, 100)
    one, other = (PairBatches(encoded, batch_tokens=200, seed=1) for _ in range(2))
    for _ in range(one.n_batches + 3):
        one.next_batch()
    other.restore(one.state())
    for _ in range(5):
        assert np.array_equal(one.next_batch(), other.next_batch())
    with pytest.raises(CheckpointError, match="batch_tokens 200, this run 100"):
        PairBatches(encoded, batch_tokens=100, seed=1).restore(one.state())


def test_resegmented_pairs_are_the_same_texts_in_other_tokens_and_resume(tokenizer):
    made = ResegmentedPairs(pairs(50), encode_pairs(pairs(50), tokenizer, 60), tokenizer, (60, 60), rate=0.2, seed=1)
    usual, first, second = encode_pairs(pairs(50), tokenizer, 60), made(0), made(1)
    assert first.targets.tokens.tolist() != second.targets.tokens.tolist()
    for epoch in (first, second):
        for side, expected in ((epoch.sources, usual.sources), (epoch.targets, usual.targets)):
            for number in range(len(usual)):
                assert tokenizer.decode(side.ids(number)) == tokenizer.decode(expected.ids(number))
                assert len(side.ids(number)) < 60
    one, other = (PairBatches(made, batch_tokens=200, seed=1) for _ in range(2))
    for _ in range(one.n_batches + 2):
        one.next_batch()
    other.restore(one.state())
    one_batch, other_batch = (batches.pairs.collate(batches.next_batch()) for batches in (one, other))
    assert one_batch.target.tolist() == other_batch.target.tolist()


def test_other_tokens_stand_between_the_marks_that_the_tokenizer_puts_around_texts():
    marked = train_pair_tokenizer(pairs(), vocab_size=320, lowercase=False)
    marked.backend.add_special_tokens(["<s>"])
    begin = marked.backend.token_to_id("<s>")
    marked.backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    usual = encode_pairs(pairs(50), marked, 60)
    made = ResegmentedPairs(pairs(50), usual, marked, (60, 60), rate=0.5, seed=1)(0)
    assert made.sources.tokens.tolist() != usual.sources.tokens.tolist()
    for side in (usual.sources, usual.targets, made.sources, made.targets):
        assert {side.ids(number)[0] for number in range(50)} == {begin}
