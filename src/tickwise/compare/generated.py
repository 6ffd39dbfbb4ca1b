"""Jobs whose data are generated: adding, sorting, looking up, extracting. One training line in four is rephrased."""

import datetime
import random
from collections.abc import Callable

from tickwise.compare.cases import NEW, NOISY, SEEN, UNKNOWN, Case, Material, one_error

_REPHRASED = 0.25
_TRAINING = 30_000
_KEYS = 300
ABSENT = "not stored"
Maker = Callable[[random.Random, bool], Case]
"""Draws a case, in the plain form or in another one."""


def _material(make: Maker, n: int, seed: int, about: str) -> Material:
    """No new or rephrased case has a line in the training."""
    rng = random.Random(seed)
    plain = [make(rng, False) for _ in range(round((1 - _REPHRASED) * _TRAINING))]
    rephrased = [make(rng, True) for _ in range(_TRAINING - len(plain))]
    known = {case.text for case in (*plain, *rephrased)}
    fresh: dict[str, list[Case]] = {NEW: [], NOISY: []}
    for kind, cases in fresh.items():
        for _ in range(100 * n):
            case = make(rng, kind == NOISY)
            if len(cases) < n and case.text not in known:
                known.add(case.text)
                cases.append(case)
    training = [*plain, *rephrased]
    rng.shuffle(training)
    found = {SEEN: tuple(rng.sample(plain, n))} | {kind: tuple(drawn) for kind, drawn in fresh.items() if drawn}
    return Material(tuple(training), found, about)


def adding(n: int, seed: int) -> Material:
    """Sums of two numbers below 100."""
    return _material(_sum, n, seed, "two numbers below 100 to be added")


def _sum(rng: random.Random, rephrased: bool) -> Case:
    a, b = rng.randrange(100), rng.randrange(100)
    form = "{a}+{b}"
    if rephrased:
        form = rng.choice(("{a} + {b}", "{a} plus {b}", "add {b} to {a}", "the sum of {a} and {b}", "{a} and {b} more"))
    return Case(form.format(a=a, b=b), str(a + b))


def sorting(n: int, seed: int) -> Material:
    """Six letters of A, B and C (the job of minGPT's demonstration, of which there is a published model)."""
    return _material(_letters, n, seed, "six letters out of A, B and C to be sorted")


def _letters(rng: random.Random, rephrased: bool) -> Case:
    letters = [rng.choice("ABC") for _ in range(6)]
    answer = "".join(sorted(letters))
    if not rephrased:
        return Case("".join(letters), answer)
    joined = rng.choice((" ", ",", ", ", "")).join(letters)
    return Case(joined.lower() if rng.random() < 0.5 or joined.isalpha() else joined, answer)


def stored_table(seed: int) -> dict[str, str]:
    """Keys of six letters and their values of four digits."""
    rng = random.Random(seed)
    keys: dict[str, str] = {}
    while len(keys) < _KEYS:
        keys["".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(6))] = f"{rng.randrange(10_000):04}"
    return keys


def looking_up(n: int, seed: int) -> Material:
    """Stored keys, the same with a typing error, and keys that are not stored (whose answer is ``?``)."""
    table, rng = stored_table(seed), random.Random(seed + 1)
    keys = sorted(table)
    plain = [Case(key, table[key]) for key in keys]

    def noisy() -> Case:
        key = rng.choice(keys)
        return Case(one_error(key, rng), table[key])

    def absent() -> Case:
        return Case("".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(6)), UNKNOWN)

    lines = [*plain] * round(0.65 * _TRAINING / _KEYS)
    lines += [noisy() for _ in range(round(0.25 * _TRAINING))] + [absent() for _ in range(round(0.1 * _TRAINING))]
    rng.shuffle(lines)
    known = {case.text for case in lines}
    cases = {SEEN: tuple(rng.sample(plain, min(n, len(plain))))}
    for name, draw in ((NOISY, noisy), (ABSENT, absent)):
        fresh = {case.text: case for case in (draw() for _ in range(20 * n)) if case.text not in known}
        cases[name] = tuple(fresh.values())[:n]
    return Material(tuple(lines), cases, f"{_KEYS} keys of six letters, each with a value of four digits")


_FIRST = ("anna", "bob", "carla", "dan", "eva", "finn", "gita", "hugo", "ines", "jan", "kim", "lena", "max", "nora")
_HOSTS = ("mail", "post", "home", "work", "lab", "shop", "club", "city")
_ENDS = ("com", "org", "net", "de", "fr")
_PLAIN = ("Meet on {date}, write to {mail}.", "The report is due on {date}; send it to {mail}.",
          "From {date} on please use {mail}.", "{mail} booked a room for {date}.")
_OTHER = ("Shall we say {date}? My address is {mail}", "pls answer {mail} before {date} thx",
          "{date} works for me, ask {mail}", "tickets for {date} came from {mail}")


def extracting(n: int, seed: int) -> Material:
    """A date (as 2024-03-12 or 12 March 2024) and an e-mail address to be found in a sentence; rephrased: as 12.3.24,
    3/12/2024, March 12th, 2024, and as anna at mail dot com, in other sentences."""
    return _material(_message, n, seed, "the date and the address of a message to be found")


def _message(rng: random.Random, rephrased: bool) -> Case:
    day = datetime.date(2020, 1, 1) + datetime.timedelta(days=rng.randrange(3650))
    name, host, end = f"{rng.choice(_FIRST)}{rng.randrange(100)}", rng.choice(_HOSTS), rng.choice(_ENDS)
    answer = f"{day.isoformat()} {name}@{host}.{end}"
    month = day.strftime("%B")
    if rephrased:
        date = rng.choice((f"{day.day}.{day.month}.{day.year % 100:02}", f"{day.month}/{day.day}/{day.year}",
                           f"{month} {day.day}{_ordinal(day.day)}, {day.year}"))
        mail = rng.choice((f"{name} at {host} dot {end}", f"{name}@{host}.{end}"))
        return Case(rng.choice(_OTHER).format(date=date, mail=mail), answer)
    date = rng.choice((day.isoformat(), f"{day.day} {month} {day.year}"))
    return Case(rng.choice(_PLAIN).format(date=date, mail=f"{name}@{host}.{end}"), answer)


def _ordinal(day: int) -> str:
    return "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
