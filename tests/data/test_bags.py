"""Texts as bags of known features."""

import numpy as np
import pytest
import torch

from tickwise.core.errors import CheckpointError, DataError
from tickwise.data.bags import FeatureIndex
from tickwise.text.ngrams import Family, NgramSettings

TEXTS = ["the cat sat", "the dog sat", "a bird flew", "the cat the cat", "a dog flew 12", "", "!!!"]
WORDS = NgramSettings(word_ngrams=1, max_characters=0)


def fitted(settings=WORDS, **options):
    return FeatureIndex.fit(TEXTS, settings, **options)


def test_rare_features_are_left_out_and_the_commonest_kept():
    assert len(fitted(min_texts=1)) == 10  # the cat sat dog a bird flew 12 and its shape, !
    assert len(fitted(min_texts=2)) == 6  # the cat sat dog a flew
    few = fitted(min_texts=1, most=1)
    assert len(few.occurrences("the bird the").rows) == 2
    assert len(FeatureIndex.fit(["one", "two"], WORDS, min_texts=2)) == 2  # nothing is that common: all are kept


def test_bags_have_length_one_per_kind_of_feature():
    index = fitted(NgramSettings(2, 2, 4), min_texts=1, character_share=0.5)
    bags = index.encode(TEXTS)
    assert len(bags) == len(TEXTS)
    assert bags.offsets[6] == bags.offsets[5]  # the empty text
    for i, text in enumerate(TEXTS):
        part = bags.take(torch.tensor([i]))
        of_characters = index.keys[part.rows.numpy()] >> 30 == Family.CHARACTERS
        for kind, length in ((~of_characters, 1.0), (of_characters, 0.5)):
            if text:
                assert np.linalg.norm(part.weights.numpy()[kind]) == pytest.approx(length, rel=1e-5)


def test_frequency_in_a_text_and_rarity_among_texts_raise_a_weight():
    index = fitted(min_texts=1)
    bag = index.encode(["the cat the bird"])
    weight = {int(r): float(w) for r, w in zip(bag.rows, bag.weights, strict=True)}
    the, cat, bird = (index.occurrences(word).rows[0] for word in ("the", "cat", "bird"))
    assert weight[cat] < weight[bird]
    flat = FeatureIndex.fit(TEXTS, WORDS, min_texts=1, idf_power=0.0)
    bag = flat.encode(["the cat the bird"])
    weight = {int(r): float(w) for r, w in zip(bag.rows, bag.weights, strict=True)}
    assert weight[the] / weight[cat] == pytest.approx(1 + np.log(2), rel=1e-5)


def test_taking_texts_equals_encoding_them():
    index = fitted(NgramSettings(2, 2, 3), min_texts=1)
    taken = index.encode(TEXTS).take(torch.tensor([4, 0, 5, 0]))
    direct = index.encode([TEXTS[4], TEXTS[0], TEXTS[5], TEXTS[0]])
    for name in ("rows", "weights", "offsets"):
        assert torch.equal(getattr(taken, name), getattr(direct, name))


@pytest.mark.parametrize("compact", [False, True])
def test_save_and_load(tmp_path, compact):
    index = fitted(NgramSettings(2, 1, 3, segment=False), character_share=0.7)
    index = index.quantised() if compact else index
    index.save(tmp_path)
    loaded = FeatureIndex.load(tmp_path)
    assert loaded.settings == index.settings
    assert (loaded.character_share, loaded.compact) == (0.7, compact)
    assert (loaded.keys == index.keys).all()
    assert loaded.weights == pytest.approx(index.weights, rel=1e-5)


def test_one_byte_weights_are_near():
    index = fitted(NgramSettings(2, 1, 3), min_texts=1)
    span = index.weights.max() - index.weights.min()
    assert np.abs(index.quantised().weights - index.weights).max() <= span / 255 / 2 * 1.001


def test_damage_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="missing"):
        FeatureIndex.load(tmp_path)
    fitted().save(tmp_path)
    file = tmp_path / "features.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="damaged"):
        FeatureIndex.load(tmp_path)


def test_texts_without_anything_in_them():
    with pytest.raises(DataError, match="letter"):
        FeatureIndex.fit(["", " "], WORDS)
    assert len(fitted().encode(["zzz", "😀"]).rows) == 0


def test_a_text_and_its_altered_copies_count_as_one():
    copies = ["the cat rested", "the dog rested", "the cat rested", "the puma sat", "the puma rested"]
    sources = [*range(len(TEXTS)), 0, 1, 0, 0, 0]
    index = FeatureIndex.fit([*TEXTS, *copies], WORDS, min_texts=2, sources=sources)
    assert (index.word_rows(["rested", "the"]) >= 0).all()
    assert (index.word_rows(["puma", "bird"]) == -1).all()  # of one text and its copies alone
    weight = dict(zip(index.keys.tolist(), index.weights.tolist(), strict=True))
    alone = fitted(min_texts=2)
    assert [weight[key] for key in alone.keys.tolist()] == alone.weights.tolist()
