"""Hashes of many short spans of one text at once, by numpy."""

import functools

import numpy as np
import numpy.typing as npt

UInt64 = npt.NDArray[np.uint64]

_MULTIPLIER = 0x9E3779B97F4A7C15 | 1  # odd, so it has an inverse modulo 2^64
_INVERSE = pow(_MULTIPLIER, -1, 1 << 64)


def mix(values: UInt64) -> UInt64:
    """A bijection of 64-bit integers that spreads every bit (the finaliser of splitmix64)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


@functools.lru_cache(maxsize=2)
def _powers(length: int) -> tuple[UInt64, UInt64]:
    factors = np.full(length, _MULTIPLIER, dtype=np.uint64)
    inverses = np.full(length, _INVERSE, dtype=np.uint64)
    factors[0] = inverses[0] = 1
    # Products wrap modulo 2^64, which is the arithmetic wanted here.
    return np.multiply.accumulate(factors), np.multiply.accumulate(inverses)


def powers(length: int) -> tuple[UInt64, UInt64]:
    """(p^0 … p^(length-1)) and the inverses, modulo 2^64."""
    rounded = 1 << max(16, (length - 1).bit_length())
    forward, backward = _powers(rounded)
    return forward[:length], backward[:length]


def span_hashes(symbols: UInt64, starts: npt.NDArray[np.int64]) -> UInt64:
    """Hash of each span of ``symbols`` from one start to the next (the last ends at the end of ``symbols``).

    symbols: (n,) 64-bit values that already look random; zeros at the end of a span do not change its hash.
    starts: (k,) increasing offsets. Returns (k,), equal for equal spans wherever they stand: the polynomial
    sum of symbols[i] p^(i - start) modulo 2^64, mixed. Two different spans agree with probability about 2^-64.
    """
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    forward, backward = powers(len(symbols))
    sums = np.add.reduceat(symbols * forward, starts)
    sums *= backward[starts]
    return mix(sums)
