"""Translators that go on from another model: one of T5's or BART's format, and one trained here."""

import json

import numpy as np
import pytest
import torch

from tickwise.core.errors import CheckpointError
from tickwise.data.pair_batches import encode_pairs
from tickwise.data.pairs import Pairs
from tickwise.interop.directory import load_module
from tickwise.tasks.pair_start import pair_start
from tickwise.tasks.text_to_text import PairParts, TextToText, train_text_to_text
from tickwise.tasks.text_to_text_options import TextToTextOptions

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

WORDS = {"one": "eins", "two": "zwei", "dog": "Hund", "cat": "Katze", "sees": "sieht", "big": "gross"}
OPTIONS = TextToTextOptions(epochs=25, batch_tokens=300, longest=30, lr=0.01, dropout=0.0)
SHAPE = {"vocab_size": 20, "d_model": 32, "decoder_start_token_id": 0}


def corpus(n=300):
    chooser = np.random.default_rng(0)
    sources = [" ".join(chooser.choice(list(WORDS), chooser.integers(1, 5)).tolist()) for _ in range(n)]
    return Pairs(sources, [" ".join(WORDS[word] for word in text.split()) for text in sources], "words")


def published(kind, folder):
    """A directory as transformers writes it, with a tokenizer that puts the format's marks around texts."""
    marks = ["<pad>", "</s>", "<unk>", "<s>"]
    ids = {word: number for number, word in enumerate([*marks, *WORDS, *WORDS.values()])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    around = "<s> $A </s>" if kind == "bart" else "$A </s>"
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=around, special_tokens=[(mark, ids[mark]) for mark in marks])
    torch.manual_seed(1)
    if kind == "bart":
        model = transformers.BartForConditionalGeneration(transformers.BartConfig(
            vocab_size=20, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=32,
            pad_token_id=0, bos_token_id=3, eos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=1))
    else:
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(
            vocab_size=20, d_model=32, d_kv=16, d_ff=40, num_layers=1, num_heads=2, decoder_start_token_id=0,
            relative_attention_num_buckets=8, relative_attention_max_distance=12, pad_token_id=0, eos_token_id=1))
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>",
                                         unk_token="<unk>", bos_token="<s>").save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_published_model_is_trained_on_what_transformers_would_train_it_on(kind, tmp_path, capfd):
    reference = published(kind, tmp_path / "m")
    pairs = corpus()
    base = pair_start(tmp_path / "m", OPTIONS)
    encoded = encode_pairs(pairs, base.tokenizer, 30, 30, base.shape.start_id)
    batch = encoded.collate(np.arange(40))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    read = theirs(pairs.sources[:40], padding=True, return_tensors="pt")
    labels = theirs(pairs.targets[:40], padding=True, return_tensors="pt")
    right = labels.input_ids.masked_fill(labels.attention_mask == 0, -100)
    with torch.no_grad():
        loss = reference(input_ids=read.input_ids, attention_mask=read.attention_mask, labels=right).loss
        module = load_module(tmp_path / "m", device="cpu")
        own = module.loss(module.target_states(*batch[:-1]), batch.labels)
    assert own.item() == pytest.approx(loss.item(), rel=1e-5)

    result = train_text_to_text(PairParts(pairs, pairs.take(list(range(30))), None), out=tmp_path / "run",
                                options=OPTIONS, start=tmp_path / "m", device="cpu", dtype="fp32")
    said = capfd.readouterr().err
    assert "warm start from" in said
    translator = TextToText.load(result.model, "cpu")
    assert translator.module.config.positions == module.config.positions
    assert translator.tokenizer.fingerprint == base.tokenizer.fingerprint
    assert result.validation["loss"] < 0.3 * own.item()
    assert translator.translate(["dog"]) == ["Hund"]


def test_a_translator_goes_on_from_one_trained_here(tmp_path, capfd):
    pairs = corpus()
    small = TextToTextOptions(vocab_size=300, width=32, encoder_layers=1, decoder_layers=1, n_heads=1, longest=30,
                              epochs=8, batch_tokens=300, lr=0.02, dropout=0.0)
    parts = PairParts(pairs, pairs.take(list(range(30))), None)
    first = train_text_to_text(parts, out=tmp_path / "first", options=small, device="cpu", dtype="fp32")
    options = TextToTextOptions(width=64, longest=30, epochs=1, batch_tokens=300, lr=0.001, dropout=0.0,
                                bpe_dropout=0.1)
    second = train_text_to_text(parts, out=tmp_path / "second", options=options, start=first.out, device="cpu",
                                dtype="fp32")
    assert "without effect, because the model's shape and tokenizer stay: --options.width" in capfd.readouterr().err
    assert second.validation["loss"] < first.validation["loss"] + 0.05
    fresh = train_text_to_text(parts, out=tmp_path / "fresh", options=small.__class__(**small.__dict__ | {"epochs": 1}),
                               device="cpu", dtype="fp32")
    assert second.validation["loss"] < fresh.validation["loss"] - 0.5


def test_what_cannot_be_gone_on_from_is_refused(tmp_path):
    published("t5", tmp_path / "m")
    path = tmp_path / "m" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "<unk>"}))
    with pytest.raises(CheckpointError, match="its tokenizer ends texts with token 2, its model with 1"):
        pair_start(tmp_path / "m", OPTIONS)


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused_and_long_pairs_are_left_out(tmp_path, capfd):
    published("t5", tmp_path / "m")
    pairs = corpus(60)
    options = TextToTextOptions(epochs=0.2, batch_tokens=300, longest=4, lr=0.01, dropout=0.0)
    train_text_to_text(PairParts(pairs, pairs.take(list(range(30))), None), out=tmp_path / "run", options=options,
                       start=tmp_path / "m", device="cpu", dtype="fp32")
    n_short = sum(len(text.split()) < 4 for text in pairs.sources)
    assert f"{n_short} pairs to train on ({60 - n_short} left out: too long)" in capfd.readouterr().err
    path = tmp_path / "m" / "tokenizer.json"
    stored = json.loads(path.read_text())
    stored["model"]["vocab"] |= {f"word{n}": 20 + n for n in range(5)}
    path.write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match="its tokenizer has 25 tokens, its model only 20"):
        pair_start(tmp_path / "m", OPTIONS)
