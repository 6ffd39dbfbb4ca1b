"""Words of an English sentence and its noun phrases, by closed lists and spelling: no model, no dictionary of nouns.

A word is of one kind. What is in no list is a ``word`` (noun or adjective) or, with a capital, a ``name``; forms of
verbs are recognised by ``english_verbs``, and whether one stands for a noun depends on its neighbours.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple, overload

from tickwise.text.english_verbs import Form, form_of, is_mostly_a_noun

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = (rf"\d{{1,2}}(?:st|nd|rd|th)? (?:{_MONTHS})(?:,? \d{{4}})?|"
         rf"(?:{_MONTHS}) \d{{1,2}}(?:st|nd|rd|th)?(?:, \d{{4}})?(?![\d:])|(?:{_MONTHS}),? \d{{4}}\b")
_ABBREVIATION = r"(?:[A-Z]\.(?:-?[A-Z]\.)+|[A-Z]\.|(?:St|Dr|Mr|Mrs|Ms|Jr|Sr|Mt|No|Prof|Gen|Col|Capt|Lt|Sgt|Rev|Hon)\.)"
_NUMBER = r"(?:[$£€]?\d[\d,.]*\d%?|[$£€]?\d%?)(?:[–-]\d[\d.]*%?)?(?:['’]s)?(?![\w-])"
_TOKEN = re.compile(rf"(?P<date>{_DATE})|(?P<quoted>\"[^\"]+\"|“[^”]+”)|(?P<number>{_NUMBER})|"
                    rf"(?P<word>{_ABBREVIATION}|\w+(?:[-/&.’']\w+)*)|(?P<mark>\S)")
_KINDS = {
    "determiner": """a an the its his her their this that these those some any all both each every many several few no
        such another our my your most much either neither more fewer less""",
    "preposition": """in on at to from for by with as into near under against during through between since until after
        before about over above below across along among around behind beside besides beyond despite inside onto outside
        past toward towards upon within without via throughout amid like unlike per off out up down alongside""",
    "of": "of", "and": "and", "or": "or but nor yet and/or", "relative": "who which whom whose that where",
    "subordinator": """when while although though because if unless whereas whether how why what so than once lest
        whenever wherever provided""",
    "pronoun": """he she it they we i you him them me us himself herself itself themselves one ones someone anyone
        everyone something anything everything nothing nobody none others there here mine hers theirs who""",
    "be": "is are was were be been being am became becomes become remains remained", "have": "has have had having",
    "do": "did does do done", "modal": "can could will would may might shall should must cannot ought",
    "not": "not never n't",
    "adverb": """also now then later still once first originally mostly often again already always soon today ever
        almost about even just only there here together too very well back away forward however thus therefore hence
        instead moreover furthermore meanwhile afterwards afterward eventually sometimes twice partly largely quite
        rather perhaps likely nearly far ago early late north south east west northward southward eastward westward""",
}  # fmt: skip
_KIND_OF = {word: kind for kind, words in reversed(_KINDS.items()) for word in words.split()} | {
    "that": "that", "once": "adverb", "no": "determiner", "there": "there", "to": "preposition"}
_LY_NOUNS_WORDS = """family assembly supply reply ally anomaly monopoly italy july butterfly daily weekly monthly
    early friendly holy elderly only likely lovely ugly silly yearly deadly lonely costly orderly"""
_LY_NOUNS = frozenset(_LY_NOUNS_WORDS.split())
_NO_NAMES_WORDS = """also now then later mostly often again already always soon today however thus therefore hence
    instead moreover furthermore meanwhile afterwards afterward eventually sometimes originally recently currently
    finally initially formerly previously subsequently additionally similarly consequently historically traditionally
    officially ultimately shortly briefly immediately simultaneously occasionally frequently usually generally typically
    apparently reportedly allegedly presumably probably possibly notably importantly interestingly surprisingly
    ironically unfortunately fortunately sadly secondly thirdly lastly firstly actually basically essentially
    politically geographically economically legally technically nominally suddenly gradually quickly unexpectedly
    controversially famously partly largely nearly exceptionally privately publicly secretly jointly internationally
    nationally locally elsewhere conversely respectively specifically particularly especially"""
_NO_NAMES = frozenset(_NO_NAMES_WORDS.split())
_IN_NAMES = frozenset(["north", "south", "east", "west", "early", "late"])
_NUMBER_WORDS_WORDS = """two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty
    hundred thousand million billion trillion dozen"""
_NUMBER_WORDS = frozenset(_NUMBER_WORDS_WORDS.split())
_PLURALS_WORDS = """people children men women police cattle data media teeth feet mice geese wolves lives"""
_PLURALS = frozenset(_PLURALS_WORDS.split())
_YEARS = re.compile(r"(?:1\d{3}|20\d\d)(?:[–-]\d{2,4})?")
_VAGUE_WORDS = """this that these those such no neither either any few fewer more less another each every my our
    your much"""
_VAGUE = frozenset(_VAGUE_WORDS.split())
_OWNERS = frozenset({"his", "her", "its", "their"})
_BARE_WORDS = """further farther high low hard fast long close deep wide straight left right ahead apart alone
    abroad home free clear true dead short enough better worse best worst faster harder longer higher lower such
    able due subject"""
_BARE = frozenset(_BARE_WORDS.split())
"""Words that without an article name nothing."""
_ING_NOUN_WORDS = """building understanding meeting painting opening beginning meaning feeling training funding
    housing recording setting ruling finding warning hearing crossing landing teaching writing planning gathering
    wedding drawing shooting bombing killing hanging founding showing offering standing saying spelling filming
    printing timing"""
_ING_NOUNS = frozenset(_ING_NOUN_WORDS.split())
_BEHIND_NOUNS = frozenset({"responsible", "available", "capable", "similar", "necessary", "different", "able", "such"})
"""Adjectives that may stand behind their noun, with more to follow."""
_SCORE = re.compile(r"\d{1,2}[–-]\d{1,2}")
_DEEPEST = 10
"""So many "of" in a noun phrase."""
_NUMERIC = re.compile(r"\d{4}|\d{1,2}(?:st|nd|rd|th)|\d{3,4}s")


class Token(NamedTuple):
    """A word or mark. ``owner``: with 's. ``form``: what it may be as a verb. ``quoted``: in quotation marks."""

    text: str
    kind: str
    form: Form | None = None
    owner: bool = False

    @property
    def lower(self) -> str:
        return self.text.lower()

    def may_be(self, *kinds: str) -> bool:
        return self.form is not None and not self.form.kinds.isdisjoint(kinds)


END = Token("", "end")


class Phrase(NamedTuple):
    """Tokens ``start`` up to (not including) ``end``. ``text`` is without article. ``core``: where the part before
    "of" ends. ``vague``: what it is the sentence alone does not say ("these", "no"), or it compares ("more")."""

    text: str
    start: int
    end: int
    core: int
    determiner: str = ""
    named: bool = False
    plural: bool = False
    dated: bool = False
    pronoun: bool = False
    vague: bool = False

    @property
    def plain(self) -> bool:
        """One word without anything beside it."""
        return self.end == self.start + 1


def tokens_of(sentence: str) -> list[Token]:
    """The words and marks of a sentence; a date, a number and what is quoted are one each."""
    found: list[Token] = []
    for match in _TOKEN.finditer(sentence):
        text = match[0]
        if match["date"]:
            found.append(Token(text, "date"))
        elif match["number"]:
            bare = re.sub(r"['’]s$", "", text)
            found.append(Token(text, "date" if _YEARS.fullmatch(bare) else "number", owner=bare != text))
        elif match["quoted"]:
            found.append(Token(text, "name"))
        elif match["mark"]:
            mark = {"’": "'", "—": "-", "–": "-"}.get(text, text)
            if mark == "'" and found and found[-1].lower.endswith("s") and found[-1].kind in ("name", "word"):
                found[-1] = found[-1]._replace(text=found[-1].text + "'", owner=True)
            else:
                found.append(Token(text, "comma" if text == "," else "mark"))
        else:
            found.append(_word(text, not found))
    if len(found) > 1 and found[0].kind == "adverb" and found[1].kind == "name" and found[0].text[0].isupper():
        found[0] = _before_name(found[0])
    return found


def _before_name(adverb: Token) -> Token:
    """The first word of a sentence with a name behind it: an adverb only where it is no part of names ("Then Smith"),
    of the name where it often is ("North Korea", "Beverly Hills"), else nothing that can be told ("Even Stevens")."""
    if adverb.lower in _NO_NAMES:
        return adverb
    of_name = adverb.lower in _IN_NAMES or adverb.lower not in _KIND_OF
    return adverb._replace(kind="name" if of_name else "mark", form=None)


def _word(text: str, first: bool) -> Token:
    bare = re.sub(r"['’]s$", "", text)
    owner, lower = bare != text, bare.lower()
    if text.lower().endswith(("n't", "n’t")):
        return Token(text, "short")
    capital = text[0].isupper()
    kind = _KIND_OF.get(lower)
    if kind and not owner and (not capital or first):
        return Token(text, kind, form_of(lower) if kind == "be" else None)
    if _NUMERIC.fullmatch(lower):
        return Token(text, "number")
    if capital:
        form = form_of(lower) if first and not owner else None
        adverb = first and lower.endswith("ly") and lower not in _LY_NOUNS and len(lower) > 5
        return Token(text, "adverb" if adverb else "name", form, owner)
    if lower in _NUMBER_WORDS:
        return Token(text, "number")
    if lower.endswith("ly") and lower not in _LY_NOUNS and len(lower) > 4:
        return Token(text, "adverb")
    return Token(text, "word", None if owner else form_of(lower), owner)


class Tokens(Sequence[Token]):
    """The tokens of a sentence; behind them there is an ``end``, however far one looks."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    @overload
    def __getitem__(self, at: int) -> Token: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Token]: ...

    def __getitem__(self, at: int | slice) -> Token | Sequence[Token]:
        if isinstance(at, slice):
            return self._tokens[at]
        return self._tokens[at] if 0 <= at < len(self._tokens) else END

    def text(self, start: int, end: int) -> str:
        joined = " ".join(token.text for token in self._tokens[start:end])
        return re.sub(r" (?=[,'’])|[\"“”]", "", joined).strip("' ,")

    def noun_phrase(self, at: int, depth: int = 0) -> Phrase | None:
        """The noun phrase that begins here, with what "of" puts behind it; None where there is none, or where it is
        not clear which of its words is the verb."""
        start, determiner, head = at, "", -1
        if self[at].kind == "pronoun":
            return Phrase(self[at].text, at, at + 1, at + 1, pronoun=True)
        if self[at].kind in ("determiner", "that"):
            determiner, at = self[at].lower, at + 1
            if determiner in ("all", "both", "such") and self[at].kind == "determiner":
                at += 1
        first = at
        while True:
            token = self[at]
            if token.kind == "adverb" and head < 0 and at > start and self._is_nominal(at + 1):
                at += 1
                continue
            if token.lower in ("most", "more", "less", "few", "many", "other") and determiner and head < 0:
                at += 1
                continue
            if token.kind not in ("name", "word", "number", "date"):
                break
            if token.form is not None and (token.kind == "word" or at > start):
                said = self._stands_for_noun(at, head, owned=bool(determiner) or self[at - 1].owner)
                if said is None:
                    return None
                if not said:
                    break
            if head >= 0 and token.kind == "number" and self[head].kind == "name" and self[at + 1].kind == "word":
                break
            if head >= 0 and self[head].kind == "name" and _SCORE.fullmatch(token.text):
                break
            if head >= 0 and (token.kind == "date" or self[head].kind == "date"):
                break
            head, at = at, at + 1
        if head < 0 or self[head].owner or (not determiner and at == first + 1 and self[first].text in _BARE):
            return None
        if head > first and self[head].text in _BEHIND_NOUNS:
            return None
        core = at
        named = self[head].kind == "name"
        plural = not named and (self[head].lower in _PLURALS or bool(re.search(r"[^suoi]s$", self[head].lower)))
        dated = all(token.kind == "date" or _NUMERIC.fullmatch(token.lower) or
                    token.lower in ("century", "early", "late") for token in self[first:at])
        vague = determiner in _VAGUE or (determiner == "the" and self[first].lower in _NUMBER_WORDS and at == first + 1)
        if self[head].kind == "number" and self[at].lower in ("to", "percent", "per", "or", "-", "–"):
            return None
        if self[at].kind == "of":
            inner = self.noun_phrase(at + 1, depth + 1) if depth < _DEEPEST else None
            if inner is None or inner.pronoun:
                return None
            at = inner.end
            vague |= inner.vague or inner.determiner in _OWNERS
        return Phrase(self.text(first if determiner in ("a", "an", "the") else start, at), start, at, core, determiner,
                      named, plural, dated, vague=vague)

    def _is_nominal(self, at: int) -> bool:
        return self[at].kind in ("name", "word", "number")

    def _stands_for_noun(self, at: int, head: int, owned: bool) -> bool | None:
        """Whether a form of a verb stands for a noun or an adjective within a phrase; None: it cannot be told."""
        token, after = self[at], self[at + 1]
        form = token.form
        assert form is not None
        if head < 0:
            if form.kinds & {"participle", "ing"} and not form.kinds & {"base"}:
                return True if owned and self._is_nominal(at + 1) else True if owned and "ing" in form.kinds else None
            return True if owned or form.kinds & {"base", "third"} else None
        before = self[head]
        if form.kinds >= {"base", "past"} and is_mostly_a_noun(form) and owned:
            return after.kind not in ("determiner", "name")
        if "past" in form.kinds or "participle" in form.kinds:
            if before.kind != "name" and after.kind == "word" and not after.may_be("past", "third"):
                return None
            return None if owned and before.kind == "name" and after.kind == "word" and not after.form else False
        if "ing" in form.kinds:
            noun = token.lower in _ING_NOUNS and after.kind not in ("determiner", "name")
            return owned and (noun or self._is_nominal(at + 1))
        opens = after.kind in ("determiner", "name", "that") or after.text.startswith(('"', "“"))
        if "third" in form.kinds:
            if is_mostly_a_noun(form):
                return not opens
            if after.kind == "of":
                return form.verb not in ("consist", "die", "approve", "speak", "dispose")
            return not (opens or after.kind in ("preposition", "number", "word", "date", "adverb"))
        plural = before.kind == "word" and before.lower.endswith("s")
        return not (plural and (opens or (after.kind in ("preposition", "word") and not is_mostly_a_noun(form))))
