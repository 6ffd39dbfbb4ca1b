"""The Python examples of the guides run as they stand."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import tickwise
from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.data.bags import FeatureIndex
from tickwise.data.tagged import Span, TaggedSentence
from tickwise.interop.directory import save_model
from tickwise.interop.word_vectors import save_word_vectors
from tickwise.models.bag import Bag, BagConfig
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.models.gan import Discriminator, DiscriminatorConfig
from tickwise.models.vae import Vae, VaeConfig
from tickwise.tasks.tag import TagData, build_training
from tickwise.tasks.tag_options import TagOptions
from tickwise.text.ngrams import NgramSettings
from tickwise.tokenizers.train import char_tokenizer, train_tokenizer
from tickwise.training.ngram import count_ngrams
from tickwise.training.word_vectors import WordVectorSettings, train_word_vectors, word_text

GUIDES = Path(__file__).resolve().parents[2] / "docs"


def python_block(guide, part):
    """The one Python example of ``guide`` that has ``part`` in it."""
    text = (GUIDES / guide).read_text(encoding="utf-8")
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if part in block]
    return example


def test_the_engine_s_example_writes_both_requests_tick_by_tick(tmp_path, monkeypatch, capsys):
    save_small_model(tmp_path / "out" / "mine")
    monkeypatch.chdir(tmp_path)
    exec(python_block("quickstart.md", "temperature=0.8"), {})
    lines = [line.split(" ", 3) for line in capsys.readouterr().out.splitlines()]
    assert {line[1] for line in lines} == {"request-1", "request-2"}
    assert sum(line[2] == "Generation" for line in lines) == 2
    assert max(int(line[0]) for line in lines) == 20, "both are written in the same ticks"


def test_a_deadline_and_a_cancellation_end_endless_texts_as_the_guide_says(tmp_path, monkeypatch, capsys):
    save_small_model(tmp_path / "out" / "mine")
    monkeypatch.chdir(tmp_path)
    exec(python_block("quickstart.md", "engine.cancel("), {})
    ended = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines())
    assert ended == {"request-1": "deadline", "request-2": "cancelled"}


def save_small_model(folder):
    tokenizer = char_tokenizer(Counter("Once upon a time hill."), vocab_size=None, end_of_text=False, unknown=False)
    torch.manual_seed(0)
    module = Decoder(DecoderConfig(
        vocab_size=tokenizer.vocab_size, context_length=64, width=16, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=8,
        hidden=32,
    ))
    save_model(folder, module, tokenizer)


def save_one_of_each(folder, text):
    """A model directory of several families under the names of the guide, as little as can be."""
    tokenizer = train_tokenizer("word", iter([text]), min_frequency=1)
    ids = np.array(tokenizer.encode(text))
    vocabulary = {"vocab_size": tokenizer.vocab_size, "eos_id": tokenizer.eos_id}
    save_model(folder / "kn5", count_ngrams(ids, tokenizer.vocab_size, order=2), tokenizer)
    features = FeatureIndex.fit([text], NgramSettings(), min_texts=1)
    save_model(folder / "topics", Bag(BagConfig(labels=("Business", "Sport"), n_features=len(features))), features)
    sentence = TaggedSentence(("Ada", "was", "in", "London", "."), (Span(0, 1, "PER"), Span(3, 4, "LOC")))
    tagger = build_training(TagData([sentence], [sentence]), TagOptions(hidden=4, word_width=4, min_count=1), seed=0)
    save_model(folder / "entities", tagger.module, tagger.features)
    save_word_vectors(folder / "vectors", train_word_vectors(
        word_text(ids, tokenizer, min_count=1), WordVectorSettings(method="svd", width=4)))
    vae = Vae(VaeConfig(**vocabulary, latent=2, width=4, hidden=4, encoder_hidden=4)).initialise(0)
    save_model(folder / "vae", vae, tokenizer)
    save_model(folder / "discriminator", Discriminator(DiscriminatorConfig(vocab_size=9)), tokenizer)


def test_every_family_is_loaded_by_one_function_and_used(tmp_path, monkeypatch, capsys):
    save_one_of_each(tmp_path / "out", "another one is a short text to score by the river .\n" * 4)
    monkeypatch.chdir(tmp_path)
    exec(python_block("families.md", "tickwise.load("), {})
    lines = capsys.readouterr().out.splitlines()
    assert float(lines[0]) > 0
    assert lines[1] in ("Business", "Sport")
    assert lines[-2].count("Neighbour(") == 3
    assert len(eval(lines[-1])) == 3
    with pytest.raises(CheckpointError, match="by its training alone"):
        tickwise.load("out/discriminator")
    with pytest.raises(ConfigError, match="is for language models"):
        tickwise.load("out/topics", dtype="bf16")
