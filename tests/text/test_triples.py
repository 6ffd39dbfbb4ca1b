"""Facts of English sentences."""

import random
import time

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


@pytest.mark.parametrize(("sentence", "expected"), [
    ("Einstein, who was born in Ulm, received the Nobel Prize in 1921.",
     [("Einstein", "born in", "Ulm"), ("Einstein", "receive", "Nobel Prize"),
      ("Einstein", "receive Nobel Prize in", "1921")]),
    ("The bridge, which was built in 1900, was destroyed in 1945.",
     [("bridge", "built in", "1900"), ("bridge", "destroyed in", "1945")]),
    ("The bridge that was built in 1900 was destroyed in 1945.",
     [("bridge", "built in", "1900"), ("bridge", "destroyed in", "1945")]),
    ("Einstein, whose mother was Pauline Koch, was born in Ulm.",
     [("Einstein", "mother", "Pauline Koch"), ("Einstein", "born in", "Ulm")]),
    ("Einstein married Mileva Marić, who was born in Titel, in 1903.",
     [("Einstein", "marry", "Mileva Marić"), ("Mileva Marić", "born in", "Titel")]),
    ("The man who wrote Hamlet was born in Stratford.",
     [("man", "write", "Hamlet"), ("man", "born in", "Stratford")]),
    ("Paris, where Curie died in 1934, lies on the Seine.", [("Paris", "lie on", "Seine")]),
    ("The war, which destroyed the town, began in 1914 and ended in 1918.",
     [("war", "destroy", "town"), ("war", "begin in", "1914"), ("war", "end in", "1918")]),
])  # fmt: skip
def test_a_relative_clause_keeps_to_itself(sentence, expected):
    assert facts(sentence) == expected


@pytest.mark.parametrize(("sentence", "expected"), [
    ("Marie Curie, a physicist born in Warsaw, won the Nobel Prize.",
     [("Marie Curie", "is a", "physicist"), ("Marie Curie", "born in", "Warsaw"),
      ("Marie Curie", "win", "Nobel Prize")]),
    ("Founded in 1901, the company moved to Berlin in 1920.",
     [("company", "founded in", "1901"), ("company", "move to", "Berlin"), ("company", "move in", "1920")]),
    ("Einstein, born in Ulm, died in Princeton in 1955.",
     [("Einstein", "born in", "Ulm"), ("Einstein", "die in", "Princeton"), ("Einstein", "die in", "1955")]),
    ("The company founded in 1901 merged with Opel in 1930.",
     [("company", "founded in", "1901"), ("company", "merge with", "Opel"), ("company", "merge in", "1930")]),
    ("Born in Ulm, Germany, he moved to Bern.", []),
    ("Marie married Pierre Curie, a physicist, in 1895.",
     [("Marie", "marry", "Pierre Curie"), ("Pierre Curie", "is a", "physicist")]),
    ("The Eiffel Tower, built in 1889 and lit in 1900, stands in Paris.",
     [("Eiffel Tower", "built in", "1889"), ("Eiffel Tower", "lit in", "1900"), ("Eiffel Tower", "stand in", "Paris")]),
    ("The president of France, Emmanuel Macron, visited Berlin.",
     [("France", "president", "Emmanuel Macron"), ("president of France", "visit", "Berlin")]),
    ("Warsaw, the capital of Poland, was destroyed in 1944.",
     [("Poland", "capital", "Warsaw"), ("Warsaw", "destroyed in", "1944")]),
    ("The advances made in the East led the doctors to success.",
     [("advances", "made in", "East"), ("advances", "lead", "doctors"), ("advances", "lead doctors to", "success")]),
    ("The advances made in the East in botany and chemistry led medicine to success.", []),
])  # fmt: skip
def test_appositions_and_participles_are_said_of_their_noun(sentence, expected):
    assert facts(sentence) == expected


@pytest.mark.parametrize(("sentence", "expected"), [
    ("Steve Jobs co-founded Apple.", [("Steve Jobs", "co-found", "Apple")]),
    ("Smith re-elected and over-praised the mayor.",
     [("Smith", "re-elect", "mayor"), ("Smith", "over-praise", "mayor")]),
    ("Smith translated and added a supplement to the work.",
     [("Smith", "add", "supplement"), ("Smith", "add supplement to", "work")]),
    ("Pharmacists are regulated separately from physicians.",
     [("Pharmacists", "regulated separately from", "physicians")]),
    ("The army took over the city in 1944.",
     [("army", "take over", "city"), ("army", "take over city in", "1944")]),
])  # fmt: skip
def test_verbs_of_several_parts_are_one(sentence, expected):
    assert facts(sentence) == expected


@pytest.mark.parametrize(("sentence", "expected"), [
    ("Marie Curie discovered polonium and radium.",
     [("Marie Curie", "discover", "polonium"), ("Marie Curie", "discover", "radium")]),
    ("Jobs and Wozniak founded Apple.", [("Jobs", "found", "Apple"), ("Wozniak", "found", "Apple")]),
    ("Marie and Pierre Curie discovered radium.", [("Marie and Pierre Curie", "discover", "radium")]),
    ("Gibbon described the rise and fall of Rome.", [("Gibbon", "describe", "rise and fall of Rome")]),
    ("The king built a church and a school.", [("king", "build", "church"), ("king", "build", "school")]),
    ("Shakespeare wrote Hamlet and Jonson wrote Volpone.",
     [("Shakespeare", "write", "Hamlet"), ("Jonson", "write", "Volpone")]),
    ("The river flows through Germany, France and the Netherlands.",
     [("river", "flow through", "Germany"), ("river", "flow through", "France"),
      ("river", "flow through", "Netherlands")]),
    ("Water consists of hydrogen and oxygen.",
     [("Water", "consist of", "hydrogen"), ("Water", "consist of", "oxygen")]),
    ("Smith visited Rome or Naples.", []),
    ("The university built the Joe and Mansueto Library.", [("university", "build", "Joe and Mansueto Library")]),
    ("The border divides France and Spain in the mountains near the sea.",
     [("border", "divide", "France"), ("border", "divide", "Spain"), ("border", "divide France in", "mountains"),
      ("border", "divide Spain in", "mountains")]),
])  # fmt: skip
def test_lists_are_told_apart_where_each_part_is_complete(sentence, expected):
    assert facts(sentence) == expected


@pytest.mark.parametrize(("sentence", "expected"), [
    ("The bridge was destroyed in 1945 by the army.",
     [("army", "destroy", "bridge"), ("bridge", "destroyed in", "1945")]),
    ("The bridge was destroyed by 1945.", [("bridge", "destroyed by", "1945")]),
    ("The tower was designed and built by Gustave Eiffel in Paris.",
     [("Gustave Eiffel", "design", "tower"), ("Gustave Eiffel", "build", "tower"), ("tower", "designed in", "Paris"),
      ("tower", "built in", "Paris")]),
    ("Einstein was born in Ulm, Germany, in 1879 and died in Princeton.",
     [("Einstein", "born in", "Ulm"), ("Einstein", "born in", "1879"), ("Einstein", "die in", "Princeton")]),
    ("Curie was awarded the Nobel Prize in 1903.",
     [("Curie", "awarded", "Nobel Prize"), ("Curie", "awarded Nobel Prize in", "1903")]),
    ("The network was built by Smith, called Jones in 1998.", [("Smith", "build", "network")]),
    ("Smith, elected in 1900.", []),
    ("Cells have their own DNA, often abbreviated as ctDNA.", []),
    ("On 8 June 2008 the school dedicated its new building.",
     [("school", "dedicate", "school's new building"), ("school", "dedicate new building on", "8 June 2008")]),
    ("The peace was made between the towns in the hills and the king.", []),
    ("The peace was made between France and Spain.", [("peace", "made between", "France and Spain")]),
    ("The goods were sent by train.", []),
])  # fmt: skip
def test_passives(sentence, expected):
    assert facts(sentence) == expected


@pytest.mark.parametrize("sentence", [
    "Einstein would visit Rome.", "Einstein could play the violin.", "If Einstein visited Rome, the king left Paris.",
    "It is within the power of the king to govern.", "Rome is almost a village.",
    "Shops employ experts and/or provide services.", "In Smith's view, the king left Paris.",
    "According to Smith, Einstein visited Rome.", "Smith said Einstein visited Rome.",
    "Smith believes that Einstein visited Rome.", "Einstein was forced to leave Berlin.",
    "Einstein was said to be ill.",
    "It was announced on Monday that Smith won the prize.", "Rome is larger than Paris.",
    "Neither Smith nor Jones visited Rome.", "There was a bridge in Rome.", "No king visited Rome.",
    "The small fortified town was in ruins that nobody saw.", "These drugs are the most powerful of these substances.",
    "\"I visited Rome,\" Smith said.",
])  # fmt: skip
def test_what_may_be_or_is_only_said_is_no_fact(sentence):
    assert facts(sentence) == []


def test_a_pronoun_stands_for_nothing_where_it_does_not_fit():
    assert facts("The bridge was built in 1900.", "He lived in Rome.") == [("bridge", "built in", "1900")]
    assert facts("Smith published a theory.", "It changed physics.") == [("Smith", "publish", "theory")]
    assert facts("Smith met Jones in 1900.", "He lived in Rome.")[-1] == ("Smith", "meet Jones in", "1900")
    assert facts("Fleming discovered penicillin, and it saved millions of lives.") == [
        ("Fleming", "discover", "penicillin")]
    assert facts("Smith lived in Rome.", "They lived in Paris.") == [("Smith", "live in", "Rome")]
    assert facts("Smith lived in Rome.", "Hardly anything is known.", "He left.") == [("Smith", "live in", "Rome")]


def test_denial_is_a_relation_of_its_own():
    assert facts("Whales are not fish.") == [("Whales", "not is", "fish")]
    assert facts("Babbage didn't build the engine.") == facts("Babbage did not build the engine.")
    assert facts("Babbage did not build the engine.") == [("Babbage", "not build", "engine")]


def test_pronouns_stand_for_the_subject_before():
    assert facts("Marie Curie won two prizes.", "She was born in Warsaw.", "Her husband was Pierre Curie.")[1:] == [
        ("Marie Curie", "born in", "Warsaw"), ("Marie Curie", "husband", "Pierre Curie")]
    assert facts("She was born in Warsaw.") == []


def test_sentences_that_fit_no_rule_give_nothing():
    assert facts("Is Paris the capital of France?", "Rain!", "", "The book that he wrote was sold in 1900.",
                 "东京是日本的首都。", "Never mind.") == []


_ANY_WORDS = """the a of and or , who which that whose is was were been being born in by to from founded built
write Paris city Einstein 1921 never has did could he it they his its no “ ” " ( ) – ; ' 's n't Founded Having
most one first with between where when because quickly north found 东京 U.S. $5 each such what there"""


def test_a_sentence_of_any_words_gives_whole_facts_or_none():
    words = _ANY_WORDS.split()
    chance = random.Random(0)
    for _ in range(2000):
        sentence = " ".join(chance.choices(words, k=chance.randrange(30)))
        for fact in triples([sentence, "He was born in Rome.", sentence]):
            assert all(fact[:3]), sentence


def test_long_chains_take_little_time():
    started = time.perf_counter()
    for sentence in ("the king of " * 140 + "Rome died in 1900.", "Ann met Bob and " * 70,
                     "Ann, " * 150 + "and Bob won.", "Ann, " + "born in Rome, " * 80 + "died."):
        list(triples([sentence]))
    assert time.perf_counter() - started < 2


def test_the_sentence_is_kept():
    (fact,) = triples(["Paris is the\ncapital of France. "])
    assert fact.sentence == "Paris is the\ncapital of France."
