"""Windows of questions and their passages: what is cut of long questions."""

import pytest

from tickwise.data.encoder_inputs import with_marks
from tickwise.data.span_windows import QUESTION, SpanWindows
from tickwise.data.spans import SpanQuestion
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
