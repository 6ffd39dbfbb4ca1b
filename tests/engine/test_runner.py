import pytest
import torch

from tickwise.engine.runner import DecoderRunner, RowInput, TextRunner

ROWS = [
    [RowInput([3, 1, 4, 1, 5], 0, [2, 3], 1)],
    [RowInput([9, 2, 6], 0, [2, 5], 0), RowInput([5, 3, 5, 8, 9], 0, [4, 6], 2)],
    [RowInput([7], 3, [2, 5], 1), RowInput([9, 7, 9], 5, [4, 6], 3), RowInput([1], 0, [0], 1)],
]


@pytest.mark.parametrize("changes", [
    {}, {"n_kv_heads": 4, "qk_norm": True, "value_residual": True},
    {"positions": "learned", "norm": "layernorm", "activation": "gelu", "bias": True},
])
def test_a_decoder_with_stored_state_says_what_one_without_says(tiny_decoder, changes):
    module = tiny_decoder(**changes)
    fast, slow = (kind(module, n_blocks=8, block_size=4) for kind in (DecoderRunner, TextRunner))
    for rows in ROWS:
        a, b = fast.run(rows), slow.run(rows)
        assert a.shape == (sum(row.n_logits for row in rows), module.config.vocab_size)
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_nothing_comes_back_where_nothing_is_asked(tiny_decoder):
    for kind in (DecoderRunner, TextRunner):
        assert kind(tiny_decoder(), 2, 4).run([RowInput([1, 2], 0, [0], 0)]) is None


@pytest.mark.parametrize("kind", [DecoderRunner, TextRunner])
def test_a_copied_block_continues_like_its_original(tiny_decoder, kind):
    runner = kind(tiny_decoder(), n_blocks=4, block_size=4)
    runner.run([RowInput([3, 1, 4, 1, 5, 9], 0, [0, 1], 1)])
    runner.copy_blocks([(1, 3)])
    original = runner.run([RowInput([2], 6, [0, 1], 1)])
    torch.testing.assert_close(runner.run([RowInput([2], 6, [0, 3], 1)]), original)


@pytest.mark.parametrize("n_rows", [1, 2, 5, 8, 9])
def test_logits_of_few_rows_over_a_wide_vocabulary_are_the_linear_layer_s(tiny_decoder, n_rows):
    module = tiny_decoder(vocab_size=5000)
    hidden = torch.randn(1, n_rows, 32)
    with torch.no_grad():
        logits = module.logits(hidden)
    assert logits.is_contiguous()
    torch.testing.assert_close(logits, module.lm_head(hidden))


def test_runs_of_blocks_are_copied_like_one_block_after_the_other(tiny_decoder):
    copies = [(0, 4), (1, 5), (2, 6), (6, 7), (3, 1), (1, 2), (2, 3)]
    runners = [DecoderRunner(tiny_decoder(), n_blocks=8, block_size=4) for _ in range(2)]
    for runner in runners:
        runner.run([RowInput(list(range(16)), 0, [0, 1, 2, 3], 1)])
    runners[0].copy_blocks(copies)
    for copy in copies:
        runners[1].copy_blocks([copy])
    for fast, slow in zip(*(runner._blocks.k_layers + runner._blocks.v_layers for runner in runners), strict=True):
        assert torch.equal(fast, slow)
