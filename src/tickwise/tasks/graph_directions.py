"""In which direction a question reads a relation, and in which one a fact has it.

"The capital of France" asks for who is the capital, "Paris is the capital of" for what it is the capital of. The one
who is or does what a relation says is its holder: the object of a noun (France –capital→ Paris) and of "written by",
the subject of a verb (Plato –teach→ Aristotle) and of "capital of". Other prepositions ("born in") have no holder;
their facts are read from the subject on, or back to it.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tickwise.tasks.graph_facts import MUTUAL, NUMBER, WORD, Step
from tickwise.text.english_verbs import FORMS, VERB_OF, form_of
from tickwise.text.terms import key_of
from tickwise.text.triples import PREPOSITIONS

_ASKING_WORDS = """a an the of in on at to from by for with and or is are was were be been did do does has have had
    what which who whom whose where when how many much that this it its name tell me s there related connected
    linked not never"""
ASKING = frozenset(_ASKING_WORDS.split())
"""Words of a question that ask, and say no relation."""
_DOERS = {"author": "write", "wife": "marry", "husband": "marry", "spouse": "marry", "birthplace": "bear",
          "founder": "found"}
_BE = frozenset({"is", "are", "was", "were", "be", "been"})
_DO = frozenset({"do", "does", "did"})
_ARTICLES = frozenset({"a", "an", "the"})
_WHO = frozenset({"who", "what", "that", "which", "whom"})
_WITHIN_WORDS = """part member one city town country continent state region county province district suburb borough
    location birthplace type instance"""
_WITHIN = frozenset(_WITHIN_WORDS.split())
_VERBS = frozenset(VERB_OF)
_OF_ITSELF_WORDS = """open close begin start end form move change graduate develop base locate launch complete merge
    establish break sink"""
_OF_ITSELF = frozenset(_OF_ITSELF_WORDS.split())
"""What is done to a thing, and what it does of itself: "the bridge opened in 1900" is when it was opened."""
_NEVER_PASSIVE_WORDS = """live die work arrive stay travel appear serve reside retire happen occur belong exist
    participate play"""
_NEVER_PASSIVE = frozenset(_NEVER_PASSIVE_WORDS.split())
PREPOSITION_WORDS = frozenset(PREPOSITIONS.split("|"))
_NO_PARTICIPLES = frozenset(word for word, form in FORMS.items() if "participle" not in form.kinds)
_PLACE_WORDS = frozenset({"in", "at", "near", "from", "to", "locate", "birthplace", "live"})
WHERE, A_NUMBER = "?where", "?number"
"""What a step says besides words: that it leads to a place, or to a number."""


class Use(NamedTuple):
    """How a question uses a word, seen from a name: as a ``verb`` or not; whether what is looked for beyond is its
    holder, or what it is held of; whether a fact without holder is read from the subject on; of a verb its voice. None:
    not known."""

    word: str
    verb: bool = False
    to_holder: bool | None = None
    forward: bool | None = None
    passive: bool | None = None


class Place(NamedTuple):
    """Where a name stands among a question's words: from ``start`` up to (not including) ``end``."""

    start: int
    end: int
    key: str


def stem(word: str) -> str:
    """What forms of a word share: of a verb the verb, of who does something ("writer") the verb too."""
    word = word.casefold()
    if word in VERB_OF:
        return VERB_OF[word]
    if word in _DOERS:
        return _DOERS[word]
    for verb in (word[:-2], word[:-1], word[:-2] + "e"):
        if word.endswith(("er", "or")) and VERB_OF.get(verb) == verb:
            return verb
    return key_of(word)


def sense(relation: str) -> list[str]:
    """What spellings of a relation and of its denial share: "is a", "not is a" and "not is" are one."""
    words = [word for word in WORD.findall(relation.removeprefix("not ")) if word not in _ARTICLES]
    return [stem(word) for word in words if word not in _BE] or ["is"]


def _is_a_verb(relation: str) -> bool:
    return not _VERBS.isdisjoint(WORD.findall(relation))


def _is_doer(word: str) -> bool:
    """Whether a noun is one who does what a verb says: a writer, an author."""
    return word not in VERB_OF and stem(word) in VERB_OF and word != "birthplace"


class Direction:
    """The uses of a question's words, seen from one of its names. ``words`` are in lower case, ``owning`` has the
    numbers of those with 's, ``places`` are the names'."""

    def __init__(self, words: Sequence[str], owning: frozenset[int], places: Sequence[Place], name: Place) -> None:
        self._words, self._owning, self._name = words, owning, name
        self._starts = {place.start for place in places}
        self._named = {i for place in places for i in range(place.start, place.end)}
        self._uses: dict[str, list[Use]] = defaultdict(list)
        for i, word in enumerate(words):
            if i not in self._named and word not in ASKING:
                self._uses[stem(word)].append(self._use(i))

    def knows(self, word: str, step: Step) -> bool | None:
        """Whether a question that uses ``word`` (a stem) reads it as ``step`` does; None when it does not say how."""
        said = [self._agrees(use, word, step) for use in self._uses.get(word, ())]
        if not said or None in said:
            return None
        return any(said)

    def _agrees(self, use: Use, word: str, step: Step) -> bool | None:
        relation = step.fact.relation
        if relation in MUTUAL or (word == "marry" and use.word not in WORD.findall(relation)):
            return True
        voice = _voice(relation, word) if use.verb else None
        if voice is not None and use.passive is not None and step.backwards and use.passive != voice:
            return False
        if voice is not None and use.to_holder is not None and not step.backwards:
            inner = f" {self._name.key} " in f"{relation} "
            return use.to_holder == (voice or inner)
        holder = _holder(relation, word, use.verb)
        if holder == "none":
            return None if use.forward is None else use.forward != step.backwards
        return None if use.to_holder is None else use.to_holder == ((holder == "object") != step.backwards)

    def _use(self, i: int) -> Use:
        word, after = self._words[i], self._name.start > i
        if self._is_verb(i):
            return self._verb(i, after)
        behind = i + 1
        while behind < len(self._words) and self._is_plain(behind):
            behind += 1
        before = i
        while before and before - 1 not in self._owning and self._is_plain(before - 1):
            before -= 1
        if behind < len(self._words) and self._words[behind] in ("of", "for"):
            to_holder = after
        elif before and before - 1 in self._owning:
            # "Is Mary John's mother?": of another name it is that one which is not the holder.
            own = before == self._name.end
            to_holder = own or (not after and before - 1 not in self._named)
        elif "whose" in self._words[max(before - 1, 0) : i]:
            to_holder = not after
        else:
            return Use(word)
        if word in VERB_OF:  # "the rule of …" may be what is done, or who does it.
            return Use(word)
        return Use(word, False, to_holder, to_holder != _is_doer(word))

    def _is_plain(self, i: int) -> bool:
        """Whether a word may stand between a noun and what it is of: "largest" in "England's largest city"."""
        return i not in self._named and self._words[i] not in ASKING and self._words[i] not in VERB_OF

    def _is_verb(self, i: int) -> bool:
        word, before = self._words[i], self._words[i - 1] if i else ""
        if word in VERB_OF:
            return before not in _ARTICLES and i - 1 not in self._owning
        if not word.endswith(("s", "ed")) and not _DO & set(self._words[:i]):
            return False
        if _is_doer(word) or before in _ARTICLES or i - 1 in self._owning:
            return False
        behind = i + 1 + (self._words[i + 1 : i + 2] in (["a"], ["an"], ["the"]))
        asked = before in _WHO and (behind in self._starts or behind > i + 1)
        return asked or (bool(_DO & set(self._words[:i])) and self._name.end == i)

    def _verb(self, i: int, after: bool) -> Use:
        """Before an active verb stands who does it; before a passive one, to whom it is done."""
        by = self._words[i + 1 : i + 2] == ["by"]
        be = next((j for j in range(i - 1, -1, -1) if self._words[j] in _BE | _DO | _WHO or self._words[j] in VERB_OF),
                  None)
        passive: bool | None = by
        if be is not None and self._words[be] in _BE and self._words[i] not in _NO_PARTICIPLES and not by:
            # "What is the company Jobs founded?" is none, "When was Hamlet written?" is one.
            between = [j for j in range(be + 1, i) if j not in self._named and self._words[j] not in _ARTICLES]
            passive = None if between else True
        if passive and after and not by:
            return Use(self._words[i], True, False, False, True)  # "Who was born in London?"
        return Use(self._words[i], True, None if passive is None else passive != after, not after, passive)


def _is_within(relation: str, having: bool) -> bool:
    """Whether a relation tells what its subject is, where it is or (``having``) what it has, so that a question that
    names no relation may be answered by it: "Is London in England?" by "part of"."""
    words = WORD.findall(relation.removeprefix("not ")) or [""]
    return (words[-1] in PREPOSITION_WORDS or words[0] in _BE or not _WITHIN.isdisjoint(words) or
            relation.endswith("capital of") or (having and words[0] in ("has", "have", "had")))


def _holder(relation: str, word: str, verb: bool) -> Literal["subject", "object", "none"]:
    """Who holds a relation, of which ``word`` is a stem and which the question uses as a verb or not."""
    words = WORD.findall(relation) or [""]
    last, verbs = words[-1], [one for one in words if one in _VERBS and one not in ("has", "have", "had")]
    if last == "by":
        return "object"
    if last in PREPOSITION_WORDS or last == "of":
        return "subject" if last in ("of", "for") and not verbs else "none"
    if verbs:
        return "subject"
    doer = any(_is_doer(one) and stem(one) == word for one in words)
    return "subject" if verb and not doer and word not in _VERBS else "object"


def _voice(relation: str, word: str) -> bool | None:
    """Whether a relation of a verb (``word`` is its stem) with a preposition is in the passive ("killed in") or not
    ("kill Ben in"); None for what may be both."""
    first, *between = relation.removeprefix("not ").split()
    form = form_of(first)
    if form is None or form.verb != word or not between or between[-1] == "by" or (
            between[-1] not in PREPOSITION_WORDS):
        return None
    if form.kinds & {"base", "third"}:
        both = "participle" in form.kinds or (len(between) == 1 and form.verb in _OF_ITSELF)
        return None if both else False
    if "participle" not in form.kinds:
        return False
    both = "past" in form.kinds and (len(between) > 1 or form.verb in _OF_ITSELF or form.verb in _NEVER_PASSIVE)
    return None if both else True


def places_of_owners(question: str) -> frozenset[int]:
    """The numbers of the words that 's (or, behind s, ') follows."""
    bare = re.sub(r"['’]s\b", "  ", question)
    return frozenset(i for i, match in enumerate(WORD.finditer(bare))
                     if re.match(r"['’]s\b", question[match.end() :]) or
                     (match[0].endswith("s") and re.match(r"['’](?!\w)", question[match.end() :])))


def _verdicts(step: Step, wanted: frozenset[str], direction: Direction) -> dict[str, bool | None]:
    """The wanted words of a step's relation, and whether the question reads them as the step does."""
    words = {stem(word) for word in WORD.findall(step.fact.relation)}
    return {word: direction.knows(word, step) for word in words & wanted}


def said(step: Step, kinds: set[str], wanted: frozenset[str], direction: Direction) -> tuple[frozenset[str], bool]:
    """The wanted words that a step says, and whether it reads a noun backwards though the question does not."""
    verdicts = _verdicts(step, wanted, direction)
    words = {word for word, agrees in verdicts.items() if agrees is not False} | (kinds & wanted)
    is_number = bool(NUMBER.search(step.end))
    relation = step.fact.relation
    away = not step.backwards or relation in MUTUAL or relation.endswith(" of")
    if not is_number and away and {stem(word) for word in WORD.findall(relation)} & _PLACE_WORDS:
        words.add(WHERE)
    if is_number:
        words.add(A_NUMBER)
    against = step.backwards and not _is_a_verb(relation) and True not in verdicts.values()
    return frozenset(words & wanted), against


def asked_by(step: Step, wanted: frozenset[str], direction: Direction, having: bool) -> bool:
    """Whether a step says what a question for yes or no asks: in its words, or where the question has none what
    something is, where, or (``having``) what it has."""
    verdicts = set(_verdicts(step, wanted, direction).values())
    if True in verdicts or False in verdicts:
        return True in verdicts
    return not step.backwards and (bool(verdicts) or (not wanted and _is_within(step.fact.relation, having)))
