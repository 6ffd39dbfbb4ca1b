"""What an English predicate says of its subject, as triples (subject, relation, object)."""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from tickwise.text.phrases import Phrase, Tokens
from tickwise.text.predicates import (
    Several,
    Tail,
    VerbGroup,
    ends_well,
    finite,
    is_participle,
    several,
    tails,
    verb_group,
)

_LONGEST_NAME, _LONGEST_OBJECT = 8, 10
_REPORTING_WORDS = """say think feel hear mean understand see tell deny imply suggest suspect assert doubt seem
    appear intend want wish hope expect try attempt fail tend like cease consider regard deem know prefer agree
    state note reveal assume indicate realise realize cause enable help allow let permit require request get
    threaten refuse estimate conclude ask need order command hypothesise theorise predict remember argue"""
_REPORTING = frozenset(_REPORTING_WORDS.split())
_TOGETHER_WORDS = """marry meet merge share divide separate border fight collaborate combine split"""
_TOGETHER = frozenset(_TOGETHER_WORDS.split())
_FURTHER_OBJECT = frozenset({"add", "contribute", "give", "send", "bring", "take", "put", "lend", "attach", "devote"})
_INTRANSITIVE_WORDS = """move live work die arrive travel return serve reside go come study teach lie stand fall
    rise appear begin settle retire graduate emigrate stay run play speak"""
_INTRANSITIVE = frozenset(_INTRANSITIVE_WORDS.split())
_MAKING_WORDS = """name appoint make elect call crown declare proclaim nominate consider render have choose dub"""
_MAKING = frozenset(_MAKING_WORDS.split())
_GROWING_WORDS = """rise fall grow increase decrease decline drop expand shrink change jump reduce"""
_GROWING = frozenset(_GROWING_WORDS.split())
OWNERS = frozenset({"his", "her", "its", "their"})
_R_OF = re.compile(r"^(?P<relation>(?:[a-z][\w-]*\s+){0,3}?[a-z][\w-]*(?:\s+and\s+(?:[a-z][\w-]*\s+)?[a-z][\w-]*)?)"
                   r"\s+of\s+(?P<of>.+)$")
_POSSESSIVE = re.compile(r"^(?P<of>.+?)(?:'s|’s|s'|s’)\s+(?P<relation>[a-z][\w-]*(?:\s+[a-z][\w-]*){0,3})$")
_NO_ROLE_WORDS = """number lot part some many most all one kind type sort member group series pair set result
    first second third fourth fifth sixth seventh eighth ninth tenth last only half majority quarter rest other"""
_NO_ROLE = frozenset(_NO_ROLE_WORDS.split())
_NO_SUPERLATIVES = frozenset({"forest", "harvest", "guest", "priest", "conquest", "request", "interest"})
_OVER = frozenset({"once", "formerly", "previously", "originally", "initially", "until", "till", "then", "former",
                   "since", "during", "between", "before", "after", "century"})
_CHANGING_WORDS = """capital population currency king queen president chancellor mayor governor chairman head leader
    owner manager coach captain emperor"""
_CHANGING = frozenset({*_CHANGING_WORDS.split(), "largest city", "prime minister", "official language"})
"""Roles that others may have today: of who had one the present is not known."""
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_BEING_AT_WORDS = """in on at near from under with between within outside inside behind along over above below
    against about across among around beside inside into"""
_BEING_AT = frozenset(_BEING_AT_WORDS.split())
_PREDICATE_ENDS = frozenset({"end", "comma", "mark", "and", "relative", "subordinator"})


class Triple(NamedTuple):
    """A fact, and the sentence that says it, which is the ``number``th of those given, counted from 0."""

    subject: str
    relation: str
    object: str
    sentence: str = ""
    number: int = 0


class Subject(NamedTuple):
    """Who a clause is about: names (none for what cannot be told), in one text and as the sentence has it."""

    names: tuple[str, ...]
    text: str
    end: int
    plural: bool = False
    pronoun: str = ""
    article: bool = False
    tails: tuple[Tail, ...] = ()
    named: bool = False
    whole: bool = True
    """Whether no preposition but "of" is in it."""
    rival: str = ""
    """What else its sentence is about, that a pronoun in the next one may stand for: a "name" (perhaps a person's), a
    "thing", or nothing."""


class Read(NamedTuple):
    """What a predicate says, up to where, its last phrase, and whether it was in the passive."""

    facts: list[Triple]
    end: int
    last: Phrase | None = None
    passive: bool = False
    rival: str = ""


class Statements:
    """Reads the predicates of one sentence. Every reader gives None for what it does not understand."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def elided(self, at: int, subject: Subject, within: bool = True) -> Read | None:
        """A participle without "be": "born in Ulm"."""
        tokens = self._tokens
        form = tokens[at].form
        assert form is not None
        if form.verb in _INTRANSITIVE and finite(tokens, at):
            return None
        group = VerbGroup(at + 1, ((tokens[at].lower, form.verb),), True)
        return self._passive(group, subject, [], within)

    def predicate(self, at: int, subject: Subject, fronted: list[Tail], within: bool = False) -> Read | None:
        """A verb and all that belongs to it. ``within`` a relative clause a verb of the main one may follow."""
        tokens = self._tokens
        group = verb_group(tokens, at, subject.plural)
        if group is None:
            return None
        if not group.verbs:
            read = self._copula(group, subject, fronted, within)
        elif group.passive:
            read = self._passive(group, subject, fronted, within)
        else:
            read = self._active(group, subject, fronted, within)
        if read is None:
            return None
        if subject.pronoun == "it" and (not group.verbs or group.passive) and self._says_what(read.end):
            return None
        well = ends_well(tokens, read.end, not read.passive, read.last is not None)
        if not well and not (within and finite(tokens, read.end, plural=False)):
            return None
        return read._replace(facts=self.usable(read.facts))

    def _says_what(self, at: int) -> bool:
        """Whether "that" or an infinitive follows in the clause, which is what "it" stands for."""
        tokens = self._tokens
        while tokens[at].kind not in ("end", "comma", "mark"):
            if tokens[at].kind == "that" or _infinitive(tokens, at):
                return True
            at += 1
        return False

    def _passive(self, group: VerbGroup, subject: Subject, fronted: list[Tail], within: bool) -> Read | None:
        tokens, at = self._tokens, group.end
        objects = None
        if tokens[at].lower == "to" and tokens[at + 1].may_be("base"):
            return None
        if tokens[at].kind in ("name", "determiner", "word", "number"):
            objects = several(tokens, at)
            if objects is None:
                return None
            at = objects.end
        found, end = tails(tokens, at, objects.last if objects else None, within)
        if any(verb in _REPORTING for _, verb in group.verbs) and (tokens[end].kind == "that" or (
                tokens[end].lower == "to")):
            return None
        no = "not " if group.negated else ""
        facts = []
        for participle, verb in group.verbs:
            object_name = f" {_bare(objects.text)}" if objects else ""
            if objects is not None and objects.usable:
                facts += [Triple(name, f"{no}{participle}", value) for name in subject.names for value in objects.names]
            for tail in [*found, *fronted]:
                if not tail.phrases.usable:
                    continue
                if tail.preposition == "by" and not tail.phrases.dated:
                    if objects is None and (tail.phrases.last.named or tail.phrases.last.determiner):
                        facts += [Triple(doer, f"{no}{verb}", name) for doer in _names(tail) for name in subject.names]
                    continue
                facts += [Triple(name, f"{no}{participle}{object_name} {tail.link}", value)
                          for name in subject.names for value in _names(tail)]
        last = found[-1].phrases.last if found else objects.last if objects else None
        facts.sort(key=lambda fact: fact.subject in subject.names)  # who did it before when and where
        return Read(facts, end, last, True, _rival([tail.phrases for tail in found if tail.preposition == "by"]))

    def _active(self, group: VerbGroup, subject: Subject, fronted: list[Tail], within: bool) -> Read | None:
        tokens, at = self._tokens, group.end
        if any(verb in _REPORTING for _, verb in group.verbs) or tokens[at].kind in ("that", "subordinator"):
            return None
        together = len(subject.names) > 1 and any(verb in _TOGETHER for _, verb in group.verbs)
        no = "not " if group.negated else ""
        objects = None
        if tokens[at].kind not in ("preposition", "of", *_PREDICATE_ENDS, "adverb"):
            objects = several(tokens, at)
            if objects is None or (objects.last.start == at and tokens[at].lower in ("no", "neither", "nothing")):
                return None
            at = objects.end
        elif tokens[at].lower == "by" or _infinitive(tokens, at):
            return None
        found, end = tails(tokens, at, objects.last if objects else None, within)
        if objects is not None and (_infinitive(tokens, at) or self._names_what(group, objects)):
            return None
        if any(verb in _GROWING for _, verb in group.verbs) and any(tail.preposition == "from" for tail in found):
            return Read([], end)
        if objects is None and is_participle(tokens, group.end - 1) and self._may_be_part(group, end):
            return None
        if tokens[end].kind == "that" and objects is None:
            return None
        facts: list[Triple] = []
        shared = group.verbs if group.verbs[-1][1] not in _FURTHER_OBJECT else group.verbs[-1:]
        for _, verb in shared:
            values = self._values(objects, subject) if objects else []
            if verb == "have" and objects and (said := _amount(objects, subject.names, no)) is not None:
                facts.append(said)
                continue
            facts += [Triple(name, no + verb, value) for name in subject.names for value, text in values
                      if verb != "have" or value == text]
            inner = [f" {_bare(text)}" for _, text in values] if objects else [""]
            for tail in [*found, *fronted]:
                facts += [Triple(name, f"{no}{verb}{of} {tail.link}", value) for name in subject.names
                          for of in inner for value in _names(tail)]
        last = found[-1].phrases.last if found else objects.last if objects else None
        return Read([] if together and not objects else facts, end, last, False, _rival([objects] if objects else []))

    def _names_what(self, group: VerbGroup, objects: Several) -> bool:
        """Whether an object runs on into what it is made: "named Smith ambassador"."""
        words = self._tokens[objects.last.start : objects.last.core]
        return group.verbs[-1][1] in _MAKING and words[0].kind == "name" and words[-1].kind == "word"

    def _may_be_part(self, group: VerbGroup, end: int) -> bool:
        """Whether "made in the East" may belong to a subject, because another verb follows that is not its own."""
        if group.verbs[-1][1] in _INTRANSITIVE:
            return False
        tokens = self._tokens
        for at in range(end, len(tokens)):
            if tokens[at].kind in ("comma", "mark", "relative", "subordinator", "that"):
                return False
            before = tokens[at - 1]
            if tokens[at].kind not in ("adverb", "not") and finite(tokens, at, plural=False) and not (
                    before.kind in ("and", "adverb") or before.lower == "but"):
                return True
        return False

    def _copula(self, group: VerbGroup, subject: Subject, fronted: list[Tail], within: bool) -> Read | None:
        """X is Y, in its several forms. Of what was so at a time nothing is said."""
        read = self._present(group, subject, within)
        if read is None or not read.facts:
            return read
        past, dated = self._past(group, subject.end, read.end)
        if past and (dated or fronted or subject.tails or any(
                fact.relation.removeprefix("not ") in _CHANGING for fact in read.facts)):
            return read._replace(facts=[])
        return read

    def _past(self, group: VerbGroup, start: int, end: int) -> tuple[bool, bool]:
        """Whether a form of "be" is of the past, and whether when is said, or that it is over."""
        tokens = self._tokens
        verb = group.end - 1
        while verb > 0 and tokens[verb].kind in ("adverb", "not"):
            verb -= 1
        past = tokens[verb].lower in ("was", "were", "became", "remained", "been")
        words = [tokens[i] for i in range(group.end - 2, end + 2)]
        dated = any(token.kind == "date" or token.lower in _OVER for token in words)
        return past, dated

    def _present(self, group: VerbGroup, subject: Subject, within: bool) -> Read | None:
        tokens, at = self._tokens, group.end
        no = "not " if group.negated else ""
        if tokens[at].kind == "preposition":
            found, end = tails(tokens, at, None, within)
            if not found or tokens[at].lower not in _BEING_AT:
                return None
            facts = [Triple(name, f"{no}{'' if i == 0 else 'is '}{tail.preposition}", value)
                     for i, tail in enumerate(found) for name in subject.names for value in _names(tail)]
            return Read(facts, end, found[-1].phrases.last)
        phrases = several(tokens, at)
        if phrases is None or phrases.last.pronoun or tokens[phrases.end].lower in ("than", "that"):
            return None
        if subject.pronoun == "it" and tokens[phrases.end].kind == "relative":
            return None
        first = tokens.noun_phrase(at)
        assert first is not None
        found, end = tails(tokens, phrases.end, phrases.last, within)
        if _infinitive(tokens, end) or (not found and tokens[end].kind == "preposition" and not first.determiner):
            return None
        last = found[-1].phrases.last if found else phrases.last
        if found and found[0].preposition == "to" and tokens[phrases.end + 1].kind == "word":
            return None  # "the first man to climb Everest"
        if phrases.last != first and not phrases.split:
            if not first.determiner or " of " not in phrases.text:
                return Read([], end, last)
            first = first._replace(text=_bare(phrases.text), core=-1)
        if phrases.split and first.determiner:
            facts = [fact for name in phrases.names for fact in self.of_subject(subject, no, name)] if (
                _owner(subject)) else []
            return Read(facts, end, last)
        if phrases.split:
            facts = [fact for name in phrases.names for fact in (
                self.of_subject(subject, no, name) or [Triple(one, f"{no}is", name) for one in subject.names])]
            return Read(facts if first.named or first.plain else [], end, last)
        return Read(self.being(first, subject, group.negated, found), end, last)

    def being(self, phrase: Phrase, subject: Subject, negated: bool, found: Sequence[Tail]) -> list[Triple]:
        """What "is" and a phrase say of a subject."""
        no = "not " if negated else ""
        text, determiner = phrase.text, phrase.determiner
        indefinite = determiner in ("a", "an") or text.lower().startswith("one of the ")
        if (determiner not in ("a", "an", "the", "") and not indefinite) or phrase.vague:
            return []
        if (said := self.of_subject(subject, no, text)) or _owner(subject):
            of_kind = indefinite or (not phrase.named and not determiner and not text[0].isdigit())
            if not of_kind:
                return said
            if not indefinite:
                return []
        certain = not subject.article or subject.named
        if not indefinite and certain and (owner := _owner_of(text) if determiner == "the" or "'s " in text else None):
            return [Triple(_bare(owner["of"]), no + relation, name)
                    for relation, name in itertools.product(_roles(owner), subject.names)]
        relation = f"{no}is a" if indefinite else f"{no}is"
        facts = [Triple(name, relation, text) for name in subject.names]
        first = [tail for tail in found[:1] if not tail.phrases.dated and tail.phrases.usable]
        more = [Triple(name, f"{relation} {_bare(text)} {tail.preposition}", value) for tail in first
                for name in subject.names for value in _names(tail)]
        # "the largest city in Europe" and "responsible for the war" say little without what follows.
        return facts + more if indefinite or phrase.plural or not first else more

    def of_subject(self, subject: Subject, no: str, value: str) -> list[Triple]:
        """"The R of X is Y"."""
        owner = _owner(subject)
        if owner is None or not subject.names or " of " in value:
            return []
        return [Triple(_bare(owner["of"]), no + relation, value) for relation in _roles(owner)]

    def _values(self, objects: Several, subject: Subject) -> list[tuple[str, str]]:
        """The names of objects and what the sentence has for them; "his" and "its" are the subject's."""
        if not objects.usable or objects.last.dated:
            return []
        found = []
        for name in objects.names:
            first, _, rest = name.partition(" ")
            if first.lower() not in OWNERS:
                found.append((name, name))
            elif len(subject.names) == 1 and (first.lower() == "their") == subject.plural:
                found.append((f"{subject.names[0]}'s {rest}", rest))
        return found

    def usable(self, facts: list[Triple]) -> list[Triple]:
        """The facts with bare names, where these are neither empty nor as long as half a sentence."""
        bare = [Triple(_bare(fact.subject), " ".join(fact.relation.split()), _bare(fact.object)) for fact in facts]
        return [fact for fact in bare if 0 < len(fact.subject.split()) <= _LONGEST_NAME
                and 0 < len(fact.object.split()) <= _LONGEST_OBJECT and not re.fullmatch(r"[a-z]", fact.object)]


def _rival(phrases: Sequence[Several]) -> str:
    if not phrases:
        return ""
    return "name" if any(one.last.named and not one.last.determiner for one in phrases) else "thing"


def _infinitive(tokens: Tokens, at: int) -> bool:
    while tokens[at].kind == "adverb":
        at += 1
    return tokens[at].lower == "to" and tokens[at + 1].may_be("base")


def _names(tail: Tail) -> tuple[str, ...]:
    if not tail.phrases.usable or tail.phrases.last.determiner in OWNERS:
        return ()
    return (tail.phrases.text,) if tail.preposition == "between" else tail.phrases.names


def _amount(objects: Several, names: Sequence[str], no: str) -> Triple | None:
    """"has a population of 3.7 million"."""
    found = _R_OF.match(_bare(objects.text))
    if found is None or not re.match(r"[$£€]?\d|(?:about|over|around|some|nearly)\s\d", found["of"]) or len(names) != 1:
        return None
    return Triple(names[0], no + found["relation"].lower(), found["of"])


def _owner(subject: Subject) -> "re.Match[str] | None":
    """"the R of X" or "X's R"."""
    possessive = any(mark in subject.text for mark in ("'s ", "’s ", "s' "))
    if subject.plural or not subject.whole or not (subject.article or possessive):
        return None
    return _owner_of(subject.text)


def _owner_of(text: str) -> "re.Match[str] | None":
    found = _R_OF.match(text) or _POSSESSIVE.match(text)
    if found is None:
        return None
    *before, role = found["relation"].split()
    compared = (role.endswith("est") and role not in _NO_SUPERLATIVES) or before in (["most"], ["least"])
    return None if role in _NO_ROLE or compared else found


def _roles(owner: "re.Match[str]") -> list[str]:
    """"capital and largest city" are two."""
    return owner["relation"].lower().split(" and ")


def _bare(text: str) -> str:
    """A phrase without article, quotation marks and what punctuation is left at its ends."""
    return _ARTICLE.sub("", text.strip(" \t\"'“”‘’,.;:")).strip()
