"""Entity scores on cases that were worked out by hand, and on the example that seqeval's documentation prints."""

import pytest

from tickwise.data.tagged import Span, chunks
from tickwise.evaluation.entities import compare_entities, comparison_lines, entity_scores, table

# Worked out by hand: gold has PER 0-2, LOC 3-4 | ORG 0-1, PER 2-3 | nothing. The prediction has PER 0-2, LOC 3-5 (too
# long) | PER 0-1 (wrong type), PER 2-3 | LOC 1-2 (none there). Right: PER 0-2 and PER 2-3.
GOLD = [[Span(0, 2, "PER"), Span(3, 4, "LOC")], [Span(0, 1, "ORG"), Span(2, 3, "PER")], []]
GUESS = [[Span(0, 2, "PER"), Span(3, 5, "LOC")], [Span(0, 1, "PER"), Span(2, 3, "PER")], [Span(1, 2, "LOC")]]


def test_hand_made_case():
    scores = entity_scores(GOLD, GUESS)
    assert (scores.overall.correct, scores.overall.predicted, scores.overall.gold) == (2, 5, 4)
    assert scores.overall.precision == pytest.approx(2 / 5)
    assert scores.overall.recall == pytest.approx(2 / 4)
    assert scores.overall.f1 == pytest.approx(4 / 9)
    assert scores.by_type["PER"].f1 == pytest.approx(4 / 5)
    assert scores.by_type["LOC"].f1 == scores.by_type["ORG"].f1 == 0
    assert scores.macro_f1 == pytest.approx(0.8 / 3)


def test_the_example_in_seqeval_s_readme():
    gold = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    guess = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    scores = entity_scores([chunks(tags) for tags in gold], [chunks(tags) for tags in guess])
    assert scores.overall.f1 == 0.5
    assert scores.by_type["MISC"].f1 == 0
    assert scores.by_type["PER"].f1 == 1


def test_the_interval_holds_the_value_and_narrows_with_more_sentences():
    few, many = entity_scores(GOLD * 5, GUESS * 5), entity_scores(GOLD * 80, GUESS * 80)
    for scores in (few, many):
        assert scores.f1_interval.low < 4 / 9 < scores.f1_interval.high
    assert many.f1_interval.high - many.f1_interval.low < 0.5 * (few.f1_interval.high - few.f1_interval.low)


def test_nothing_found_and_nothing_there():
    assert entity_scores(GOLD, [[], [], []]).overall.f1 == 0
    assert entity_scores([[]], [[]]).overall.f1 == 0
    assert entity_scores([[]], [[]]).f1_interval is None


def test_lists_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="zip"):
        entity_scores(GOLD, GUESS[:2])


def test_json_is_in_the_harness_s_layout_and_the_table_in_per_cent():
    scores = entity_scores(GOLD, GUESS)
    assert scores.to_json()["results"]["entities"]["f1,none"] == pytest.approx(4 / 9)
    assert "44.44" in table(scores)


def test_two_taggers_are_compared_sentence_by_sentence():
    gold = [[Span(0, 1, "PER")], [Span(1, 2, "LOC")]] * 30
    good = [list(spans) for spans in gold]
    poor = [spans if n % 3 else [] for n, spans in enumerate(good)]
    found = compare_entities(gold, good, poor)
    assert found.f1 == (entity_scores(gold, good).overall.f1, entity_scores(gold, poor).overall.f1)
    assert (found.only_model, found.only_against) == (20, 0)
    assert found.p < 0.01
    assert 0 < found.difference.low <= found.f1[0] - found.f1[1] <= found.difference.high
    back = compare_entities(gold, poor, good)
    assert back.p == found.p
    assert back.difference.low == pytest.approx(-found.difference.high)
    assert compare_entities(gold, poor, poor).p == 1
    assert "differ" in comparison_lines(found, "a", "b")
    alone = compare_entities(gold[:1], good[:1], poor[:1])
    assert (alone.p, alone.difference) == (None, None)
    assert "too few" in comparison_lines(alone, "a", "b")
    with pytest.raises(ValueError, match="shorter"):
        compare_entities(gold, good, poor[:-1])
