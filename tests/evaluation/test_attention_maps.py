"""Attention maps: the weights are those of transformers, and every row adds up to 1."""

import pytest
import tokenizers.models
import tokenizers.pre_tokenizers
import torch

import tokenizers
from tickwise.core.errors import ConfigError, DataError
from tickwise.evaluation.attention import (
    AttentionMap,
    Words,
    decoder_maps,
    encoder_maps,
    token_texts,
    translation_maps,
    word_map,
    words_of,
)
from tickwise.interop.directory import load_module
from tickwise.layers.attention_weights import WatchedText
from tickwise.models.encoder import Encoder, EncoderConfig
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import train_tokenizer

transformers = pytest.importorskip("transformers")

SEQ2SEQ = {"vocab_size": 60, "d_model": 32, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2}
SIZES = {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
         "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "max_position_embeddings": 24}
MODELS = {
    "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(
        **SEQ2SEQ, d_kv=6, d_ff=40, num_layers=3, num_decoder_layers=2, num_heads=4, relative_attention_num_buckets=8,
        relative_attention_max_distance=12)),
    "bart": lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**SEQ2SEQ, **SIZES)),
    "marian": lambda: transformers.MarianMTModel(transformers.MarianConfig(**SEQ2SEQ, **SIZES)),
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("bpe", iter(["the dog runs and the cat sits"] * 3), vocab_size=300)


def loaded(reference, folder):
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.requires_grad:  # Marian's positions are fixed
                parameter.add_(torch.randn_like(parameter) * 0.1)
    reference.eval().save_pretrained(folder)
    return load_module(folder, device="cpu")


def assert_map(one, theirs):
    assert one.weights_LHTS.shape[2:] == (len(one.queries), len(one.keys))
    torch.testing.assert_close(one.weights_LHTS.sum(-1), torch.ones(one.weights_LHTS.shape[:3]))
    torch.testing.assert_close(one.weights_LHTS, torch.stack([layer[0] for layer in theirs]), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_a_translation_are_those_of_transformers(name, tokenizer, tmp_path):
    torch.manual_seed(3)
    reference = MODELS[name]()
    reference.set_attn_implementation("eager")
    module = loaded(reference, tmp_path)
    source, target = [5, 17, 40, 8, 23], [31, 9, 44]
    cross, encoder, decoder, *words = translation_maps(module, tokenizer, source, target)
    with torch.no_grad():
        theirs = reference(input_ids=torch.tensor([[*source, 2]]), decoder_input_ids=torch.tensor([[0, *target]]),
                           output_attentions=True)
    assert_map(cross, theirs.cross_attentions)
    assert_map(encoder, theirs.encoder_attentions)
    assert_map(decoder, theirs.decoder_attentions)
    assert (cross.name, len(cross.queries), len(cross.keys)) == ("cross", 4, 6)
    assert decoder.weights_LHTS[..., 0, 1:].max() == 0
    assert cross.mean().shape == (4, 6)
    assert [one.name for one in words] == ["words"]


@pytest.mark.parametrize("n_kv_heads", [4, 2])
def test_weights_of_a_decoder_are_those_of_transformers(n_kv_heads, tokenizer, tmp_path):
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=n_kv_heads, max_position_embeddings=32)
    reference = transformers.LlamaForCausalLM(config)
    reference.set_attn_implementation("eager")
    module = loaded(reference, tmp_path)
    ids = [5, 17, 40, 8, 23, 31]
    (one,) = decoder_maps(module, tokenizer, ids)
    with torch.no_grad():
        assert_map(one, reference(input_ids=torch.tensor([ids]), output_attentions=True).attentions)


def test_an_encoder_s_states_are_the_same_when_it_is_watched(tokenizer):
    torch.manual_seed(0)
    module = Encoder(EncoderConfig(vocab_size=60, context_length=16, width=32, n_layers=2, n_heads=4, head_dim=8,
                                   hidden=48)).initialise(1).eval()
    for parameter in module.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    ids = torch.tensor([[5, 17, 40, 8]])
    with torch.no_grad():
        watched = WatchedText(causal=False)
        torch.testing.assert_close(module.states(module.embed(ids), watched=watched), module(ids))
    (one,) = encoder_maps(module, tokenizer, ids[0].tolist())
    torch.testing.assert_close(one.weights_LHTS, torch.stack([watched.weights[i][0] for i in range(2)]))
    torch.testing.assert_close(one.weights_LHTS.sum(-1), torch.ones(2, 4, 4))
    for wrong, kind in ((list(range(17)), ConfigError), ([], DataError)):
        with pytest.raises(kind, match="text"):
            encoder_maps(module, tokenizer, wrong)


def test_tokens_are_shown_so_that_each_can_be_told(tokenizer):
    ids = tokenizer.encode("the dog\n狗")
    texts = token_texts(tokenizer, [*ids, tokenizer.eos_id])
    assert "".join(texts).startswith("the␣dog⏎⟨e7")
    assert texts[-1] == "⟨end⟩"
    assert len(texts) == len(ids) + 1


def test_a_pointer_is_what_the_output_mixes_in(tokenizer):
    torch.manual_seed(0)
    eos = tokenizer.eos_id
    module = EncoderDecoder(EncoderDecoderConfig(
        vocab_size=tokenizer.vocab_size, source_length=16, context_length=16, width=16, n_encoder_layers=1,
        n_decoder_layers=2, n_heads=2, n_kv_heads=2, head_dim=8, hidden=16, copies=True, pad_id=eos, start_id=eos,
        eos_id=eos)).initialise(1).eval()
    for parameter in module.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    source, target = (tokenizer.encode_sources([text])[0] for text in ("the dog runs", "the cat"))
    copy, cross, *_ = maps = translation_maps(module, tokenizer, source, target)
    assert [one.name for one in maps] == ["copy", "cross", "encoder", "decoder", "words"]
    assert (copy.queries, copy.keys) == (cross.queries, cross.keys)
    assert copy.weights_LHTS.shape[:2] == (1, 1)
    assert all(0 < share < 1 for share in copy.copied)
    read, begun = torch.tensor([[*source, eos]]), torch.tensor([[eos, *target]])
    with torch.no_grad():
        memory = module.encode(read)
        hidden = module.hidden_states(begun, memory)
        written = module.lm_head(hidden).softmax(-1)[0]
        shares = torch.tensor(copy.copied)[:, None]
        expected = ((1 - shares) * written).scatter_add(1, read.expand(len(begun[0]), -1), shares * copy.mean())
        torch.testing.assert_close(expected, module.logits(hidden, memory).exp()[0], atol=1e-5, rtol=1e-4)


def test_words_are_what_blanks_separate_and_han_characters(tokenizer):
    eos = tokenizer.eos_id
    words = words_of(tokenizer, [*tokenizer.encode("the dog,  sits 狗。x\n\ny"), eos])
    assert words.texts == ("the", "dog,", "sits", "狗", "。x", "y")
    assert words.of_token[-1] == -1
    assert [sum(number == word for number in words.of_token) for word in range(6)][3] == 3  # bytes of one character
    assert words_of(tokenizer, [eos]) == Words((), (-1,))


def test_words_of_vocabularies_that_keep_no_blanks():
    vocabulary = {name: number for number, name in enumerate(["[UNK]", "dog", "cat", "##s", "##fish", "狗", "猫"])}
    pieces = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    found = Tokenizer(pieces, "other")
    ids = found.encode("dog catfishs 狗")
    assert words_of(found, ids) == Words(("dog", "catfishs", "狗"), (0, 1, 1, 1, 2))
    whole = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    whole.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    found = Tokenizer(whole, "other")
    assert words_of(found, found.encode("dog cat cat")) == Words(("dog", "cat", "cat"), (0, 1, 2))


def test_words_are_aligned_by_the_last_layer_but_one():
    targets, sources = Words(("der", "Hund"), (0, 1, 1, -1)), Words(("the", "dog"), (0, 1, 1, -1))
    weights = torch.zeros(3, 2, 4, 4)
    weights[..., 3] = 1  # the other layers look at the end mark, or the wrong way round
    weights[0, :, 0, 2] = weights[0, :, 1, 0] = weights[2, :, 0, 1] = weights[2, :, 2, 0] = 9
    # "der": the mean of the heads is 0.3 for "the" and 0.125 + 0.125 for "dog"; "Hund": its second token decides.
    weights[1, 0, 0], weights[1, 1, 0] = torch.tensor([0.6, 0.0, 0.0, 0.4]), torch.tensor([0.0, 0.25, 0.25, 0.5])
    weights[1, :, 1], weights[1, :, 2] = torch.tensor([0.3, 0.1, 0.1, 0.5]), torch.tensor([0.0, 0.3, 0.3, 0.4])
    cross = AttentionMap("cross", ("der", "Hu", "nd", "⟨end⟩"), ("the", "do", "g", "⟨end⟩"), weights)
    words = word_map(cross, targets, sources)
    assert (words.name, words.queries, words.keys) == ("words", ("der", "Hund"), ("the", "dog"))
    torch.testing.assert_close(words.mean(), torch.tensor([[0.3 / 0.55, 0.25 / 0.55], [0.15 / 0.55, 0.4 / 0.55]]))
    assert words.pharaoh() == "0-0 1-1"
    swapped = AttentionMap("cross", cross.queries, cross.keys, weights[[1, 0]])
    assert word_map(swapped, targets, sources).pharaoh() == "0-0 1-1"
    alone = AttentionMap("cross", cross.queries, cross.keys, weights[:1])
    assert word_map(alone, targets, sources).pharaoh() == "1-0 0-1"
    assert word_map(cross, targets, Words((), (-1,) * 4)) is None
