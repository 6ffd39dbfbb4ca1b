"""Facts of English sentences."""

import pytest

from tickwise.text.triples import triples


def facts(*sentences):
    return [fact[:3] for fact in triples(list(sentences))]


@pytest.mark.parametrize(("sentence", "expected"), [
    ("Paris is the capital of France.", [("France", "capital", "Paris")]),
    ("The capital of France is Paris.", [("France", "capital", "Paris")]),
    ("France's president is Emmanuel Macron.", [("France", "president", "Emmanuel Macron")]),
    ("London is the capital and largest city of England.",
     [("England", "capital", "London"), ("England", "largest city", "London")]),
    ("England is a country in Europe.", [("England", "is a", "country"), ("England", "is a country in", "Europe")]),
    ("Hamlet was written by William Shakespeare in 1600.",
     [("William Shakespeare", "write", "Hamlet"), ("Hamlet", "written in", "1600")]),
    ("In 1843, Charles Babbage designed the Analytical Engine.",
     [("Charles Babbage", "design", "Analytical Engine"), ("Charles Babbage", "design Analytical Engine in", "1843")]),
    ("Ada Lovelace, an English mathematician, was born in London on 10 December 1815.",
     [("Ada Lovelace", "is a", "English mathematician"), ("Ada Lovelace", "born in", "London"),
      ("Ada Lovelace", "born on", "10 December 1815")]),
    ("France borders Spain, Italy and Germany.",
     [("France", "border", "Spain"), ("France", "border", "Italy"), ("France", "border", "Germany")]),
    ("Marie Curie won the Nobel Prize in 1903 and founded the Radium Institute.",
     [("Marie Curie", "win", "Nobel Prize"), ("Marie Curie", "win Nobel Prize in", "1903"),
      ("Marie Curie", "found", "Radium Institute")]),
    ("Berlin has a population of 3.7 million.", [("Berlin", "population", "3.7 million")]),
    ("The play was first performed in London.", [("play", "performed in", "London")]),
])  # fmt: skip
def test_rules(sentence, expected):
    assert facts(sentence) == expected


def test_denial_is_a_relation_of_its_own():
    assert facts("Whales are not fish.") == [("Whales", "not is", "fish")]
    assert facts("Babbage did not build the engine.") == [("Babbage", "not build", "engine")]


def test_pronouns_stand_for_the_subject_before():
    assert facts("Marie Curie won two prizes.", "She was born in Warsaw.", "Her husband was Pierre Curie.")[1:] == [
        ("Marie Curie", "born in", "Warsaw"), ("Marie Curie", "husband", "Pierre Curie")]
    assert facts("She was born in Warsaw.") == []


def test_sentences_that_fit_no_rule_give_nothing():
    assert facts("Is Paris the capital of France?", "Rain!", "", "The book that he wrote was sold in 1900.",
                 "东京是日本的首都。", "Never mind.") == []


def test_the_sentence_is_kept():
    (fact,) = triples(["Paris is the\ncapital of France. "])
    assert fact.sentence == "Paris is the\ncapital of France."
