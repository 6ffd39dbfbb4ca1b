"""The bench's plain text to pre-train on has nothing that is tested on."""

import importlib.util
import itertools
from pathlib import Path

import pytest

from tickwise.data.examples import split_examples

BENCH = Path(__file__).resolve().parents[2] / "bench" / "plain_text.py"
spec = importlib.util.spec_from_file_location("plain_text", BENCH)
plain_text = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plain_text)


def squeezed(text):
    return " ".join(text.casefold().split())


def test_reviews_that_are_tested_on_are_left_out(shared_data, tmp_path, monkeypatch, capfd):
    own, tested = (list(plain_text.reviews(shared_data, part)) for part in ("train", "test"))
    assert len({squeezed(text) for text in own} & {squeezed(text) for text in tested}) == 13
    monkeypatch.setattr(plain_text, "tested_on", lambda folder: plain_text.examples(
        plain_text.reviews(folder, "test"), "tested on"))
    monkeypatch.setattr("sys.argv", ["plain_text.py", "en-passages", str(shared_data), str(tmp_path / "out.txt")])
    assert plain_text.main() == 0
    assert "left out 13 texts that are also in the parts to be evaluated on" in capfd.readouterr().err
    written = {squeezed(text) for text in (tmp_path / "out.txt").read_text(encoding="utf-8").split("<|endoftext|>")}
    assert not written & {squeezed(text) for text in tested}


def test_what_a_test_share_holds_back_is_left_out(shared_data):
    reviews = plain_text.examples(plain_text.named("chnsenticorp", shared_data), "hotels")
    held = {squeezed(text) for text in split_examples(reviews, 0.2, "test")[1].texts}
    assert len(held) > 1000
    kept = {squeezed(text) for text in plain_text.without_test_share(reviews.texts, "hotels")}
    assert not kept & held
    assert 0.75 < len(kept) / len(set(map(squeezed, reviews.texts))) < 0.85


def test_the_parts_that_are_tested_on(shared_data):
    tested = {squeezed(text) for text in plain_text.tested_on(shared_data).texts}
    assert squeezed(next(iter(plain_text.named("sst2", shared_data, "test")))) in tested
    assert squeezed(next(iter(plain_text.wikipedia(shared_data, "test")))) in tested
    assert squeezed(next(iter(plain_text.paragraphs(shared_data / "cmrc2018" / "cmrc2018_trial.json")))) in tested
    assert squeezed(next(iter(plain_text.named("sst2", shared_data)))) not in tested


@pytest.mark.parametrize(("tokenized", "written"), [
    ("he did n't know , so he 's gone .", "He didn't know, so he's gone."),
    ("They didn 't ( yet ) say so !", "They didn't (yet) say so!"),
    ("I ’ Ve been there . __eou__ What ' s that ?", "I've been there. What's that?"),
    ('it was " a good one " , he said', 'It was "a good one", he said'),
    ("It #39;s over. &quot;Yes&quot;", "It's over. \"Yes\""),
    ("#Person1#: Rock 'n' roll, the boys' toys", "Rock 'n' roll, the boys' toys"),
])
def test_what_tokenizing_did_is_undone(tokenized, written):
    assert plain_text.as_written(tokenized) == written


def test_sentences_stand_alone_and_once(shared_data, monkeypatch):
    for whole in (plain_text.wikipedia, plain_text.reviews, plain_text.named):
        monkeypatch.setattr(plain_text, whole.__name__, lambda *arguments, whole=whole:
                            itertools.islice(whole(*arguments), 20))
    sentences = list(plain_text.english_sentences(shared_data))
    assert len(sentences) == len(set(sentences)) > 20_000
    assert all("\n" not in text and text[-1] in '.!?"' and " " in text for text in sentences)
    assert not any(" ," in text or " n't" in text for text in sentences)
