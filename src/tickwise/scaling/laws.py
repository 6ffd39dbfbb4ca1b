"""Laws of the loss: what they predict and how that changes with each coefficient.

Shapes: S sets of coefficients, P coefficients in a set, n runs. Inside, each power law is written around the middle of
the runs (log N minus its mean), because its factor and its exponent cannot be told apart far from the data.
"""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Protocol

import numpy

from tickwise.scaling.minimise import Floats


class Law(Protocol):
    """A law on the runs that it was made for. ``theta`` are the inner coefficients."""

    names: ClassVar[tuple[str, ...]]

    def log_losses(self, theta_SP: Floats) -> tuple[Floats, list[Floats]]:
        """log L of every run (S, n) and its derivative by each inner coefficient (P times (S, n))."""

    def starts(self, losses_n: Floats) -> Floats:
        """Inner coefficients to start from (S, P)."""

    def coefficients(self, theta_SP: Floats) -> Floats:
        """The coefficients as published (S, P), in the order of ``names``; infinite where they are too large for a
        number."""


@dataclass(frozen=True)
class Parametric:
    """L(N, D) = E + A/N^α + B/D^β (Hoffmann et al. 2022, equation 2), as the logarithm of a sum of exponentials.

    Inner coefficients: log of the N term and of the D term in the middle of the runs, log E, α, β.
    """

    log_n: Floats
    log_d: Floats
    names: ClassVar[tuple[str, ...]] = ("E", "A", "B", "alpha", "beta")

    @property
    def middle(self) -> tuple[float, float]:
        return float(self.log_n.mean()), float(self.log_d.mean())

    def log_losses(self, theta_SP: Floats) -> tuple[Floats, list[Floats]]:
        a, b, e, alpha, beta = (theta_SP[:, index, None] for index in range(5))
        n, d = self.log_n - self.middle[0], self.log_d - self.middle[1]
        with numpy.errstate(over="ignore", invalid="ignore", divide="ignore"):
            term_n, term_d, term_e = numpy.exp(a - alpha * n), numpy.exp(b - beta * d), numpy.exp(e)
            total = term_n + term_d + term_e
            share_n, share_d = term_n / total, term_d / total
            return numpy.log(total), [share_n, share_d, 1 - share_n - share_d, -n * share_n, -d * share_d]

    def starts(self, losses_n: Floats) -> Floats:
        """A grid over exponents and over the shares of the loss that the terms have in the middle of the runs."""
        low, middle = numpy.log(losses_n.min()), numpy.log(numpy.median(losses_n))
        exponents, shares, floors = (0.1, 0.3, 0.6, 1.0), (0.05, 0.3), (0.3, 0.6, 0.9)
        return numpy.array([
            (middle + numpy.log(share_n), middle + numpy.log(share_d), low + numpy.log(floor), alpha, beta)
            for alpha, beta, share_n, share_d, floor in product(exponents, exponents, shares, shares, floors)
        ])

    def coefficients(self, theta_SP: Floats) -> Floats:
        a, b, e, alpha, beta = theta_SP.T
        with numpy.errstate(over="ignore"):
            return numpy.stack([numpy.exp(e), numpy.exp(a + alpha * self.middle[0]),
                                numpy.exp(b + beta * self.middle[1]), alpha, beta], axis=1)


def parametric_loss(coefficients_S5: Floats, n: Floats | float, d: Floats | float) -> Floats:
    """L(N, D) in nats; coefficients E, A, B, α, β (…, 5) against sizes and tokens that broadcast with (…)."""
    e, a, b, alpha, beta = numpy.moveaxis(numpy.asarray(coefficients_S5, dtype=numpy.float64), -1, 0)
    return numpy.asarray(e + a * numpy.power(n, -alpha) + b * numpy.power(d, -beta))


@dataclass(frozen=True)
class KaplanJoint:
    """L(N, D) = [(N_c/N)^(α_N/α_D) + D_c/D]^α_D (Kaplan et al. 2020, equation 1.5). It has no floor.

    Inner coefficients: the logs of (N_c/N)^α_N and (D_c/D)^α_D in the middle of the runs, α_N, log α_D.
    """

    log_n: Floats
    log_d: Floats
    names: ClassVar[tuple[str, ...]] = ("N_c", "D_c", "alpha_N", "alpha_D")

    @property
    def middle(self) -> tuple[float, float]:
        return float(self.log_n.mean()), float(self.log_d.mean())

    def log_losses(self, theta_SP: Floats) -> tuple[Floats, list[Floats]]:
        at_n, at_d, alpha_n, log_alpha_d = (theta_SP[:, index, None] for index in range(4))
        n, d = self.log_n - self.middle[0], self.log_d - self.middle[1]
        with numpy.errstate(over="ignore", invalid="ignore", divide="ignore"):
            alpha_d = numpy.exp(log_alpha_d)
            by_n, by_d = at_n - alpha_n * n, at_d - alpha_d * d
            top = numpy.logaddexp(by_n / alpha_d, by_d / alpha_d)
            share_n = numpy.exp(by_n / alpha_d - top)
            share_d = 1 - share_n
            by_alpha_d = top - (share_n * by_n + share_d * by_d) / alpha_d - share_d * d
            return alpha_d * top, [share_n, share_d, -n * share_n, by_alpha_d * alpha_d]

    def starts(self, losses_n: Floats) -> Floats:
        middle = float(numpy.log(numpy.median(losses_n)))
        offsets, exponents = (-1.0, -0.3, 0.0), (0.03, 0.07, 0.15, 0.4)
        return numpy.array([(middle + first, middle + second, alpha_n, numpy.log(alpha_d))
                            for first, second, alpha_n, alpha_d in product(offsets, offsets, exponents, exponents)])

    def coefficients(self, theta_SP: Floats) -> Floats:
        at_n, at_d, alpha_n, log_alpha_d = theta_SP.T
        with numpy.errstate(over="ignore", divide="ignore", invalid="ignore"):
            alpha_d = numpy.exp(log_alpha_d)
            return numpy.stack([numpy.exp(at_n / alpha_n + self.middle[0]), numpy.exp(at_d / alpha_d + self.middle[1]),
                                alpha_n, alpha_d], axis=1)


@dataclass(frozen=True)
class DataConstrained:
    """What repeated tokens and surplus parameters are still worth (Muennighoff et al. 2023, equations 5 to 7).

    D' = U_D + U_D·R*_D·(1 − exp(−R_D/R*_D)) with U_D unique tokens and R_D repetitions of them, N' likewise with
    U_N = min(N, the size that U_D tokens are optimal for); the loss is the parametric law at (N', D'). All coefficients
    are fitted together: a parametric law of the runs without repetition alone takes surplus parameters at their full
    worth, and leaves the other two nothing to say of them. Inner coefficients: those of ``Parametric`` with log α and
    log β, log R*_D, log R*_N. ``start`` (E, A, B, α, β) is the law to start from.
    """

    log_n: Floats
    log_d: Floats
    log_unique: Floats
    start: Floats
    names: ClassVar[tuple[str, ...]] = (*Parametric.names, "R_D", "R_N")

    @property
    def middle(self) -> tuple[float, float]:
        return float(self.log_n.mean()), float(self.log_d.mean())

    def log_losses(self, theta_SP: Floats) -> tuple[Floats, list[Floats]]:
        a, b, e, log_alpha, log_beta, log_r_d, log_r_n = (theta_SP[:, index, None] for index in range(7))
        middle_n, middle_d = self.middle
        with numpy.errstate(all="ignore"):
            alpha, beta = numpy.exp(log_alpha), numpy.exp(log_beta)
            unique_d = numpy.minimum(self.log_unique, self.log_d)
            # On the optimal line α·A·N^−α = β·B·D^−β.
            optimal_n = (log_alpha - log_beta + a - b + beta * (unique_d - middle_d)) / alpha + middle_n
            unique_n = numpy.minimum(self.log_n, optimal_n)
            d, by_r_d, _ = _worth(unique_d, self.log_d, log_r_d)
            n, by_r_n, by_unique = _worth(unique_n, self.log_n, log_r_n)
            by_optimal = numpy.where(optimal_n < self.log_n, by_unique, 0.0)
            term_n, term_d = numpy.exp(a - alpha * (n - middle_n)), numpy.exp(b - beta * (d - middle_d))
            total = term_n + term_d + numpy.exp(e)
            share_n, share_d = term_n / total, term_d / total
            optimal_by_alpha = 1 - alpha * (optimal_n - middle_n)  # times α², that is by log α and times α
            optimal_by_beta = beta * (unique_d - middle_d) - 1
            return numpy.log(total), [
                share_n * (1 - by_optimal), share_d + share_n * by_optimal, 1 - share_n - share_d,
                share_n * (-alpha * (n - middle_n) - by_optimal * optimal_by_alpha),
                -share_d * beta * (d - middle_d) - share_n * by_optimal * optimal_by_beta,
                -share_d * beta * by_r_d, -share_n * alpha * by_r_n,
            ]

    def starts(self, losses_n: Floats) -> Floats:
        e, a, b, alpha, beta = self.start
        base = (numpy.log(a) - alpha * self.middle[0], numpy.log(b) - beta * self.middle[1],
                numpy.log(max(e, 1e-3 * losses_n.min())), numpy.log(alpha), numpy.log(beta))
        return numpy.array([(*base, *numpy.log(pair)) for pair in product((1.0, 4.0, 15.0, 60.0), repeat=2)])

    def coefficients(self, theta_SP: Floats) -> Floats:
        a, b, e, log_alpha, log_beta, log_r_d, log_r_n = theta_SP.T
        with numpy.errstate(over="ignore", invalid="ignore"):
            alpha, beta = numpy.exp(log_alpha), numpy.exp(log_beta)
            return numpy.stack([numpy.exp(e), numpy.exp(a + alpha * self.middle[0]),
                                numpy.exp(b + beta * self.middle[1]), alpha, beta, numpy.exp(log_r_d),
                                numpy.exp(log_r_n)], axis=1)


def _worth(log_unique: Floats, log_all: Floats, log_half_life: Floats) -> tuple[Floats, Floats, Floats]:
    """log of U·(1 + R*·(1 − exp(−R/R*))) with R = all/U − 1, and its derivatives by log R* and by log U."""
    half_life = numpy.exp(log_half_life)
    repeats = numpy.expm1(log_all - log_unique)
    left = numpy.exp(-repeats / half_life)
    gain = half_life * (1 - left)
    return (log_unique + numpy.log1p(gain), (gain - repeats * left) / (1 + gain),
            1 - (1 + repeats) * left / (1 + gain))
