"""The decoder's own behaviour: causality, bad configs, use after inference."""

import pytest
import torch

from tickwise.core.errors import ConfigError
from tickwise.models.decoder import Decoder, DecoderConfig, fresh_parts

SHAPE = {"vocab_size": 31, "context_length": 16, "width": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4,
         "head_dim": 8, "hidden": 64}
OPTIONS = [
    {}, {"positions": "learned", "norm": "layernorm", "activation": "gelu", "bias": True}, {"n_kv_heads": 2},
    {"qk_norm": True, "activation": "relu2", "value_residual": True, "logit_soft_cap": 5.0, "tie_embeddings": True},
]


def decoder(options):
    torch.manual_seed(0)
    return Decoder(DecoderConfig(**(SHAPE | options)))


@pytest.mark.parametrize("options", OPTIONS)
def test_no_position_sees_a_later_one(options):
    module = decoder(options).eval()
    ids = torch.randint(0, 31, (2, 16))
    changed = ids.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 31
    with torch.no_grad():
        before, after = module(ids), module(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], atol=1e-6, rtol=0)
    assert (before[:, 9:] - after[:, 9:]).abs().max() > 1e-3


@pytest.mark.parametrize("options", OPTIONS)
def test_training_works_after_inference_mode(options):
    module = decoder(options)
    ids = torch.randint(0, 31, (2, 16))
    with torch.inference_mode():
        module(ids)
    module(ids).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_soft_cap_bounds_the_logits():
    module = decoder({"logit_soft_cap": 2.0})
    with torch.no_grad():
        module.lm_head.weight.mul_(1000)
        assert module(torch.randint(0, 31, (1, 16))).abs().max() <= 2.0


def test_a_fresh_decoder_predicts_nearly_uniformly_and_the_same_for_the_same_seed():
    for options in OPTIONS:
        a, b = decoder(options).initialise(5), decoder(options).initialise(5)
        ids = torch.randint(0, 31, (1, 16))
        with torch.no_grad():
            assert torch.equal(a(ids), b(ids))
            assert a(ids).log_softmax(-1).std() < 0.3


def test_past_the_context_is_an_error():
    with pytest.raises(ConfigError, match="context of 16"):
        decoder({})(torch.zeros(1, 17, dtype=torch.long))


def test_tied_weights_count_once():
    assert decoder({}).n_parameters() - decoder({"tie_embeddings": True}).n_parameters() == 31 * 32


@pytest.mark.parametrize(("options", "named"), [
    ({"n_kv_heads": 3}, "n_kv_heads"), ({"head_dim": 7}, "head_dim"), ({"dropout": 1.0}, "dropout"),
    ({"logit_soft_cap": -1.0}, "logit_soft_cap"), ({"width": 0}, "width"),
])
def test_contradictory_configs_name_the_key(options, named):
    with pytest.raises(ConfigError, match=named):
        DecoderConfig(**(SHAPE | options))


@pytest.mark.parametrize("options", OPTIONS)
def test_a_fresh_decoder_can_be_had_part_by_part(options):
    whole = decoder(options).initialise(5)
    parts = {f"{name}.{key}": value for name, part in fresh_parts(whole.config, 5)
             for key, value in part.state_dict().items()}
    assert parts.keys() == whole.state_dict().keys()
    assert all(torch.equal(parts[key], value) for key, value in whole.state_dict().items())
