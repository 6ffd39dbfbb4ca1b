"""Encoders that find entities: fine-tuned on tagged files, used through run entities."""

import json
import random

import numpy as np
import pytest
import torch

from tickwise.core.errors import DataError
from tickwise.data.encoder_inputs import marks_of, with_marks
from tickwise.data.tagged import Span, TaggedSentence, iobes_labels
from tickwise.data.word_pieces import WordPieces
from tickwise.models.encoder_heads import EncoderTagger, EncoderTaggerConfig
from tickwise.tasks.encoder_tagger import EncodedTagger
from tickwise.tasks.tag import EntityTagger
from tickwise.tokenizers.train import train_tokenizer
from tickwise.training.config import OptimizerOptions
from tickwise.training.encoder import EncoderOptions, EncoderTrainConfig, train_encoder
from tickwise.training.encoder_tagging import EncoderTagging, collate_pieces, find_entities, piece_tags

NAMES, PLACES = ["ada", "bob", "cleo", "dan", "eve", "fay"], ["york", "oslo", "lima", "rome", "bern", "kiel"]
LABELS = iobes_labels(("LOC", "PER"))


def tagged(n, seed):
    chooser = random.Random(seed)
    for _ in range(n):
        first, last, place = chooser.choice(NAMES), chooser.choice(NAMES), chooser.choice(PLACES)
        yield [(first, "B-PER"), (last, "I-PER"), ("lives", "O"), ("in", "O"), (place, "B-LOC"), (".", "O")] \
            if chooser.random() < 0.7 else [("nobody", "O"), ("lives", "O"), ("here", "O"), (".", "O")]


def write(path, n, seed):
    path.write_text("\n\n".join("\n".join(f"{word}\t{tag}" for word, tag in one) for one in tagged(n, seed)) + "\n")
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "text.txt").write_text("\n".join(" ".join(word for word, _ in one) for one in tagged(800, 1)))
    return train_encoder(EncoderTrainConfig(
        data=folder / "text.txt", out=folder / "run", vocab_size=320, depth=1, context=32, batch_size=16, max_steps=20,
        model=EncoderOptions(width=32, n_heads=2), optimizer=OptimizerOptions(embedding_lr_ratio=1.0), dtype="fp32",
        compile="off", device="cpu")).out


@pytest.fixture(scope="module")
def tagger(encoder, tmp_path_factory):
    """A run directory and its figures."""
    from tickwise.cli import main

    folder = tmp_path_factory.mktemp("tagger")
    files = [write(folder / f"{name}.conll", n, seed) for name, n, seed in (("train", 120, 2), ("dev", 30, 3),
                                                                           ("test", 40, 4))]
    words = ["adapt", encoder, "--task", "tag", "--train", files[0], "--dev", files[1], "--test", files[2], "--out",
             folder / "run", "--tuning.epochs", 8, "--tuning.lr", "3e-3", "--dtype", "fp32", "--options.scheme", "bio",
             "-q"]
    assert main([str(word) for word in words]) == 0
    return folder


def test_tagged_sentences_make_a_tagger(tagger, tickwise_cli):
    shown = json.loads((tagger / "run" / "evaluation.json").read_text())
    assert shown["test"]["results"]["entities"]["f1,none"] > 0.9
    assert shown["development"]["results"]["entities"]["f1,none"] > 0.9
    code, out, err = tickwise_cli("run", "entities", tagger / "run", "Nobody lives here. bob eve lives in lima.",
                                  "--json")
    assert code == 0, err
    found = json.loads(out)["entities"]
    assert [(e["text"], e["type"]) for e in found] == [("bob eve", "PER"), ("lima", "LOC")]
    assert all(0.3 < e["probability"] <= 1 for e in found)
    code, out, err = tickwise_cli("run", "entities", tagger / "run", "--test", tagger / "test.conll", "--json")
    assert code == 0, err
    assert json.loads(out)["results"]["entities"]["f1,none"] == shown["test"]["results"]["entities"]["f1,none"]
    code, out, err = tickwise_cli("run", "entities", tagger / "run", "")
    assert (code, out, "the text is empty" in err) == (2, "", True)


def test_a_text_longer_than_the_encoder_reads_is_tagged_to_its_end(tagger):
    loaded = EntityTagger.load(tagger / "run")
    assert isinstance(loaded, EncodedTagger)
    assert loaded.types == ("LOC", "PER")
    words = ["nobody", "lives", "here", ","] * 20 + ["ada", "bob", "lives", "in", "rome"]
    [found] = loaded.tag_tokens([words])
    assert {(span.start, span.end, span.type) for span in found} >= {(84, 85, "LOC")}


def module_and_words(length=24):
    tokenizer = with_marks(train_tokenizer("bpe", iter([" ".join(NAMES + PLACES) * 20]), vocab_size=290))
    module = EncoderTagger(EncoderTaggerConfig(
        vocab_size=tokenizer.vocab_size, context_length=length, width=16, n_layers=1, n_heads=2, head_dim=8, hidden=16,
        labels=LABELS)).initialise(1)
    torch.nn.init.normal_(module.tags.weight, generator=torch.Generator().manual_seed(2))
    return module.eval(), WordPieces(tokenizer, length, characters=False)


def test_a_sentence_has_the_same_tags_alone_and_beside_others():
    module, words = module_and_words()
    sentences = [["ada"], ["bob", "lives", "in", "rome"], ["x"] * 40, ["eve", "dan"]]

    def found(some):
        pieces = words.make(some)
        return find_entities(module, pieces, len(some), words.marks, torch.device("cpu"), probabilities=True)

    together = found(sentences)
    for sentence, own in zip(sentences, together, strict=True):
        [alone] = found([sentence])
        assert [span for span, _ in alone] == [span for span, _ in own]
        np.testing.assert_allclose([p for _, p in alone], [p for _, p in own], rtol=1e-4)
        assert [span.start for span, _ in own] == sorted(span.start for span, _ in own)


def test_tags_of_pieces_and_of_entities_that_are_cut():
    _, words = module_and_words(12)
    sentence = TaggedSentence(("ada", "bob", "lives", "in", "lima", "rome", "oslo"),
                              (Span(0, 2, "PER"), Span(4, 7, "LOC")))
    pieces = words.make([sentence.tokens], [{1, 5, 6}])
    names = [[LABELS[tag] for tag in tags] for tags in piece_tags(pieces, [sentence], LABELS)]
    assert [tag for own in names for tag in own] == ["B-PER", "E-PER", "O", "O", "B-LOC", "I-LOC", "E-LOC"]
    torn = words.make([("a",) * 4 + ("lima",) * 30], [set(range(1, 34))])
    long = TaggedSentence(("a",) * 4 + ("lima",) * 30, (Span(4, 34, "LOC"),))
    assert {LABELS[tag] for tags in piece_tags(torn, [long], LABELS) for tag in tags} == {"O"}


def test_the_loss_is_the_crf_s_on_first_tokens_and_knows_no_padding():
    module, words = module_and_words()
    sentences = [TaggedSentence(("bob", "lives", "in", "rome"), (Span(0, 1, "PER"), Span(3, 4, "LOC"))),
                 TaggedSentence(("ada",), (Span(0, 1, "PER"),))]
    objective = EncoderTagging(sentences, sentences, words, LABELS, batch_size=2, seed=1, word_dropout=0.0)
    inputs = objective.example().inputs
    loss, _ = objective.loss(module, *inputs)
    total = 0.0
    for sentence in sentences:
        [piece] = words.make([sentence.tokens])
        [tags] = piece_tags([piece], [sentence], LABELS)
        states = module(torch.from_numpy(piece.ids)[None])  # every token a word
        emissions = states[:, torch.from_numpy(piece.firsts)]
        total += module.crf.loss(emissions, torch.from_numpy(tags)[None], torch.tensor([len(tags)])).item()
    assert loss.item() == pytest.approx(total / 5, rel=1e-5)
    parts = objective.split(objective.example(), 2)
    losses = [objective.loss(module, *part.inputs)[0].item() for part in parts]
    weights = [part.weight for part in parts]
    assert sorted(weights) == [1, 4]
    assert np.average(losses, weights=weights) == pytest.approx(loss.item(), rel=1e-5)
    ids_BT, lengths_B, _, n_words_B = collate_pieces(words.make([s.tokens for s in sentences]), words.marks.pad)
    assert (ids_BT[1, lengths_B[1] :] == marks_of(words.tokenizer).pad).all()
    assert n_words_B.tolist() == [4, 1]


def test_types_that_only_the_development_part_has_count_as_missed():
    module, words = module_and_words()
    known = TaggedSentence(("ada",), (Span(0, 1, "PER"),))
    stray = TaggedSentence(("x",), (Span(0, 1, "EVENT"),))
    objective = EncoderTagging([known] * 2, [stray], words, LABELS, batch_size=2, seed=1, word_dropout=0.1)
    with torch.no_grad():
        assert objective.validate(module, torch.device("cpu"), None)["f1"] == 0.0


def test_what_is_refused(tmp_path, encoder, tickwise_cli):
    (tmp_path / "o.conll").write_text("a O\nb O\n\nc O\n")
    code, _, err = tickwise_cli("adapt", encoder, "--task", "tag", "--train", tmp_path / "o.conll", "--out",
                                tmp_path / "run")
    assert (code, "every tag is O" in err) == (2, True)
    code, _, err = tickwise_cli("adapt", encoder, "--task", "tag", "--train", tmp_path / "o.conll", "--train-rows", 5,
                                "--out", tmp_path / "run")
    assert (code, "--train-rows" in err) == (2, True)
    (tmp_path / "bad.conll").write_text("a B-PER\nb\n")
    with pytest.raises(DataError, match="line 2"):
        from tickwise.tasks.tag import read_parts
        from tickwise.tasks.tag_options import TagReading

        read_parts([str(tmp_path / "bad.conll")], [], TagReading())
