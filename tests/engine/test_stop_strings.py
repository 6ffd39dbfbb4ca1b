import itertools
import random
import time

from tickwise.engine.stop_strings import StopStringFilter


def run(stop, pieces):
    filter = StopStringFilter(stop)
    shown = [filter.push(piece) for piece in pieces]
    return "".join(shown) + filter.flush(), filter.stopped


def test_a_stop_string_that_arrives_in_pieces_is_never_shown():
    filter = StopStringFilter(["<END>"])
    assert [filter.push(piece) for piece in ("one ", "<E", "N", "D", "> two")] == ["one ", "", "", "", ""]
    assert filter.stopped
    assert filter.flush() == ""


def test_holds_back_only_what_may_begin_a_stop_string():
    filter = StopStringFilter(["abc"])
    assert filter.push("xxab") == "xx"
    assert filter.push("d") == "abd"
    assert filter.push("a") == ""
    assert filter.flush() == "a"
    assert not filter.stopped


def test_a_repeated_beginning_is_found():
    assert run(["aab"], ["a", "a", "a", "b", "c"]) == ("a", True)


def first_to_complete(text, stop):
    """The text before the stop string that ends first, by trying every prefix."""
    for end in range(1, len(text) + 1):
        matching = [s for s in stop if text[:end].endswith(s)]
        if matching:
            return text[: end - max(map(len, matching))], True
    return text, False


def random_text(random_numbers, longest):
    return "".join(random_numbers.choices("ab\n", k=random_numbers.randint(0, longest)))


def test_the_result_does_not_depend_on_how_the_text_is_cut():
    random_numbers = random.Random(1)
    for _ in range(3000):
        text = random_text(random_numbers, 20)
        stop = [s for s in (random_text(random_numbers, 4) for _ in range(random_numbers.randint(0, 3))) if s]
        edges = sorted({0, len(text), *(random_numbers.randint(0, len(text)) for _ in range(6))})
        pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
        assert run(stop, pieces) == first_to_complete(text, stop), (text, stop, pieces)


def test_a_long_stop_string_that_never_comes_costs_no_more_than_the_text():
    filter = StopStringFilter(["a" * 100_000 + "b"])
    started = time.perf_counter()
    shown = "".join(filter.push("a" * 50) for _ in range(4000)) + filter.flush()
    assert len(shown) == 200_000
    assert not filter.stopped
    assert time.perf_counter() - started < 5


def test_a_piece_that_may_not_stop_is_shown_and_begins_nothing():
    filter = StopStringFilter(["ab"])
    assert filter.push("a") == ""
    assert filter.push("b", may_stop=False) == "ab"
    assert filter.push("xa", may_stop=False) == "xa"
    assert filter.push("b") == "b"
    assert not filter.stopped
    assert filter.push("ab") == ""
    assert filter.stopped
