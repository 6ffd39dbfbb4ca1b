"""Facts of English sentences as triples (subject, relation, object), by a small grammar of clauses.

A sentence is read from left to right into its subject, what is put in between commas, and its predicates; each of them
keeps its own objects. What is not understood up to the next boundary of a clause gives nothing.

- "the R of X is Y", "X's R is Y", "Y is the R of X", "X has a R of 3"     → (X, R, Y)
- "X is a Y in Z"                                                          → (X, is a, Y), (X, is a Y in, Z)
- "X wrote Y in Z", "Y was written in Z by X"                              → (X, write, Y), (X, write Y in, Z), …
- "X was born in Y on Z"                                                   → (X, born in, Y), (X, born on, Z)
- "X, a Y, …", "X, the R of Y, …", "X, who …, …", "X, born in …, …", "X, whose R is …, …", "Founded in …, X …"
- "A and B wrote C and D"                                                  → one triple each, where they are complete
- "not" and "never" make the relation "not …"

What may be, is said by someone, or depends on a condition is no fact. "He", "she", "it" and "they" stand for the
subject of the sentence before, where it was understood and fits.
"""

import re
from collections.abc import Iterator

from tickwise.text.phrases import Tokens, tokens_of
from tickwise.text.predicates import Tail, finite, is_participle, is_singular, several, tails, verb_group
from tickwise.text.rivals import someone_else
from tickwise.text.statements import OWNERS, Read, Statements, Subject, Triple
from tickwise.text.unsure import is_unsure

_ASIDE = re.compile(r"\s*(?:\([^()]*\)|\[[^\[\]]*\])")
_NOT = re.compile(r"\b(is|are|was|were|has|have|had|do|does|did|could|would|should)n['’]t\b")
_DASHES = re.compile(r"\s+[–—-]{1,2}\s+|—")
_LONGEST = 2000
"""Letters of a sentence that is read."""
_RESULTS = frozenset(["lead", "cause", "make", "result", "allow", "mean", "give", "help", "enable", "include", "occur"])
_ENOUGH = frozenset({"all", "both", "many", "several", "some", "a", "an", "the", "", "his", "her", "its", "their"})
PREPOSITIONS = ("in|on|at|to|from|for|by|with|as|into|near|under|against|during|through|between|since|until|after|"
                "before")


def triples(sentences: list[str]) -> Iterator[Triple]:
    """The facts of consecutive sentences."""
    before: Subject | None = None
    for number, sentence in enumerate(sentences):
        flat = " ".join(sentence.split()).rstrip(".!。 ")
        if flat.endswith("?"):
            before = None
            continue
        seen: set[tuple[str, str, str]] = set()
        for part in flat.split("; "):
            if len(part) > _LONGEST:
                before = None
                continue
            reader = _Sentence(part, before)
            reader.read()
            before = reader.subject
            for fact in reader.facts:
                if fact[:3] not in seen:
                    seen.add(fact[:3])
                    yield fact._replace(sentence=sentence.strip(), number=number)


class _Sentence:
    """Reads one sentence. ``subject``: what a pronoun in the next one stands for."""

    def __init__(self, text: str, before: Subject | None) -> None:
        flat = _ASIDE.sub("", text)
        flat = _NOT.sub(lambda found: f"{found[1]} not", flat)
        if len(_DASHES.findall(flat)) == 2:
            flat = _DASHES.sub(", ", flat)
        self._unsure = is_unsure(flat)
        self._tokens = Tokens(tokens_of(flat))
        self._says = Statements(self._tokens)
        self._before = before
        self.subject: Subject | None = None
        self.facts: list[Triple] = []

    def read(self) -> None:
        if self._unsure:
            return
        self._clause(0)
        if self.subject is not None and someone_else(self._tokens, self.subject.end):
            self.subject = self.subject._replace(rival="name" if self.subject.rival else "someone")

    # ---------------------------------------------------------------- clauses

    def _clause(self, at: int) -> None:
        tokens = self._tokens
        opened = self._opening(at)
        if opened is None:
            return
        at, fronted, participles = opened
        subject = self._subject(at)
        if subject is None:
            return
        if self.subject is None or subject.named:
            self.subject = subject
        for place in participles:
            self._participle(place, subject)
        verb = self._between(subject)
        if verb is None or (subject.plural and " and " in subject.text and is_singular(tokens, verb)):
            return
        read = self._says.predicate(verb, subject, [*fronted, *subject.tails])
        while read is not None:
            self._add(read.facts)
            if self.subject is not None and read.rival:
                self.subject = self.subject._replace(rival=read.rival)
            end = self._behind(read)
            at = end + (tokens[end].kind == "comma")
            if not (tokens[at].kind == "and" or tokens[at].lower == "but"):
                listed = tokens[end].kind == "comma" and finite(tokens, at, plural=False)
                verb = at
                while tokens[verb].kind == "adverb":
                    verb += 1
                if not listed or tokens[verb].may_be("participle"):
                    return
                at -= 1
            at += 1
            verb = at
            while tokens[verb].kind == "adverb":
                verb += 1
            if read.passive and is_participle(tokens, verb):
                read = self._says.elided(verb, subject, within=False) or self._says.predicate(at, subject, [])
            elif finite(tokens, verb, subject.plural) or tokens[verb].may_be("past"):
                read = self._says.predicate(at, subject, [])
            else:
                self._before = None  # whom "he" in the same sentence stands for cannot be told
                return self._clause(at)

    def _opening(self, at: int) -> tuple[int, list[Tail], list[int]] | None:
        """What stands before the subject: its end, when and where, and the places of participles. None for what is not
        understood."""
        tokens = self._tokens
        found: list[Tail] = []
        participles: list[int] = []
        while True:
            token = tokens[at]
            if token.kind == "adverb" or (at == 0 and token.lower in ("and", "but", "yet")):
                at += 1 + (tokens[at + 1].kind == "comma")
            elif is_participle_first(tokens, at):
                _, end = tails(tokens, at + 1)
                if tokens[end].kind != "comma":
                    return None
                participles.append(at)
                at = self._behind_place(end + 1)
            elif at == 0 and token.may_be("ing") and not token.may_be("base"):
                return None
            elif token.kind == "preposition":
                phrases = several(tokens, at + 1)
                if phrases is None:
                    return None
                end = phrases.end
                while tokens[end].kind == "preposition" and (more := tokens.noun_phrase(end + 1)) is not None:
                    end = more.end
                after = tokens[end].kind
                if after != "comma" and not (phrases.dated and end == phrases.end and
                                             after in ("determiner", "name", "pronoun", "word")):
                    return None
                if token.lower in ("in", "on", "at", "during", "since") and phrases.usable and (
                        phrases.dated or token.lower != "on"):
                    found.append(Tail(token.lower, phrases))
                at = end + (after == "comma")
                if after == "comma" and not phrases.dated:
                    at = self._behind_place(at)
            elif token.lower in ("when", "while", "although", "though", "because", "once"):
                commas = [i for i in range(at, len(tokens)) if tokens[i].kind == "comma"]
                if len(commas) != 1:
                    return None
                at = commas[0] + 1
            else:
                return at, found, participles

    def _behind_place(self, at: int) -> int:
        """Behind "Germany," in "Born in Ulm, Germany, he …"."""
        tokens = self._tokens
        phrase = tokens.noun_phrase(at)
        if phrase is None or not phrase.named or phrase.determiner or tokens[phrase.end].kind != "comma":
            return at
        after = tokens[phrase.end + 1]
        place = after.kind in ("name", "pronoun") or after.lower in ("the", "his", "her", "its", "their")
        return phrase.end + 1 if place else at

    def _subject(self, at: int) -> Subject | None:
        tokens = self._tokens
        word = tokens[at].lower
        if tokens[at].kind == "pronoun":
            if finite(tokens, at + 1) or tokens[at + 1].kind == "comma":
                return self._meant(word, at + 1)
            return None
        phrases = several(tokens, at, subject=True)
        if phrases is None or (not phrases.split and phrases.dated):
            return None
        first = tokens.noun_phrase(at)
        assert first is not None
        end = phrases.end
        names = phrases.names
        text, when, named, whole = phrases.text, [], first.named, True
        while tokens[end].kind == "preposition":
            more = several(tokens, end + 1)
            if more is None:
                return None
            if more.dated and first.named:
                when.append(Tail(tokens[end].lower, more))
                end = more.end
                continue
            named, whole, end = False, False, more.end
            text = tokens.text(at + (first.determiner in ("a", "an", "the")), end)
            names = (text,) if len(names) == 1 and more.usable else ()
        if first.determiner in OWNERS and names:
            owner = self._meant(first.determiner, at)
            names = tuple(f"{owner.names[0]}'s {text.partition(' ')[2]}" for _ in names[:1] if len(owner.names) == 1)
            text = names[0] if names else text
        usable = phrases.usable and first.determiner in _ENOUGH
        return Subject(names if usable else (), text, end, phrases.split or first.plural or len(phrases.names) > 1, "",
                        first.determiner in ("a", "an", "the"), tuple(when), named, whole)

    def _meant(self, pronoun: str, end: int) -> Subject:
        """Whom a pronoun stands for: the subject of the clause before, if it suits."""
        before = self._before
        plural = pronoun in ("they", "their")
        person = pronoun in ("he", "she", "his", "her")
        rivals = ("name", "someone") if person else ("name", "thing")
        suits = before is not None and pronoun in ("he", "she", "it", "they", *OWNERS) and before.plural == plural and (
            before.rival not in rivals) and (not person or (before.named and not before.article))
        if before is None or not suits:
            return Subject((), pronoun, end, plural, pronoun)
        return before._replace(end=end, pronoun=pronoun, tails=(), rival="")

    def _between(self, subject: Subject) -> int | None:
        """Where the verb of a subject stands; what is put between the two is read on the way. None where it is not
        clear."""
        tokens, at = self._tokens, subject.end
        if tokens[at].lower in ("who", "which", "that") and tokens[at].kind in ("relative", "that"):
            read = self._says.predicate(at + 1, subject, [], within=True)
            if read is None or not finite(tokens, read.end, subject.plural):
                return None
            self._add(read.facts)
            at = read.end
        elif is_participle(tokens, at):
            read = self._says.elided(at, subject)
            if read is not None and finite(tokens, read.end, subject.plural):
                self._add(read.facts)
                at = read.end
        waiting: list[Triple] = []
        while tokens[at].kind == "comma":
            if finite(tokens, at + 1, subject.plural) and not self._is_between_commas(at + 1, subject):
                if at == subject.end and tokens[at + 1].may_be("participle"):
                    return None  # "Smith, elected in 1900" without a verb
                at += 1
                break
            inserted = self._insert(at + 1, subject)
            if inserted is None:
                return None
            facts, at, sure = inserted
            if sure and tokens[at].kind == "comma":
                self._add(facts)
            else:
                waiting += facts
            if tokens[at].kind != "comma":
                return None
        if not finite(tokens, at, subject.plural):
            return None
        self._add(waiting)
        return at

    def _is_between_commas(self, at: int, subject: Subject) -> bool:
        """Whether a participle stands here with all that belongs to it, up to a comma."""
        read = self._says.elided(at, subject) if is_participle(self._tokens, at) else None
        return read is not None and self._tokens[read.end].kind in ("comma", "and")

    def _insert(self, at: int, subject: Subject) -> tuple[list[Triple], int, bool] | None:
        """What stands behind a subject's comma: its facts, its end, and whether they hold however the sentence goes
        on."""
        tokens = self._tokens
        token = tokens[at]
        if token.lower in ("who", "which"):
            read = self._says.predicate(at + 1, subject, [], within=True)
            if read is not None and tokens[read.end].kind == "comma":
                return read.facts, read.end, True
            end = self._closing(at)
            return None if end is None else ([], end, False)
        if token.lower == "whose":
            return self._whose(at, subject)
        if token.lower in ("where", "whom") or tokens[at + 1].kind == "relative":
            end = self._closing(at)
            return None if end is None else ([], end, False)
        if is_participle(tokens, at):
            said: list[Triple] = []
            while (read := self._says.elided(at, subject)) is not None:
                said += read.facts
                at = read.end + 1
                if tokens[read.end].kind != "and" or not is_participle(tokens, at):
                    return said, read.end, False
            return None
        if token.kind == "preposition":
            _, end = tails(tokens, at)
            return None if end == at else ([], end, False)
        if token.kind == "adverb":
            return [], at + 1, False
        if token.lower == "or":
            phrase = tokens.noun_phrase(at + 1)
            return None if phrase is None else ([], phrase.end, False)
        return self._apposition(at, subject)

    def _apposition(self, at: int, subject: Subject) -> tuple[list[Triple], int, bool] | None:
        """"X, a Y …," and "X, the R of Y,": as if with "is"; what follows the Y within the commas is said of X."""
        tokens = self._tokens
        phrase = tokens.noun_phrase(at)
        if phrase is None or phrase.pronoun:
            return None
        said: list[Triple] = []
        if phrase.named and not phrase.determiner and phrase.core == phrase.end:
            said = self._says.of_subject(subject, "", phrase.text)
        elif phrase.determiner and not subject.plural:
            said = self._says.being(phrase, subject, False, [])
        end = phrase.end
        if tokens[end].kind == "and":
            more = tokens.noun_phrase(end + 1)
            if more is None or more.pronoun or tokens[more.end].kind != "comma":
                return None
            said, end = [], more.end
        if is_participle(tokens, end) or tokens[end].lower in ("who", "which", "that"):
            read = self._says.elided(end, subject) if is_participle(tokens, end) else (
                self._says.predicate(end + 1, subject, [], within=True))
            if read is None:
                return None
            said, end = [*said, *read.facts], read.end
        elif tokens[end].kind == "preposition":
            _, end = tails(tokens, end)
        return said, end, False

    def _whose(self, at: int, subject: Subject) -> tuple[list[Triple], int, bool] | None:
        tokens = self._tokens
        phrase = tokens.noun_phrase(at + 1)
        if phrase is not None and not phrase.pronoun and len(subject.names) == 1 and not phrase.determiner:
            name = f"{subject.names[0]}'s {phrase.text}"
            read = self._says.predicate(phrase.end, Subject((name,), name, phrase.end, phrase.plural), [], within=True)
            if read is not None and tokens[read.end].kind == "comma":
                return read.facts, read.end, True
        end = self._closing(at)
        return None if end is None else ([], end, False)

    def _closing(self, at: int) -> int | None:
        """The comma that ends a clause which is not understood: the only one with a verb behind it."""
        tokens = self._tokens
        ends = [i for i in range(at, len(tokens)) if tokens[i].kind == "comma" and finite(tokens, i + 1, plural=False)]
        return ends[0] if len(ends) == 1 else None

    def _behind(self, read: Read) -> int:
        """Reads ", who …", ", which …" and ", a Y," behind the last name of a predicate; the end of it."""
        tokens, end, last = self._tokens, read.end, read.last
        if tokens[end].kind != "comma" or last is None or last.end != end or last.core != last.end or last.dated or (
                last.determiner in OWNERS):
            return end
        subject = Subject((last.text,), last.text, end, last.plural, article=bool(last.determiner), named=last.named)
        if tokens[end + 1].lower in ("who", "which"):
            said = self._says.predicate(end + 2, subject, [], within=True)
            group = verb_group(tokens, end + 2)
            result = group is not None and not group.passive and any(verb in _RESULTS for _, verb in group.verbs)
            active = group is not None and bool(group.verbs) and not group.passive
            of_clause = active and tokens[end + 1].lower == "which"
            if said is None or result or of_clause:
                return end
            self._add(said.facts)
            return said.end
        phrase = tokens.noun_phrase(end + 1)
        if last.named and phrase is not None and phrase.determiner in ("a", "an", "the") and (
            tokens[phrase.end].kind in ("comma", "end")) and (
                phrase.determiner != "the" or phrase.core != phrase.end) and tokens[phrase.end + 1].kind != "and":
            self._add(self._says.being(phrase, subject, False, []))
            return phrase.end
        return end


    def _participle(self, at: int, subject: Subject) -> None:
        """A participle before its subject's clause: "Founded in 1901, the company …"."""
        read = self._says.elided(at, subject)
        if read is not None:
            self._add(read.facts)

    def _add(self, facts: list[Triple]) -> None:
        self.facts += self._says.usable(facts)


def is_participle_first(tokens: Tokens, at: int) -> bool:
    """Whether a sentence begins with a participle: "Founded in …"."""
    return at == 0 and tokens[at].may_be("participle") and tokens[at + 1].kind == "preposition"
