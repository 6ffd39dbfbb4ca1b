"""Jobs on real texts: what they ask, and what their programs make of it."""

import gzip
import itertools
import random

import pytest

from tickwise.compare.cases import NEW, NOISY, SEEN, Case, split_off
from tickwise.compare.jobs import JOBS, MissingDataError, shared_words
from tickwise.compare.setting import Setting
from tickwise.core.errors import DataError


def prepared(name, folder, data_dir, n=60):
    return JOBS[name].prepared(Setting(n=n, seed=1, data_dir=data_dir), folder)


def share_right(job, program, kind):
    cases = job.material.cases[kind]
    answers = program.answers([case.text for case in cases])
    return sum(job.score(answer, case) for answer, case in zip(answers, cases, strict=True)) / len(cases)


@pytest.mark.parametrize(("name", "best", "least"), [
    ("spam", 0, 0.9), ("spam", 1, 0.93), ("sentiment", 0, 0.6), ("sentiment", 1, 0.7), ("passages", 0, 0.7)])
def test_programs_on_real_data(name, best, least, shared_data, tmp_path):
    job = prepared(name, tmp_path, shared_data)
    assert share_right(job, job.programs[best], NEW) > least
    assert share_right(job, job.programs[best], SEEN) > least
    new, noisy = job.material.cases[NEW], job.material.cases[NOISY]
    assert [case.answer for case in new] == [case.answer for case in noisy]
    assert sum(a.text != b.text for a, b in zip(new, noisy, strict=True)) > 0.7 * len(new)
    parts = [{case.text for case in cases} for cases in (job.material.training, job.material.development, new)]
    for first, second in itertools.combinations(parts, 2):
        assert not first & second
    edited, _ = job.programs[best].edited()
    assert share_right(job, edited, NEW) > least
    assert share_right(job, edited, NOISY) >= share_right(job, job.programs[best], NOISY) - 0.05


def test_pairs_are_read_packed_or_plain(tmp_path):
    (tmp_path / "multi30k").mkdir()
    for part, lines in (("train", [f"{article} {animal}{end}" for end in ".!?," for article, animal in (
            ("A", "dog"), ("A", "cat"), ("The", "dog"), ("The", "cow"))]), ("test_2016_flickr", ["The cat."])):
        (tmp_path / "multi30k" / f"{part}.en").write_text("\n".join(lines) + "\n")
        german = [line.replace("A", "Ein").replace("The", "Der").replace("dog", "Hund").replace("cat", "Kater")
                  for line in lines]
        (tmp_path / "multi30k" / f"{part}.de.gz").write_bytes(gzip.compress(("\n".join(german) + "\n").encode()))
    job = prepared("translate", tmp_path, tmp_path)
    assert job.programs[0].answers(["the cat."]) == ["der kater ."]
    assert share_right(job, job.programs[0], NEW) == 1


def test_shared_words():
    assert shared_words("der rote hund", Case("", "der hund")) == pytest.approx(0.8)
    assert shared_words("", Case("", "der hund")) == 0


def test_the_next_word_is_the_text_s_own(small_text, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.txt").write_text(small_text.read_text())
    job = prepared("next", tmp_path / "next", data, n=30)
    words = set(small_text.read_text().replace(".", "").split())
    assert all(case.answer in words for cases in job.material.cases.values() for case in cases)
    assert share_right(job, job.programs[0], NEW) > 0.2, "after 'the' comes one of five nouns, after a noun a verb"
    folder = tmp_path / "next" / "model"
    parts = [(folder / f"{part}.txt").read_text() for part in ("training", "development")]
    assert "".join(parts) + "".join(small_text.read_text()[sum(map(len, parts)) :]) == small_text.read_text()
    assert 0.84 < len(parts[0]) / len(small_text.read_text()) < 0.86
    (data / "train.txt").write_text("one\ntwo\n" * 20)
    with pytest.raises(DataError):
        prepared("next", tmp_path / "short", data, n=30)


@pytest.mark.parametrize("name", ["next", "spam", "sentiment", "translate", "passages"])
def test_without_their_data_they_say_what_they_need(name, tmp_path):
    with pytest.raises(MissingDataError, match="needs --data-dir with"):
        prepared(name, tmp_path, None)
    with pytest.raises(MissingDataError, match="is not there"):
        prepared(name, tmp_path, tmp_path)


def test_too_few_texts_are_refused(tmp_path):
    (tmp_path / "SMSSpamCollection").write_text("ham\tsee you\nspam\twin cash\n")
    with pytest.raises(DataError, match="SMSSpamCollection: too few different texts"):
        prepared("spam", tmp_path / "job", tmp_path)


def test_texts_that_differ_in_capitals_and_spaces_are_one():
    cases = [Case(text, "ham") for text in ("See you", "see  YOU ", "later", "Later", "no", "yes")]
    train, dev = split_off(cases, 0.3, random.Random(1))
    assert len(train) + len(dev) == 4


def test_no_label_loses_its_last_texts_to_the_part_that_chooses():
    cases = [Case(f"text {i}", str(i // 4)) for i in range(80)] + [Case("alone", "lonely")]
    train, dev = split_off(cases, 0.05, random.Random(1), keeps=3)
    assert sorted(map(str, train + dev)) == sorted(map(str, cases))
    assert 4 <= len(dev) <= 5
    assert {case.answer for case in dev} <= {case.answer for case in train}
    assert Case("alone", "lonely") in train
