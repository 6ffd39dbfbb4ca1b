"""The clustered head is a distribution, and its loss is that distribution's."""

import torch
import torch.nn.functional as F

from tickwise.layers.clustered_head import ClusteredHead


def example():
    torch.manual_seed(0)
    head = ClusteredHead(8, 30, (5, 12))
    torch.nn.init.normal_(head.clusters)
    return head, torch.randn(40, 8), torch.randn(30, 8), torch.randint(0, 30, (40,))


def test_probabilities_of_all_words_add_up_to_one():
    head, hidden, weight, _ = example()
    probabilities = head.logits(hidden, weight).exp()
    assert probabilities.shape == (40, 30)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(40))


def test_loss_and_gradients_are_those_of_the_distribution():
    head, hidden, weight, targets = example()
    results = []
    for direct in (False, True):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = F.cross_entropy(head.logits(h, w), targets) if direct else head.loss(h, w, targets)
        results.append([loss, *torch.autograd.grad(loss, (h, w, head.clusters))])
    for mine, reference in zip(*results, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-4)


def test_targets_that_are_all_frequent_need_no_cluster():
    head, hidden, weight, _ = example()
    targets = torch.arange(40) % 5
    expected = F.cross_entropy(head.logits(hidden, weight), targets)
    torch.testing.assert_close(head.loss(hidden, weight, targets), expected)
