"""What a job is tested on: inputs with the answers that are wanted."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SEEN, NEW, NOISY = "seen", "new", "rephrased or noisy"
"""Inputs that were trained on or stored; others of the same kind; the same in other words, or with typing errors."""
UNKNOWN = "?"
"""The answer where there is none."""
_SHARE_OF_WORDS = 0.4
_SHORTEST = 4


@dataclass(frozen=True)
class Case:
    """An input and the answer that is wanted."""

    text: str
    answer: str


@dataclass(frozen=True)
class Material:
    """What a job gives to its contestants: examples to learn from, and cases by kind of input."""

    training: tuple[Case, ...]
    cases: Mapping[str, tuple[Case, ...]]
    about: str


def mistyped(text: str, rng: random.Random) -> str:
    """``text`` in which two out of five words of four letters or more have a typing error inside: two neighbouring
    letters swapped, one left out, or one doubled."""
    words = text.split(" ")
    for place, word in enumerate(words):
        if len(word) >= _SHORTEST and rng.random() < _SHARE_OF_WORDS:
            words[place] = one_error(word, rng)
    return " ".join(words)


def one_error(word: str, rng: random.Random) -> str:
    """``word`` with one such error, not in its first letter."""
    at = rng.randrange(1, len(word) - 1)
    return rng.choice((word[:at] + word[at + 1] + word[at] + word[at + 2 :], word[:at] + word[at + 1 :],
                       word[:at] + word[at] + word[at:]))


def drawn(cases: Sequence[Case], n: int, rng: random.Random) -> tuple[Case, ...]:
    """At most ``n`` of the cases."""
    return tuple(cases) if len(cases) <= n else tuple(rng.sample(list(cases), n))


def in_typing_errors(cases: Sequence[Case], rng: random.Random) -> tuple[Case, ...]:
    """The same answers, asked with typing errors."""
    return tuple(Case(mistyped(case.text, rng), case.answer) for case in cases)
