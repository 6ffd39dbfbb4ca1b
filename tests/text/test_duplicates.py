"""Near-duplicates found by signatures, measured against exact Jaccard similarities on synthetic documents."""

import itertools
import random

import numpy as np
import pytest

from tickwise.text.duplicates import BandFiles, Groups, exact_groups, near_groups
from tickwise.text.shingles import jaccard, shingle_hashes, signatures

THRESHOLD = 0.8
WORDS = [a + b + c for a, b, c in itertools.product(["ka", "mi", "to", "re"], ["lan", "der", "shu", "po"],
                                                   ["", "s", "ing", "ne", "qua", "xi"])]
HAN = [chr(point) for point in range(0x4E00, 0x4E00 + 800)]


def document(rng: random.Random, script: str, length: int) -> list[str]:
    return [rng.choice(WORDS if script == "spaced" else HAN) for _ in range(length)]


def joined(units: list[str], script: str) -> str:
    return (" " if script == "spaced" else "").join(units)


def grouped(texts: list[str], tmp_path, threshold: float = THRESHOLD) -> Groups:
    bands = BandFiles(tmp_path)
    bands.append(signatures(texts))
    bands.close()
    hashes = np.array([hash(text) & (2**64 - 1) for text in texts], dtype=np.uint64)
    return near_groups(exact_groups(hashes), bands, threshold, texts.__getitem__)


@pytest.mark.parametrize("script", ["spaced", "chinese"])
def test_precision_and_recall(script, tmp_path):
    """Pairs of a document and a copy with some units replaced; half the copies above the threshold, half below."""
    rng = random.Random(5)
    originals, copies = [], []
    for _ in range(400):
        units = document(rng, script, rng.randint(60, 300))
        copy = list(units)
        for at in rng.sample(range(len(units)), max(1, int(len(units) * rng.uniform(0.0, 0.15)))):
            copy[at] = rng.choice(WORDS if script == "spaced" else HAN)
        originals.append(joined(units, script))
        copies.append(joined(copy, script))
    similarity = jaccard(originals, copies)
    found = grouped(originals + copies, tmp_path).near[len(originals):]
    true = similarity >= THRESHOLD
    assert 50 < true.sum() < 350
    recall = np.count_nonzero(found & true) / np.count_nonzero(true)
    precision = np.count_nonzero(found & true) / np.count_nonzero(found)
    assert recall >= 0.98
    assert precision >= 0.98
    # No document is joined with a stranger, and nothing far below the threshold is taken.
    assert not found[similarity < THRESHOLD - 0.1].any()


def test_jaccard_against_sets_of_word_triples():
    def triples(text: str) -> set[tuple[str, ...]]:
        words = text.lower().replace(",", "").replace(".", "").split()
        return set(zip(words, words[1:], words[2:], strict=False))

    a = "The quick brown fox jumps over the lazy dog."
    b = "the quick brown fox, jumps over a lazy dog"
    expected = len(triples(a) & triples(b)) / len(triples(a) | triples(b))
    assert jaccard([a], [b])[0] == pytest.approx(expected)


def test_case_punctuation_and_spacing_do_not_matter():
    assert jaccard(["Hello, big World!"], ["hello   big — world"])[0] == 1
    assert jaccard(["我喜欢，自然语言。"], ["我喜欢自然语言"])[0] == 1


def test_shingles_stay_inside_their_document():
    together = shingle_hashes(["one two three", "four five six"])
    assert together[0].tolist() == [0, 1]
    alone = [shingle_hashes([text])[1][0] for text in ("one two three", "four five six")]
    assert together[1].tolist() == alone


def test_signature_does_not_depend_on_neighbours():
    texts = ["one two three four", "", "a", "五六七八九", "!!!", "x y"]
    together = signatures(texts)
    for index, text in enumerate(texts):
        np.testing.assert_array_equal(together[index], signatures([text])[0])
    assert not together[1].any()
    assert together[2].any()


def test_exact_duplicates_point_to_the_first():
    groups = exact_groups(np.array([7, 5, 7, 9, 5, 7], dtype=np.uint64))
    assert groups.representative.tolist() == [0, 1, 0, 3, 1, 0]
    assert groups.exact_duplicates == 3


def test_copy_of_a_near_duplicate_counts_as_exact(tmp_path):
    rng = random.Random(1)
    units = document(rng, "spaced", 200)
    original, changed = joined(units, "spaced"), joined([*units[:-1], "different"], "spaced")
    groups = grouped([original, changed, changed], tmp_path)
    assert groups.representative.tolist() == [0, 0, 0]
    assert (groups.near_duplicates, groups.exact_duplicates) == (1, 1)
