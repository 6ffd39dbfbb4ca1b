"""Classical programs for the generated jobs. Each tells what it does to a ``Tally``, in steps of its own kind.

What is counted: comparisons of letters, additions of digits, hash probes, characters that a regular expression is
given, and the bytes of the texts, keys and entries that these touch. Not counted: what the interpreter does around
them.
"""

import functools
import marshal
import re
import sys
import types
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tickwise.compare.cases import UNKNOWN, Case, one_error_away

_CONSTANTS, _SHOWN = 200, 40


@dataclass
class Tally:
    """Steps by kind, and bytes."""

    steps: Counter[str] = field(default_factory=Counter)
    bytes_read: int = 0
    bytes_written: int = 0

    def add(self, kind: str, n: int, n_bytes: int = 0) -> None:
        self.steps[kind] += n
        self.bytes_read += n_bytes

    @property
    def total(self) -> int:
        return self.steps.total()


class Program(Protocol):
    """A classical program. ``answer`` is the same with and without a tally."""

    name: str

    def answer(self, text: str, tally: Tally | None = None) -> str: ...

    def memory_bytes(self) -> int:
        """Its rules and tables; its code comes on top."""


def deep_size(value: Any, seen: set[int] | None = None) -> int:
    """Bytes of a table with all that it holds, each object once."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    size = sys.getsizeof(value)
    if isinstance(value, Mapping):
        size += sum(deep_size(k, seen) + deep_size(v, seen) for k, v in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        size += sum(deep_size(item, seen) for item in value)
    elif isinstance(value, re.Pattern):
        size += sys.getsizeof(value.pattern)
    return size


def code_bytes(program: Program) -> int:
    """Bytes of the compiled methods of a program."""
    return sum(len(marshal.dumps(method.__code__)) for method in vars(type(program)).values()
               if isinstance(method, types.FunctionType))


class Constant:
    """Always the same answer: what a contestant that has learnt nothing can do."""

    def __init__(self, training: Sequence[Case], development: Sequence[Case],
                 score: Callable[[str, Case], float]) -> None:
        """Of the commonest answers of the training the one that scores best on the development part."""
        answers = [answer for answer, _ in Counter(case.answer for case in training).most_common(_CONSTANTS)]
        tried = development[:_CONSTANTS]
        self.constant = max(answers, key=lambda answer: sum(score(answer, case) for case in tried))
        shown = self.constant if len(self.constant) <= _SHOWN else self.constant[: _SHOWN - 1] + "…"
        self.name = f"always “{shown}”"

    def answer(self, text: str, tally: Tally | None = None) -> str:
        return self.constant

    def memory_bytes(self) -> int:
        return deep_size(self.constant)


def _scan(pattern: re.Pattern[str], text: str, tally: Tally | None) -> re.Match[str] | None:
    found = pattern.search(text)
    if tally is not None:  # up to the end of the match, or through the whole text
        examined = len(text) if found is None else found.end()
        tally.add("characters examined", examined, examined)
    return found


class Adder:
    """Reads two numbers by its forms and adds them digit by digit."""

    name = "regular expression and addition"
    _MORE = (r"^(\d+) \+ (\d+)$", r"^(\d+) plus (\d+)$", r"^add (\d+) to (\d+)$", r"^the sum of (\d+) and (\d+)$",
             r"^(\d+) and (\d+) more$")

    def __init__(self, forms: Sequence[str] = (r"^(\d+)\+(\d+)$",)) -> None:
        self.forms = [re.compile(form) for form in forms]

    def answer(self, text: str, tally: Tally | None = None) -> str:
        for form in self.forms:
            found = _scan(form, text, tally)
            if found is not None:
                result = str(int(found[1]) + int(found[2]))
                if tally is not None:
                    tally.add("digit additions", max(len(found[1]), len(found[2])))
                    tally.bytes_written += len(result)
                return result
        return UNKNOWN

    def memory_bytes(self) -> int:
        return deep_size(self.forms)

    def edited(self) -> "tuple[Adder, str]":
        return Adder((*(form.pattern for form in self.forms), *self._MORE)), f"{len(self._MORE)} more forms of a sum"


class Sorter:
    """Python's own sort (Timsort) of a text of six letters."""

    name = "Timsort"

    def __init__(self, tidies: bool = False) -> None:
        self.tidies = tidies

    def answer(self, text: str, tally: Tally | None = None) -> str:
        if self.tidies:
            if tally is not None:
                tally.add("characters examined", len(text), len(text))
            text = "".join(letter for letter in text.upper() if letter.isalpha())
        if tally is None:
            return "".join(sorted(text))

        def compare(a: str, b: str) -> int:
            tally.add("comparisons", 1, 2)
            return (a > b) - (a < b)

        result = "".join(sorted(text, key=functools.cmp_to_key(compare)))
        tally.bytes_written += len(result)
        return result

    def memory_bytes(self) -> int:
        return 0

    def edited(self) -> "tuple[Sorter, str]":
        return Sorter(tidies=True), "drop what is no letter, take capitals"


class Table:
    """A hash table."""

    name = "hash table"

    def __init__(self, entries: Mapping[str, str], corrects: bool = False) -> None:
        self.entries, self.corrects = dict(entries), corrects

    def answer(self, text: str, tally: Tally | None = None) -> str:
        found = self._probe(text, tally)
        if found is None and self.corrects:
            near = (self._probe(other, tally) for other in one_error_away(text))
            found = next((value for value in near if value is not None), None)
        if tally is not None:
            tally.bytes_written += len(found or UNKNOWN)
        return UNKNOWN if found is None else found

    def _probe(self, key: str, tally: Tally | None) -> str | None:
        found = self.entries.get(key)
        if tally is not None:
            tally.add("hash probes", 1, len(key) + (0 if found is None else len(key) + len(found)))
        return found

    def memory_bytes(self) -> int:
        return deep_size(self.entries)

    def edited(self) -> "tuple[Table, str]":
        return Table(self.entries, corrects=True), "keys one typing error away are tried, too"


_MONTHS = {name: number for number, name in enumerate(
    ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
     "December"), start=1)}
_MONTH = "(" + "|".join(_MONTHS) + ")"


class Extractor:
    """Regular expressions for dates and addresses."""

    name = "regular expressions"
    _DATES = (r"(?P<y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)", rf"(?P<d>\d{{1,2}}) (?P<m>{_MONTH}) (?P<y>\d{{4}})")
    _MAILS = (r"(?P<n>[\w.]+)@(?P<h>[\w-]+)\.(?P<e>\w+)",)
    _MORE_DATES = (r"(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d\d)\b", r"(?P<m>\d{1,2})/(?P<d>\d{1,2})/(?P<y>\d{4})",
                   rf"(?P<m>{_MONTH}) (?P<d>\d{{1,2}})(?:st|nd|rd|th), (?P<y>\d{{4}})")
    _MORE_MAILS = (r"(?P<n>[\w.]+) at (?P<h>[\w-]+) dot (?P<e>\w+)",)

    def __init__(self, dates: Sequence[str] = _DATES, mails: Sequence[str] = _MAILS) -> None:
        self.dates, self.mails = [re.compile(form) for form in dates], [re.compile(form) for form in mails]

    def answer(self, text: str, tally: Tally | None = None) -> str:
        date, mail = (next((m for form in forms if (m := _scan(form, text, tally)) is not None), None)
                      for forms in (self.dates, self.mails))
        if date is None or mail is None:
            return UNKNOWN
        year = int(date["y"]) + (2000 if len(date["y"]) == 2 else 0)
        month = _MONTHS.get(date["m"]) or int(date["m"])
        result = f"{year}-{month:02}-{int(date['d']):02} {mail['n']}@{mail['h']}.{mail['e']}"
        if tally is not None:
            tally.bytes_written += len(result)
        return result

    def memory_bytes(self) -> int:
        return deep_size([self.dates, self.mails])

    def edited(self) -> "tuple[Extractor, str]":
        return Extractor((*self._DATES, *self._MORE_DATES), (*self._MAILS, *self._MORE_MAILS)), \
            f"{len(self._MORE_DATES)} more forms of a date, one of an address"
