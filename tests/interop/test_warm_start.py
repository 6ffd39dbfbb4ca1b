"""A beginning with another model's weights: what is taken, and what is said of every other tensor."""

import dataclasses

import pytest
import torch

from tickwise.interop.directory import save_model
from tickwise.interop.warm_start import warm_start
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

SMALL = EncoderDecoderConfig(
    vocab_size=50, source_length=20, context_length=20, width=16, n_encoder_layers=1, n_decoder_layers=1, n_heads=2,
    n_kv_heads=2, head_dim=8, hidden=24, pad_id=0, start_id=0, eos_id=0, logit_bias=True)


class NoAssets:
    def save(self, folder):
        """There are none."""


def drawn(config, seed):
    """A model none of whose numbers is special."""
    module, generator = EncoderDecoder(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=generator)
    return module


def started(there, here, folder):
    """(the source, the module before, the module after, the report)"""
    source, before, after = drawn(there, 1), drawn(here, 2), drawn(here, 2)
    save_model(folder / "m", source, NoAssets())
    return source.state_dict(), before.state_dict(), after.state_dict(), warm_start(after, folder / "m")


@pytest.mark.parametrize("tied", [True, False])
def test_a_larger_vocabulary_takes_the_rows_that_there_are(tied, tmp_path):
    config = dataclasses.replace(SMALL, tie_embeddings=tied)
    source, before, after, report = started(config, dataclasses.replace(config, vocab_size=60), tmp_path)
    for name in ("embed_tokens.weight", "lm_head.weight", "lm_head.bias"):
        assert torch.equal(after[name][:50], source[name])
        assert torch.equal(after[name][50:], before[name][50:])
    assert set(report.partly) == {f"{name} (50 of 60 rows)"
                                  for name in ("embed_tokens.weight", "lm_head.weight", "lm_head.bias")}
    assert (report.new, report.left, report.mismatched) == ((), (), ())
    assert len(report.loaded) + 3 == len(after)


def test_only_what_has_a_row_for_each_token_takes_rows(tmp_path):
    here = dataclasses.replace(SMALL, vocab_size=60, hidden=30)
    _, before, after, report = started(SMALL, here, tmp_path)
    (said,) = [text for text in report.mismatched if text.startswith("encoder.layers.0.mlp.gate_up_proj")]
    assert said == "encoder.layers.0.mlp.gate_up_proj.weight (48×16 there, 60×16 here)"
    assert torch.equal(after["encoder.layers.0.mlp.gate_up_proj.weight"],
                       before["encoder.layers.0.mlp.gate_up_proj.weight"])


def test_a_head_that_is_tied_here_is_the_embedding_and_the_other_one_is_left_behind(tmp_path):
    source, _, after, report = started(dataclasses.replace(SMALL, tie_embeddings=False), SMALL, tmp_path)
    assert torch.equal(after["embed_tokens.weight"], source["embed_tokens.weight"])
    assert report.left == ("lm_head.weight",)
    assert {"embed_tokens.weight", "lm_head.weight"} <= set(report.loaded)


def test_a_smaller_vocabulary_takes_nothing(tmp_path):
    _, before, after, report = started(SMALL, dataclasses.replace(SMALL, vocab_size=40), tmp_path)
    assert torch.equal(after["embed_tokens.weight"], before["embed_tokens.weight"])
    assert [text.split()[0] for text in report.mismatched] == ["embed_tokens.weight", "lm_head.weight", "lm_head.bias"]
