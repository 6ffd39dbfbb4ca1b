"""What the figures of a job come to: who is right more often, by what factor one costs more, and where that turns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tickwise.compare.cases import NEW, NOISY
from tickwise.compare.measure import Accuracy, Measured

_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Factors:
    """The language model's figure over the program's. ``None``: one of them is not known."""

    seconds: float | None
    operations: float | None
    bytes_moved: float | None
    energy: float | None
    memory: float | None


@dataclass(frozen=True)
class Conclusion:
    """Derived from the figures of two contestants."""

    program: str
    model: str
    factors: Factors
    better: Mapping[str, str | None]
    """By kind of input: who is right more often; ``None`` where chance explains the difference (a sign test over the
    cases, at 5 %)."""
    turning_share: float | None
    """Share of rephrased or noisy inputs from which on the other one is right more often; ``None``: there is none."""
    price_s: float | None
    """Seconds of computing that a wrong answer must cost for the slower, more accurate one to pay, on rephrased or
    noisy inputs."""
    sentences: tuple[str, ...]


def best_program(programs: Sequence[Measured]) -> Measured:
    """The one that is right most often, over all kinds of inputs alike."""
    return max(programs, key=lambda one: sum(a.value for a in one.accuracy.values()))


def conclude(program: Measured, model: Measured) -> Conclusion:
    """Compare a program with a model. Every word follows from the figures."""
    factors = Factors(
        _ratio(model.costs.seconds, program.costs.seconds), _ratio(model.costs.operations, program.costs.operations),
        _ratio(model.costs.bytes_moved, program.costs.bytes_moved),
        _ratio(model.costs.energy_j, program.costs.energy_j), _ratio(model.memory_bytes, program.memory_bytes))
    better = {kind: _better(program, model, kind) for kind in program.accuracy}
    share = turning_share(program.accuracy, model.accuracy)
    price = _price(program, model)
    sentences = [*_accuracy_sentences(program, model, better), *_cost_sentence(factors),
                 _turning_sentence(program, model, share, price), *_determinism_sentence(program, model),
                 *_change_sentences(program, model)]
    return Conclusion(program.name, model.name, factors, better, share, price, tuple(sentences))


def _ratio(model: float | None, program: float | None) -> float | None:
    return None if model is None or not program else model / program


def _better(program: Measured, model: Measured, kind: str) -> str | None:
    pairs = list(zip(program.scores[kind], model.scores[kind], strict=True))
    ahead, behind = sum(one > other for one, other in pairs), sum(one < other for one, other in pairs)
    if sign_test(ahead, behind) >= _SIGNIFICANT:
        return None
    return "program" if ahead > behind else "model"


def sign_test(ahead: int, behind: int) -> float:
    """Two-sided probability of a split at least this uneven by chance."""
    n, fewer = ahead + behind, min(ahead, behind)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)


def turning_share(program: Mapping[str, Accuracy], model: Mapping[str, Accuracy]) -> float | None:
    """Between plain new inputs and rephrased or noisy ones, expected accuracies are mixtures; where these cross."""
    plain = next((kind for kind in (NEW, *program) if kind in program and kind != NOISY), None)
    if plain is None or NOISY not in program:
        return None
    ahead_plain = program[plain].value - model[plain].value
    ahead_noisy = program[NOISY].value - model[NOISY].value
    if ahead_plain * ahead_noisy >= 0:
        return None
    return ahead_plain / (ahead_plain - ahead_noisy)


def _price(program: Measured, model: Measured) -> float | None:
    if NOISY not in program.accuracy:
        return None
    gain = model.accuracy[NOISY].value - program.accuracy[NOISY].value
    slower = model.costs.seconds - program.costs.seconds
    return slower / gain if gain * slower > 0 else None


def _percent(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.value:.1f} %"


def times(factor: float) -> str:
    """A factor in words."""
    if factor >= 1:
        return f"{factor:,.0f} times" if factor >= 100 else f"{factor:.3g} times"
    return f"1/{1 / factor:,.0f} of" if factor <= 0.01 else f"{factor:.2g} times"


def _accuracy_sentences(program: Measured, model: Measured, better: Mapping[str, str | None]) -> list[str]:
    said: dict[str | None, list[str]] = {}
    for kind, who in better.items():
        said.setdefault(who, []).append(
            f"{kind} inputs (program {_percent(program.accuracy[kind])}, model {_percent(model.accuracy[kind])})")
    words = {"program": f"The program ({program.name}) is right more often on ",
             "model": f"The model ({model.name}) is right more often on ", None: "No difference beyond chance on "}
    return [f"{words[who]}{' and '.join(kinds)}." for who, kinds in said.items()]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cost_sentence(factors: Factors) -> list[str]:
    parts = [f"{times(value)} the {what}" for what, value in
             (("time", factors.seconds), ("operations", factors.operations), ("bytes moved", factors.bytes_moved),
              ("energy", factors.energy), ("memory", factors.memory)) if value is not None]
    return [f"For an answer the model takes {', '.join(parts)} of the program."] if parts else []


def _turning_sentence(program: Measured, model: Measured, share: float | None, price: float | None) -> str:
    if NOISY not in program.accuracy:
        return "Nothing was asked in other words."
    ahead = program.accuracy[NOISY].value - model.accuracy[NOISY].value
    later = "model" if ahead < 0 else "program"
    if share is not None:
        text = f"It turns at {100 * share:.0f} % of inputs rephrased or noisy: with more of them the {later} is right "\
               "more often"
    else:
        text = f"No share of rephrased or noisy inputs turns it: the {later} is at least as often right on both kinds"
        if ahead == 0:
            text = "No share of rephrased or noisy inputs turns it"
    if price is not None:
        slower = "model" if model.costs.seconds > program.costs.seconds else "program"
        text += (f"; on those the {slower}'s time pays once a wrong answer costs more than {_seconds(price)} of "
                 "computing")
    return text + "."


def _determinism_sentence(program: Measured, model: Measured) -> list[str]:
    words = [f"the {who} repeats {100 * one.deterministic:.4g} % of its answers" for who, one in
             (("program", program), ("model", model)) if one.deterministic < 1]
    return [_capital(" and ".join(words)) + "."] if words else ["Both give the same answers every time."]


def _change_sentences(program: Measured, model: Measured) -> list[str]:
    lines = []
    one, other = program.change, model.change
    if one is not None and one.make_s is not None:
        text = f"Changing the program ({one.what}) and testing it takes {_seconds(one.make_s + one.test_s)}"
        if one.accuracy is not None and NOISY in one.accuracy:
            text += f", after which it is right on {_percent(one.accuracy[NOISY])} of the rephrased or noisy inputs"
        lines.append(text + ".")
    if other is not None and other.make_s is not None:
        flops = "" if other.flops is None else f" and {other.flops:.2g} FLOPs"
        text = f"Changing the model means training: {_seconds(other.make_s + other.test_s)} with its tests{flops}"
        if one is not None and one.make_s is not None:
            text += f", {times((other.make_s + other.test_s) / (one.make_s + one.test_s))} the program's"
        lines.append(text + ".")
    return lines


def _seconds(value: float) -> str:
    for limit, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.2g} s"
