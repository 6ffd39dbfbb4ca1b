"""Every model family of the table: a config makes a model, ``disasm`` lists it, and it comes back from disk."""

import json

import numpy
import pytest
import torch
from torch import Tensor

from tickwise.interop.directory import load_module, read_config, save_model
from tickwise.models.encoder_decoder import EncoderDecoder
from tickwise.models.families import FAMILIES
from tickwise.models.ngram import Ngram
from tickwise.training.ngram import count_ngrams

VOCABULARY, CONTEXT, TEXTS = 23, 12, 2
TICKS, WITH_TRAINING, ONE_PASS = ("prefill", "decode"), ("prefill", "decode", "train"), ("prefill",)
PHASES = {
    "language model": WITH_TRAINING, "text-to-text model": WITH_TRAINING, "classifier": ONE_PASS, "tagger": ONE_PASS,
    "autoencoder": ONE_PASS, "latent generator": ONE_PASS, "adversary": ONE_PASS, "encoder": ONE_PASS,
    "span reader": ONE_PASS, "sentence embedder": ONE_PASS, "word vectors": ONE_PASS,
}
COUNTED = ("tickwise-ngram", "tickwise-factorised")
LOOKED_UP = ("tickwise-ngram", "tickwise-word-vectors")
"""Nothing in them is multiplied as matrices are."""

TRANSFORMER = {"vocab_size": VOCABULARY, "context_length": 16, "width": 16, "n_heads": 2, "head_dim": 8, "hidden": 24}
LABELS = ("bad", "good", "neither")
WORDS = {"feature_sizes": (VOCABULARY, 5), "feature_widths": (6, 3), "n_characters": 9, "hidden": 7}
SHAPES = {
    "tickwise-decoder": TRANSFORMER | {"n_layers": 2, "n_kv_heads": 1},
    "tickwise-encoder-decoder": TRANSFORMER | {
        "source_length": 16, "n_encoder_layers": 2, "n_decoder_layers": 1, "n_kv_heads": 2, "pad_id": 0, "start_id": 0,
        "eos_id": 1},
    "tickwise-tagger": WORDS | {"labels": ("O", "S-X", "B-X", "I-X", "E-X")},
    "tickwise-bag": {"labels": LABELS, "n_features": VOCABULARY, "width": 4, "hidden": 5},
    "tickwise-recurrent-classifier": WORDS | {"labels": LABELS, "kind": "gru"},
    "tickwise-recurrent": {"vocab_size": VOCABULARY, "width": 8, "hidden": 12, "n_layers": 2},
    "tickwise-word-vectors": {"vocab_size": VOCABULARY, "width": 6},
    "tickwise-vae": {"vocab_size": VOCABULARY, "eos_id": 1, "latent": 3, "width": 8, "hidden": 12, "encoder_hidden": 10,
                     "context_length": 16},
    "tickwise-discriminator": {"vocab_size": VOCABULARY, "width": 8, "filters": (1, 2), "features": 6},
    "tickwise-latent-gan": {"latent": 3, "noise": 5, "hidden": 8},
    "tickwise-encoder": TRANSFORMER | {"n_layers": 2},
    "tickwise-electra": TRANSFORMER | {"n_layers": 2},
    "tickwise-encoder-classifier": TRANSFORMER | {"n_layers": 2, "labels": LABELS},
    "tickwise-encoder-tagger": TRANSFORMER | {"n_layers": 2, "labels": ("O", "S-X")},
    "tickwise-span-reader": TRANSFORMER | {"n_layers": 2},
    "tickwise-sentence-embedder": TRANSFORMER | {"n_layers": 2},
}


class NoAssets:
    """A model directory of nothing but the model."""

    def save(self, folder):
        """Nothing besides."""


def config_of(model_type):
    """A small config. Those of counted models follow from what was counted."""
    family = FAMILIES[model_type]
    if model_type not in COUNTED:
        return family.config_class()(**SHAPES[model_type])
    ngram = counted().config
    if model_type == "tickwise-ngram":
        return ngram
    return family.config_class()(rank=4, n_positions=2, decays=(0.5,), window=6, ngram=ngram)


def counted():
    return count_ngrams(numpy.random.default_rng(0).integers(0, VOCABULARY, size=300), VOCABULARY, order=3)


def made(model_type):
    """A model whose every number counts."""
    module = FAMILIES[model_type].module_class()(config_of(model_type))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.empty(parameter.shape).normal_(0, 0.4, generator=generator))
    if isinstance(module, Ngram):
        module = counted()
    elif model_type == "tickwise-factorised":
        module.ngram = counted()
        module.mixture.data.uniform_(0.2, 0.8, generator=generator)
    return module.eval()


def inputs_of(module):
    """Random ones of the kinds and shapes that the model takes."""
    generator = torch.Generator().manual_seed(1)

    def ids(length=CONTEXT):
        return torch.randint(2, VOCABULARY, (TEXTS, length), generator=generator)

    examples = getattr(module, "example_inputs", None)
    if examples is None:
        return (ids(), torch.tensor([CONTEXT, 7]), ids(5)) if isinstance(module, EncoderDecoder) else (ids(),)
    inputs = list(examples(TEXTS, CONTEXT))
    first = inputs[0]
    if first.is_floating_point():
        inputs[0] = torch.randn(first.shape, generator=generator)
    else:
        inputs[0] = torch.randint(1, 5, first.shape, generator=generator)  # the smallest table has 5 rows
    return tuple(inputs)


def answers(module):
    """All tensors that ``forward`` gives, one after the other."""

    def tensors(given):
        if isinstance(given, Tensor):
            return [given]
        return [tensor for one in given for tensor in tensors(one)] if isinstance(given, tuple | list) else []

    with torch.no_grad():
        return tensors(module(*inputs_of(module)))


@pytest.fixture(params=FAMILIES)
def model_type(request):
    return request.param


def test_every_family_has_a_config_here():
    assert set(FAMILIES) == set(SHAPES) | set(COUNTED)


def test_a_model_comes_back_from_disk_with_its_config_and_equal_outputs(model_type, tmp_path):
    module = made(model_type)
    save_model(tmp_path / "model", module, NoAssets())
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"]
    family, config = read_config(tmp_path / "model")
    assert family == FAMILIES[model_type]
    assert config == module.config
    again = load_module(tmp_path / "model", device="cpu")
    assert type(again) is type(module)
    weights = again.state_dict()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    before, after = answers(module), answers(again)
    assert len(before) == len(after) > 0
    for one, other in zip(before, after, strict=True):
        assert one.isfinite().all()
        # At another place in memory a convolution adds up in another order.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert one.unique().numel() > 1
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.mul_(1.1)
    assert any(not one.allclose(other, rtol=1e-3) for one, other in zip(before, answers(again), strict=True))


def test_every_phase_is_listed_or_refused_in_one_line(model_type, tmp_path, tickwise_cli):
    module = made(model_type)
    save_model(tmp_path / "model", module, NoAssets())
    listed = TICKS if model_type in COUNTED else PHASES[FAMILIES[model_type].purpose]
    flops = {}
    for phase in WITH_TRAINING:
        code, out, err = tickwise_cli("disasm", tmp_path / "model", "--phase", phase, "--context", CONTEXT, "--json")
        if phase not in listed:
            assert (code, out) == (2, "")
            assert err.startswith(f"tickwise: --phase {phase}: ")
            assert len(err.splitlines()) == 1
            continue
        assert code == 0, err
        found = json.loads(out)
        assert (found["architecture"], found["library"]) == (type(module).__name__, "tickwise")
        assert found["phase"] == phase
        assert found["totals"]["bytes_read"] == sum(row["bytes_read"] for row in found["instructions"]) > 0
        flops[phase] = found["totals"]["flops"]
        assert (flops[phase] > 0) == (model_type not in LOOKED_UP)
    if "train" in flops:
        assert flops["train"] > 2 * flops["prefill"]
    if "decode" in flops:
        assert flops["decode"] <= flops["prefill"]
