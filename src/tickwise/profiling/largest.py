"""The largest number that fits into a limit, where every try may be a dry run of many seconds."""

import math
from collections.abc import Callable


def largest_fitting(total_bytes: Callable[[int], int], limit_bytes: int, most: int) -> int:
    """The largest number from 1 to ``most`` whose total stays within the limit, to 2 %; 0 when none does.

    Every total may be a dry run, so the search guesses: where a power law through the two nearest numbers reaches the
    limit, and a little beyond a number that fits, to see soon that more does not. Totals must not fall as the number
    grows.
    """
    below, above = (1, total_bytes(1)), (most + 1, 0)  # largest that fits, smallest that does not; 0: not known
    if below[1] > limit_bytes:
        return 0
    before = below
    turn = 0
    while above[0] - below[0] > max(1, below[0] // 50):
        turn += 1
        if above[1]:
            guess = _meets(below, above, limit_bytes) if turn % 3 else math.sqrt(below[0] * above[0])
            if turn % 3 == 1:
                guess *= 1.01
        else:
            guess = min(_meets(before, below, limit_bytes) * 1.01, 4.0 * below[0]) if before != below else 4.0
        number = min(max(round(guess), below[0] + 1), above[0] - 1)
        found = number, total_bytes(number)
        if found[1] > limit_bytes:
            above = found
        else:
            before, below = below, found
    return below[0]


def largest_near(fits: Callable[[int], bool], guess: int, most: int) -> int:
    """The largest number from 1 to ``most`` that fits, exactly; 0 when none does. What is smaller than one that fits
    must fit too.

    Two calls if ``guess`` is right: it and its successor. Else ever larger steps away from it, then halving.
    """
    fitting, too_large, step = 0, most + 1, 1
    if fits(guess):
        fitting = guess
        while fitting < most and too_large > most:
            number = min(fitting + step, most)
            if fits(number):
                fitting, step = number, 2 * step
            else:
                too_large = number
    else:
        too_large = guess
        while too_large > 1 and not fitting:
            number = max(too_large - step, 1)
            if fits(number):
                fitting = number
            else:
                too_large, step = number, 2 * step
    while too_large - fitting > 1:
        number = (fitting + too_large) // 2
        if fits(number):
            fitting = number
        else:
            too_large = number
    return fitting


def _meets(one: tuple[int, int], other: tuple[int, int], limit: int) -> float:
    """Where the power law through two points (number, total) reaches the limit."""
    power = math.log(max(other[1], 1) / max(one[1], 1)) / math.log(other[0] / one[0])
    if power <= 0.01:
        return math.inf if limit > other[1] else float(other[0])
    return other[0] * math.exp(min(50.0, math.log(max(limit, 1) / max(other[1], 1)) / power))
