"""Word vectors on disk: the folder, and word2vec's text format."""

import json

import pytest
import torch

from tickwise.core.errors import CheckpointError, DataError
from tickwise.interop.word_vectors import (
    load_word_vectors,
    read_vectors_text,
    save_word_vectors,
    write_vectors_text,
)
from tickwise.models.word_vectors import NamedVectors, WordVectors, WordVectorsConfig

WORDS = ("the", "naïve", "语言", "🙂", "שלום")


def some_vectors(words=WORDS, width=3):
    module = WordVectors(WordVectorsConfig(vocab_size=len(words), width=width))
    module.weight.data = torch.randn(len(words), width, generator=torch.Generator().manual_seed(0))
    return NamedVectors(words, module)


def test_a_folder_gives_the_same_vectors_back(tmp_path):
    vectors = some_vectors()
    save_word_vectors(tmp_path / "v", vectors, {"seed": 1})
    again = load_word_vectors(tmp_path / "v")
    assert again.words == WORDS
    assert torch.equal(again.module.weight, vectors.module.weight)
    assert {p.name for p in (tmp_path / "v").iterdir()} == {
        "config.json", "model.safetensors", "words.json", "run.json"}


def test_text_gives_the_same_vectors_back(tmp_path):
    vectors = some_vectors()
    write_vectors_text(tmp_path / "v.txt", vectors)
    text = (tmp_path / "v.txt").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "5 3"
    assert text.splitlines()[3].split(" ")[0] == "语言"
    again = load_word_vectors(tmp_path / "v.txt")
    assert again.words == WORDS
    assert torch.equal(again.module.weight, vectors.module.weight)


def test_glove_s_text_has_no_first_line_and_words_may_hold_spaces(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("a 1 2\nb -1e-3 .5\n", encoding="utf-8")
    torch.testing.assert_close(read_vectors_text(file).module.weight.data, torch.tensor([[1, 2], [-1e-3, 0.5]]))
    file.write_text("2 2\nNew York 1 2\nb 3 4 \n", encoding="utf-8")
    assert read_vectors_text(file).words == ("New York", "b")


def test_the_first_of_a_repeated_word_counts(tmp_path, capsys):
    file = tmp_path / "v.txt"
    file.write_text("a 1 2\nb 3 4\na 5 6\n", encoding="utf-8")
    vectors = read_vectors_text(file)
    assert vectors.words == ("a", "b")
    assert vectors.module.weight[0].tolist() == [1, 2]
    assert "1 words come again" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "complaint"), [
    ("2 3\na 1 2 3\nb 1 2\n", "line 3: 2 numbers instead of 3"),
    ("a 1 2\nb 1 x\n", "line 2: 'x' is not a number"),
    ("a 1 2\nb 1 nan\n", "line 2: a number that is not finite"),
    ("3 2\na 1 2\nb 3 4\n", "first line says 3"),
    ("", "no word vectors"),
    ("word\n", "line 1: 0 numbers"),
])
def test_damaged_text_is_one_line_with_its_number(tmp_path, text, complaint):
    file = tmp_path / "v.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=complaint):
        read_vectors_text(file)


def test_binary_is_refused_with_its_line(tmp_path):
    (tmp_path / "v.bin").write_bytes(b"2 2\n\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        read_vectors_text(tmp_path / "v.bin")


def test_words_with_white_space_cannot_be_exported(tmp_path):
    with pytest.raises(DataError, match="'New York'"):
        write_vectors_text(tmp_path / "v.txt", some_vectors(("a", "New York")))
    assert not list(tmp_path.iterdir())


def test_damaged_folders_are_refused(tmp_path):
    folder = tmp_path / "v"
    with pytest.raises(CheckpointError, match="no such folder"):
        load_word_vectors(folder)
    save_word_vectors(folder, some_vectors())
    (folder / "words.json").write_text(json.dumps({"words": ["one"]}))
    with pytest.raises(CheckpointError, match="not the 5 words"):
        load_word_vectors(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "width": 4}))
    with pytest.raises(CheckpointError, match="no matrix of 5 × 4"):
        load_word_vectors(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match="not word vectors"):
        load_word_vectors(folder)
