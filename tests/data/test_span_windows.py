"""Windows of questions and their passages: what is cut of long questions; passages read piece by piece."""

import itertools

import numpy as np
import pytest

import tokenizers
from tickwise.data import span_windows
from tickwise.data.encoder_inputs import with_marks
from tickwise.data.span_windows import (
    PASSAGE,
    QUESTION,
    SHARED,
    SHARED_PAIR,
    SharedWords,
    SpanWindows,
    place_passage,
    words_of,
)
from tickwise.data.spans import SpanQuestion
from tickwise.tokenizers.places import placed_ids
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import train_tokenizer

TEXT = "She read the book in the long winter of the year. Who wrote it?"


@pytest.fixture(scope="module")
def tokenizer():
    return with_marks(train_tokenizer("bpe", iter([TEXT] * 20), vocab_size=300, prefix_space=True))


def asked(question, passage="She read the book."):
    return SpanQuestion("1", question, passage, (), ())


def test_a_long_question_loses_its_beginning_and_is_counted(tokenizer):
    maker = SpanWindows(tokenizer, 64, 16)
    [window] = maker.make([asked("In the long winter of the year she read the book. " * 4 + "Who wrote it?")])
    read = window.ids[window.segments == QUESTION]
    assert tokenizer.decode(read.tolist()).strip().endswith("Who wrote it?")
    assert len(read) == 32  # with the marks before and behind it, and that at the end
    assert maker.n_cut == 1
    maker.make([asked("Who wrote it?")])
    assert maker.n_cut == 1


PASSAGES = {
    "English": "Ada Lovelace wrote it in 1843, didn't she?  Yes, \"she\" did.\n\nThe naïve know:\tso it is. " * 12,
    "Chinese": "北京大学位于中国北京市海淀区，是著名的大学。\n清华大学也位于海淀区 2008 年。\n\n" * 20,
    "emoji": "well 👍🏽 done cafe\u0301 he\u200dllo! " * 30,
    "no blank": "abcdefgh" * 60,
    "blanks alone": " \n" * 150,
    "empty": "",
}


def word_pieces(text):
    """A tokenizer like BERT's, of every word and character of the text."""
    words = {"[UNK]", *text.lower().split(), *text.lower(), *(f"##{character}" for character in text.lower())}
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(
        {word: i for i, word in enumerate(sorted(words))}, unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.BertNormalizer()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return Tokenizer(backend, "other")


def tokenizer_of(kind, text):
    if kind == "WordPiece":
        return word_pieces(text)
    kind, *more = kind.split()
    return train_tokenizer(kind, iter([text or "a"]), min_frequency=1, **dict.fromkeys(more, True),
                           **{"vocab_size": 400} if kind == "bpe" else {})


@pytest.mark.parametrize("kind", ["bpe", "bpe prefix_space", "bpe prefix_space lowercase", "word", "char", "WordPiece"])
@pytest.mark.parametrize("name", [name for name in PASSAGES if name != "no blank"])
def test_pieces_have_the_tokens_and_words_of_the_whole(name, kind, monkeypatch):
    text = PASSAGES[name]
    tokenizer = tokenizer_of(kind, text)
    [whole] = placed_ids(tokenizer, [text])
    monkeypatch.setattr(span_windows, "_PIECE", 50)
    pieces = list(span_windows._pieces(text))
    assert len(pieces) > 4 or not text
    assert [start for start, _ in pieces] == [0, *(end for _, end in pieces[:-1])]
    placed = place_passage(tokenizer, text)
    if name == "blanks alone":  # cut where tokens go on
        assert placed.words.shape == (2, 0)
        return
    assert placed.ids.tolist() == whole.ids
    assert list(map(tuple, placed.places.tolist())) == whole.places
    assert placed.words.T.tolist() == [list(place) for place in words_of(text)]


def test_what_has_no_blank_is_cut_all_the_same(monkeypatch):
    text = PASSAGES["no blank"]
    tokenizer = tokenizer_of("bpe prefix_space", text)
    monkeypatch.setattr(span_windows, "_PIECE", 50)
    placed = place_passage(tokenizer, text)
    assert sorted({i for start, end in placed.places for i in range(start, end)}) == list(range(len(text)))
    assert placed.words.tolist() == [list(range(0, 480, 50)), [*range(50, 480, 50), 480]]


@pytest.mark.parametrize(("name", "question"), [
    ("English", "Who wrote it in 1843? Ada Lovelace, she did."), ("Chinese", "大学位于北京市 2008 年的海？"),
    ("emoji", "cafe\u0301 👍🏽 done?"), ("English", "?"), ("empty", "who?")])
def test_windows_mark_the_words_that_a_look_at_the_whole_passage_marks(name, question):
    text = PASSAGES[name]
    tokenizer = tokenizer_of("bpe prefix_space", text)
    passage, shared = place_passage(tokenizer, text), SharedWords(question)
    asked = [question[p.start : p.end].casefold() for p in words_of(question)]
    kinds = {}  # of each character
    words = [(text[p.start : p.end].casefold(), p) for p in words_of(text)]
    for word, place in words:
        kinds |= dict.fromkeys(range(*place), SHARED if word in asked and word[0].isalnum() else PASSAGE)
    for (one, at), (other, behind) in itertools.pairwise(words):
        if (one, other) in itertools.pairwise(asked):
            kinds |= dict.fromkeys((*range(*at), *range(*behind)), SHARED_PAIR)
    expected = [kinds[start] if end > start else PASSAGE for start, end in passage.places.tolist()]
    assert (SHARED_PAIR in expected) == (len(question) > 5)
    for start, end in [(0, len(expected)), *((start, start + 7) for start in range(0, len(expected), 5))]:
        assert shared.segments(passage, start, end).tolist() == expected[start:end]


@pytest.mark.parametrize("stride", [1, 7, 16, 500])
@pytest.mark.parametrize("n_words", [0, 1, 12, 40, 41, 60])
def test_windows_are_counted_before_they_are_made(tokenizer, n_words, stride):
    question = asked("Who wrote it?", "year " * n_words)
    maker = SpanWindows(tokenizer, 32, stride)
    windows = maker.make([question])
    assert maker.count(question) == len(windows)
    n_tokens = len(tokenizer.encode(question.passage))
    covered = np.concatenate([window.ids[window.segments != QUESTION] for window in windows])
    assert len(covered) >= n_tokens
    assert all(len(window) == 32 for window in windows[:-1])
