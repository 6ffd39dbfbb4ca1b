"""Classical programs for real texts: rules, a lexicon, naive Bayes, a dictionary, an index of passages.

Counted: hash probes, additions of floating-point numbers, characters examined. The index counts nothing: its work is
done inside DuckDB.
"""

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tickwise.compare.cases import UNKNOWN, Case
from tickwise.compare.programs import Tally, deep_size

if TYPE_CHECKING:
    from tickwise.tasks.passage_index import PassageIndex

_WORD = re.compile(r"\w+|[^\w\s]")
_FLOAT_BYTES = 8


def words_of(text: str, tally: Tally | None = None) -> list[str]:
    """Lower-case words and signs."""
    if tally is not None:
        tally.add("characters examined", len(text), len(text))
    return _WORD.findall(text.lower())


class Rules:
    """A label for texts in which at least ``least`` of the patterns occur, else the other one."""

    name = "rules"

    def __init__(self, patterns: Sequence[str], label: str, other: str, least: int, more: Sequence[str] = ()) -> None:
        self.patterns = [re.compile(pattern) for pattern in patterns]
        self.label, self.other, self.least, self.more = label, other, least, more

    def answer(self, text: str, tally: Tally | None = None) -> str:
        text = text.lower()
        hits = 0
        for pattern in self.patterns:
            found = pattern.search(text)
            hits += found is not None
            if tally is not None:
                examined = len(text) if found is None else found.end()
                tally.add("characters examined", examined, examined)
        answer = self.label if hits >= self.least else self.other
        if tally is not None:
            tally.bytes_written += len(answer)
        return answer

    def memory_bytes(self) -> int:
        return deep_size(self.patterns)

    def edited(self) -> "tuple[Rules, str] | None":
        patterns = [pattern.pattern for pattern in self.patterns]
        return Rules([*patterns, *self.more], self.label, self.other, self.least), f"{len(self.more)} more patterns"


SPAM_PATTERNS = (r"\bfree\b", r"\bwin\b|\bwon\b|winner", r"\bprize|award|cash\b", r"\bclaim\b",
                 r"\btxt\b|\btext\b \w+ to",
                 r"\burgent\b", r"£\d|\$\d", r"www\.|http|\.com\b", r"\b\d{5,}\b", r"call now|call \d", r"\bstop\b",
                 r"mobile|ringtone|nokia", r"\bper (min|msg|week)|p/min|ppm")
MORE_SPAM_PATTERNS = (r"fr+e+e?\b|\bfreee", r"w+i+n+", r"ca+s+h|chas", r"cl?a+i+m|calim")
_GOOD = """good great best excellent wonderful brilliant beautiful funny enjoyable moving charming fun fine fresh
powerful smart clever touching solid compelling delightful entertaining engaging hilarious perfect superb masterful rich
love loved enjoy enjoyed remarkable impressive heartwarming warm honest lively gorgeous sweet fascinating thoughtful
gripping worth pleasure inventive witty strong original sharp terrific intelligent refreshing riveting"""
_BAD = """bad worst worse boring dull awful terrible poor poorly stupid silly mess predictable tedious flat weak lame
pointless lifeless bland shallow pretentious contrived unfunny annoying tired ugly cheap clumsy disappointing
disappointment fails failed failure lacks lacking forgettable slow empty pathetic horrible hate waste wasted too
unnecessary ridiculous mediocre uninspired cliched clichés cliche stale generic hollow dreadful painfully nothing"""
_NOT = frozenset(("not", "no", "never", "n't", "without", "hardly", "neither", "nor"))


class Lexicon:
    """Words for and against, turned round by a negation before them."""

    name = "lexicon"

    def __init__(self, positive: str, negative: str, corrects: bool = False) -> None:
        self.weights = dict.fromkeys(_GOOD.split(), 1) | dict.fromkeys(_BAD.split(), -1)
        self.positive, self.negative, self.corrects = positive, negative, corrects
        self._misspelt: dict[str, int] = {}
        if corrects:
            for word, weight in self.weights.items():
                for i in range(1, len(word) - 1):
                    for other in (word[:i] + word[i + 1] + word[i] + word[i + 2 :], word[:i] + word[i + 1 :],
                                  word[:i] + word[i] + word[i:]):
                        self._misspelt.setdefault(other, weight)

    def answer(self, text: str, tally: Tally | None = None) -> str:
        score, sign = 0, 1
        words = words_of(text, tally)
        for word in words:
            weight = self.weights.get(word, 0) or self._misspelt.get(word, 0)
            score += sign * weight
            sign = -1 if word in _NOT or word.endswith("n't") else 1 if weight else sign
        answer = self.positive if score >= 0 else self.negative
        if tally is not None:
            tables = 3 if self.corrects else 2
            tally.add("hash probes", tables * len(words), tables * sum(map(len, words)))
            tally.add("additions", len(words))
            tally.bytes_written += len(answer)
        return answer

    def memory_bytes(self) -> int:
        return deep_size([self.weights, self._misspelt, _NOT])

    def edited(self) -> "tuple[Lexicon, str] | None":
        return Lexicon(self.positive, self.negative, corrects=True), "its words with a typing error, too"


class NaiveBayes:
    """Multinomial naive Bayes over words with add-one smoothing (Manning et al. 2008, section 13.2)."""

    name = "naive Bayes"

    def __init__(self, training: Sequence[Case]) -> None:
        self._training = training
        texts: Counter[str] = Counter(case.answer for case in training)
        counts: dict[str, Counter[str]] = {label: Counter() for label in sorted(texts)}
        for case in training:
            counts[case.answer].update(words_of(case.text))
        self.labels = tuple(counts)
        vocabulary = sorted(set().union(*counts.values()))
        totals = [sum(counts[label].values()) + len(vocabulary) for label in self.labels]
        self.priors = tuple(math.log(texts[label] / len(training)) for label in self.labels)
        self.weights = {word: tuple(math.log((counts[label][word] + 1) / total)
                                    for label, total in zip(self.labels, totals, strict=True)) for word in vocabulary}

    def answer(self, text: str, tally: Tally | None = None) -> str:
        words = words_of(text, tally)
        scores = list(self.priors)
        known = 0
        for word in words:
            weights = self.weights.get(word)
            if weights is not None:
                known += 1
                for place, weight in enumerate(weights):
                    scores[place] += weight
        answer = self.labels[max(range(len(scores)), key=scores.__getitem__)]
        if tally is not None:
            tally.add("hash probes", len(words), sum(map(len, words)))
            tally.add("additions", known * len(scores), known * len(scores) * _FLOAT_BYTES)
            tally.bytes_written += len(answer)
        return answer

    def memory_bytes(self) -> int:
        return deep_size(self.weights)

    def edited(self) -> "tuple[NaiveBayes, str] | None":
        return NaiveBayes(self._training), "counted anew, as for another example"


class Dictionary:
    """Word for word by a dictionary from sentence pairs: IBM model 1 (Brown et al. 1993, section 4.2)."""

    name = "dictionary (IBM model 1)"
    _ROUNDS = 4

    def __init__(self, training: Sequence[Case], entries: Mapping[str, str] | None = None) -> None:
        self.entries = dict(entries) if entries is not None else self._learn(training)

    def _learn(self, training: Sequence[Case]) -> dict[str, str]:
        pairs = [([*words_of(case.text), ""], _WORD.findall(case.answer)) for case in training]
        likely: dict[str, dict[str, float]] = defaultdict(functools.partial(defaultdict, lambda: 1.0))
        for _ in range(self._ROUNDS):
            counts: dict[str, dict[str, float]] = defaultdict(functools.partial(defaultdict, float))
            for source, target in pairs:
                for wanted in target:
                    shares = [likely[word][wanted] for word in source]
                    total = sum(shares)
                    for word, share in zip(source, shares, strict=True):
                        counts[word][wanted] += share / total
            likely = defaultdict(functools.partial(defaultdict, lambda: 1e-9))
            for word, found in counts.items():
                total = sum(found.values())
                likely[word].update({wanted: count / total for wanted, count in found.items() if count > 1e-4 * total})
        return {word: max(found, key=found.__getitem__) for word, found in likely.items() if word}

    def answer(self, text: str, tally: Tally | None = None) -> str:
        words = words_of(text, tally)
        found = [self.entries.get(word, word) for word in words]
        result = " ".join(found)
        if tally is not None:
            tally.add("hash probes", len(words), sum(map(len, words)) + len(result))
            tally.bytes_written += len(result)
        return result

    def memory_bytes(self) -> int:
        return deep_size(self.entries)

    def edited(self) -> "tuple[Dictionary, str] | None":
        return Dictionary((), {**self.entries, "skateboarder": "Skateboarder"}), "one entry"


class PassageSearch:
    """The passage that answers a question, by BM25 (``tickwise run retrieve``). A passage is named by its number."""

    name = "index of passages (BM25)"

    def __init__(self, index: "PassageIndex", size_bytes: int) -> None:
        self._index, self._size = index, size_bytes

    def answer(self, text: str, tally: Tally | None = None) -> str:
        hits = self._index.search([text], 1)[0]
        return hits[0].passage.source if hits else UNKNOWN

    def memory_bytes(self) -> int:
        return self._size

    def edited(self) -> None:
        return None
