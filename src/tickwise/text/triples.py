"""Facts of English sentences as triples (subject, relation, object), by plain rules.

The rules know forms of being and having and some hundred verbs; a sentence that they do not fit gives nothing:

- "the R of X is Y", "X's R is Y", "Y is the R of X", "X has a R of Y"  → (X, R, Y)
- "X is a Y"                                                            → (X, is a, Y)
- "Y was written by X", "X wrote Y"                                     → (X, write, Y)
- "X was born in Y on Z"                                                → (X, born in, Y), (X, born on, Z)
- "X, a Y, …" and "X, the R of Y, …"                                    as if with "is"
- "not" and "never" make the relation "not …"

A pronoun at the beginning stands for the subject of the sentence before.
"""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

_IRREGULAR = {
    "write": "wrote written", "found": "founded", "win": "won", "lead": "led", "build": "built", "make": "made",
    "buy": "bought", "sell": "sold", "hold": "held", "teach": "taught", "marry": "married", "become": "became",
    "begin": "began begun", "know": "knew known", "give": "gave given", "take": "took taken", "sing": "sang sung",
    "speak": "spoke spoken", "lie": "lay lain", "run": "ran", "beat": "beaten", "draw": "drew drawn", "see": "saw seen",
    "keep": "kept", "grow": "grew grown", "meet": "met", "fight": "fought", "leave": "left", "wear": "wore worn",
    "eat": "ate eaten", "drink": "drank drunk", "drive": "drove driven", "bear": "born borne", "bring": "brought",
    "set": "set", "fly": "flew flown", "come": "came", "go": "went gone", "have": "had", "study": "studied",
    "occupy": "occupied", "carry": "carried", "bury": "buried", "die": "died", "tie": "tied",
}  # fmt: skip
_REGULAR_WORDS = """acquire admire appoint attend border capture chair command compose conquer construct contain
cover create defeat design develop direct discover divide edit elect employ establish explore export feature film
flow form fund govern host import include influence inspire introduce invent join kill launch live locate love
manage move name narrate open operate order organise organize own paint perform place play please produce program
publish receive record reign release rename replace represent retire rule serve settle sign sponsor start stretch
succeed supply support train translate use visit work worship call base consist connect belong educate cross end
rise"""


def _forms() -> dict[str, str]:
    """Every form of a known verb → the verb."""
    forms: dict[str, str] = {}
    for verb in [*_REGULAR_WORDS.split(), *_IRREGULAR]:
        stem = verb[:-1] if verb.endswith("e") else verb
        third = verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeiou" else (
            verb + "es" if verb.endswith(("s", "sh", "ch", "x", "o")) else verb + "s")
        for form in (verb, third, *_IRREGULAR.get(verb, f"{stem}ed").split()):
            forms.setdefault(form, verb)
    forms.update(has="have", planned="plan", controlled="control")
    # "found" is far more often the past of "find" than a verb of its own.
    forms.pop("found", None)
    return forms


VERB_OF = _forms()
_BE = "is|are|was|were|has been|have been|had been|became|becomes|remains|remained"
PREPOSITIONS = ("in|on|at|to|from|for|by|with|as|into|near|under|against|during|through|between|since|until|after|"
                "before")
_ADVERB = r"(?:\s+(?:also|now|currently|formerly|still|once|then|later|first|originally|mostly|often))?"
_VERBS = "|".join(sorted(map(re.escape, VERB_OF), key=len, reverse=True))
_GROUP = re.compile(
    rf"\b(?:(?P<be>{_BE}){_ADVERB}(?P<benot>\s+(?:not|never))?{_ADVERB}(?:\s+(?P<participle>{_VERBS})\b(?!\s+of\b))?"
    rf"|(?P<donot>(?:did|does|do)\s+not\s+|never\s+)?(?P<verb>{_VERBS}))\b(?:\s+(?P<preposition>{PREPOSITIONS})\b)?")
_TAIL = re.compile(rf"\s+(?P<preposition>{PREPOSITIONS})\s+")
_CLAUSE_END = re.compile(r"[;:()\[\]—–]|,?\s+(?:but|while|whereas|although|because|which|who|whose|where|when|that)\s")
_AND_VERB = re.compile(rf",?\s+and\s+(?=(?:also\s+|later\s+|then\s+)?(?:(?:{_BE}|{_VERBS})\b))")
_PRONOUN = re.compile(r"^(?:he|she|it|they|this|these)$", re.IGNORECASE)
_LEADING = re.compile(rf"^(?:{PREPOSITIONS}|when|while|although|because|if|however|then|later|today)\b", re.IGNORECASE)
_DETERMINER = re.compile(r"^(?:a|an|the|its|his|her|their|this|that|these|those|some|any)\s+", re.IGNORECASE)
_R_OF = re.compile(r"^(?:the\s+)?(?P<relation>[a-z][\w-]*(?:\s+[a-z][\w-]*){0,3})\s+(?:of|for)\s+(?P<of>.+)$",
                   re.IGNORECASE)
_POSSESSIVE = re.compile(r"^(?P<of>.+?)(?:'s|’s|s'|s’)\s+(?P<relation>[a-z][\w-]*(?:\s+[a-z][\w-]*){0,3})$")
_BEFORE_NOUN = re.compile(
    r"(?:\b(?:a|an|the|his|her|its|their|of|in|for|by|first|last|new|old|many|two|three)|['’]s)\s+$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:a|an|the)\s", re.IGNORECASE)
_RELATIVE = re.compile(r"\b(?:that|which|who|whom|whose|where|when)\b", re.IGNORECASE)
_LONGEST_NAME = 8


class Triple(NamedTuple):
    """A fact, and the sentence that says it, which is the ``number``th of those given, counted from 0."""

    subject: str
    relation: str
    object: str
    sentence: str = ""
    number: int = 0


def triples(sentences: list[str]) -> Iterator[Triple]:
    """The facts of consecutive sentences."""
    before = ""
    for number, sentence in enumerate(sentences):
        flat = " ".join(sentence.split()).rstrip(".!。 ")
        if flat.endswith("?"):
            continue
        for fact in _of_sentence(flat, before):
            if not _PRONOUN.match(fact.subject):
                yield fact._replace(sentence=sentence.strip(), number=number)
        before = _subject_of(flat, before)


def _subject_of(sentence: str, before: str) -> str:
    """What a pronoun in the next sentence stands for."""
    group = _verb_group(sentence)
    if group is None:
        return before
    subject, _ = _subject(sentence[: group.start()], before)
    owner = _owner(subject)
    return _name(owner["of"] if owner else subject) or before


def _of_sentence(sentence: str, before: str) -> Iterator[Triple]:
    subject = ""
    for clause in _clauses(sentence):
        group = _verb_group(clause)
        if group is None:
            continue
        own, appositions = _subject(clause[: group.start()], before)
        subject = own or subject
        if not subject or len(subject.split()) > _LONGEST_NAME or _RELATIVE.search(subject):
            continue
        for said in appositions:
            yield from _being(subject, said, "")
        yield from _facts(subject, group, clause[group.end() :])


def _verb_group(clause: str) -> "re.Match[str] | None":
    """The first verb with what belongs to it; behind an article, "play" or "works" is a noun."""
    for match in _GROUP.finditer(clause):
        form = match["verb"]
        noun = form is not None and form.rstrip("s").rstrip("e") in (VERB_OF[form].rstrip("e"), VERB_OF[form])
        if not (noun and _BEFORE_NOUN.search(clause[: match.start()])):
            return match
    return None


def _clauses(sentence: str) -> list[str]:
    """The main clause and, behind "and", further verbs with the same subject."""
    end = _CLAUSE_END.search(sentence)
    main = sentence[: end.start()] if end and _verb_group(sentence[: end.start()]) else sentence
    return _AND_VERB.split(main)


def _subject(text: str, before: str) -> tuple[str, list[str]]:
    """The subject in what stands before the verb, and what is put beside it between commas."""
    parts = [part.strip() for part in text.strip().rstrip(",").split(",") if part.strip()]
    while len(parts) > 1 and _LEADING.match(parts[0]):
        parts.pop(0)
    if not parts or _LEADING.match(parts[0]):
        return "", []
    first = re.sub(r"\s+(?:also|now|later|then|never|did not|does not)$", "", parts[0])
    owned = re.match(r"^(?:his|her|its|their)\s+(.+)$", first, re.IGNORECASE)
    if owned and before:
        return f"{before}'s {owned[1]}", []
    if _PRONOUN.match(first):
        return before, []
    return first, [part for part in parts[1:] if _DETERMINER.match(part)]


def _facts(subject: str, group: "re.Match[str]", rest: str) -> Iterator[Triple]:
    negation = "not " if group["benot"] or group["donot"] else ""
    rest = rest.strip()
    preposition, participle = group["preposition"], group["participle"]
    if group["be"] and not participle:
        if preposition:
            yield from _with_tails(subject, f"{negation}{preposition}", f"{negation}is", rest)
        else:
            yield from _being(subject, rest, negation)
        return
    if group["be"]:
        lemma = VERB_OF[participle]
        if preposition == "by":
            by, *tails = _split_tails(rest)
            for agent in _several(by[1]):
                yield Triple(agent, negation + lemma, _name(subject))
            for tail_preposition, place in tails:
                yield Triple(_name(subject), f"{negation}{participle} {tail_preposition}", _name(place))
        elif preposition:
            yield from _with_tails(subject, f"{negation}{participle} {preposition}", negation + participle, rest)
        elif rest:
            yield from _with_tails(subject, f"{negation}{participle}", negation + participle, rest)
        return
    lemma = VERB_OF[group["verb"]]
    value = _R_OF.match(_name(rest)) if lemma == "have" and _ARTICLE.match(rest) else None
    if value and not preposition:
        yield Triple(_name(subject), negation + value["relation"].lower(), _name(value["of"].split(",")[0]))
        return
    relation = f"{negation}{lemma} {preposition}" if preposition else negation + lemma
    yield from _with_tails(subject, relation, negation + lemma, rest)


def _being(subject: str, said: str, negation: str) -> Iterator[Triple]:
    """X is Y, in its several forms."""
    first = said.split(",")[0].strip()
    if owner := _owner(subject):
        for relation, value in itertools.product(_roles(owner), _several(first)):
            yield Triple(_name(owner["of"]), negation + relation, value)
    elif owner := _owner(first):
        for relation, owned in itertools.product(_roles(owner), _several(_split_tails(owner["of"])[0][1])):
            yield Triple(owned, negation + relation, _name(subject))
    else:
        relation = "is a" if re.match(r"^(?:an?|one of the)\s", first, re.IGNORECASE) else "is"
        yield from _with_tails(subject, negation + relation, negation + "is", first)


def _owner(phrase: str) -> "re.Match[str] | None":
    """"the R of X" or "X's R"."""
    of = _R_OF.match(phrase) if phrase[:4].lower() == "the " else None
    return of or _POSSESSIVE.match(phrase)


def _roles(owner: "re.Match[str]") -> list[str]:
    """"capital and largest city" are two."""
    return owner["relation"].lower().split(" and ")


def _with_tails(subject: str, relation: str, verb: str, rest: str) -> Iterator[Triple]:
    """The fact of the first phrase of ``rest``, and one for each phrase that a preposition puts behind it."""
    phrases = _split_tails(rest)
    for value in _several(phrases[0][1]):
        yield from (Triple(person, relation, value) for person in _several(subject))
    for preposition, value in phrases[1:]:
        if _name(value):
            yield from (Triple(person, f"{verb} {preposition}", _name(value)) for person in _several(subject))


def _split_tails(text: str) -> list[tuple[str, str]]:
    """(preposition, phrase): the first phrase has none."""
    text = text.strip()
    found = [("", "")]
    at = 0
    for match in _TAIL.finditer(text):
        found[-1] = (found[-1][0], text[at : match.start()])
        found.append((match["preposition"], ""))
        at = match.end()
    found[-1] = (found[-1][0], text[at:])
    return found


def _several(text: str) -> list[str]:
    """The names in "A, B and C" where each begins in upper case, else the phrase up to a comma."""
    parts = [_name(part) for part in re.split(r",\s*(?:and\s+)?|\s+and\s+", text.strip()) if part.strip()]
    if len(parts) > 1 and all(part[:1].isupper() and len(part.split()) <= 4 for part in parts):
        return parts
    name = _name(text.split(",")[0])
    return [name] if name and len(name.split()) <= 2 * _LONGEST_NAME else []


def _name(text: str) -> str:
    """A phrase without article, quotation marks and what punctuation is left at its ends."""
    bare = text.strip(" \t\"'“”‘’,.;:")
    return _DETERMINER.sub("", bare).strip()
