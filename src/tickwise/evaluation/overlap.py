"""How much a text shares with reference texts: ROUGE and METEOR.

ROUGE (Lin 2004) is rouge-score's, with the Porter stemmer: F-measures of shared words (ROUGE-1), pairs of words
(ROUGE-2) and of the longest common subsequence (ROUGE-L). METEOR is defined in ``meteor``.
"""

import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tickwise.core.errors import ConfigError, DataError
from tickwise.evaluation.classification import Score
from tickwise.evaluation.results import mean_score
from tickwise.text.segment import CHARACTER_OR_WORD, HAN_PATTERN, mostly_chinese

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
OfReferences = Literal["best", "mean"]
Synonyms = Callable[[str], Collection[str]]
_LETTER = rf"(?!{HAN_PATTERN})[^\W_]"
_METEOR_WORD = re.compile(rf"{HAN_PATTERN}|\d+(?:[.,]\d+)+|(?:{_LETTER})+(?:['’](?:{_LETTER})+)*|[^\w\s]|_")
_ALPHA, _BETA, _GAMMA = 0.9, 3.0, 0.5


class _CharacterTokens:
    """rouge-score drops everything but Latin letters and digits; this keeps each Han character as a word."""

    def tokenize(self, text: str) -> list[str]:
        return CHARACTER_OR_WORD.findall(text.lower())


def rouge_scorer(chinese: bool = False) -> "RougeScorer":
    """rouge-score's scorer of ``ROUGE_TYPES``; for Chinese each Han character is a word and nothing is stemmed."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ConfigError("ROUGE needs the package rouge-score: pip install 'tickwise[eval]'") from None
    if chinese:
        return RougeScorer(list(ROUGE_TYPES), tokenizer=_CharacterTokens())
    return RougeScorer(list(ROUGE_TYPES), use_stemmer=True)


def need_overlap() -> None:
    """``ConfigError`` where a library for ROUGE or METEOR is not installed."""
    rouge_scorer()
    _porter()


def rouge(texts: Sequence[str], references: Sequence[Sequence[str]], of: OfReferences = "best",
          samples: int = 1000, seed: int = 0) -> dict[str, Score]:
    """Mean ROUGE F-measures, from 0 to 1, of ``texts`` against the references of each.

    Where the references are mostly Chinese, characters are compared. Of several references the ``best`` counts, for
    each kind of ROUGE by itself (rouge-score's ``score_multi``), or the ``mean``. ``DataError`` when the two have not
    as many texts, or a text has no reference.
    """
    _check(texts, references)
    scorer = rouge_scorer(mostly_chinese(reference for own in references for reference in own))
    values: dict[str, list[float]] = {name: [] for name in ROUGE_TYPES}
    for text, own in zip(texts, references, strict=True):
        found: list[dict[str, Any]] = [scorer.score(reference, text) for reference in own]
        for name in ROUGE_TYPES:
            each = [scores[name].fmeasure for scores in found]
            values[name].append(max(each) if of == "best" else sum(each) / len(each))
    return {name: mean_score(each, samples, seed) for name, each in values.items()}


def meteor(text: str, references: Sequence[str], *, stem: Callable[[str], str] | None = None,
           synonyms: Synonyms | None = None) -> float:
    """METEOR of one text, from 0 to 1: the best over its references.

    Source: Banerjee & Lavie 2005, with the parameters of Lavie & Agarwal 2007 that NLTK uses. Words (in lower case;
    punctuation marks and Han characters are words of their own) are matched one to one in stages: equal, of equal
    ``stem`` (default: Porter's), a ``synonym`` of the text's word (only where a function gives them: word → its
    synonyms). With m matches, P = m / words of the text and R = m / words of the reference, F = P R / (0.9 P + 0.1 R);
    matches that are neighbours in both texts form a chunk, and the score is F (1 - 0.5 (chunks / m)³).

    Within a stage words are matched from the end of both texts, as NLTK does it. The paper asks for the matching with
    the fewest crossings instead, so where a word comes several times these scores can be lower than the paper's.
    """
    if not references:
        raise DataError("METEOR: a text without references")
    stem = stem or _porter()
    words = meteor_words(text)
    return max(_meteor_of_pair(words, meteor_words(reference), stem, synonyms) for reference in references)


def meteor_words(text: str) -> list[str]:
    """What METEOR compares: words and numbers, punctuation marks, Han characters, in lower case."""
    return _METEOR_WORD.findall(text.lower())


def mean_meteor(texts: Sequence[str], references: Sequence[Sequence[str]], *, synonyms: Synonyms | None = None,
                samples: int = 1000, seed: int = 0) -> Score:
    """Mean ``meteor`` of texts against the references of each."""
    _check(texts, references)
    stem = _porter()
    values = [meteor(text, own, stem=stem, synonyms=synonyms) for text, own in zip(texts, references, strict=True)]
    return mean_score(values, samples, seed)


def _meteor_of_pair(words: Sequence[str], reference: Sequence[str], stem: Callable[[str], str],
                    synonyms: Synonyms | None) -> float:
    matches: dict[int, int] = {}
    free = list(range(len(reference)))

    def stage(matching: Callable[[str], Collection[str]], form: Callable[[str], str]) -> None:
        forms = {place: form(reference[place]) for place in free}
        for i in reversed(range(len(words))):
            if i in matches:
                continue
            wanted = matching(words[i])
            place = next((place for place in reversed(free) if forms[place] in wanted), None)
            if place is not None:
                matches[i] = place
                free.remove(place)

    stage(lambda word: (word,), lambda word: word)
    stage(lambda word: (stem(word),), stem)
    if synonyms is not None:
        stage(lambda word: {word, *synonyms(word)}, lambda word: word)
    if not matches:
        return 0.0
    m = len(matches)
    precision, recall = m / len(words), m / len(reference)
    f_mean = precision * recall / (_ALPHA * precision + (1 - _ALPHA) * recall)
    chunks = sum(matches.get(i - 1, -2) + 1 != place for i, place in matches.items())
    return f_mean * (1 - _GAMMA * (chunks / m) ** _BETA)


def _porter() -> Callable[[str], str]:
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError:
        raise ConfigError("METEOR needs the package nltk for Porter's stemmer: pip install 'tickwise[eval]'") from None
    stemmer: Callable[[str], str] = PorterStemmer().stem
    return stemmer


def _check(texts: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(texts) != len(references):
        raise DataError(f"{len(texts):,} texts but {len(references):,} references; give each text its own")
    if not texts:
        raise DataError("no texts to compare with references")
    without = next((row for row, own in enumerate(references) if not own), None)
    if without is not None:
        raise DataError(f"text {without + 1} has no reference")
