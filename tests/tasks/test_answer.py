"""A reader on passages of any length: what it keeps of them, what it shows, and what it takes."""

import io
import random
import tracemalloc

import pytest
import torch

from tickwise.core import console
from tickwise.data import span_windows
from tickwise.data.encoder_inputs import with_marks
from tickwise.data.spans import SpanQuestion
from tickwise.interop.directory import save_model
from tickwise.models.encoder_heads import SpanReader, SpanReaderConfig
from tickwise.tasks import answer
from tickwise.tasks.answer import Reader
from tickwise.tokenizers.train import train_tokenizer

WORDS = ["the", "book", "winter", "was", "long", "she", "read", "year", "house", "river", "blue", "seven"]


@pytest.fixture(scope="module")
def tokenizer():
    return with_marks(train_tokenizer("bpe", iter([" ".join(WORDS)] * 5), vocab_size=300, prefix_space=True))


@pytest.fixture(scope="module")
def module(tokenizer):
    config = SpanReaderConfig(vocab_size=tokenizer.vocab_size, context_length=128, stride=64, width=8, n_layers=1,
                              n_heads=1, head_dim=8, hidden=8)
    module = SpanReader(config).initialise(0)
    torch.nn.init.normal_(module.span.weight, generator=torch.Generator().manual_seed(0))  # zero at the start
    return module.requires_grad_(False)


def passage_of(n_words):
    chooser = random.Random(1)
    return ". ".join(" ".join(chooser.choices(WORDS, k=12)) for _ in range(n_words // 12))


@pytest.fixture
def tokenized(monkeypatch):
    """How many characters were tokenized each time."""
    calls = []
    real = span_windows.placed_ids

    def noted(tokenizer, texts):
        calls.append(sum(map(len, texts)))
        return real(tokenizer, texts)

    monkeypatch.setattr(span_windows, "placed_ids", noted)
    return calls


def test_memory_does_not_grow_with_the_windows_of_a_passage(module, tokenizer, monkeypatch):
    monkeypatch.setattr(answer, "_TOKENS_AT_ONCE", 1 << 13, raising=False)
    reader, passage = Reader(module, tokenizer), passage_of(30_000)
    tracemalloc.start()
    found = reader.answer("who read the book?", passage)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert passage[found.start : found.end] == found.text != ""
    assert peak < 40 * len(passage)  # all windows at once take more than 70 bytes for each character


def test_a_passage_is_tokenized_once_for_all_questions(module, tokenizer, tokenized, tmp_path, monkeypatch,
                                                       tickwise_cli):
    passage = passage_of(400)
    save_model(tmp_path / "m", module, tokenizer)
    (tmp_path / "p.txt").write_text(passage)
    monkeypatch.setattr("sys.stdin", io.StringIO("who read the book?\n\nwhat was long?\n"))
    code, out, err = tickwise_cli("run", "answer", tmp_path / "m", "--passage", tmp_path / "p.txt")
    assert (code, len(out.splitlines())) == (0, 2), err
    assert tokenized == [len(passage)]
    reader = Reader(module, tokenizer)
    reader.answer_all([("who?", "the book"), ("what?", "the river"), ("where?", "the book")])
    assert tokenized[1:] == [len("the book"), len("the river")]


def test_a_passage_is_read_when_its_windows_are_wanted(module, tokenizer, tokenized):
    questions = [SpanQuestion(text, "who?", text, (), ()) for text in ("the book", "the river")]
    windows = Reader(module, tokenizer).windows.each(questions)
    assert (next(windows).question, tokenized) == (0, [len("the book")])
    assert (next(windows).question, tokenized) == (1, [len("the book"), len("the river")])


def test_passages_that_are_too_much_to_keep_are_tokenized_again(module, tokenizer, tokenized, monkeypatch):
    monkeypatch.setattr(span_windows, "_KEPT", 20)
    texts = ["the book", "the river", "the house", "the book"]
    Reader(module, tokenizer).answer_all([("who?", text) for text in texts])
    assert tokenized == [8, 9, 9, 8]


def test_progress_of_a_long_passage_is_shown(module, tokenizer, monkeypatch, capfd):
    monkeypatch.setattr(span_windows, "LONG_PASSAGE", 1000)
    monkeypatch.setattr(answer, "LONG_PASSAGE", 1000)
    monkeypatch.setattr(console, "_PLAIN_INTERVAL_S", 0.0)
    reader, long = Reader(module, tokenizer), passage_of(400)
    assert len(long) > 1000
    reader.answer("who?", long)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("tokenize: 100% ")
    assert lines[-1].startswith("read: 100% ")
    reader.answer("who?", passage_of(40))
    assert capfd.readouterr().err == ""


def test_a_passage_in_blocks_gives_the_answer_of_the_whole(module, tokenizer, monkeypatch):
    questions = [("who read the book?", passage_of(600)), ("what was long?", passage_of(60)), ("who?", "the house")]
    whole = Reader(module, tokenizer).answer_all(questions)
    monkeypatch.setattr(answer, "_TOKENS_AT_ONCE", 300)
    for found, expected in zip(Reader(module, tokenizer).answer_all(questions), whole, strict=True):
        assert (found.start, found.end) == (expected.start, expected.end)
        assert found.probability == pytest.approx(expected.probability, rel=1e-4)
