"""Jobs whose data are generated: adding, sorting, looking up, extracting. Training texts have the plain form alone."""

import datetime
import random
from collections.abc import Callable, Hashable
from string import ascii_lowercase
from typing import Any

from tickwise.compare.cases import NEW, NOISY, SEEN, UNKNOWN, Case, Material, drawn, one_error

_TRAINING = 30_000
_CHANGE_TRAINING = 7_500
_KEYS = 300
_PARTS = {"training": 0.7, "development": 0.05, "test": 0.25}
_MOST_DRAWS = 2 * _TRAINING
ABSENT = "not stored"
Ask = Callable[[Any, random.Random], Case]


def _material(draw: Callable[[random.Random], Any], identity: Callable[[Any], Hashable], plain: Ask, other: Ask, n: int,
              seed: int, about: str) -> Material:
    """Questions that ``draw`` makes, in the plain form and in another one. What is asked about (its ``identity``) is in
    one part only, whatever the form."""
    rng = random.Random(seed)
    part_of: dict[Hashable, str] = {}
    items: dict[str, list[Any]] = {part: [] for part in _PARTS}
    wanted = {"training": _TRAINING, "development": n, "test": n}
    for _ in range(_MOST_DRAWS):
        item = draw(rng)
        key = identity(item)
        is_new = key not in part_of
        part = part_of.setdefault(key, rng.choices(tuple(_PARTS), tuple(_PARTS.values()))[0])
        if len(items[part]) < wanted[part] and (is_new or part == "training"):
            items[part].append(item)
        if all(len(items[part]) == most for part, most in wanted.items()):
            break
    training = [plain(item, rng) for item in items["training"]]
    return Material(
        training=tuple(training), development=tuple(plain(item, rng) for item in items["development"]),
        cases={SEEN: drawn(list(dict.fromkeys(training)), n, rng),
               NEW: tuple(plain(item, rng) for item in items["test"]),
               NOISY: tuple(other(item, rng) for item in items["test"])},
        change_training=tuple(other(item, rng) for item in items["training"][:_CHANGE_TRAINING]),
        change_development=tuple(other(item, rng) for item in items["development"]), about=about)


def adding(n: int, seed: int) -> Material:
    """Sums of two numbers below 100. Held out are pairs of numbers, in either order and in every form."""
    return _material(lambda rng: (rng.randrange(100), rng.randrange(100)), lambda pair: tuple(sorted(pair)),
                     lambda pair, rng: _sum(pair, "{a}+{b}"), lambda pair, rng: _sum(pair, rng.choice(_SUMS)),
                     n, seed, "two numbers below 100 to be added")


_SUMS = ("{a} + {b}", "{a} plus {b}", "add {b} to {a}", "the sum of {a} and {b}", "{a} and {b} more")


def _sum(pair: tuple[int, int], form: str) -> Case:
    a, b = pair
    return Case(form.format(a=a, b=b), str(a + b))


def sorting(n: int, seed: int) -> Material:
    """Six letters of A, B and C (the job of minGPT's demonstration, of which there is a published model). There are 729
    such texts: some 180 are held out."""
    return _material(lambda rng: "".join(rng.choice("ABC") for _ in range(6)), lambda letters: letters,
                     lambda letters, rng: Case(letters, "".join(sorted(letters))), _letters_otherwise, n, seed,
                     "six letters out of A, B and C to be sorted")


def _letters_otherwise(letters: str, rng: random.Random) -> Case:
    joined = rng.choice((" ", ",", ", ", "")).join(letters)
    return Case(joined.lower() if rng.random() < 0.5 or joined.isalpha() else joined, "".join(sorted(letters)))


def stored_table(seed: int) -> dict[str, str]:
    """Keys of six letters and their values of four digits."""
    rng = random.Random(seed)
    keys: dict[str, str] = {}
    while len(keys) < _KEYS:
        keys[_key(rng)] = f"{rng.randrange(10_000):04}"
    return keys


def _key(rng: random.Random) -> str:
    return "".join(rng.choice(ascii_lowercase) for _ in range(6))


def looking_up(n: int, seed: int) -> Material:
    """Stored keys, which all are seen, the same with a typing error, and keys that are not stored (answer ``?``)."""
    table, rng = stored_table(seed), random.Random(seed + 1)
    plain = [Case(key, table[key]) for key in sorted(table)]
    used = set(table)

    def fresh(make: Callable[[], Case]) -> Case:
        while (case := make()).text in used:
            pass
        used.add(case.text)
        return case

    def absent() -> Case:
        return fresh(lambda: Case(_key(rng), UNKNOWN))

    def noisy(case: Case) -> Case:
        return fresh(lambda: Case(one_error(case.text, rng), case.answer))

    seen = drawn(plain, n, rng)
    cases = {SEEN: seen, NOISY: tuple(map(noisy, seen)), ABSENT: tuple(absent() for _ in range(n))}
    development = drawn(plain, n, rng)
    change_development = tuple(map(noisy, development))
    held_out = used - set(table)
    change_training = [Case(one_error(case.text, rng), case.answer) for case in plain * (_CHANGE_TRAINING // _KEYS)]
    lines = plain * round(0.9 * _TRAINING / _KEYS) + [absent() for _ in range(round(0.1 * _TRAINING))]
    rng.shuffle(lines)
    return Material(
        # As many keys that are not stored as the training has: a model that has learnt the keys expects no others.
        tuple(lines), (*development, *(absent() for _ in range(n // 10))), cases,
        tuple(case for case in change_training if case.text not in held_out), change_development,
        f"{_KEYS} keys of six letters, each with a value of four digits; with a typing error, the value that was meant")


_FIRST = ("anna", "bob", "carla", "dan", "eva", "finn", "gita", "hugo", "ines", "jan", "kim", "lena", "max", "nora")
_HOSTS = ("mail", "post", "home", "work", "lab", "shop", "club", "city")
_ENDS = ("com", "org", "net", "de", "fr")
_PLAIN = ("Meet on {date}, write to {mail}.", "The report is due on {date}; send it to {mail}.",
          "From {date} on please use {mail}.", "{mail} booked a room for {date}.")
_OTHER = ("Shall we say {date}? My address is {mail}", "pls answer {mail} before {date} thx",
          "{date} works for me, ask {mail}", "tickets for {date} came from {mail}")


def extracting(n: int, seed: int) -> Material:
    """A date (as 2024-03-12 or 12 March 2024) and an e-mail address to be found in a sentence; rephrased: as 12.3.24,
    3/12/2024, March 12th, 2024, and as anna at mail dot com, in other sentences. Held out are dates with addresses."""
    return _material(_date_and_address, lambda item: item, _message, _message_otherwise, n, seed,
                     "the date and the address of a message to be found")


def _date_and_address(rng: random.Random) -> tuple[datetime.date, str, str, str]:
    return (datetime.date(2020, 1, 1) + datetime.timedelta(days=rng.randrange(3650)),
            f"{rng.choice(_FIRST)}{rng.randrange(100)}", rng.choice(_HOSTS), rng.choice(_ENDS))


def _message(item: tuple[datetime.date, str, str, str], rng: random.Random) -> Case:
    day, name, host, end = item
    mail = f"{name}@{host}.{end}"
    date = rng.choice((day.isoformat(), f"{day.day} {day.strftime('%B')} {day.year}"))
    return Case(rng.choice(_PLAIN).format(date=date, mail=mail), f"{day.isoformat()} {mail}")


def _message_otherwise(item: tuple[datetime.date, str, str, str], rng: random.Random) -> Case:
    day, name, host, end = item
    date = rng.choice((f"{day.day}.{day.month}.{day.year % 100:02}", f"{day.month}/{day.day}/{day.year}",
                       f"{day.strftime('%B')} {day.day}{_ordinal(day.day)}, {day.year}"))
    mail = rng.choice((f"{name} at {host} dot {end}", f"{name}@{host}.{end}"))
    return Case(rng.choice(_OTHER).format(date=date, mail=mail), f"{day.isoformat()} {name}@{host}.{end}")


def _ordinal(day: int) -> str:
    return "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
