"""The CRF against sums and maxima over every tag sequence, written out."""

import itertools
import math

import pytest
import torch

from tickwise.layers.crf import LinearChainCRF


def every_sequence(n_tags, n_tokens):
    return list(itertools.product(range(n_tags), repeat=n_tokens))


def written_out(crf, emissions_TK, tags):
    """The score of one sequence, term by term."""
    forbidden = crf.forbidden
    score = crf.start[tags[0]].item() + forbidden[-1][tags[0]] + crf.end[tags[-1]].item() + forbidden[tags[-1]][-1]
    score += sum(float(emissions_TK[t, tag]) for t, tag in enumerate(tags))
    return score + sum(crf.transitions[a, b].item() + forbidden[a][b] for a, b in itertools.pairwise(tags))


@pytest.fixture(params=[False, True], ids=["all allowed", "some forbidden"])
def crf(request):
    torch.manual_seed(3)
    allowed = None
    if request.param:
        no = {(0, 1), (2, 2), (3, 2), (1, 3)}
        allowed = [[(i, j) not in no for j in range(4)] for i in range(4)]
    made = LinearChainCRF(3, allowed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


EMISSIONS = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(5))
LENGTHS = torch.tensor([4, 1, 3])


def test_the_partition_is_the_sum_over_every_sequence(crf):
    found = crf.log_partition(EMISSIONS, LENGTHS)
    for row, n in enumerate(LENGTHS.tolist()):
        scores = torch.tensor([written_out(crf, EMISSIONS[row], tags) for tags in every_sequence(3, n)])
        assert found[row].item() == pytest.approx(torch.logsumexp(scores, 0).item(), abs=1e-4)


def test_the_loss_is_the_sequence_s_negative_log_probability(crf):
    tags_BT = torch.tensor([[0, 2, 0, 0], [1, 0, 0, 0], [2, 0, 2, 0]])
    found = crf.loss(EMISSIONS, tags_BT, LENGTHS)
    for row, n in enumerate(LENGTHS.tolist()):
        scores = torch.tensor([written_out(crf, EMISSIONS[row], tags) for tags in every_sequence(3, n)])
        mine = written_out(crf, EMISSIONS[row], tags_BT[row, :n].tolist())
        assert found[row].item() == pytest.approx(torch.logsumexp(scores, 0).item() - mine, rel=1e-4, abs=1e-4)


def test_viterbi_finds_the_best_of_every_sequence(crf):
    found = crf.decode(EMISSIONS, LENGTHS)
    for row, n in enumerate(LENGTHS.tolist()):
        best = max(every_sequence(3, n), key=lambda tags: written_out(crf, EMISSIONS[row], tags))
        assert tuple(found[row, :n].tolist()) == best
        assert not found[row, n:].any()


def test_marginals_are_shares_of_the_whole_sum(crf):
    found = crf.marginals(EMISSIONS, LENGTHS)
    for row, n in enumerate(LENGTHS.tolist()):
        sequences = every_sequence(3, n)
        weights = torch.tensor([written_out(crf, EMISSIONS[row], tags) for tags in sequences]).softmax(0)
        for t in range(n):
            for tag in range(3):
                share = sum(w for w, tags in zip(weights.tolist(), sequences, strict=True) if tags[t] == tag)
                assert found[row, t, tag].item() == pytest.approx(share, abs=1e-5)
        assert not found[row, n:].any()


def test_the_probability_of_a_span_sums_over_the_tokens_around_it(crf):
    best = [0, 2, 0, 0]
    spans = [(1, 3), (0, 1), (3, 4), (0, 4)]
    found = crf.span_log_probability(EMISSIONS[0], torch.tensor(best), torch.tensor(spans))
    sequences = every_sequence(3, 4)
    weights = torch.tensor([written_out(crf, EMISSIONS[0], tags) for tags in sequences]).softmax(0).tolist()
    for (start, end), log in zip(spans, found.tolist(), strict=True):
        share = sum(w for w, tags in zip(weights, sequences, strict=True) if list(tags[start:end]) == best[start:end])
        assert math.exp(log) == pytest.approx(share, abs=1e-5)


def test_padding_changes_neither_loss_nor_gradient(crf):
    emissions = EMISSIONS[2:, :3].clone().requires_grad_()
    tags = torch.tensor([[2, 0, 2]])
    alone = crf.loss(emissions, tags, torch.tensor([3]))
    (gradient,) = torch.autograd.grad(alone.sum(), emissions)
    padded = torch.cat([emissions.detach(), torch.full((1, 5, 3), 99.0)], 1).requires_grad_()
    longer = crf.loss(padded, torch.cat([tags, torch.zeros(1, 5, dtype=torch.long)], 1), torch.tensor([3]))
    (padded_gradient,) = torch.autograd.grad(longer.sum(), padded)
    assert longer.item() == pytest.approx(alone.item(), abs=1e-5)
    torch.testing.assert_close(padded_gradient[:, :3], gradient)
    assert not padded_gradient[:, 3:].any()


def test_what_is_forbidden_is_never_decoded():
    crf = LinearChainCRF(2, [[True, False, True], [True, True, True], [True, True, True]])
    wish = torch.tensor([[[5.0, 0.0], [0.0, 4.0]]])  # tag 0, then tag 1
    assert LinearChainCRF(2).decode(wish, torch.tensor([2])).tolist() == [[0, 1]]
    assert crf.decode(wish, torch.tensor([2])).tolist() == [[0, 0]]
