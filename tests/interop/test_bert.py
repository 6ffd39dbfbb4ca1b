"""The encoder equals transformers' BERT with the same weights, read from and written to model directories."""

import json

import pytest
import torch

from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.interop.directory import load_module, write_model_files
from tickwise.interop.warm_start import headed_encoder, warm_start
from tickwise.models.encoder import Encoder, EncoderConfig
from tickwise.models.encoder_heads import EncoderClassifier, EncoderClassifierConfig

transformers = pytest.importorskip("transformers")
TINY = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40,
        "max_position_embeddings": 24, "type_vocab_size": 2}


class NoAssets:
    def save(self, folder):
        """A model without a tokenizer."""


def saved_bert(kind, folder):
    torch.manual_seed(3)
    module = kind(transformers.BertConfig(**TINY)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    module.save_pretrained(folder)
    return module


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(50, (3, 17), generator=generator)
    return ids, torch.tensor([17, 9, 1]), torch.randint(2, (3, 17), generator=generator)


def mask_of(ids, lengths):
    return (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def test_states_equal_those_of_bert_model(tmp_path, inputs):
    theirs = saved_bert(transformers.BertModel, tmp_path)
    ours = load_module(tmp_path, device="cpu")
    ids, lengths, segments = inputs
    expected = theirs(ids, attention_mask=mask_of(ids, lengths), token_type_ids=segments).last_hidden_state
    inside = mask_of(ids, lengths).bool()
    torch.testing.assert_close(ours(ids, lengths, segments)[inside], expected[inside], atol=1e-5, rtol=1e-5)


def test_logits_equal_those_of_bert_for_masked_words(tmp_path, inputs):
    theirs = saved_bert(transformers.BertForMaskedLM, tmp_path)
    ours = load_module(tmp_path, device="cpu")
    ids, _, _ = inputs
    expected = theirs(ids).logits
    torch.testing.assert_close(ours.mlm_logits(ours(ids)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masked_head", [True, False])
def test_transformers_opens_what_is_written(tmp_path, inputs, masked_head):
    config = EncoderConfig(vocab_size=50, context_length=24, width=32, n_layers=2, n_heads=2, head_dim=16, hidden=40,
                           positions="learned", norm="layernorm", norm_place="post", norm_epsilon=1e-12,
                           activation="gelu", bias=True, n_segments=2, masked_head=masked_head)
    ours = Encoder(config).initialise(5).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(6)))
    write_model_files(tmp_path, ours, NoAssets())
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
    ids, _, _ = inputs
    if masked_head:
        theirs = transformers.BertForMaskedLM.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(ours.mlm_logits(ours(ids)), theirs(ids).logits, atol=1e-5, rtol=1e-5)
    else:
        theirs = transformers.BertModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
        torch.testing.assert_close(ours(ids), theirs(ids).last_hidden_state, atol=1e-5, rtol=1e-5)
    again = load_module(tmp_path, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), ours.state_dict().values(), strict=True))


def test_a_head_starts_from_bert_and_says_what_is_new(tmp_path, inputs, capfd):
    theirs = saved_bert(transformers.BertForMaskedLM, tmp_path)
    ours = headed_encoder(EncoderClassifier, EncoderClassifierConfig, tmp_path, seed=1, labels=("a", "b"))
    said = capfd.readouterr().err
    assert "new: classes.weight, classes.bias" in said
    assert "left behind: masked_head.dense.weight" in said
    ids, _, _ = inputs
    expected = theirs.bert(ids).last_hidden_state
    torch.testing.assert_close(ours.eval().states(ours.embed(ids)), expected, atol=1e-5, rtol=1e-5)


def test_learned_positions_cannot_be_stretched(tmp_path):
    saved_bert(transformers.BertModel, tmp_path)
    with pytest.raises(ConfigError, match="learned positions for 24 tokens"):
        headed_encoder(EncoderClassifier, EncoderClassifierConfig, tmp_path, seed=1, labels=("a", "b"),
                       context_length=48)


def test_another_models_head_is_left_behind_and_named(tmp_path):
    saved_bert(transformers.BertForSequenceClassification, tmp_path)
    config = EncoderConfig(vocab_size=50, context_length=24, width=32, n_layers=3, n_heads=2, head_dim=16, hidden=44,
                           positions="learned", norm="layernorm", norm_place="post", activation="gelu", bias=True,
                           n_segments=4, masked_head=False)
    report = warm_start(Encoder(config).initialise(1), tmp_path)
    assert report.left == ("classifier.bias", "classifier.weight")
    assert "layers.0.mlp.up_proj.weight (40×32 there, 44×32 here)" in report.mismatched
    assert "layers.2.self_attn.o_proj.weight" in report.new
    assert report.partly == ("embed_segments.weight (2 of 4 rows)",)
    assert "layers.1.self_attn.qkv_proj.weight" in report.loaded


def test_a_head_with_a_matrix_of_its_own_is_refused(tmp_path):
    saved_bert(transformers.BertForMaskedLM, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match="'tie_word_embeddings' false"):
        load_module(tmp_path, device="cpu")


@pytest.mark.parametrize(("key", "value", "said"), [
    ("position_embedding_type", "relative_key", "relative_key"), ("hidden_act", "relu", "relu"),
    ("num_attention_heads", 5, "does not divide"), ("is_decoder", True, "is_decoder"), ("surprise", 1, "unknown key"),
])
def test_what_the_encoder_does_not_compute_is_refused(tmp_path, key, value, said):
    saved_bert(transformers.BertModel, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(CheckpointError, match=said):
        load_module(tmp_path, device="cpu")


def test_nothing_that_fits_is_an_error(tmp_path):
    saved_bert(transformers.BertModel, tmp_path)
    config = EncoderConfig(vocab_size=9, context_length=5, width=8, n_layers=1, n_heads=1, head_dim=8, hidden=9)
    with pytest.raises(CheckpointError, match="no tensor of it fits"):
        warm_start(Encoder(config).initialise(1), tmp_path)
