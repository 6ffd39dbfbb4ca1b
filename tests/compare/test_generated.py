"""The generated jobs ask what they say, and keep what is new out of the training."""

import itertools
import random
import re

import pytest

from tickwise.compare import generated
from tickwise.compare.cases import NEW, NOISY, SEEN, Case, in_typing_errors, mistyped, one_error
from tickwise.compare.programs import Adder, Extractor, Sorter, Table, Tally

N = 40


@pytest.fixture(scope="module", autouse=True)
def _fewer_lines():
    """A tenth of the training lines: what holds of them does not depend on how many they are."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_TRAINING", "_CHANGE_TRAINING", "_MOST_DRAWS"):
            patch.setattr(generated, name, getattr(generated, name) // 10)
        yield


@pytest.fixture(scope="module")
def material(_fewer_lines):
    return {name: getattr(generated, name)(N, 3) for name in ("adding", "sorting", "looking_up", "extracting")}


@pytest.mark.parametrize("name", ["adding", "sorting", "looking_up", "extracting"])
def test_new_and_noisy_cases_are_not_in_the_training(material, name):
    one = material[name]
    known = {case.text for case in (*one.training, *one.change_training, *one.change_development)}
    assert all(case.text in known for case in one.cases[SEEN])
    assert not any(case.text in known for kind, some in one.cases.items() if kind != SEEN for case in some)
    assert all(len(some) == N for some in one.cases.values())
    assert [case.answer for case in one.cases[one.plain]] == [case.answer for case in one.cases[NOISY]]
    assert material[name] == getattr(generated, name)(N, 3), "the same seed draws the same cases"
    assert material[name] != getattr(generated, name)(N, 4)


def operands(case):
    return tuple(sorted(map(int, re.findall(r"\d+", case.text))))


def letters(case):
    return "".join(filter(str.isalpha, case.text.upper()))


@pytest.mark.parametrize(("name", "asked"), [("adding", operands), ("sorting", letters)])
def test_what_is_held_out_is_so_in_every_order_and_form(material, name, asked):
    one = material[name]
    parts = [{asked(case) for case in cases} for cases in (
        (*one.training, *one.change_training), (*one.development, *one.change_development),
        (*one.cases[NEW], *one.cases[NOISY]))]
    assert all(parts)
    for first, second in itertools.combinations(parts, 2):
        assert not first & second


@pytest.mark.parametrize("name", ["adding", "sorting", "extracting"])
def test_rephrased_forms_are_trained_for_nobody(material, name):
    one = material[name]
    program = PROGRAMS[name]
    plain = [*one.training, *one.development]
    assert all(program.answer(case.text) == case.answer for case in plain), "the plain form, which the program knows"
    assert not {case.text for case in one.change_training} & {case.text for case in plain}


def test_answers_are_right(material):
    for case in material["adding"].training[:200]:
        assert sum(map(int, re.findall(r"\d+", case.text))) == int(case.answer)
    for case in material["sorting"].training[:200]:
        letters = [letter for letter in case.text.upper() if letter.isalpha()]
        assert "".join(sorted(letters)) == case.answer


PROGRAMS = {"adding": Adder(), "sorting": Sorter(), "extracting": Extractor(),
            "looking_up": Table(generated.stored_table(3))}


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_programs_do_what_they_were_written_for_and_the_edit_what_they_were_not(material, name):
    program, cases = PROGRAMS[name], material[name].cases

    def right(one, kind):
        return sum(one.answer(case.text) == case.answer for case in cases[kind]) / len(cases[kind])

    edited, what = program.edited()
    assert what
    assert right(program, SEEN) == 1
    assert right(program, NOISY) < 0.3 < 0.9 < right(edited, NOISY)
    assert right(edited, SEEN) == 1
    assert all(right(one, NEW) == 1 for one in (program, edited) if NEW in cases)


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_counting_changes_no_answer_and_counts_something(material, name):
    program = PROGRAMS[name]
    for case in material[name].cases[SEEN][:10]:
        tally = Tally()
        assert program.answer(case.text, tally) == program.answer(case.text)
        assert tally.total > 0
        assert tally.bytes_read > 0
        assert tally.bytes_written == len(case.answer)


def test_steps_are_those_of_the_algorithm():
    def steps(program, text):
        tally = Tally()
        program.answer(text, tally)
        return dict(tally.steps)

    assert steps(Adder(), "123+45") == {"characters examined": 6, "digit additions": 3}
    assert steps(Sorter(), "AABBCC") == {"comparisons": 5}, "one run that is sorted already"
    assert steps(Sorter(), "CABBAC")["comparisons"] > 5
    table = Table({"abc": "1"})
    assert steps(table, "abc") == {"hash probes": 1}
    assert steps(table.edited()[0], "abc") == {"hash probes": 1}
    assert steps(table.edited()[0], "abxc")["hash probes"] > 1


def test_typing_errors_change_words_and_nothing_else():
    rng = random.Random(1)
    text = "the weather is wonderful today and nobody complains"
    changed = mistyped(text, rng)
    assert changed != text
    assert len(changed.split(" ")) == len(text.split(" "))
    assert all(a[0] == b[0] for a, b in zip(changed.split(" "), text.split(" "), strict=True))
    assert all(one_error("kitten", random.Random(seed)) != "kitten" or seed for seed in range(5))
    assert in_typing_errors([Case(text, "fine")], rng)[0].answer == "fine"
