"""Words as an encoder reads them."""

import itertools

import numpy as np
import pytest

from tickwise.core.errors import ConfigError
from tickwise.data.encoder_inputs import marks_of, with_marks
from tickwise.data.word_pieces import WordPieces
from tickwise.tokenizers.train import train_tokenizer

WORDS = ["Unbelievable", "cats", ",", "naïve", "dogs", "!"]


@pytest.fixture(scope="module")
def tokenizer():
    return with_marks(train_tokenizer("bpe", iter(["the cat sat on the mat, the dogs too. " * 30]),
                                      vocab_size=300))


def test_tokens_are_those_of_the_text_and_each_word_begins_where_it_does(tokenizer):
    marks = marks_of(tokenizer)
    [piece] = WordPieces(tokenizer, 200, characters=False).make([WORDS])
    assert piece.ids.tolist() == [marks.cls, *tokenizer.encode(" ".join(WORDS)), marks.sep]
    borders = [*piece.firsts.tolist(), len(piece.ids) - 1]
    read = [tokenizer.decode(piece.ids[a:b].tolist()).strip() for a, b in itertools.pairwise(borders)]
    assert read == WORDS


def test_characters_have_tokens_of_their_own():
    tokenizer = with_marks(train_tokenizer("bpe", iter(["北京大学，北京，大学。" * 200]), vocab_size=280))
    assert len(tokenizer.encode("北京大学")) < 4  # as a text some stand together
    [piece] = WordPieces(tokenizer, 200, characters=True).make([list("北京大学")])
    assert len(set(piece.firsts.tolist())) == 4
    assert tokenizer.decode(piece.ids[1:-1].tolist()) == "北京大学"


def test_long_sentences_are_cut_between_words_and_not_inside_entities(tokenizer):
    sentence = ["cat", "dogs", "mat", "too"] * 20
    maker = WordPieces(tokenizer, 19, characters=False)
    inside = {word for word in range(80) if word % 4}
    free, bound = maker.make([["mat"], sentence]), maker.make([["mat"], sentence], [set(), inside])
    for pieces in (free, bound):
        assert [piece.sentence for piece in pieces] == [0] + [1] * (len(pieces) - 1)
        assert all(len(piece) <= 19 and len(piece.firsts) == piece.end - piece.start for piece in pieces)
        assert np.concatenate([np.arange(p.start, p.end) for p in pieces[1:]]).tolist() == list(range(80))
    assert any(piece.start % 4 for piece in free[1:])
    assert not any(piece.start % 4 for piece in bound[1:])
    whole = maker.make([sentence], [set(range(1, 80))])
    assert np.concatenate([np.arange(p.start, p.end) for p in whole]).tolist() == list(range(80))


def test_words_that_are_too_long_or_nothing(tokenizer):
    maker = WordPieces(tokenizer, 10, characters=False)
    pieces = maker.make([["cat", "x" * 500, "mat"]])
    assert [(p.start, p.end) for p in pieces] == [(0, 1), (1, 2), (2, 3)]
    assert max(map(len, pieces)) == 10
    [piece] = maker.make([["cat", "\u200b", "mat"]])
    assert len(piece.firsts) == 3
    with pytest.raises(ConfigError, match="no room"):
        WordPieces(tokenizer, 2, characters=False)
