"""The edit of every program that reads words: words that its training texts never have are read as known ones."""

import re
from collections import Counter
from collections.abc import Iterable

from tickwise.compare.cases import one_error_away
from tickwise.compare.programs import Program, Tally, code_bytes, deep_size

_WORD = re.compile(r"[^\W\d_]{3,}")


class Corrected:
    """A program behind a corrector: a word of three letters or more that no training text has becomes the commonest
    training word that is one typing error away, if there is one (after Norvig, "How to write a spelling
    corrector")."""

    def __init__(self, program: Program, texts: Iterable[str]) -> None:
        self.program, self.name = program, program.name
        self.counts = Counter(word for text in texts for word in _WORD.findall(text.lower()))

    def answer(self, text: str, tally: Tally | None = None) -> str:
        return self.program.answer(_WORD.sub(lambda found: self._meant(found[0], tally), text), tally)

    def _meant(self, written: str, tally: Tally | None) -> str:
        word = written.lower()
        if tally is not None:
            tally.add("hash probes", 1, len(word))
        if word in self.counts:
            return written
        candidates = set(one_error_away(word))
        if tally is not None:
            tally.add("hash probes", len(candidates), len(candidates) * len(word))
        return max((other for other in sorted(candidates) if other in self.counts), key=self.counts.__getitem__,
                   default=written)

    def memory_bytes(self) -> int:
        return self.program.memory_bytes() + code_bytes(self.program) + deep_size(self.counts)


def corrected(program: Program, texts: Iterable[str]) -> tuple[Corrected, str]:
    """The program behind a corrector of the words of ``texts``, and what was changed."""
    return Corrected(program, texts), "unknown words are read as training words one typing error away"
