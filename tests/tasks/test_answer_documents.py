"""Answers from several passages: which sentence, which passage, and when there is none."""

import json
import re

import pytest

from tickwise.core.errors import ConfigError
from tickwise.data.passages import Passage, Question
from tickwise.tasks.answer import Answer
from tickwise.tasks.answer_documents import DocumentAnswers, Sentence, SentenceReader, evaluate_answers
from tickwise.tasks.passage_index import PassageIndex, build_index

TEXTS = ["Paris is the capital of France. The Seine flows through it.", "Berlin is the capital of Germany.",
         "The Amazon river flows through Brazil.", "量子计算机利用量子比特进行计算。", "北京是中国的首都，人口很多。"]
QUESTIONS = [Question("What is the capital of France?", TEXTS[0], ("Paris",)),
             Question("Which river flows through Brazil?", TEXTS[2], ("The Amazon", "Amazon")),
             Question("Which country has Berlin as its capital?", TEXTS[1], ("Germany",)),
             Question("sale zebra mango", TEXTS[3], ("量子",))]
LIGHTHOUSE = ["The lighthouse of Zanthor was built by the sea.",
              "The lighthouse of Zanthor, which stands high, was built in 1874.",
              "The harbour of Zanthor has ships."]


def made(texts=TEXTS, path=None):
    return build_index([Passage(text, "a.txt", f"line {i}") for i, text in enumerate(texts)], path)


class YearReader:
    """Answers with the first year of a passage, of which it is sure; else with the first word, of which it is not."""

    neutral = 0.5

    def __init__(self):
        self.read = []

    def answer_all(self, pairs):
        self.read += [passage for _, passage in pairs]
        return [self._answer(passage) for _, passage in pairs]

    def _answer(self, passage):
        year = re.search(r"\d{4}", passage)
        place, odds = (year or re.search(r"\w+", passage)).span(), 8.0 if year else -8.0
        return Answer(passage[slice(*place)], *place, 0.6 if year else 0.1, odds - 1, odds)


@pytest.mark.parametrize(("question", "passage", "expected"), [
    ("What do cats eat?", "Cats sleep most of the day. They hunt at night and eat mice.",
     "They hunt at night and eat mice."),
    ("When do cats sleep?", "Cats sleep most of the day. They hunt at night and eat mice.",
     "Cats sleep most of the day."),
    ("Where does Berlin lie?", "Berlin is the capital of Germany. It lies on the Spree. The city has lakes.",
     "It lies on the Spree."),
    ("猫吃什么？", "猫整天睡觉。它们夜里捕猎，吃老鼠。", "它们夜里捕猎，吃老鼠。"),
    ("Who painted the bridge of Arles?", "The bridge of Arles is old. Many cross the bridge of Arles. Van Gogh painted "
     "it. The bridge of Arles was moved.", "Van Gogh painted it."),
])
def test_the_sentence_that_answers_is_chosen(question, passage, expected):
    (sentence,) = SentenceReader(made().term_weights).answer_all([(question, passage)])
    assert passage[sentence.start : sentence.end] == sentence.text == expected
    assert 0 < sentence.support <= 1
    assert sentence.probability is None


def test_the_support_of_a_sentence_does_not_depend_on_how_many_stand_around_it():
    asked, sentence = "Who built the harbour of Zanthor?", "The harbour of Zanthor was dug in May."
    others = " ".join(f"Ships number {n} come and go." for n in range(30))
    reader = SentenceReader(made(LIGHTHOUSE).term_weights)
    alone, among = reader.answer_all([(asked, sentence), (asked, f"{sentence} {others}")])
    assert alone.text == among.text == sentence
    assert alone.support == among.support
    weights = made(LIGHTHOUSE).term_weights(["built", "harbour", "zanthor"])
    assert alone.support == pytest.approx(1 - weights["built"] / sum(weights.values()))


def test_answers_are_sentences_or_not_found():
    answers = DocumentAnswers(made(), threshold=0.21)
    found, other = answers.answer(["Which city is the capital of France?", "Who invented the zebra crossing?"])
    assert found.found
    assert found.text == "Paris is the capital of France."
    assert TEXTS[0][found.span.start : found.span.end] == found.text
    assert (other.found, other.text) == (False, "")
    assert other.to_json()["answer"] is None
    report = evaluate_answers(answers, QUESTIONS)
    assert report.answered == 0.75
    assert report.contains == 0.75
    assert 0 < report.scores.f1.value < 1


def test_a_reader_may_find_no_answer():
    class Silent:
        neutral = 0.5

        def answer_all(self, pairs):
            return [Sentence("", 0, 0, 0.0) for _ in pairs]

    (answer,) = DocumentAnswers(made(), Silent()).answer(["What is the capital of France?"])
    assert (answer.found, answer.text, answer.candidates, answer.score) == (False, "", (), None)
    assert (answer.hit.number, answer.unread) == (0, None)


def test_what_the_first_passage_lacks_is_found_in_the_second():
    question = "When was the lighthouse of Zanthor built?"
    index = made(LIGHTHOUSE)
    (hits,) = index.search([question], 3)
    assert [hit.number for hit in hits] == [0, 1, 2]
    (one,) = DocumentAnswers(index, YearReader(), passages=1).answer([question])
    (all_of_them,) = DocumentAnswers(index, YearReader(), passages=3).answer([question])
    assert one.text == "The"
    assert (all_of_them.text, all_of_them.hit.number) == ("1874", 1)
    assert [c.hit.number for c in all_of_them.candidates][:1] == [1]
    (by_search,) = DocumentAnswers(index, YearReader(), passages=3, reader_weight=0).answer([question])
    assert by_search.hit.number == 0


def test_a_score_is_of_passage_and_reader():
    (answer,) = DocumentAnswers(made(LIGHTHOUSE), YearReader(), reader_weight=0.25).answer(["lighthouse Zanthor built"])
    shown = json.loads(json.dumps(answer.to_json()))
    assert shown["answer"] == "1874"
    assert shown["support"] == pytest.approx(1 / (1 + 2.718281828**-2))
    assert shown["score"] == pytest.approx(0.75 * shown["retrieval_score"] + 0.25 * shown["support"])
    assert shown["retrieval_score"] == shown["passage"]["score"]
    assert (shown["probability"], shown["document"]) == (0.6, "a.txt")
    assert shown["passage"]["text"][shown["start"] : shown["end"]] == "1874"
    scores = [one["score"] for one in shown["candidates"]]
    assert len(scores) > 1
    assert scores == sorted(scores, reverse=True)
    assert shown["candidates"][0]["place"] == "line 1"


def test_passages_that_cannot_reach_the_threshold_are_not_read():
    reader = YearReader()
    (answer,) = DocumentAnswers(made(LIGHTHOUSE), reader, 0.9, passages=3).answer(["Zanthor ships mango kiwi"])
    assert (answer.found, reader.read) == (False, [])
    assert answer.hit.number == 2
    assert answer.unread == pytest.approx(0.9 * answer.nearest.score + 0.1)
    assert answer.to_json()["score"] is None


def test_answers_come_while_others_are_read(monkeypatch):
    monkeypatch.setattr("tickwise.tasks.answer_documents._READ_AT_ONCE", 1)
    reader = YearReader()
    answers = DocumentAnswers(made(LIGHTHOUSE), reader, 0.0, passages=1).each(["lighthouse", "harbour"])
    assert next(answers).found
    assert len(reader.read) == 1
    assert next(answers).found
    assert len(reader.read) == 2


def test_many_questions_at_once_are_each_answered_as_alone():
    questions = ["When was the lighthouse built?", "", "harbour", "zebra", "Zanthor"] * 15
    answers = DocumentAnswers(made(LIGHTHOUSE), YearReader())
    assert answers.answer(questions) == [answers.answer([question])[0] for question in questions]


def test_the_usual_threshold_follows_that_of_the_search():
    index = made()
    search = DocumentAnswers(index, reader_weight=0).threshold
    assert DocumentAnswers(index, YearReader(), reader_weight=0.5).threshold == pytest.approx(0.5 * search + 0.25)
    assert DocumentAnswers(index, reader_weight=0.5).threshold == pytest.approx(0.5 * search + 0.125)
    for settings, said in (({"passages": 0}, "at least 1"), ({"reader_weight": 1.5}, "from 0 to 1")):
        with pytest.raises(ConfigError, match=said):
            DocumentAnswers(index, **settings)


def test_a_chosen_threshold_is_the_best_and_belongs_to_its_reader(tmp_path):
    questions = [*QUESTIONS[:3], Question("量子计算机利用什么", TEXTS[3], ()), Question("flows", TEXTS[0], ())]
    answers = DocumentAnswers(made(path=tmp_path / "index"), threshold=0.0, passages=2)
    chosen = answers.choose_threshold(questions)
    texts = [question.text for question in questions]
    own = [{0}, {2}, {1}, {3}, {0}]

    def share(value):
        there = [(a.candidates[0].score >= value, a.hit.number in right)
                 for a, right in zip(answers.answer(texts), own, strict=True)]
        gone = [not candidates or candidates[0].score < value for *_, candidates in answers._ranked(texts, without=own)]
        return sum(found for found, _ in there) / 5, sum(found and right for found, right in there) / 5, sum(gone) / 5

    found, right, refused = share(chosen.value)
    assert (chosen.found, chosen.right * chosen.found, chosen.refused) == pytest.approx((found, right, refused))
    n_right = share(0)[1]
    others = [share(value / 50) for value in range(50)]
    assert right / n_right + refused >= max(other / n_right + gone for _, other, gone in others)
    assert chosen.held_out is not None
    answers.keep_threshold(tmp_path / "index", chosen)
    index = PassageIndex.open(tmp_path / "index")
    assert DocumentAnswers(index, passages=2).threshold == chosen.value
    assert DocumentAnswers(index, YearReader(), passages=2, kept_as="another").threshold != chosen.value
    assert (DocumentAnswers(index).passages, DocumentAnswers(index).threshold) == (2, chosen.value)
    with pytest.raises(ConfigError, match=r"--passages 5: the threshold of this index was chosen with 2"):
        DocumentAnswers(index, passages=5)
    assert DocumentAnswers(index, threshold=0.1).threshold == 0.1
    other = DocumentAnswers(index, YearReader(), 0.0, kept_as="another")
    other.keep_threshold(tmp_path / "index", other.choose_threshold(questions))
    assert set(PassageIndex.open(tmp_path / "index").header["answer_thresholds"]) == {"sentences", "another"}
