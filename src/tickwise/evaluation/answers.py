"""Exact match and F1 of short answers, as the official scripts of SQuAD and CMRC 2018 compute them."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tickwise.core.errors import DataError
from tickwise.evaluation.classification import Score
from tickwise.evaluation.results import mean_score

Rule = Literal["squad", "cmrc"]
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CMRC_HAN = re.compile("[\u4e00-\u9fa5]")
# As NLTK's word tokenizer splits what is left of Latin text there.
_LATIN_WORD = re.compile(r"""(?:[^\s,;@#$%&?!"'()\[\]<>{}]|,(?=\d))+|\S""")


@dataclass(frozen=True)
class AnswerScores:
    """Means over questions, from 0 to 1."""

    exact_match: Score
    f1: Score
    n: int


def normalise(answer: str) -> str:
    """SQuAD's form of an answer: lower case, without ASCII punctuation, articles and superfluous white space."""
    return " ".join(_ARTICLE.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, references: Sequence[str], rule: Rule = "squad") -> bool:
    """Whether the answer is one of the references in normal form. No reference means that there is no answer, which
    only an empty one matches (SQuAD 2.0)."""
    form = normalise if rule == "squad" else _without_cmrc_punctuation
    return any(form(answer) == form(reference) for reference in _valid(references, rule))


def f1(answer: str, references: Sequence[str], rule: Rule = "squad") -> float:
    """The best F1 of shared words over the references.

    ``squad``: words of the normal form, each counted as often as it occurs in both (scripts for SQuAD 1.1 and 2.0;
    where a normal form is empty, those for 2.0). ``cmrc``: Han characters and Latin words, of which the longest run in
    common counts (script for CMRC 2018; it splits Latin words by NLTK, which a regular expression stands for here).
    """
    of_pair = _squad_f1 if rule == "squad" else _cmrc_f1
    return max(of_pair(answer, reference) for reference in _valid(references, rule))


def answer_scores(answers: Sequence[str], references: Sequence[Sequence[str]], rule: Rule = "squad",
                  samples: int = 1000, seed: int = 0) -> AnswerScores:
    """Means over questions; ``DataError`` when there are not as many answers as lists of references, or none."""
    if len(answers) != len(references) or not answers:
        raise DataError(f"{len(answers):,} answers to {len(references):,} questions; each question needs one")
    pairs = list(zip(answers, references, strict=True))
    return AnswerScores(
        mean_score([float(exact_match(answer, own, rule)) for answer, own in pairs], samples, seed),
        mean_score([f1(answer, own, rule) for answer, own in pairs], samples, seed), len(pairs),
    )


def _valid(references: Sequence[str], rule: Rule) -> Sequence[str]:
    """SQuAD 2.0 leaves out references without a word, and takes an empty one where none is left."""
    kept = [reference for reference in references if normalise(reference)] if rule == "squad" else list(references)
    return kept or [""]


def _squad_f1(answer: str, reference: str) -> float:
    given, wanted = normalise(answer).split(), normalise(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    return _harmonic((Counter(given) & Counter(wanted)).total(), len(given), len(wanted))


def _without_cmrc_punctuation(text: str) -> str:
    return "".join(c for c in text.lower().strip() if c not in _CMRC_PUNCTUATION)


def cmrc_words(text: str) -> list[str]:
    """Han characters and Latin words, in lower case and without the punctuation that CMRC's script removes."""
    words: list[str] = []
    latin = ""

    def end_latin() -> None:
        nonlocal latin
        found = _LATIN_WORD.findall(latin)
        if found and len(found[-1]) > 1 and found[-1].endswith("."):  # a full stop at the end stands alone
            found[-1:] = [found[-1][:-1], "."]
        words.extend(found)
        latin = ""

    for character in _without_cmrc_punctuation(text):
        if _CMRC_HAN.match(character):
            end_latin()
            words.append(character)
        else:
            latin += character
    end_latin()
    return words


def _cmrc_f1(answer: str, reference: str) -> float:
    given, wanted = cmrc_words(answer), cmrc_words(reference)
    if not given or not wanted:
        return float(given == wanted)
    return _harmonic(_longest_common_run(given, wanted), len(given), len(wanted))


def _longest_common_run(a: Sequence[str], b: Sequence[str]) -> int:
    longest = 0
    ending = [0] * (len(b) + 1)  # runs that end before this place of b and at the last place of a
    for word in a:
        now = [0] * (len(b) + 1)
        for j, other in enumerate(b):
            if word == other:
                now[j + 1] = ending[j] + 1
                longest = max(longest, now[j + 1])
        ending = now
    return longest


def _harmonic(shared: int, n_given: int, n_wanted: int) -> float:
    return 2 * shared / (n_given + n_wanted) if shared else 0.0
