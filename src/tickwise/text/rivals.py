"""Whether a sentence is about someone beside its subject, whom "he" or "she" in the next one may stand for as well."""

from tickwise.text.phrases import END, Tokens

_PLACES_WORDS = """in at on near to from into through within outside across around"""
_PLACES = frozenset(_PLACES_WORDS.split())
_OWN = frozenset({"his", "her", "their"})
_PERSON_WORDS = """man woman boy girl king queen prince princess duke duchess poet saint pope monk nun priest judge
    artist athlete architect physicist chemist chef spy thief pilot captain president general admiral doctor
    surgeon scholar novelist dramatist playwright soldier slave student professor lawyer critic diplomat musician
    politician scientist mathematician historian comedian actress emperor empress mother father son daughter brother
    sister child person member model guitarist drummer pianist violinist baron count earl lord lady knight mayor
    senator governor bishop archbishop cardinal cook nurse coach footballer cricketer host"""
_PERSONS = frozenset(_PERSON_WORDS.split())
_THINGS_WORDS = """river tower computer newspaper theater number order paper power water chapter letter charter cluster
    disaster harbour border corner layer matter winter summer weather factor sector motor reactor tractor corridor
    harbor colour color error minor major cylinder container steamer freighter cruiser destroyer bomber fighter folder
    fiber filter meter monster shelter structure volunteer carrier poster"""
_THINGS = frozenset(_THINGS_WORDS.split())


def someone_else(tokens: Tokens, at: int) -> bool:
    """Whether behind its subject, which ends ``at``, a sentence has another name that may be a person's, what someone
    owns, or says that its subject is a thing or a place."""
    if _is_no_person(tokens, at):
        return True
    before = END
    determiner = False
    for i in range(at, len(tokens)):
        token = tokens[i]
        if token.owner or (token.lower in _OWN and tokens[i + 1].kind in ("word", "name")):
            return True
        if token.kind == "determiner":
            determiner = True
            continue
        if token.kind == "name" and tokens[i + 1].kind not in ("name", "word") and not determiner and (
                before.lower not in _PLACES):
            return True
        if token.kind not in ("name", "adverb", "number"):
            before = token
            determiner = determiner and token.kind == "word" and token.form is None
    return False


def _is_no_person(tokens: Tokens, at: int) -> bool:
    """Whether a subject is said to be a thing, or to be at a place."""
    if tokens[at].kind != "be":
        return False
    at += 1
    while tokens[at].kind in ("adverb", "not"):
        at += 1
    if tokens[at].kind == "preposition":
        return True
    if tokens[at].lower not in ("a", "an"):
        return False
    phrase = tokens.noun_phrase(at)
    if phrase is None:
        return True
    head = tokens[phrase.core - 1].lower
    person = head in _PERSONS or (head.endswith(("er", "or", "ist", "ian", "man", "woman")) and head not in _THINGS)
    return not person
