"""What a job is tested on: inputs with the answers that are wanted."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

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
    """What a job gives to its contestants, program and model alike. No case of ``cases`` but the seen ones is in any
    other part."""

    training: tuple[Case, ...]
    development: tuple[Case, ...]
    """To choose the best program and the best state of a model by."""
    cases: Mapping[str, tuple[Case, ...]]
    """By kind of input. The n-th rephrased case asks what the n-th plain one does."""
    change_training: tuple[Case, ...]
    """Rephrased or noisy examples: seen by nobody before the change, which is to answer such inputs."""
    change_development: tuple[Case, ...]
    """Such ones that the change must pass."""
    about: str

    @property
    def plain(self) -> str:
        """The kind whose inputs the noisy ones are made of."""
        return NEW if NEW in self.cases else SEEN


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


def same(text: str) -> str:
    """What two texts have in common that differ in capitals and spaces only: nobody should be tested on such a one."""
    return " ".join(text.casefold().split())


def split_off(cases: Sequence[Case], share: float, rng: random.Random,
              keeps: int = 0) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """The cases without that share, and the share: no text is twice in them, and an answer keeps at least so many
    cases."""
    texts = {same(case.text): case for case in cases}
    kept: list[Case] = []
    off: list[Case] = []
    left = Counter(case.answer for case in texts.values())
    for case in rng.sample(list(texts.values()), len(texts)):
        goes = len(off) < share * len(texts) and left[case.answer] > keeps
        left[case.answer] -= goes
        (off if goes else kept).append(case)
    return tuple(kept), tuple(off)


def drawn(cases: Sequence[Case], n: int, rng: random.Random) -> tuple[Case, ...]:
    """At most ``n`` of the cases."""
    return tuple(cases) if len(cases) <= n else tuple(rng.sample(list(cases), n))


def one_error_away(text: str) -> Iterator[str]:
    """What may have been meant by ``text``: without one of its letters, two swapped back, or with one that was left
    out."""
    yield from (text[:i] + text[i + 1 :] for i in range(len(text)))
    yield from (text[:i] + text[i + 1] + text[i] + text[i + 2 :] for i in range(len(text) - 1))
    yield from (text[:i] + letter + text[i:] for i in range(1, len(text)) for letter in ascii_lowercase)


def in_typing_errors(cases: Sequence[Case], rng: random.Random) -> tuple[Case, ...]:
    """The same answers, asked with typing errors."""
    return tuple(Case(mistyped(case.text, rng), case.answer) for case in cases)
