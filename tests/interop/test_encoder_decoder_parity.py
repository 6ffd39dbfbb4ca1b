"""Tiny random T5, BART and Marian directories, as transformers writes them, compute the same here."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tickwise.core.errors import CheckpointError
from tickwise.engine.kv_cache import KVCache
from tickwise.interop.directory import load_module, save_model

transformers = pytest.importorskip("transformers")

T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 6, "d_ff": 40, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
      "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "decoder_start_token_id": 0}
BART = {"vocab_size": 60, "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_position_embeddings": 24,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
MODELS = {
    "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)),
    "t5 gated": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(
        **T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    "t5 gated silu": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(
        **T5, feed_forward_proj="gated-silu")),
    "bart": lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**BART)),
    "bart scaled": lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(
        **BART, scale_embedding=True, activation_function="relu")),
    "marian": lambda: transformers.MarianMTModel(transformers.MarianConfig(
        **BART, scale_embedding=True, activation_function="swish")),
}


def directory(name, folder):
    """A directory that transformers wrote, of a model none of whose numbers is special."""
    torch.manual_seed(3)
    reference = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        if hasattr(reference, "final_logits_bias"):
            reference.final_logits_bias.normal_()
    reference.save_pretrained(folder)
    if name == "t5 gated":  # published T5 1.1 models have a head of their own, which only a file can have
        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.weight"] = torch.randn(60, 32)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        reference = type(reference).from_pretrained(folder).eval()
    return reference


@pytest.fixture(params=MODELS)
def pair(request, tmp_path):
    reference = directory(request.param, tmp_path / "m")
    return reference, load_module(tmp_path / "m", device="cpu")


def texts():
    torch.manual_seed(5)
    return torch.randint(3, 60, (3, 20)), torch.tensor([20, 9, 14]), torch.randint(3, 60, (3, 16))


def cache_of(module, batch):
    return KVCache(module.config.n_decoder_layers, batch, 4, module.config.head_dim, capacity=16)


def test_logits_equal_transformers(pair):
    reference, module = pair
    source, lengths, target = texts()
    mask = (torch.arange(20) < lengths[:, None]).long()
    with torch.no_grad():
        theirs = reference(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
        ours = module(source, lengths, target)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=1e-5)


def test_cached_decoding_equals_transformers(pair):
    reference, module = pair
    source, lengths, target = texts()
    mask = (torch.arange(20) < lengths[:, None]).long()
    with torch.no_grad():
        theirs = reference(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
        memory, cache = module.encode(source, lengths), cache_of(module, 3)
        ours = [module.logits(module.hidden_states(part, memory, cache=cache))
                for part in target.split([1, 4, 1, 10], 1)]
    torch.testing.assert_close(torch.cat(ours, 1), theirs, atol=5e-5, rtol=1e-5)


def test_greedy_texts_equal_transformers(pair):
    reference, module = pair
    source, lengths, _ = texts()
    with torch.no_grad():
        for row, length in enumerate(lengths.tolist()):
            theirs = reference.generate(
                source[row : row + 1, :length], max_new_tokens=12, num_beams=1, do_sample=False,
                eos_token_id=module.config.eos_id, forced_eos_token_id=None)[0].tolist()
            memory, cache = module.encode(source[row : row + 1, :length]), cache_of(module, 1)
            ours = [module.config.start_id]
            while len(ours) < len(theirs):
                hidden = module.hidden_states(torch.tensor([ours[-1:]]), memory, cache=cache)
                ours.append(module.logits(hidden).argmax().item())
            assert ours == theirs


def test_saved_as_our_own_it_stays_the_same(pair, tmp_path):
    _, module = pair
    source, lengths, target = texts()

    class NoAssets:
        def save(self, folder):
            """Nothing belongs to it."""

    save_model(tmp_path / "own", module, NoAssets())
    assert json.loads((tmp_path / "own" / "config.json").read_text())["model_type"] == "tickwise-encoder-decoder"
    with torch.no_grad():
        assert torch.equal(load_module(tmp_path / "own", device="cpu")(source, lengths, target),
                           module(source, lengths, target))


def edited(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(("name", "values", "said"), [
    ("t5", {"feed_forward_proj": "tanh", "dense_act_fn": "tanh"}, "activation 'tanh'"),
    ("t5", {"d_ff": None}, "'d_ff' is missing"),
    ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder"),
    ("t5", {"num_layers": 4}, "encoder.block.3"),
    ("t5", {"num_decoder_layers": 1}, "has no place"),
    ("t5", {"d_ff": 41}, "shape"),
    ("t5", {"parallel_attention": True}, "unknown key 'parallel_attention'"),
    ("bart", {"normalize_before": True}, "normalize_before"),
    ("bart", {"decoder_ffn_dim": 41}, "decoder_ffn_dim 41"),
    ("bart", {"encoder_attention_heads": 5, "decoder_attention_heads": 5}, "does not divide"),
    ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings"),
    ("marian", {"activation_function": "quick_gelu"}, "quick_gelu"),
    ("marian", {"eos_token_id": 60}, "eos_id"),
])
def test_what_the_family_does_not_compute_is_refused_in_one_line(name, values, said, tmp_path):
    directory(name, tmp_path / "m")
    edited(tmp_path / "m", **values)
    with pytest.raises(CheckpointError) as caught:
        load_module(tmp_path / "m", device="cpu")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_head_that_differs_from_what_the_config_ties_it_to_is_refused(tmp_path):
    directory("bart", tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn(60, 32)
    save_file(tensors, tmp_path / "m" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight"):
        load_module(tmp_path / "m", device="cpu")


def test_configs_of_published_models_are_understood(tmp_path):
    from tickwise.interop.encoder_decoder_names import encoder_decoder_config

    small = {  # the keys of google-t5/t5-small
        "architectures": ["T5ForConditionalGeneration"], "d_ff": 2048, "d_kv": 64, "d_model": 512,
        "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "initializer_factor": 1.0,
        "is_encoder_decoder": True, "layer_norm_epsilon": 1e-06, "model_type": "t5", "n_positions": 512,
        "num_heads": 8, "num_layers": 6, "output_past": True, "pad_token_id": 0,
        "relative_attention_num_buckets": 32, "task_specific_params": {"summarization": {"num_beams": 4}},
        "vocab_size": 32128}
    config = encoder_decoder_config(small, "config.json")
    assert (config.tie_embeddings, config.scale_logits, config.activation) == (True, True, "relu")
    newer = encoder_decoder_config(small | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, "c")
    assert (newer.tie_embeddings, newer.scale_logits, newer.activation) == (False, False, "geglu_tanh")
    opus = {  # the keys of Helsinki-NLP/opus-mt-en-de
        "_num_labels": 3, "activation_dropout": 0.0, "activation_function": "swish", "add_bias_logits": False,
        "add_final_layer_norm": False, "architectures": ["MarianMTModel"], "attention_dropout": 0.0,
        "bad_words_ids": [[58100]], "bos_token_id": 0, "classif_dropout": 0.0, "classifier_dropout": 0.0,
        "d_model": 512, "decoder_attention_heads": 8, "decoder_ffn_dim": 2048, "decoder_layerdrop": 0.0,
        "decoder_layers": 6, "decoder_start_token_id": 58100, "decoder_vocab_size": 58101, "dropout": 0.1,
        "encoder_attention_heads": 8, "encoder_ffn_dim": 2048, "encoder_layerdrop": 0.0, "encoder_layers": 6,
        "eos_token_id": 0, "forced_eos_token_id": 0, "id2label": {"0": "LABEL_0"}, "init_std": 0.02,
        "is_encoder_decoder": True, "label2id": {"LABEL_0": 0}, "max_length": 512, "max_position_embeddings": 512,
        "model_type": "marian", "normalize_before": False, "normalize_embedding": False, "num_beams": 4,
        "num_hidden_layers": 6, "pad_token_id": 58100, "scale_embedding": True,
        "share_encoder_decoder_embeddings": True, "static_position_embeddings": True,
        "transformers_version": "4.22.0.dev0", "use_cache": True, "vocab_size": 58101}
    config = encoder_decoder_config(opus, "config.json")
    assert (config.activation, config.positions, config.start_id) == ("silu", "sinusoidal", 58100)
    bart = {  # the keys of facebook/bart-base
        "activation_dropout": 0.1, "activation_function": "gelu", "add_bias_logits": False,
        "add_final_layer_norm": False, "architectures": ["BartModel"], "attention_dropout": 0.1, "bos_token_id": 0,
        "classif_dropout": 0.1, "classifier_dropout": 0.0, "d_model": 768, "decoder_attention_heads": 12,
        "decoder_ffn_dim": 3072, "decoder_layerdrop": 0.0, "decoder_layers": 6, "decoder_start_token_id": 2,
        "dropout": 0.1, "early_stopping": True, "encoder_attention_heads": 12, "encoder_ffn_dim": 3072,
        "encoder_layerdrop": 0.0, "encoder_layers": 6, "eos_token_id": 2, "forced_bos_token_id": 0,
        "forced_eos_token_id": 2, "gradient_checkpointing": False, "id2label": {"0": "LABEL_0"}, "init_std": 0.02,
        "is_encoder_decoder": True, "label2id": {"LABEL_0": 0}, "max_position_embeddings": 1024, "model_type": "bart",
        "no_repeat_ngram_size": 3, "normalize_before": False, "normalize_embedding": True, "num_beams": 4,
        "num_hidden_layers": 6, "pad_token_id": 1, "scale_embedding": False, "task_specific_params": {},
        "torch_dtype": "float32", "transformers_version": "4.12.0.dev0", "use_cache": True, "vocab_size": 50265}
    config = encoder_decoder_config(bart, "config.json")
    assert (config.positions, config.norm_place, config.embedding_norm) == ("learned", "post", True)
