"""Verbs that take a model, with an encoder–decoder."""

import json
from collections import Counter

import pytest
import torch

from tickwise.interop.directory import save_model
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.tokenizers.train import char_tokenizer


@pytest.fixture(scope="module", params=[False, True], ids=["writes", "copies"])
def folder(request, tmp_path_factory):
    tokenizer = char_tokenizer(Counter("abcdefgh \n"), vocab_size=None, end_of_text=True, unknown=False)
    end = tokenizer.eos_id
    module = EncoderDecoder(EncoderDecoderConfig(
        vocab_size=tokenizer.vocab_size, source_length=32, context_length=32, width=16, n_encoder_layers=1,
        n_decoder_layers=2, n_heads=2, n_kv_heads=2, head_dim=8, hidden=16, pad_id=end, start_id=end, eos_id=end,
        copies=request.param))
    generator = torch.Generator().manual_seed(0)
    for parameter in module.initialise(0).parameters():
        torch.nn.init.normal_(parameter, 0, 0.4, generator=generator)
    path = tmp_path_factory.mktemp("model") / "m"
    save_model(path, module.requires_grad_(False), tokenizer)
    return path


def test_generate_writes_a_target_for_the_source(tickwise_cli, folder):
    flags = ("--max-tokens", "6", "--temperature", "0", "--ignore-eos", "--json")
    code, out, _ = tickwise_cli("generate", folder, "--prompt", "abc", *flags)
    first = json.loads(out)
    assert (code, len(first["token_ids"])) == (0, 6)
    _, out, _ = tickwise_cli("generate", folder, "--prompt", "hgf", *flags)
    assert json.loads(out)["token_ids"] != first["token_ids"]


@pytest.mark.parametrize(("words", "message"), [
    (("generate", "--prompt", ""), "the source is empty"),
    (("generate", "--prompt", "a" * 40), "the source has 41 tokens with its end mark and the model reads at most 32"),
    (("generate", "--prompt", "a", "--speculate", "lookup"), "speculate off"),
    (("evaluate", "--data", "README.md"), "predicts a target from its source"),
])
def test_what_an_encoder_decoder_cannot_do_is_one_line(tickwise_cli, folder, words, message):
    code, out, err = tickwise_cli(words[0], folder, *words[1:])
    assert (code, out) == (2, "")
    assert message in err.strip().splitlines()[-1]


def test_a_trace_has_cross_attention_in_every_tick(tickwise_cli, folder, tmp_path):
    code, out, _ = tickwise_cli("trace", folder, "--prompt", "abc", "--max-tokens", "5", "--ignore-eos", "--out",
                                tmp_path / "t", "--json")
    assert code == 0
    ticks = json.loads(out)["ticks"]
    assert [tick["phase"] for tick in ticks] == ["prefill"] + ["decode"] * 4
    for tick in ticks:
        crossing = [stage for stage in tick["stages"] if stage["stage"] == "cross_attention"]
        assert [stage["layer"] for stage in crossing] == [1, 2]  # after the encoder's only layer
        assert all(stage["flops"] > 0 for stage in crossing)


@pytest.mark.parametrize("phase", ["prefill", "decode", "train"])
def test_the_listing_of_every_phase_has_cross_attention(tickwise_cli, folder, phase):
    code, out, _ = tickwise_cli("disasm", folder, "--phase", phase, "--context", "9", "--json")
    listing = json.loads(out)
    assert code == 0
    layers = {i["layer"] for i in listing["instructions"] if i["stage"] == "cross_attention" and i["flops"]}
    assert layers == {1, 2}
    assert sum(i["flops"] for i in listing["instructions"]) == listing["totals"]["flops"]
