"""All laws of one table of runs, with intervals and with warnings where the runs cannot say enough."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from tickwise.core.config import read_json
from tickwise.core.console import format_number
from tickwise.core.errors import ConfigError, DataError
from tickwise.core.paths import write_text_atomic
from tickwise.scaling.approaches import Allocation, Parabola, PowerLaw, best_so_far_law, envelope, iso_flop, same_sizes
from tickwise.scaling.fitting import Fit, bootstrap_counts, fit_law, percentile_interval, standard_error
from tickwise.scaling.laws import DataConstrained, KaplanJoint, Parametric
from tickwise.scaling.minimise import Floats
from tickwise.scaling.runs import FLOPS_PER_PARAMETER_AND_TOKEN, Runs, list_excluded

_REPEATED = 0.01
_WORST_CONDITION = 1e4
_FEW_AGREEING = 0.05
FORMAT = "tickwise-scaling-law-1"


@dataclass(frozen=True)
class Study:
    """What the runs say. Parts that they say nothing about are ``None``, and ``warnings`` says why."""

    runs: Runs
    parametric: Fit
    kaplan: Fit | None
    power_laws: tuple[PowerLaw, ...]
    envelope: Allocation | None
    iso_flop: Allocation | None
    parabolas: tuple[Parabola, ...]
    data_constrained: Fit | None
    warnings: tuple[str, ...]

    @property
    def a(self) -> float:
        """Exponent of the optimal size over compute, β/(α + β)."""
        return _allocation_exponent(self.parametric.values[None])[0]

    @property
    def a_draws(self) -> Floats:
        return _allocation_exponent(self.parametric.resampled)


def _allocation_exponent(coefficients_S5: Floats) -> Floats:
    alpha, beta = coefficients_S5[:, 3], coefficients_S5[:, 4]
    return beta / (alpha + beta)


def study(runs: Runs, resamples: int = 1000, seed: int = 1) -> Study:
    """Fit every law. ``DataError`` with fewer runs than the parametric law has coefficients."""
    log_n, log_d = numpy.log(runs.parameters), numpy.log(runs.tokens)
    law = Parametric(log_n, log_d)
    if len(runs) < len(law.names):
        raise DataError(f"{len(runs)} runs cannot determine the {len(law.names)} coefficients of L(N, D) = E + A/N^α + "
                        f"B/D^β; add runs of other sizes and token counts")
    counts = bootstrap_counts(len(runs), resamples, seed)
    parametric = fit_law(law, runs.losses, "L(N, D) = E + A/N^α + B/D^β", counts)
    if endless := _not_finite(parametric):
        raise DataError(f"the runs do not determine L(N, D) = E + A/N^α + B/D^β: {endless} grows beyond all numbers; "
                        "add runs of other sizes and token counts")
    kaplan = fit_law(KaplanJoint(log_n, log_d), runs.losses, "Kaplan's L(N, D)", counts)
    candidates = [best_so_far_law(of, x, runs.losses, counts) for of, x in
                  (("parameters", runs.parameters), ("tokens", runs.tokens), ("flops", runs.flops))]
    by_envelope = envelope(runs, resamples, seed)
    by_parabolas, parabolas = iso_flop(runs, counts)
    warnings = [*_what_is_missing(runs, by_envelope, by_parabolas), *_unidentified(runs, parametric)]
    if endless := _not_finite(kaplan):
        warnings.append(f"Kaplan's L(N, D): the runs cannot identify {endless}, which grows beyond all numbers")
    warnings += _wide_exponents(kaplan, by_envelope, by_parabolas, candidates)
    if kaplan.failed_draws:
        warnings.append(f"Kaplan's L(N, D): {_left_out(kaplan)}")
    data_constrained = None
    if runs.unique_tokens is not None:
        data_constrained = _fit_data_constrained(runs, counts, warnings)
    return Study(runs, parametric, kaplan, tuple(law for law in candidates if law is not None), by_envelope,
                 by_parabolas, tuple(parabolas), data_constrained, tuple(warnings))


def _fit_data_constrained(runs: Runs, counts: Floats, warnings: list[str]) -> Fit | None:
    """All coefficients of the data-constrained law, from the parametric law of the runs that repeat nothing."""
    unique = runs.unique_tokens
    assert unique is not None
    if numpy.isnan(unique).any():
        raise DataError(f"unique tokens are missing in {int(numpy.isnan(unique).sum())} of {len(runs)} runs; give them "
                        "for every run, or leave the column out")
    once = runs.tokens <= unique * (1 + _REPEATED)
    if once.all():
        warnings.append("data-constrained law: no run repeats its data, so there is nothing to fit")
        return None
    if once.sum() < len(Parametric.names):
        warnings.append(f"data-constrained law: {int(once.sum())} runs without repetition are too few for its "
                        f"{len(Parametric.names)} other coefficients")
        return None
    if len(runs) < len(DataConstrained.names):
        warnings.append(f"data-constrained law: {len(runs)} runs are too few for its {len(DataConstrained.names)} "
                        "coefficients")
        return None
    single = runs.take(once)
    base = fit_law(Parametric(numpy.log(single.parameters), numpy.log(single.tokens)), single.losses,
                   "runs without repetition", counts[:0, : len(single)])
    if not (base.values[1:] > 0).all():
        warnings.append("data-constrained law: the loss of the runs without repetition does not fall with both "
                        "parameters and tokens")
        return None
    law = DataConstrained(numpy.log(runs.parameters), numpy.log(runs.tokens), numpy.log(unique), base.values)
    fit = fit_law(law, runs.losses, "the data-constrained law", counts)
    for name in ("R_D", "R_N"):
        found = percentile_interval(fit.draws(name))
        if fit.value(name) > 1e4 or (found is not None and found[1] > 20 * found[0]):
            warnings.append(f"data-constrained law: the runs cannot identify {name}" + _range(found))
    return fit


def _not_finite(fit: Fit) -> str:
    """Names of the coefficients that are too large for a number."""
    return " and ".join(name for name in fit.names if not math.isfinite(fit.value(name)))


def _left_out(fit: Fit) -> str:
    return f"{fit.failed_draws} bootstrap resamples did not converge to finite coefficients and are left out"


def _what_is_missing(runs: Runs, by_envelope: Allocation | None, by_parabolas: Allocation | None) -> list[str]:
    lines = list_excluded(runs.excluded)
    if by_envelope is None:
        lines.append("approach 1 (envelope): needs at least three sizes with two or more runs each, whose curves "
                     "overlap")
    if by_parabolas is None:
        lines.append("approach 2 (parabolas): needs at least three groups of equal compute with four sizes each, whose "
                     "minimum lies inside")
    if len(set(runs.losses)) < len(runs) / 2:
        lines.append(f"{len(runs)} runs have only {len(set(runs.losses))} different losses; are they rounded?")
    return lines


def _unidentified(runs: Runs, fit: Fit) -> list[str]:
    """Warnings where the runs cannot tell the coefficients of the parametric law apart."""
    lines = []
    n_sizes, n_lengths = same_sizes(runs.parameters).max() + 1, same_sizes(runs.tokens).max() + 1
    for name, count, what in (("A and alpha", n_sizes, "sizes"), ("B and beta", n_lengths, "token counts")):
        if count < 3:
            lines.append(f"the runs cannot identify {name}: they have {count} different {what}, and an exponent beside "
                         "a floor needs at least 3")
    if len(runs) == len(fit.names):
        lines.append(f"{len(runs)} runs for {len(fit.names)} coefficients: the law goes through every run, and nothing "
                     "is left to judge it by")
    if fit.condition > _WORST_CONDITION:
        names = ", ".join(fit.weakest) or "some coefficients"
        lines.append(f"the runs cannot tell {names} apart: condition number {fit.condition:.1e}; vary parameters and "
                     "tokens independently and over a wider range")
    for name in ("E", "alpha", "beta"):
        value = fit.value(name)
        wide = _wide(name, value, fit.draws(name))
        if name != "E" and value <= 0:
            lines.append(f"{name} is {format_number(value)}: the loss does not fall with more of it in these runs")
        elif wide:
            lines += wide
        elif value < 1e-6:
            lines.append(f"the runs cannot identify {name}: the fit takes it to zero")
    if fit.agreeing_starts < _FEW_AGREEING * fit.n_starts:
        lines.append(f"only {fit.agreeing_starts} of {fit.n_starts} starts reach the best objective")
    if fit.failed_draws:
        lines.append(_left_out(fit))
    return lines


def _wide_exponents(kaplan: Fit, by_envelope: Allocation | None, by_parabolas: Allocation | None,
                    power_laws: Sequence[PowerLaw | None]) -> list[str]:
    """Warnings of the other laws' exponents."""
    lines = []
    for name in ("alpha_N", "alpha_D"):
        lines += _wide(f"Kaplan's {name}", kaplan.value(name), kaplan.draws(name))
    for what, found in (("approach 1's exponent a", by_envelope), ("approach 2's exponent a", by_parabolas)):
        if found is not None:
            lines += _wide(what, found.a, found.a_draws)
    for law in power_laws:
        if law is not None:
            lines += _wide(f"the exponent of L({law.of})", law.exponent, law.exponent_draws)
    return lines


def _wide(what: str, value: float, draws: Floats) -> list[str]:
    """A line where the interval is wider than the coefficient itself."""
    found = percentile_interval(draws)
    if found is None or found[1] - found[0] <= abs(value):
        return []
    return [f"the runs cannot identify {what} = {format_number(value)}{_range(found)}"]


def _range(found: tuple[float, float] | None) -> str:
    if found is None:
        return ""
    return f": 95 % of the resamples lie between {format_number(found[0])} and {format_number(found[1])}"


# --- as JSON ---


def as_json(result: Study) -> dict[str, Any]:
    """Everything but the figures, JSON-ready: what is infinite or undefined is ``None``. What ``read_law`` needs is in
    it."""
    runs = result.runs
    found: dict[str, Any] = _finite({
        "format": FORMAT,
        "runs": len(runs),
        "vocab_size": runs.vocab_size,
        "excluded": [dataclasses.asdict(item) | {"row": item.row or None} for item in runs.excluded],
        "range": {name: [float(values.min()), float(values.max())] for name, values in
                  (("parameters", runs.parameters), ("tokens", runs.tokens), ("flops", runs.flops),
                   ("loss", runs.losses))},
        "parametric": _fit_json(result.parametric) | {
            "a": _with_interval(result.a, result.a_draws),
            "b": _with_interval(1 - result.a, 1 - result.a_draws),
            "draws": [[float(f"{value:.8g}") for value in draw] for draw in result.parametric.resampled],
            "residuals_log": [float(f"{value:.5g}") for value in result.parametric.residuals],
        },
        "envelope": _allocation_json(result.envelope),
        "iso_flop": _allocation_json(result.iso_flop),
        "parabolas": [
            {"flops": p.flops, "runs": len(p.members), "best_parameters": p.best_size, "best_loss": p.best_loss,
             "minimum_inside": p.inside} for p in result.parabolas
        ],
        "kaplan": None if result.kaplan is None else _fit_json(result.kaplan),
        "power_laws": {law.of: {"exponent": _with_interval(law.exponent, law.exponent_draws),
                                "critical": law.critical, "runs": len(law.used)} for law in result.power_laws},
        "data_constrained": None if result.data_constrained is None else _fit_json(result.data_constrained),
        "warnings": list(result.warnings),
    })
    return found


def _finite(value: Any) -> Any:
    """The same with ``None`` in place of numbers that JSON does not have, at any depth."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_interval(value: float, draws: Floats) -> dict[str, Any]:
    return {"value": float(value), "stderr": standard_error(draws), "interval_95": percentile_interval(draws)}


def _fit_json(fit: Fit) -> dict[str, Any]:
    return {
        "coefficients": {name: _with_interval(fit.value(name), fit.draws(name)) for name in fit.names},
        "objective": fit.objective, "resamples": len(fit.resampled), "resamples_failed": fit.failed_draws,
        "starts": fit.n_starts, "starts_agreeing": fit.agreeing_starts, "condition": fit.condition,
        "residual_rms": float(numpy.sqrt((fit.residuals**2).mean())),
    }


def _allocation_json(found: Allocation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"a": _with_interval(found.a, found.a_draws), "b": _with_interval(1 - found.a, 1 - found.a_draws),
            "log_factor": found.log_factor, "optima": len(found.sizes)}


def write_law(path: Path, found: dict[str, Any]) -> None:
    """``OutputError`` when ``path`` cannot be written."""
    write_text_atomic(path, json.dumps(found, indent=1, allow_nan=False) + "\n")


# --- the law as plans use it ---


@dataclass(frozen=True)
class FittedLaw:
    """The parametric law of a study: coefficients E, A, B, α, β, their resamples, and the residuals of its runs."""

    coefficients: Floats
    draws: Floats
    residuals: Floats
    largest_flops: float
    smallest_parameters: float
    largest_parameters: float
    vocab_size: int | None = None
    """Of the models that it was fitted to, if that is known."""


def read_law(path: Path) -> FittedLaw:
    """``ConfigError`` for a file that ``tickwise scale fit`` did not write, or whose law has no optimum."""
    values = read_json(path, "the fitted law")
    if values.get("format") != FORMAT:
        raise ConfigError(f"{path}: not a law that tickwise scale fit wrote (format {values.get('format')!r}, not "
                          f"'{FORMAT}')")
    try:
        part, bounds = values["parametric"], values["range"]
        coefficients = numpy.array([part["coefficients"][name]["value"] for name in Parametric.names], dtype=float)
        draws = numpy.array(part["draws"], dtype=float).reshape(-1, len(Parametric.names))
        law = FittedLaw(coefficients, draws, numpy.array(part["residuals_log"], dtype=float),
                        float(bounds["flops"][1]), float(bounds["parameters"][0]), float(bounds["parameters"][1]),
                        values.get("vocab_size"))
    except (KeyError, TypeError, ValueError, IndexError) as problem:
        raise ConfigError(f"{path}: a law with a part missing or broken ({problem}); fit it again") from None
    if not (numpy.isfinite(coefficients).all() and (coefficients[1:] > 0).all()):
        raise ConfigError(f"{path}: A, B, alpha and beta must be positive for an optimum to exist; these runs do not "
                          "show that the loss falls with both parameters and tokens")
    return law


def optimal_size(coefficients_S5: Floats, flops: Floats | float) -> Floats:
    """N that minimises L(N, C/(6·N)) (Hoffmann et al. 2022, equation 4)."""
    _, a, b, alpha, beta = numpy.moveaxis(numpy.asarray(coefficients_S5, dtype=float), -1, 0)
    with numpy.errstate(all="ignore"):
        half = numpy.asarray(flops) / FLOPS_PER_PARAMETER_AND_TOKEN
        return numpy.asarray((alpha * a / (beta * b)) ** (1 / (alpha + beta)) * half ** (beta / (alpha + beta)))
