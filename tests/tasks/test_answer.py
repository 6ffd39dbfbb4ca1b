"""A reader on passages of any length: what it keeps of them, what it shows, and what it takes."""

import io
import json
import math
import random
import re
import subprocess
import sys
import tracemalloc

import numpy as np
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
from tickwise.tasks.answer_places import place_probabilities
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
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"who read the book?\n\nwhat was long?\n")))
    code, out, err = tickwise_cli("run", "answer", tmp_path / "m", "--passage", tmp_path / "p.txt")
    assert (code, len(out.splitlines())) == (0, 2), err
    assert tokenized == [len(passage)]
    reader = Reader(module, tokenizer)
    reader.answer_all([("who?", "the book"), ("what?", "the river"), ("where?", "the book")])
    assert tokenized[1:] == [len("the book"), len("the river")]


def test_a_question_that_cannot_be_read_leaves_the_prompt(module, tokenizer, tmp_path, monkeypatch, tickwise_cli):
    save_model(tmp_path / "m", module, tokenizer)
    (tmp_path / "p.txt").write_text(passage_of(60))
    typed = io.StringIO("who read the book?\n\n\udcff?\nwhat was long?\n")
    typed.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", typed)
    code, out, err = tickwise_cli("run", "answer", tmp_path / "m", "--passage", tmp_path / "p.txt")
    assert (code, len(out.splitlines())) == (0, 2)
    assert err.startswith("a question per line; end with Ctrl-D\n> ")
    assert err.count("tickwise: ") == err.count("cannot tokenize") == 1
    assert err.count("> ") == 5


def test_support_tells_the_odds_that_there_is_an_answer():
    all_odds = (-math.inf, -4000.0, -4.0, 0.0, 4.0, 4000.0)
    supports = [answer.Answer("x", 0, 1, 0.5, -1.0, odds).support for odds in all_odds]
    assert supports == sorted(supports)
    assert supports[0] == pytest.approx(0, abs=1e-12)
    assert supports[3] == 0.5
    assert supports[2] + supports[4] == pytest.approx(1)
    shown = answer.Answer("", 0, 0, 0.0, -math.inf, -math.inf).to_json()
    assert (shown["margin"], shown["odds"]) == (None, None)


def test_tokens_that_begin_and_end_answers_are_those_of_the_whole_passage(module, tokenizer):
    reader, passage = Reader(module, tokenizer), passage_of(240)
    whole = place_probabilities(reader, "who read the book?", passage, 0, len(passage))
    assert "".join(passage[a:b] for a, b in whole.characters).replace(" ", "") == passage.replace(" ", "")
    assert len(reader.windows.make([SpanQuestion("0", "who read the book?", passage, (), ())])) > 3
    assert 0 < whole.begins.max() <= 1
    found = reader.answer("who read the book?", passage)
    first = whole.begins[np.flatnonzero(whole.characters[:, 0] == found.start)[0]]
    last = whole.ends[np.flatnonzero(whole.characters[:, 1] == found.end)[0]]
    assert min(first, last) >= found.probability  # the product of both and of less
    start, end = 300, 420
    part = place_probabilities(reader, "who read the book?", passage, start, end)
    inside = (whole.characters[:, 0] >= start) & (whole.characters[:, 1] <= end)
    assert part.characters.tolist() == whole.characters[inside].tolist()
    assert part.begins == pytest.approx(whole.begins[inside], rel=1e-4)
    assert part.ends == pytest.approx(whole.ends[inside], rel=1e-4)


def test_a_page_shows_where_an_answer_begins_and_ends(module, tokenizer, tmp_path, tickwise_cli):
    save_model(tmp_path / "m", module, tokenizer)
    passage = passage_of(1200)
    (tmp_path / "p.txt").write_text(passage)
    words = ["run", "answer", tmp_path / "m", "who read the <book>?", "--passage", tmp_path / "p.txt"]
    code, out, err = tickwise_cli(*words, "--json", "--html", tmp_path / "a.html")
    assert code == 0, err
    page, found = (tmp_path / "a.html").read_text(), json.loads(out)
    assert "who read the &lt;book&gt;?" in page
    marked = re.sub("<[^>]*>", "", re.search("<mark>(.*?)</mark>", page, re.S).group(1))
    assert marked == found["text"]
    assert f"probability {found['probability']:.3f}" in page
    assert page.count('title="begins ') > 3
    assert "characters behind" in page or "characters before" in page  # of a long passage a piece is shown
    assert len(page) < 100 * 4500
    rows = [{"id": f"q{i}", "question": "what was long?", "context": passage_of(24)} for i in range(103)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = tickwise_cli("run", "answer", tmp_path / "m", "--input", tmp_path / "q.jsonl", "--html",
                                  tmp_path / "b.html")
    assert (code, len(out.splitlines())) == (0, 103), err
    page = (tmp_path / "b.html").read_text()
    assert page.count("<h2") == 100
    assert "3 more answers are not shown" in page


def test_flags_of_answer_that_have_no_use_are_refused(tmp_path, tickwise_cli):
    for words, said in ((["--test", "x", "--html", tmp_path / "a.html"], "leave out --test"),
                        (["who?", "--passage", "x", "--baselines", "y"], "give --test"),
                        (["-", "--passage", "-"], "standard input has the passage"),
                        (["who?", "--passage", "x", "--html", tmp_path / "no" / "a.html"], "no")):
        code, out, err = tickwise_cli("run", "answer", tmp_path, *words)
        assert (code, out) == (2, ""), words
        assert said in err
        assert len(err.strip().splitlines()) == 1


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


@pytest.mark.slow
def test_a_passage_of_50_megabytes(tokenizer, tmp_path):
    """In a process of its own, whose memory is measured."""
    module = SpanReader(SpanReaderConfig(vocab_size=tokenizer.vocab_size, context_length=1024, stride=900, width=8,
                                         n_layers=1, n_heads=1, head_dim=8, hidden=8)).initialise(0)
    torch.nn.init.normal_(module.span.weight, generator=torch.Generator().manual_seed(0))
    save_model(tmp_path / "m", module, tokenizer)
    block = passage_of(120_000) + ". "
    with (tmp_path / "p.txt").open("w") as file:
        for _ in range(50_000_000 // len(block) + 1):
            file.write(block)
    code = ("import resource, sys; from tickwise.cli import main; code = main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)")
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "answer", tmp_path / "m", "who read the book?", "--passage",
         tmp_path / "p.txt", "--json", "--device", "cpu"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (tmp_path / "p.txt").read_text()[found["start"] : found["end"]] == found["text"] != ""
    assert "tokenize: " in done.stderr
    assert "read: " in done.stderr
    assert int(done.stderr.splitlines()[-1]) < 1_500_000  # kB
