"""English sentences of which nothing, or only a part, is taken for a fact, because the rest cannot be told safely."""

import pytest

from tickwise.text.triples import triples


def facts(*sentences):
    return [fact[:3] for fact in triples(list(sentences))]


@pytest.mark.parametrize(("sentence", "expected"), [
    ("North Korea borders China.", [("North Korea", "border", "China")]),
    ("South Africa is a country in Africa.",
     [("South Africa", "is a", "country"), ("South Africa", "is a country in", "Africa")]),
    ("East Germany was founded in 1949.", [("East Germany", "founded in", "1949")]),
    ("West Ham beat Leeds.", [("West Ham", "beat", "Leeds")]),
    ("South Park was created by Trey Parker.", [("Trey Parker", "create", "South Park")]),
    ("Beverly Hills is a city.", [("Beverly Hills", "is a", "city")]),
    ("Kimberly Clark was born in Leeds.", [("Kimberly Clark", "born in", "Leeds")]),
    ("Even Stevens was a series.", []),
    ("Eventually Smith left Rome.", [("Smith", "leave", "Rome")]),
    ("Early, Smith left Rome.", [("Smith", "leave", "Rome")]),
])  # fmt: skip
def test_the_first_word_of_a_name_is_kept(sentence, expected):
    assert facts(sentence) == expected


@pytest.mark.parametrize("sentence", [
    "Paris is not only the capital of France but also its largest city.",
    "Peter not only founded the company but also led it.", "Smith did not only write books.",
    "Smith was not just a painter.", "Rome was not merely a village.", "Tom did not marry Anna until 1990.",
    "Tom didn't marry Anna until 1990.", "Tom never visited Rome before 1990.", "Tom has not yet visited Rome.",
])  # fmt: skip
def test_not_only_and_not_until_deny_nothing(sentence):
    assert facts(sentence) == []


@pytest.mark.parametrize("sentence", [
    "The valve closes the pipe when the pump fails.", "The valve closes the pipe whenever the pump fails.",
    "The valve closes the pipe provided the pump fails.", "The valve closes the pipe, provided that the pump is on.",
    "The valve closes the pipe as long as the pump works.", "In case of fire, the valve closes the pipe.",
    "In the event of fire, the valve closes the pipe.", "When the pump fails, the valve closes the pipe.",
    "In his dream, Tom visited Rome.", "In a parallel universe, Tom visited Rome.",
    "In the novel, Tom visited Rome.", "Once the pump fails, the valve closes the pipe.",
])  # fmt: skip
def test_what_holds_on_a_condition_or_in_a_dream_is_no_fact(sentence):
    assert facts(sentence) == []


def test_what_happened_when_something_else_did_is_a_fact():
    assert facts("When the war began, Smith moved to Paris.") == [("Smith", "move to", "Paris")]
    assert facts("Tom once owned the school.") == [("Tom", "own", "school")]
