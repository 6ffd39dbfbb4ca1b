"""Classical programs for real texts: rules, a lexicon, naive Bayes, a dictionary. What of them is chosen or counted is
so by the training texts alone.

Counted steps: hash probes, additions of floating-point numbers, characters examined.
"""

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from tickwise.compare.cases import Case
from tickwise.compare.programs import Tally, deep_size

# n't is a word of its own, after a word ("isn't") and alone ("is n't").
_WORD = re.compile(r"\w+?(?=n['’]t\b)|n['’]t\b|\w+|[^\w\s]")
_FLOAT_BYTES = 8


def words_of(text: str, tally: Tally | None = None) -> list[str]:
    """Lower-case words and signs."""
    if tally is not None:
        tally.add("characters examined", len(text), len(text))
    return _WORD.findall(text.lower())


class Rules:
    """A label for texts in which at least ``least`` of the patterns occur, else the other one."""

    name = "rules"

    def __init__(self, patterns: Sequence[str], label: str, other: str, least: int) -> None:
        self.patterns = [re.compile(pattern) for pattern in patterns]
        self.label, self.other, self.least = label, other, least

    @classmethod
    def chosen(cls, candidates: Sequence[str], training: Sequence[Case], label: str, other: str) -> "Rules":
        """Those of the candidates that speak for ``label`` surely enough, and how many of them a text must have: what
        is right on most training texts."""
        wanted = [case.answer == label for case in training]
        found = {pattern: [re.search(pattern, case.text.lower()) is not None for case in training]
                 for pattern in candidates}
        precision = {pattern: sum(a and b for a, b in zip(hits, wanted, strict=True)) / max(1, sum(hits))
                     for pattern, hits in found.items()}

        def right(choice: tuple[float, int]) -> int:
            surest, least = choice
            columns = [hits for pattern, hits in found.items() if precision[pattern] >= surest]
            return sum((sum(row) >= least) == is_wanted for row, is_wanted in
                       zip(zip(*columns, strict=True), wanted, strict=True)) if columns else 0

        surest, least = max(((share, n) for share in (0.5, 0.7, 0.8, 0.9) for n in (1, 2, 3)), key=right)
        return cls([pattern for pattern in candidates if precision[pattern] >= surest], label, other, least)

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


SPAM_PATTERNS = (
    r"\bfree\b", r"\bwin\b|\bwon\b|\bwinner\b", r"\bprize\b|\baward(ed)?\b", r"\bcash\b", r"\bclaim\b",
    r"\btxt\b|\btext \w+ to\b", r"\burgent\b", r"£\d|\$\d", r"\bwww\.|\bhttp|\.com\b", r"\b\d{5,}\b",
    r"\bcall (now|\d)", r"\bstop\b", r"\bmobile\b|\bringtones?\b", r"\bper (min|msg|week)\b|p/min\b|\d+p(pm)?\b",
    r"\bguaranteed\b", r"\bvouchers?\b", r"\boffers?\b", r"\breply\b", r"\bsexy?\b|\bxxx\b|\b18\+",
    r"\bcustomer\b", r"\bcongrat", r"\bselected\b", r"\bunsubscribe\b|\bopt ?out\b", r"\bservice\b")
_GOOD = """good great best excellent wonderful brilliant beautiful funny enjoyable moving charming fun fine fresh
powerful smart clever touching solid compelling delightful entertaining engaging hilarious perfect superb masterful rich
love loved enjoy enjoyed remarkable impressive heartwarming warm honest lively gorgeous sweet fascinating thoughtful
gripping worth pleasure inventive witty strong original sharp terrific intelligent refreshing riveting"""
_BAD = """bad worst worse boring dull awful terrible poor poorly stupid silly mess predictable tedious flat weak lame
pointless lifeless bland shallow pretentious contrived unfunny annoying tired ugly cheap clumsy disappointing
disappointment fails failed failure lacks lacking forgettable slow empty pathetic horrible hate waste wasted too
unnecessary ridiculous mediocre uninspired cliched clichés cliche stale generic hollow dreadful painfully nothing"""
_NOT = frozenset(("not", "no", "never", "n't", "n’t", "without", "hardly", "neither", "nor"))


class Lexicon:
    """Words for and against, turned round by a negation among the three words before them. Of the words listed those
    count that training texts of their own kind have at least as often as others; where none speaks, the label that
    such training texts mostly have."""

    name = "lexicon"
    _REACH = 3

    def __init__(self, training: Sequence[Case], positive: str, negative: str) -> None:
        listed = dict.fromkeys(_GOOD.split(), 1) | dict.fromkeys(_BAD.split(), -1)
        tokens = [(set(words_of(case.text)), 1 if case.answer == positive else -1) for case in training]
        leaning: Counter[str] = Counter()
        for words, sign in tokens:
            for word in words & listed.keys():
                leaning[word] += sign
        self.weights = {word: weight for word, weight in listed.items() if weight * leaning[word] >= 0}
        self.positive, self.negative = positive, negative
        silent = sum(sign for words, sign in tokens if not words & self.weights.keys())
        self.otherwise = positive if silent >= 0 else negative

    def answer(self, text: str, tally: Tally | None = None) -> str:
        score, until = 0, 0
        words = words_of(text, tally)
        for place, word in enumerate(words):
            weight = self.weights.get(word, 0)
            score += -weight if place < until else weight
            if word in _NOT:
                until = place + 1 + self._REACH
        answer = self.positive if score > 0 else self.negative if score < 0 else self.otherwise
        if tally is not None:
            tally.add("hash probes", 2 * len(words), 2 * sum(map(len, words)))
            tally.add("additions", len(words))
            tally.bytes_written += len(answer)
        return answer

    def memory_bytes(self) -> int:
        return deep_size([self.weights, _NOT])


class NaiveBayes:
    """Multinomial naive Bayes over words with add-one smoothing (Manning et al. 2008, section 13.2)."""

    name = "naive Bayes"

    def __init__(self, training: Sequence[Case]) -> None:
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


class Dictionary:
    """Word for word by a dictionary from sentence pairs: IBM model 1 (Brown et al. 1993, section 4.2)."""

    name = "dictionary (IBM model 1)"
    _ROUNDS = 4

    def __init__(self, training: Sequence[Case]) -> None:
        self.entries = self._learn(training)

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
