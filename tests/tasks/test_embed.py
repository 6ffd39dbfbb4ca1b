"""Sentence embeddings, the likest texts, and words for masked places, from the command line to the figures."""

import dataclasses
import json

import numpy as np
import pytest

from tickwise.core.errors import ConfigError, DataError
from tickwise.tasks.embed import (
    EmbedConfig,
    Embedder,
    SimilarTexts,
    read_partners,
    split_partners,
    train_embedder,
)
from tickwise.training.config import OptimizerOptions
from tickwise.training.encoder import EncoderOptions, EncoderTrainConfig, train_encoder

NAMES = ["ada", "bob", "cleo", "dan", "eve", "fay", "gus", "hal"]
THINGS = ["apples", "boats", "cards", "dogs", "eggs", "flags", "games", "hats"]
LINES = [f"{name} likes {thing}" for name in NAMES for thing in THINGS]
PARTNERS = [f"{thing} are liked by {name}" for name in NAMES for thing in THINGS]
HELD = {line: number for number, line in enumerate(LINES) if (number + number // 8) % 4 == 0}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "text.txt").write_text("\n".join(LINES * 12), encoding="utf-8")
    return train_encoder(EncoderTrainConfig(
        data=folder / "text.txt", out=folder / "run", vocab_size=300, depth=2, context=32, batch_size=32, max_steps=200,
        model=EncoderOptions(width=32, n_heads=2), optimizer=OptimizerOptions(embedding_lr_ratio=1.0), dtype="fp32",
        compile="off", device="cpu")).out


@pytest.fixture(scope="module")
def embedder(encoder, tmp_path_factory):
    """Partners tell the same thing of a name in another order; every fourth pair is not learned from."""
    from tickwise.cli import main

    folder = tmp_path_factory.mktemp("embedder")
    pairs = [f"{line}\t{partner}" for line, partner in zip(LINES, PARTNERS, strict=True) if line not in HELD]
    (folder / "pairs.tsv").write_text("\n".join(pairs), encoding="utf-8")
    words = ["adapt", encoder, "--task", "embed", "--train", folder / "pairs.tsv", "--out", folder / "run", "--dtype",
             "fp32", "--tuning.epochs", 16, "--tuning.lr", "3e-3", "--tuning.word-dropout", 0, "-q"]
    assert main([str(word) for word in words]) == 0
    return folder / "run"


def test_partners_that_were_not_learned_are_found_first(embedder, encoder):
    def recall(model):
        found = SimilarTexts(Embedder.load(model), PARTNERS).find(list(HELD), 1)
        return np.mean([near[0].number == number for near, number in zip(found, HELD.values(), strict=True)])

    assert recall(encoder) + 0.2 < 0.45 < recall(embedder)  # by chance 1 of 64


def test_vectors_have_length_one(embedder):
    vectors = Embedder.load(embedder).embed([*LINES[:3], ""])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0], atol=1e-5)


def test_no_texts_have_no_vectors(embedder):
    loaded = Embedder.load(embedder)
    assert loaded.embed([]).shape == (0, 32)
    assert SimilarTexts(loaded, LINES).find([]) == []


def test_similar_and_embed_from_the_command_line(tmp_path, embedder, encoder, tickwise_cli):
    (tmp_path / "texts.txt").write_text("\n".join(LINES), encoding="utf-8")
    code, out, err = tickwise_cli("run", "similar", embedder, LINES[5], "--among", tmp_path / "texts.txt", "--json")
    assert code == 0, err
    best = json.loads(out)["similar"][0]
    assert (best["text"], best["number"]) == (LINES[5], 5)
    code, _, err = tickwise_cli("run", "embed", embedder, "--input", tmp_path / "texts.txt", "--out",
                                tmp_path / "v.npy")
    assert code == 0, err
    assert np.load(tmp_path / "v.npy").shape == (64, 32)
    code, out, err = tickwise_cli("run", "embed", encoder, "ada likes boats")
    assert (code, len(out.split())) == (0, 32), err
    assert tickwise_cli("run", "similar", embedder, "ada")[0] == 2


def test_mistakes_in_files_of_partners(tmp_path):
    (tmp_path / "pairs.tsv").write_text("a\tb\tc\n")
    with pytest.raises(DataError, match="line 1"):
        read_partners([str(tmp_path / "pairs.tsv")])
    (tmp_path / "few.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="at least 4"):
        read_partners([str(tmp_path / "few.txt")])


def test_lines_end_with_line_feeds_alone(tmp_path):
    (tmp_path / "pairs.tsv").write_text("a\u2028b\tc\r\nd\te\u0085f\ng\nh\x0ci\n", encoding="utf-8", newline="")
    assert read_partners([str(tmp_path / "pairs.tsv")]) == [("a\u2028b", "c"), ("d", "e\u0085f"), ("g", "g"),
                                                            ("h\x0ci", "h\x0ci")]


def texts_of(pairs):
    return {text.casefold().strip("!") for pair in pairs for text in pair}


def test_no_text_is_both_trained_on_and_chosen_by(capfd):
    both_ways = [pair for n in range(200) for pair in ((f"a {n}", f"b {n}"), (f"b {n}", f"A {n}!"), (f"b {n}",) * 2)]
    training, developing = split_partners(both_ways, None)
    assert not texts_of(training) & texts_of(developing)
    assert len(training) + len(developing) * 3 // 2 == len(both_ways)  # what is held back goes whole
    assert len(developing) >= 4
    assert all(left != right for left, right in developing)
    n_held = len(developing) // 2
    assert f"{n_held} training pairs have a text of the development pairs; left out" in capfd.readouterr().err
    training, developing = split_partners(both_ways, [("a 1", "b 1"), ("c", "d"), ("B 2!", "e"), ("f", "g")])
    assert len(developing) == 4
    assert [pair for pair in both_ways if pair not in training] == both_ways[3:9]
    assert "6 training pairs have a text" in capfd.readouterr().err


def test_texts_that_link_all_pairs_are_not_held_back(capfd):
    kinds = [(f"text {n}", f"kind {n % 3}") for n in range(300)]
    assert split_partners(kinds, None) == (kinds, [])
    assert "none are held back, and the last model is kept" in " ".join(capfd.readouterr().err.split())
    apart = [(f"text {n}", f"other {n}") for n in range(300)]
    training, developing = split_partners(apart, None)
    assert sorted(training + developing) == sorted(apart)
    assert 4 <= len(developing) <= 30


def test_an_embedder_is_refused_parts_of_batches_before_anything_is_read(tmp_path, monkeypatch):
    config = EmbedConfig(encoder=tmp_path / "none", train=(str(tmp_path / "none.txt"),), out=tmp_path / "run")
    with pytest.raises(ConfigError, match="whole batches"):
        train_embedder(dataclasses.replace(config, accumulate=2))
    for name, value in (("TORCHELASTIC_RUN_ID", "1"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="whole batches"):
        train_embedder(config)


@pytest.mark.parametrize("lines", [LINES[:20], LINES[:12] + [f"{line}\t{line}" for line in LINES[12:20]]],
                         ids=["texts", "texts twice"])
def test_texts_alone_give_no_score_to_choose_by(tmp_path, encoder, tickwise_cli, lines):
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    code, out, err = tickwise_cli("adapt", encoder, "--task", "embed", "--train", tmp_path / "texts.txt", "--dev",
                                  tmp_path / "texts.txt", "--out", tmp_path / "run", "--tuning.epochs", 1, "--dtype",
                                  "fp32", "--json")
    assert code == 0, err
    assert json.loads(out)["development"] == {}
    assert "the last model is kept" in err
    assert "20 pairs (20 of a text with itself), 0 to choose the model by" in err


def test_long_texts_are_cut_and_that_is_said_once(embedder, capfd):
    loaded = Embedder.load(embedder)
    capfd.readouterr()
    vectors = loaded.embed(["ada likes boats " * 30, "ada likes boats"])
    assert "1 of 2 texts are longer than the encoder's 32 tokens; only the beginning" in capfd.readouterr().err
    np.testing.assert_array_equal(loaded.embed(["ada likes boats " * 40])[0], vectors[0])
    assert capfd.readouterr().err == ""


def test_long_texts_are_said_before_they_are_trained_on(tmp_path, encoder, tickwise_cli):
    (tmp_path / "texts.txt").write_text("\n".join([*LINES[:9], f"{LINES[9]} " * 30]), encoding="utf-8")
    code, _, err = tickwise_cli("adapt", encoder, "--task", "embed", "--train", tmp_path / "texts.txt", "--out",
                                tmp_path / "run", "--tuning.epochs", 1, "--dtype", "fp32")
    assert code == 0, err
    assert "2 of 20 texts are longer than the encoder's 32 tokens; only the beginning of such texts counts" in err


def test_no_text_makes_no_file(tmp_path, embedder, tickwise_cli, monkeypatch):
    monkeypatch.setattr("tickwise.cli.run_embed.answer_texts", lambda arguments, answer: None)  # Ctrl-D at the prompt
    code, _, err = tickwise_cli("run", "embed", embedder, "--out", tmp_path / "v.npy")
    assert (code, err) == (2, "tickwise: no text was given; nothing was written\n")
    assert not (tmp_path / "v.npy").exists()
