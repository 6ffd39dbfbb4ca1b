"""English sentences of which nothing, or only a part, is taken for a fact, because the rest cannot be told safely."""

import time

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


@pytest.mark.parametrize(("sentence", "expected"), [
    ("The army defeated the French at Ramillies and the Spanish at Turin.", [("army", "defeat", "French")]),
    ("Leeds beat York in 1990 and Hull in 1995.", [("Leeds", "beat", "York")]),
    ("Tom and Ann married Eve and Ben respectively.", []), ("Tom and Jerry is a cartoon.", []),
    ("The wall separates East and West Berlin.", [("wall", "separate", "East and West Berlin")]),
    ("Tom left the house before Anna arrived.", []), ("All students except Anna passed the exam.", []),
    ("France beat Croatia 4-2 in Moscow.", []), ("The government named Smith ambassador to France.", []),
    ("Henry VIII had Anne Boleyn executed.", []), ("Tom became the first man to climb Everest.", []),
    ("The population of Leeds rose from 1,000 in 1800 to 2,000 in 1900.", []),
    ("The river flows through Germany and France in the north.",
     [("river", "flow through", "Germany"), ("river", "flow through", "France")]),
])  # fmt: skip
def test_lists_and_objects_that_run_on_are_not_read_to_their_end(sentence, expected):
    assert facts(sentence) == expected


def test_a_past_state_is_none_of_the_present():
    assert facts("Hong Kong was a British colony until 1997.") == []
    assert facts("Smith was once the mayor of Leeds.") == []
    assert facts("Brazil's capital was Rio de Janeiro.", "Brasilia is the capital of Brazil.") == [
        ("Brazil", "capital", "Brasilia")]
    assert facts("Einstein was a physicist.") == [("Einstein", "is a", "physicist")]


def test_what_is_of_a_kind_holds_no_role():
    assert facts("The capital of France is a city.") == [("capital of France", "is a", "city")]
    assert facts("Anna's husband was a lawyer.") == [("Anna's husband", "is a", "lawyer")]
    assert facts("The fall of Rome was a disaster.") == [("fall of Rome", "is a", "disaster")]
    assert facts("The capital of France is Paris.") == [("France", "capital", "Paris")]


@pytest.mark.parametrize("sentences", [
    ("Titanic is a film by James Cameron.", "He was born in Canada."), ("Titanic is a film.", "He was born in Canada."),
    ("Elizabeth is the mother of Charles.", "He was born in Canada."), ("London is in England.", "She left Canada."),
    ("Tom visited his father in Rome.", "He was born in Canada."), ("Tom died in Ben's house.", "He was from Canada."),
    ("Apple sued Samsung in 2011.", "It left Canada."),
])  # fmt: skip
def test_a_pronoun_with_a_rival_stands_for_nobody(sentences):
    assert not any("Canada" in fact for fact in facts(*sentences))


@pytest.mark.parametrize("sentences", [
    ("Smith was a painter.", "He was born in Canada."), ("Smith lived in Rome.", "He was born in Canada."),
    ("Titanic is a film by James Cameron.", "It was made in Canada."),
    ("Smith won the Nobel Prize in 1903.", "He was born in Canada."),
])  # fmt: skip
def test_a_pronoun_without_a_rival_stands_for_the_subject(sentences):
    assert any("Canada" in fact for fact in facts(*sentences))


@pytest.mark.parametrize("sentence", [
    "Ann is the " + "king of " * 1600 + "Rome.", "Ann lived in Rome and " * 1600 + "left.",
    "Ann lived in Rome, " + "\"“( " * 5000 + ".", "Ann is the " + "king of " * 100 + "Rome.",
    "Ann lived in Rome and " * 80 + "left.",
])  # fmt: skip
def test_endless_sentences_take_little_time(sentence):
    started = time.perf_counter()
    assert len(facts(sentence)) < 200
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(("sentence", "expected"), [
    ("The episode was written by Michael R.", []), ("Smith compared the two in depth.", []),
    ("On the national level, the city lies in Ohio.", [("city", "lie in", "Ohio")]),
    ("The side won the match 16 – 12.", []),
])  # fmt: skip
def test_what_is_cut_off_or_vague_is_left_out(sentence, expected):
    assert facts(sentence) == expected
