import pytest
import torch

from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.training.next_token import NextToken
from tickwise.training.objective import Batch
from tickwise.training.parallel import divisors


class Cursor:
    batch_size, context = 7, 5


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_parts_of_a_batch_have_its_mean_loss_also_where_they_are_not_equal(n):
    torch.manual_seed(0)
    module = Decoder(DecoderConfig(vocab_size=11, context_length=5, width=8, n_layers=1, n_heads=1, n_kv_heads=1,
                                   head_dim=8, hidden=16))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    objective = NextToken(Cursor(), None)
    ids_BT = torch.randint(11, (7, 6))
    batch = Batch((ids_BT[:, :-1], ids_BT[:, 1:]), 35)
    parts = objective.split(batch, n)
    assert [len(parts), sum(part.n_tokens for part in parts)] == [n, 35]
    whole, _ = objective.loss(module, *batch.inputs)
    losses = [objective.loss(module, *part.inputs)[0] / by for part, by in zip(parts, divisors(parts), strict=True)]
    torch.testing.assert_close(torch.stack(losses).sum(), whole)
