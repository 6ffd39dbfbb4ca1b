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
    shown = scores.to_json(model="a/model")
    results = shown["results"]["entities"]
    assert results["f1,none"] == pytest.approx(4 / 9)
    assert results["alias"] == "entities"
    # As a classifier's results have it, and the harness's own.
    assert shown.keys() == {"results", "intervals", "configs", "versions", "n-shot", "higher_is_better", "n-samples",
                            "config", "tickwise_version", "types"}
    metrics = {"f1", "precision", "recall", "macro_f1"}
    assert shown["higher_is_better"] == {"entities": dict.fromkeys(metrics, True)}
    assert results.keys() == {"alias", *(f"{m},none" for m in metrics), *(f"{m}_stderr,none" for m in metrics)}
    assert shown["configs"]["entities"]["task"] == "entities"
    assert (shown["versions"], shown["n-shot"]) == ({"entities": 1}, {"entities": 0})
    assert shown["n-samples"] == {"entities": {"original": 3, "effective": 3}}
    assert shown["config"]["model_args"] == {"path": "a/model"}
    assert shown["config"]["bootstrap_iters"] == 1000
    assert shown["types"]["entities"]["PER"] == {"precision": pytest.approx(2 / 3), "recall": 1.0,
                                                 "f1": pytest.approx(4 / 5), "gold": 2, "predicted": 3, "correct": 2}
    for metric in metrics:
        low, high = shown["intervals"]["entities"][metric]
        assert low <= results[f"{metric},none"] <= high
        assert results[f"{metric}_stderr,none"] > 0
    assert "44.44" in table(scores)
    assert "calibration" not in table(scores)


def test_probabilities_are_judged_by_the_share_that_is_right():
    scores = entity_scores(GOLD, GUESS, probabilities=[[0.95, 0.5], [0.5, 0.95], [0.5]])
    filled = [b for b in scores.bins if b.n]
    assert [(b.n, b.confidence, b.accuracy) for b in filled] == [
        (3, pytest.approx(0.5), 0.0), (2, pytest.approx(0.95), 1.0)]
    assert scores.calibration_error == pytest.approx((3 * 0.5 + 2 * 0.05) / 5)
    shown = scores.to_json()
    assert shown["results"]["entities"]["ece,none"] == scores.calibration_error
    assert shown["higher_is_better"]["entities"]["ece"] is False
    assert "0.3200" in table(scores)
    assert entity_scores(GOLD, [[], [], []], probabilities=[[], [], []]).calibration_error is None
    with pytest.raises(ValueError, match="shorter"):
        entity_scores(GOLD, GUESS, probabilities=[[0.9], [0.5, 0.5], [0.5]])


def test_the_interval_of_the_mean_over_types_is_that_of_resampled_sentences():
    gold = [[Span(0, 1, "PER")], [Span(1, 2, "LOC")]] * 40
    guess = [spans if n % 4 else [] for n, spans in enumerate(gold)]
    scores = entity_scores(gold, guess)
    assert scores.macro_f1 == pytest.approx((2 * 20 / (20 + 40) + 1) / 2)
    assert scores.intervals["macro_f1"].low < scores.macro_f1 < scores.intervals["macro_f1"].high
    assert scores.intervals["precision"].low == scores.intervals["precision"].high == 1
    assert scores.intervals["recall"].low < 0.75 < scores.intervals["recall"].high


def test_a_rare_type_counts_in_the_resamples_that_have_it():
    # Everything is right; a third of the resamples lacks the one sentence with a LOC.
    gold = [[Span(0, 1, "PER")]] * 59 + [[Span(0, 1, "LOC")]]
    spread = entity_scores(gold, gold).intervals["macro_f1"]
    assert (spread.low, spread.high) == (1, 1)
    # PER at 0.8, the rare LOC right: no resample of many sentences is near the 0.4 that a missing LOC would give.
    guess = [spans if n % 3 else [] for n, spans in enumerate(gold[:-1])] + gold[-1:]
    scores = entity_scores(gold, guess)
    assert scores.macro_f1 == pytest.approx((scores.by_type["PER"].f1 + 1) / 2)
    assert 0.6 < scores.intervals["macro_f1"].low < scores.macro_f1 < scores.intervals["macro_f1"].high
    assert entity_scores([[], []], [[], []]).intervals["macro_f1"].high == 0


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
