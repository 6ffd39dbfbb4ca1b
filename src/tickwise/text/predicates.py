"""Parts of an English clause behind its subject: the verb with its auxiliaries, lists of noun phrases, and the phrases
that prepositions put behind. Every reader gives None where a part cannot be told safely."""

from typing import NamedTuple

from tickwise.text.phrases import Phrase, Tokens

_LONGEST_LIST = 12
_TIMES_WORDS = """in on at since until from to during before after by between around"""
_TIMES = frozenset(_TIMES_WORDS.split())
_PLACES = frozenset(["in", "at", "near"])
_PARTICLES = frozenset(["up", "out", "off", "down", "away", "back", "over"])
_BEFORE_INFINITIVE_WORDS = """able unable likely unlikely willing unwilling ready eager reluctant free sure certain
    bound supposed keen first last only difficult easy hard possible impossible necessary"""
_BEFORE_INFINITIVE = frozenset(_BEFORE_INFINITIVE_WORDS.split())
_OF_NAMES_WORDS = """north south east west northern southern eastern western new old upper lower great little"""
_OF_NAMES = frozenset(_OF_NAMES_WORDS.split())
_AS_VERB = frozenset({"past", "third"})


class VerbGroup(NamedTuple):
    """The tokens up to ``end``. ``verbs``: verbs, or for the passive participles with their verbs; none for a form of
    "be" alone."""

    end: int
    verbs: tuple[tuple[str, str], ...] = ()
    """(the word as it stands, its verb), of several that share what follows all."""
    passive: bool = False
    negated: bool = False


class Several(NamedTuple):
    """Noun phrases in a row: their names, one for each where they can be told apart."""

    names: tuple[str, ...]
    text: str
    last: Phrase
    end: int
    dated: bool = False
    usable: bool = True
    split: bool = False


class Tail(NamedTuple):
    """What a preposition puts behind a verb; ``manner``: the adverb between them ("regulated separately from")."""

    preposition: str
    phrases: Several
    manner: str = ""

    @property
    def link(self) -> str:
        return f"{self.manner} {self.preposition}".strip()


def finite(tokens: Tokens, at: int, plural: bool = True) -> bool:
    """Whether a verb that a subject may have stands here, behind adverbs."""
    while tokens[at].kind in ("adverb", "not"):
        at += 1
    token = tokens[at]
    if token.kind in ("be", "have", "do"):
        return token.lower not in ("been", "being", "be", "having", "done")
    if token.kind == "modal":
        return True
    return token.kind == "word" and (token.may_be(*_AS_VERB) or (plural and token.may_be("base")))


def is_singular(tokens: Tokens, at: int) -> bool:
    """Whether the verb here, behind adverbs, cannot belong to several."""
    while tokens[at].kind in ("adverb", "not"):
        at += 1
    token = tokens[at]
    return token.lower in ("is", "was", "has", "does") or (token.kind == "word" and token.may_be("third")
                                                           and not token.may_be("base", "past"))


def is_participle(tokens: Tokens, at: int) -> bool:
    """Whether a participle with a preposition behind it stands here: "born in", "founded by"."""
    return tokens[at].may_be("participle") and tokens[at].kind == "word" and (
        tokens[at + 1].kind == "preposition" and tokens[at + 1].lower != "to")


def verb_group(tokens: Tokens, at: int, plural: bool = True) -> VerbGroup | None:
    """The verb at a place, with its auxiliaries and adverbs; None for what may be ("could"), and for no verb."""
    negated = False
    be = have = do = False
    while True:
        token = tokens[at]
        if token.kind in ("adverb", "not"):
            negated |= token.kind == "not"
            at += 1
            continue
        if token.kind == "modal" or token.lower in ("being", "having", "be"):
            return None
        if token.kind == "be" and not be:
            be, at = True, at + 1
            continue
        if token.kind == "have" and not be and not have and not do:
            have, at = True, at + 1
            continue
        if token.kind == "do" and not be and not have and not do and token.lower != "done":
            do, at = True, at + 1
            continue
        break
    return _main_verb(tokens, at, negated, plural, (be, have, do))


def _main_verb(tokens: Tokens, at: int, negated: bool, plural: bool,
               auxiliaries: tuple[bool, bool, bool]) -> VerbGroup | None:
    """The verb behind auxiliaries: whether there is a form of "be", "have" and "do"."""
    be, have, do = auxiliaries
    token = tokens[at]
    if be:
        if token.kind == "word" and token.may_be("participle"):
            return _passive(tokens, at, negated)
        if token.kind == "word" and token.may_be("ing"):
            follows = tokens[at + 1]
            assert token.form is not None
            if follows.kind in ("determiner", "name", "preposition"):
                return VerbGroup(at + 1, ((token.text, token.form.verb),), negated=negated)
            return None
        return VerbGroup(at, negated=negated)
    if have:
        if token.kind == "word" and token.may_be("participle"):
            return _active(tokens, at, negated, "participle")
        return VerbGroup(at, (("have", "have"),), negated=negated)
    if do:
        if token.kind == "word" and token.may_be("base"):
            return _active(tokens, at, negated, "base")
        return None
    if token.kind == "word" and (token.may_be(*_AS_VERB) or (plural and token.may_be("base"))):
        return _active(tokens, at, negated, "past" if token.may_be("past") else "third" if token.may_be("third")
                       else "base")
    return None


def _passive(tokens: Tokens, at: int, negated: bool) -> VerbGroup:
    verbs, at = _verbs(tokens, at, "participle")
    return VerbGroup(at, verbs, True, negated)


def _active(tokens: Tokens, at: int, negated: bool, kind: str) -> VerbGroup:
    verbs, at = _verbs(tokens, at, kind)
    if tokens[at].lower in _PARTICLES and tokens[at + 1].kind != "of":
        particle = tokens[at].lower
        over = particle == "over" and verbs[-1][1] not in ("take", "hand")
        if not over and len(verbs) == 1:
            return VerbGroup(at + 1, ((f"{verbs[0][0]} {particle}", f"{verbs[0][1]} {particle}"),), negated=negated)
    return VerbGroup(at, verbs, negated=negated)


def _verbs(tokens: Tokens, at: int, kind: str) -> tuple[tuple[tuple[str, str], ...], int]:
    """Verbs of the same form in a row, "designed, built and sold", with what they share behind them."""
    found = [at]
    while True:
        last = found[-1] + 1
        if tokens[last].kind == "comma" and tokens[last + 1].may_be(kind) and tokens[last + 2].kind in ("and", "comma"):
            found.append(last + 1)
        elif tokens[last].kind == "and" and tokens[last + 1].kind == "word" and tokens[last + 1].may_be(kind):
            found.append(last + 1)
            break
        else:
            break
    if len(found) > 1 and tokens[found[-1] - 1].kind != "and":
        found = found[:1]
    forms = [(tokens[i].text, form.verb) for i in found if (form := tokens[i].form) is not None]
    return tuple(forms), found[-1] + 1


def several(tokens: Tokens, at: int, subject: bool = False) -> Several | None:
    """A noun phrase, or several with "and" before the last one, as names that can be told apart, or else as one."""
    first = tokens.noun_phrase(at + (tokens[at].lower == "both"))
    if first is None or tokens[first.end].lower in ("or", "nor"):
        return None
    phrases, end = [first], first.end
    listed = _listed(tokens, first)
    if listed is None:
        return None
    if listed and (subject or not finite(tokens, listed[-1].end)):
        phrases, end = [first, *listed], listed[-1].end
    elif len(listed) > 1:
        return None  # "wrote A, B and C sang": where the next clause begins is not clear
    if tokens[end].lower in ("or", "nor"):
        return None
    text = first.text if len(phrases) == 1 else tokens.text(first.end - len(first.text.split()), end)
    usable = not any(phrase.pronoun or phrase.vague for phrase in phrases)
    if len(phrases) == 1 or _can_be_told_apart(phrases, subject):
        names = tuple(phrase.text for phrase in phrases)
        return Several(names, text, phrases[-1], end, first.dated, usable, len(phrases) > 1)
    if len(phrases) > 2:
        usable = False
    text = tokens.text(first.start + (first.determiner in ("a", "an", "the")), end)
    return Several((text,), text, phrases[-1], end, first.dated, usable)


def _listed(tokens: Tokens, first: Phrase) -> list[Phrase] | None:
    """The phrases of a list behind its first one; none where there is no list, None for one that "or" ends."""
    found: list[Phrase] = []
    end = first.end
    while len(found) < _LONGEST_LIST:
        comma = tokens[end].kind == "comma"
        at = end + comma
        closing = tokens[at].kind == "and"
        if tokens[at].lower in ("or", "nor") and found:
            return None
        if not closing and not comma:
            return []
        phrase = tokens.noun_phrase(at + closing)
        if phrase is not None and comma and (phrase.determiner in ("a", "an")) != (first.determiner in ("a", "an")):
            return []  # rather what the one before is
        if phrase is None or phrase.pronoun or (closing and finite(tokens, at + 1, plural=False)):
            return []
        found.append(phrase)
        end = phrase.end
        if closing:
            return found if len(found) > 1 or not comma else []
    return []


def _can_be_told_apart(phrases: list[Phrase], subject: bool) -> bool:
    """Whether each phrase is a name, or complete: "A and B", "a lake and a river", "polonium and radium", but not "the
    rise and fall of Rome", nor (``subject``) "Marie and Pierre Curie"."""
    if any(phrase.dated or phrase.pronoun for phrase in phrases):
        return False
    own = [phrase.determiner for phrase in phrases]
    if any(phrase.plain and phrase.text.lower() in _OF_NAMES for phrase in phrases[:-1]) and not phrases[-1].plain:
        return False
    if all(phrase.named for phrase in phrases):
        whole = all(phrase.core == phrase.end for phrase in phrases[:-1])
        single = phrases[0].plain and not phrases[-1].plain and not own[-1]
        alike = all(own) or (whole and phrases[-1].core == phrases[-1].end and not own[0])
        return alike and not (subject and single)
    return all(own) or all(phrase.plain for phrase in phrases)


def tails(tokens: Tokens, at: int, place_before: Phrase | None = None, within: bool = False) -> tuple[list[Tail], int]:
    """What prepositions put behind a verb (or its object): the first phrase, and of the others those that say when, and
    where ("in Ulm, in Germany"); who did it, of all. Others may belong to the phrase before them, and behind a comma
    (``within`` what stands between commas) to the clause around."""
    found: list[Tail] = []
    last, seen = place_before, False
    while True:
        here = at
        while tokens[here].kind == "adverb":
            here += 1
        comma = tokens[here].kind == "comma"
        if comma and last is not None and last.named and (skipped := _larger_place(tokens, here)):
            at = skipped
            continue
        here += comma
        of_verb = tokens[here].kind == "of" and here == at and not found and place_before is None
        if not (tokens[here].kind == "preposition" or of_verb) or (comma and within):
            return found, at
        preposition = tokens[here].lower
        if preposition == "to" and (tokens[here + 1].may_be("base") or tokens[here - 1].lower in _BEFORE_INFINITIVE):
            return found, at
        phrases = several(tokens, here + 1)
        if phrases is None:
            return found, at
        if _has_two_meanings(tokens, here, phrases, place_before is not None):
            return found, phrases.end  # "beat York in 1990 and Hull in 1995"
        said = not comma and not seen and (preposition != "between" or " and " in phrases.text)
        if phrases.dated:
            said = preposition in _TIMES
        elif seen:
            named = phrases.last.named and (last is None or last.named or last.dated)
            said = (preposition in _PLACES and named) or (preposition == "by" and not comma)
        if comma and not said:
            return found, at
        if said:
            manner = tokens[here - 1] if here > at and not found and place_before is None else None
            found.append(Tail(preposition, phrases, manner.lower if manner and manner.lower.endswith("ly") else ""))
        last, at, seen = phrases.last, phrases.end, True


def _has_two_meanings(tokens: Tokens, at: int, phrases: Several, behind_object: bool) -> bool:
    """Whether "and" behind a preposition may go on with another object than with another place or time."""
    if not any(tokens[i].kind == "and" for i in range(at, phrases.end)) or tokens[at].lower == "between":
        return False
    if phrases.dated != phrases.last.dated:
        return True
    after = tokens[phrases.end]
    if after.kind != "preposition":
        return False
    return behind_object or (after.lower == tokens[at].lower and not phrases.dated and tokens[
        phrases.end + 1].kind != "date")


def _larger_place(tokens: Tokens, comma: int) -> int:
    """The end of a name between commas that says where a place is ("Ulm, Germany, in …"), 0 if there is none."""
    phrase = tokens.noun_phrase(comma + 1)
    if phrase is None or not phrase.named or phrase.determiner or phrase.core != phrase.end:
        return 0
    after = tokens[phrase.end]
    if after.kind == "comma" and tokens[phrase.end + 1].kind in ("preposition", "relative", "comma", "name"):
        return phrase.end if tokens[phrase.end + 1].kind != "name" else 0
    return phrase.end if after.kind in ("end", "preposition") or (
        after.kind == "comma" and finite(tokens, phrase.end + 1, plural=False)) else 0


def ends_well(tokens: Tokens, at: int, active: bool, tailed: bool) -> bool:
    """Whether what stands here may follow a complete predicate. ``active``: an object may be the subject of what
    follows ("said the army left"); ``tailed``: a phrase with a preposition is between."""
    token = tokens[at]
    if token.lower == "to" and tokens[at + 1].may_be("base"):
        return tailed
    if token.kind in ("end", "comma", "and", "relative", "subordinator", "mark", "preposition", "that"):
        return True
    if token.kind == "adverb":
        return ends_well(tokens, at + 1, active, tailed)
    if token.lower in ("but", "yet"):
        return True
    return (token.may_be("ing") and token.kind == "word") or (is_participle(tokens, at) and tailed | active)
