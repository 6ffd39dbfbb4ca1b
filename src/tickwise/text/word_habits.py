"""What tagged text keeps whole and the general rule of ``text/words.py`` splits, so that raw text is split into words
as a tagger's training words were.

Initials (``C. Cairns``), abbreviations, ``10th``, ``O'Brien``, ``--`` and the like are one word each in CoNLL and the
Penn Treebank; other data has habits of its own (``don't`` as one word), which are learned from its tokens.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tickwise.core.config import read_json
from tickwise.core.errors import CheckpointError
from tickwise.core.paths import write_text_atomic
from tickwise.text.words import ACRONYM, ADDRESS, Place, split_words

FILE = "word_habits.json"
_CAPITAL = "(?-i:[" + "".join(filter(str.isupper, map(chr, range(0x590)))) + "])"
_ENDINGS = ("s", "re", "ve", "ll", "d", "m", "t")
_FORMS = {
    "rank": r"(?m:^)\d{1,3}\.(?=[ \t]+\w)",
    "name with an apostrophe": rf"(?:[^\W\d_]['’](?!(?:{'|'.join(_ENDINGS)})\b){_CAPITAL}|[dl]['’](?=\w{{3}}))\w*"
                               r"(?:-\w+)*",
    # Nothing is given back, so that a long run of numbers is read once.
    "number with letters": r"\d++(?:[.,:/-]\d++(?!_))*+(?:-[\d_]\w*+)*+-?[^\W\d_]\w*+(?:-\w++)*+",
    "signed number": r"(?<![\w.,)])(?:\+\.?|\.)\d+(?:[.,:/-]\d+)*%?",
    "currency": rf"{_CAPITAL}{{1,3}}\$",
    "repeated mark": r"-{2,}|\.{2,}|\*{2,}|!{2,}|\?{2,}|={2,}|_{2,}",
}
"""Shapes that are one word; a rank only where the training tokens do not mostly split it."""
_INITIAL = "initial"
"""Likewise, but what is one depends on the words around it."""
_TITLES = ("Mr.", "Mrs.", "Ms.", "Dr.", "Prof.", "Rev.", "Gen.", "Col.", "Capt.", "Lt.", "Sgt.", "Gov.", "Sen.", "Rep.",
           "St.", "vs.")
_ABBREVIATIONS = (*_TITLES, "Jr.", "Sr.", "Inc.", "Corp.", "Co.", "Ltd.")
_STARTERS = frozenset({
    "A", "After", "All", "Also", "And", "As", "At", "Before", "But", "By", "For", "From", "He", "Her", "His", "How",
    "However", "I", "If", "In", "It", "Its", "My", "On", "Our", "She", "Since", "So", "Some", "That", "The",
    "Their", "Then", "There", "These", "They", "This", "Those", "To", "Today", "Was", "We", "What", "When", "Where",
    "Which", "While", "Who", "Why", "With", "Yesterday", "You", "Your",
})
"""Words with a capital that mostly begin a sentence: what is before them and has a full stop ended one."""
_BEFORE_NAMES = frozenset({
    "about", "after", "against", "and", "as", "at", "b", "before", "beat", "between", "but", "by", "c", "d", "de",
    "del", "der", "di", "du", "for", "from", "in", "like", "of", "on", "or", "over", "said", "says", "than", "that",
    "to", "told", "under", "van", "via", "von", "when", "while", "who", "with", "without", "y", "und", "et",
})
"""Words in lower case that an initial may follow; behind others a single capital is no name (``vitamin C.``)."""
_LONGEST = 40
"""Characters of a word that is remembered as a whole."""


class WordHabits:
    """How text is split into words for a tagger.

    ``kept`` are words that stay whole wherever they stand by themselves; ``forms`` the shapes that do, of ``_FORMS``
    and initials; ``endings`` what a word keeps after an apostrophe (``t``: ``don't`` is one word). Without any of them
    text is split by the general rule alone.

    A full stop that may end a sentence stays by itself, so that two sentences never become one.
    """

    def __init__(self, kept: Sequence[str] = _ABBREVIATIONS, forms: Sequence[str] = (_INITIAL, *_FORMS),
                 endings: Sequence[str] = ()) -> None:
        self.kept, self.forms, self.endings = tuple(kept), tuple(forms), tuple(endings)
        if not set(self.forms) <= {_INITIAL, *_FORMS} or not set(self.endings) <= set(_ENDINGS):
            raise ValueError(f"forms {self.forms} or endings {self.endings} that are not known")

    @classmethod
    def learn(cls, sentences: Sequence[Sequence[str]]) -> "WordHabits":
        """Those of tokens. A word before a full stop of its own counts against the abbreviation and the form with
        it."""
        seen = Counter(token for tokens in sentences for token in tokens)
        stopped = Counter(f"{one}." for tokens in sentences for one, stop in itertools.pairwise(tokens) if stop == ".")
        forms = [name for name in _FORMS if name != "rank"]
        capital = re.compile(_CAPITAL + r"\.")
        first = Counter(tokens[0] for tokens in sentences if tokens)
        parted = Counter(f"{tokens[0]}." for tokens in sentences if tuple(tokens[1:2]) == (".",))
        if _matching(capital, seen) >= _matching(capital, stopped):
            forms.append(_INITIAL)
        rank = re.compile(r"\d{1,3}\.")
        if _matching(rank, first) >= _matching(rank, parted):
            forms.append("rank")
        endings = [ending for ending in _ENDINGS if _is_kept(ending, seen)]
        plain = cls((), forms, endings)
        kept = [word for word in _ABBREVIATIONS if word not in seen and not stopped[word]]
        for word, n in seen.items():
            if len(word) > _LONGEST or re.fullmatch(r"[\d\W]+\.|\w\.", word) or len(plain.split(word)) < 2:
                continue
            stem = word.removesuffix(".")
            often = n > 1 or (stem != word and stem[0].isupper() and not seen[stem])
            if often and n > stopped[word]:
                kept.append(word)
        return cls(sorted(kept), forms, endings)

    @cached_property
    def _whole(self) -> re.Pattern[str] | None:
        if not (self.kept or self.forms or self.endings):
            return None
        forms = [_FORMS[name] for name in _FORMS if name in self.forms]
        endings = [rf"\w+['’](?:{'|'.join(self.endings)})\b"] if self.endings else []
        return re.compile("|".join([ADDRESS, rf"{ACRONYM}(?:-\w+)+|{ACRONYM}", *endings, *forms]), re.IGNORECASE)

    @cached_property
    def _known(self) -> tuple[frozenset[str], int]:
        return frozenset(self.kept), max(map(len, self.kept), default=0)

    def split(self, text: str) -> list[Place]:
        """The words of ``text`` in order."""
        pieces = split_words(text, self._whole)
        kept, longest = self._known
        words: list[Place] = []
        at = 0
        while at < len(pieces):
            start, end = pieces[at]
            last = ahead = at
            while ahead + 1 < len(pieces) and pieces[ahead + 1].start == pieces[ahead].end:
                ahead += 1
                if pieces[ahead].end - start > longest:
                    break
                whole = text[start : pieces[ahead].end]
                if whole in kept and (whole in _TITLES or whole[-1] != "." or not _begins(text, pieces, ahead + 1)):
                    last, end = ahead, pieces[ahead].end
            if last == at and _INITIAL in self.forms and _is_initial(text, pieces, at):
                last, end = at + 1, pieces[at + 1].end
            words.append(Place(start, end))
            at = last + 1
        return words

    def save(self, folder: Path) -> None:
        content = {"kept": self.kept, "forms": self.forms, "endings": self.endings}
        write_text_atomic(Path(folder) / FILE, json.dumps(content, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "WordHabits":
        """Of a model directory; none where it does not say, as models without them were measured.
        ``CheckpointError`` when they are damaged."""
        path = Path(folder) / FILE
        if not path.exists():
            return cls((), (), ())
        content = read_json(path, "how text is split into words", CheckpointError)
        try:
            return cls(*([str(one) for one in content[name]] for name in ("kept", "forms", "endings")))
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{path}: does not say how text is split into words; copy it again") from None


def _begins(text: str, pieces: Sequence[Place], index: int) -> bool:
    """Whether a word that mostly begins a sentence stands at ``index``, and not as an initial."""
    if index >= len(pieces) or text[slice(*pieces[index])] not in _STARTERS:
        return False
    return text[pieces[index].end : pieces[index].end + 1] != "." or pieces[index].end - pieces[index].start > 1


def _is_initial(text: str, pieces: Sequence[Place], index: int) -> bool:
    """Whether the word at ``index`` is a single capital whose full stop belongs to a name. ``I`` is none; what ends a
    line, is before a word that begins a sentence or stands behind another word than one before names is not either.
    Before a word in lower case (``J. van Dyke``) no sentence ends."""
    if index + 2 >= len(pieces) or not re.fullmatch(_CAPITAL, letter := text[slice(*pieces[index])]) or letter == "I":
        return False
    stop, after = pieces[index + 1], pieces[index + 2]
    if text[slice(*stop)] != "." or stop.start != pieces[index].end or "\n" in text[stop.end : after.start]:
        return False
    if not text[after.start].isalpha() or _begins(text, pieces, index + 2):
        return False
    if index == 0 or "\n" in text[pieces[index - 1].end : pieces[index].start]:
        return True
    before = text[slice(*pieces[index - 1])]
    return not before.islower() or before in _BEFORE_NAMES


def _matching(form: re.Pattern[str], counts: Counter[str]) -> int:
    return sum(n for word, n in counts.items() if form.fullmatch(word))


def _is_kept(ending: str, seen: Counter[str]) -> bool:
    """Whether words of the data keep what follows an apostrophe more often than not."""
    apart = re.compile("n['’]t" if ending == "t" else f"['’]{ending}", re.IGNORECASE)
    whole = re.compile(rf"\w+['’]{ending}", re.IGNORECASE)
    return sum(n for word, n in seen.items() if whole.fullmatch(word) and not apart.fullmatch(word)) > _matching(
        apart, seen)
