"""The loss of spans, which windows are trained on, and from when on a question is answered."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tickwise.core.errors import NumericsError
from tickwise.data.span_windows import Window
from tickwise.data.spans import SpanQuestion
from tickwise.models.encoder_heads import SpanReader, SpanReaderConfig
from tickwise.training.parallel import Alone
from tickwise.training.span_reading import SpanReading, balanced, best_threshold, find_spans, in_blocks, span_loss

INF = float("inf")


def targets_at(*places, length=5):
    targets = torch.zeros(1, 2, length, dtype=torch.bool)
    for start, end in places or [(0, 0)]:
        targets[0, 0, start] = targets[0, 1, end] = True
    return targets


def test_a_window_without_an_answer_costs_what_its_first_position_says():
    scores = torch.zeros(1, 2, 5)
    scores[0, :, 0] = 3.0
    scores[0, :, 2] = 100.0  # places are no rivals of "none"
    assert span_loss(scores, targets_at()).item() == pytest.approx(np.log1p(np.exp(-6.0)), rel=1e-4)


def test_any_right_place_will_do():
    scores = torch.full((1, 2, 5), -INF)
    scores[0, :, 0] = -50.0
    scores[0, :, 2:4] = 0.0
    assert span_loss(scores, targets_at((2, 2))).item() == pytest.approx(2 * np.log(2) / 2, rel=1e-4)
    assert span_loss(scores, targets_at((2, 2), (3, 3))).item() == pytest.approx(0.0, abs=1e-4)


def test_the_loss_has_finite_gradients_where_places_are_closed():
    scores = torch.zeros(2, 2, 5, requires_grad=True)
    closed = torch.tensor([False, True, False, False, True])
    loss = span_loss(scores.masked_fill(closed, -INF), torch.cat((targets_at((2, 3)), targets_at())))
    loss.backward()
    assert scores.grad.isfinite().all()
    assert scores.grad.abs().sum() > 0


def window(question, has_answer):
    targets = np.zeros((2, 4), dtype=bool)
    targets[:, 2 if has_answer else 0] = True
    return Window(question, np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64), np.zeros((4, 2)), targets)


@pytest.fixture(scope="module")
def module():
    return SpanReader(SpanReaderConfig(vocab_size=20, context_length=8, width=16, n_layers=1, n_heads=1, head_dim=16,
                                       hidden=16)).initialise(0)


def test_silence_is_no_answer_to_a_question_whose_answer_stands_nowhere_just_so(module):
    located = SpanQuestion("1", "where?", "in the barn", ((7, 11),), ("barn",))
    unlocated = SpanQuestion("2", "where?", "in the barn", (), ("in a barn",))
    nowhere = SpanQuestion("3", "where?", "in the barn", (), ())

    def figures(*asked):
        places = np.array([[-1, -1], [0, 2], [3, 6], [7, 11]])
        windows = [Window(number, np.arange(4), np.array([0, 1, 1, 1]), places, np.zeros((2, 4), dtype=bool))
                   for number in range(len(asked))]
        objective = SpanReading(windows, windows, asked, pad=0, batch_size=1, seed=0)
        return objective.validate(module, torch.device("cpu"), None)

    assert figures(unlocated) == {"loss": 1.0, "f1": 0.0}
    alone, with_unlocated = figures(located), figures(located, unlocated)
    assert with_unlocated == {"loss": 1 - alone["f1"] / 2, "f1": alone["f1"] / 2}
    assert figures(unlocated, nowhere)["overall_f1"] == 0.5


@pytest.mark.parametrize("answered", [[0, 1, 2, 3, 4, 5, 6], [0], [0, 1, 2, 6], []])
@pytest.mark.parametrize("accumulate", [2, 3, 7])
def test_parts_of_a_batch_add_up_to_it(module, answered, accumulate):
    places = np.array([[-1, -1], [0, 2], [3, 6], [7, 11]])
    windows = []
    for number in range(7):
        targets = np.zeros((2, 4), dtype=bool)
        targets[:, 1 + number % 3 if number in answered else 0] = True
        windows.append(Window(number, np.arange(4) + number, np.array([0, 1, 1, 1]), places, targets))
    module.span.weight.data.normal_(generator=torch.Generator().manual_seed(2))
    objective = SpanReading(windows, windows, [], pad=0, batch_size=7, seed=0)
    batch, found = objective.next_batch(), []
    for parts in (1, accumulate):
        module.zero_grad()
        loss = sum(objective.loss(module, *part.batch.inputs)[0] / part.divisor
                   for part in Alone().parts(objective, batch, parts))
        loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in module.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_blocks_have_so_many_tokens_at_most():
    windows = [window(i, False) for i in range(5)]
    blocks = list(in_blocks(windows, 9))
    assert [[w.question for w in block] for block in blocks] == [[0, 1], [2, 3], [4]]
    assert [len(block) for block in in_blocks(iter(windows), 1)] == [1] * 5
    assert list(in_blocks([], 9)) == []


def test_windows_without_an_answer_are_at_most_half():
    windows = [window(i, i % 5 == 0) for i in range(50)]
    kept = balanced(windows, seed=1)
    assert [w.question for w in kept if not w.targets[0, 0]] == list(range(0, 50, 5))
    assert len(kept) == 20
    assert balanced(windows[:1], 1) == windows[:1]


def test_questions_are_answered_where_that_is_best():
    margins = np.array([3.0, 2.0, 1.0, 0.0])
    threshold, score = best_threshold(margins, np.array([1.0, 0.5, 0.0, 0.0]), np.array([False, False, True, True]))
    assert 1.0 < threshold < 2.0
    assert score == pytest.approx(3.5 / 4)
    assert best_threshold(margins, np.zeros(4), np.ones(4, dtype=bool)) == (4.0, 1.0)
    assert best_threshold(margins, np.ones(4), np.zeros(4, dtype=bool)) == (-1.0, 1.0)


def test_spans_too_unlikely_for_a_float_are_ranked_all_the_same():
    class Sceptic(torch.nn.Module):
        """Finds every window without an answer, the second of them a little less."""

        config = SimpleNamespace(longest_answer=4)

        def forward(self, ids_BT, lengths_B, segments_BT):
            scores = torch.zeros(*ids_BT.shape, 2).transpose(1, 2).contiguous()
            scores[:, :, 0] = 100.0 - ids_BT[:, :1]
            return scores

    places = np.array([[-1, -1], [0, 2], [3, 5], [-1, -1]])
    windows = [Window(0, np.full(4, number), np.zeros(4, dtype=np.int64), places + 10 * number * (places >= 0),
                      np.zeros((2, 4), dtype=bool)) for number in (0, 1)]
    [found] = find_spans(Sceptic(), [windows], 1, 0, torch.device("cpu"))
    assert found.start == 10
    assert found.log_probability == pytest.approx(-198 - 2 * np.log(2))
    assert 0 < found.probability < 1e-80


def test_the_span_is_chosen_by_the_expected_overlap():
    """Three spans that share most of their words together outweigh the likeliest one, elsewhere."""

    class Torn(torch.nn.Module):
        config = SimpleNamespace(longest_answer=3)

        def forward(self, ids_BT, lengths_B, segments_BT):
            scores = torch.full((len(ids_BT), 2, ids_BT.shape[1]), -30.0)
            scores[:, :, 0] = -10.0
            scores[:, 0, [2, 6]] = torch.tensor([0.6, 0.4]).log()
            scores[:, 1, [2, 3, 4, 6]] = torch.tensor([0.2, 0.2, 0.2, 0.4]).log()
            return scores

    places = np.array([[-1, -1], *([10 * i, 10 * i + 9] for i in range(7))])
    window = Window(0, np.arange(8), np.zeros(8, dtype=np.int64), places, np.zeros((2, 8), dtype=bool))
    [found] = find_spans(Torn(), [[window]], 1, 0, torch.device("cpu"))
    assert (found.start, found.end) == (10, 29)  # the likeliest is (50, 59), with 0.16 against 0.12
    assert found.probability == pytest.approx(0.12, rel=1e-3)
    assert found.margin == pytest.approx(np.log(0.16) + 20, rel=1e-3), "of the likeliest: whether there is an answer"


def test_the_odds_of_an_answer_are_those_of_its_window_however_often_it_stands_there():
    class Repeating(torch.nn.Module):
        """Finds the answer at as many places as a window's first id says."""

        config = SimpleNamespace(longest_answer=1)

        def forward(self, ids_BT, lengths_B, segments_BT):
            scores = torch.full((len(ids_BT), 2, ids_BT.shape[1]), -30.0)
            scores[:, :, 0] = -1.5
            scores[:, :, 1:].masked_fill_((torch.arange(4) < ids_BT[:, :1])[:, None], 0.0)
            return scores

    places = np.array([[-1, -1], *([10 * i, 10 * i + 9] for i in range(4))])
    windows = [Window(number, np.full(5, times), np.zeros(5, dtype=np.int64), places, np.zeros((2, 5), dtype=bool))
               for number, times in enumerate((1, 4))]
    once, often = find_spans(Repeating(), [windows], 2, 0, torch.device("cpu"))
    assert once.odds == often.odds == pytest.approx(3)
    assert once.margin == pytest.approx(3)
    assert often.margin < once.margin - 2


def test_what_two_windows_find_counts_once():
    """The first window is sure of its own span; the second one, that only the overlap's span is any good."""

    class TwoWindows(torch.nn.Module):
        config = SimpleNamespace(longest_answer=1)

        def forward(self, ids_BT, lengths_B, segments_BT):
            chances = torch.tensor([[1e-9, 0.6, 0.4, 1e-9], [1e-9, 0.4, 0.3, 0.3]])[ids_BT[:, 0]]
            scores = chances.log()[:, None].repeat(1, 2, 1) / 2
            scores[:, :, 0] = -20.0
            return scores

    places = [np.array([[-1, -1], *([10 * i, 10 * i + 9] for i in own)]) for own in ([0, 1, 2], [1, 3, 4])]
    windows = [Window(0, np.full(4, number), np.zeros(4, dtype=np.int64), own, np.zeros((2, 4), dtype=bool))
               for number, own in enumerate(places)]
    [found] = find_spans(TwoWindows(), [windows], 1, 0, torch.device("cpu"))
    assert (found.start, found.end) == (0, 9)


def test_scores_that_are_no_numbers_are_said():
    class Broken(torch.nn.Module):
        config = SimpleNamespace(longest_answer=4)

        def forward(self, ids_BT, lengths_B, segments_BT):
            return torch.full((len(ids_BT), 2, ids_BT.shape[1]), torch.nan)

    places = np.array([[-1, -1], [0, 2], [3, 5], [-1, -1]])
    read = Window(0, np.full(4, 1), np.zeros(4, dtype=np.int64), places, np.zeros((2, 4), dtype=bool))
    with pytest.raises(NumericsError, match="no finite numbers"):
        find_spans(Broken(), [[read]], 1, 0, torch.device("cpu"))
