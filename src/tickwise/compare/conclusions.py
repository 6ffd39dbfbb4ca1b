"""What the figures of the jobs come to, in words: who does a job better, by what factor one costs more, where that
turns. What no test shows is said to be no difference; all tests of a report are corrected together."""

from collections.abc import Mapping, Sequence
from typing import Any

from tickwise.compare.cases import NOISY
from tickwise.compare.evidence import SIGNIFICANT, adjusted, all_agree
from tickwise.core.console import format_duration, format_number

PROGRAM, MODEL = "program", "model"


def conclude(jobs: Mapping[str, dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], int]:
    """The conclusion of each job from its results (``run``), JSON-ready, and how many tests they rest on."""
    p_values: dict[tuple[str, str, str], float] = {}
    for name, job in jobs.items():
        evidence = job["evidence"]
        p_values |= {(name, "score", kind): found["p"] for kind, found in evidence["differences"].items()}
        p_values |= {(name, "learnt", who): found["p"] for who, found in evidence["learnt"].items()}
        p_values[name, "time", ""] = evidence["time"]["p"]
        if evidence["after_changes"] is not None:
            p_values[name, "after changes", NOISY] = evidence["after_changes"]["p"]
    corrected = adjusted(p_values)
    return {name: _conclusion(job, {key[1:]: p for key, p in corrected.items() if key[0] == name})
            for name, job in jobs.items()}, len(p_values)


def _conclusion(job: Mapping[str, Any], p: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    evidence = job["evidence"]
    contestants = {MODEL: job["contestants"][-1],
                   PROGRAM: next(one for one in job["contestants"] if one["name"] == evidence["program"])}
    better = {kind: (MODEL if found["value"] > 0 else PROGRAM) if p["score", kind] < SIGNIFICANT else None
              for kind, found in evidence["differences"].items()}
    able = {who: found["value"] > 0 and p["learnt", who] < SIGNIFICANT for who, found in evidence["learnt"].items()}
    both = all(able.values())
    shorter = PROGRAM if evidence["time"]["value"] > 1 else MODEL
    faster = shorter if p["time", ""] < SIGNIFICANT else None
    too_few = both and not faster and all_agree(evidence["time"], evidence["timed"])
    plain = job["plain"]
    turns = both and None not in (better[plain], better.get(NOISY)) and better[plain] != better[NOISY]
    after = evidence["after_changes"]
    better_after = None if after is None or p["after changes", NOISY] >= SIGNIFICANT \
        else MODEL if after["value"] > 0 else PROGRAM
    prices = {kind: price for kind, price in evidence["prices"].items()
              if both and better[kind] is not None and faster is not None and better[kind] != faster}
    return {
        "program": evidence["program"], "model": evidence["model"], "better": better, "able": able, "faster": faster,
        "p": {" ".join(key).strip(): value for key, value in p.items()},
        "time": evidence["time"] if both and faster else None, "too_few_timed": too_few,
        "memory": evidence["memory"] if both else None,
        "turning_share": evidence["turning_share"] if turns else None, "prices": prices,
        "better_after_changes": better_after if both else None,
        "sentences": [
            *_score_sentences(job, contestants, better, p), *_unable_sentences(job, contestants, able),
            *(_cost_sentences(evidence, faster, shorter if too_few else None) if both else ()),
            *([_turning_sentence(evidence, better, plain)] if both and NOISY in better else ()),
            *(_price_sentence(kind, price, better[kind]) for kind, price in prices.items()),
            *_determinism_sentences(contestants), *_change_sentences(job["changes"], able),
            *([_after_sentence(better_after, contestants, job["changes"], p["after changes", NOISY])]
              if both and after is not None else ())],
    }


def _percent(found: Mapping[str, Any]) -> str:
    return f"{100 * found['value']:.1f} %"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _score_sentences(job: Mapping[str, Any], contestants: Mapping[str, Any], better: Mapping[str, str | None],
                     p: Mapping[tuple[str, str], float]) -> list[str]:
    said: dict[str | None, list[str]] = {}
    for kind, who in better.items():
        scores = ", ".join(f"{name} {_percent(contestants[name]['accuracy'][kind])}" for name in (PROGRAM, MODEL))
        said.setdefault(who, []).append(f"{kind} inputs ({scores}; {_p(p['score', kind])})")
    return [(f"The {who} ({contestants[who]['name']}) scores higher on " if who else "No difference shown on ")
            + " and ".join(kinds) + "." for who, kinds in said.items()]


def _unable_sentences(job: Mapping[str, Any], contestants: Mapping[str, Any], able: Mapping[str, bool]) -> list[str]:
    baseline = job["constant"]
    beside = f"its score on {job['plain']} inputs is not shown to be above that of {baseline['name']} " \
             f"({100 * baseline['score']:.1f} %)"
    lines = []
    if not able[MODEL]:
        budget = "" if job["given"] else " at this size and budget"
        lines.append(f"It is not shown that the model has learnt this job{budget}: {beside}, so there are no factors.")
    if not able[PROGRAM]:
        lines.append(f"It is not shown that the program does this job: {beside}, so there are no factors.")
    return lines


def times(factor: float) -> str:
    """A factor in words."""
    return f"1/{1 / factor:,.0f} of" if factor <= 0.01 else f"{format_number(factor)} times"


def _cost_sentences(evidence: Mapping[str, Any], faster: str | None, always_shorter: str | None) -> list[str]:
    """``always_shorter``: who was faster in every timed answer, where these are too few for the test."""
    time, timed = evidence["time"], evidence["timed"]
    ratio = f"model over program: {format_number(time['value'])}"
    if faster:
        text = (f"An answer of the model takes {times(time['value'])} the program's processor time (95 % interval "
                f"{format_number(time['low'])}–{format_number(time['high'])}).")
    elif always_shorter:
        text = (f"The {always_shorter} was faster in all {timed} timed answers, which are too few to show a difference "
                f"between processor times ({ratio}): raise --timed.")
    else:  # an interval of the ratio of means would answer another question than the test did
        text = f"No difference shown between the processor times of an answer ({ratio})."
    return [text, f"The model keeps {times(evidence['memory'])} the program's memory."]


def _turning_sentence(evidence: Mapping[str, Any], better: Mapping[str, str | None], plain: str) -> str:
    first, last = better[plain], better[NOISY]
    share = evidence["turning_share"]
    if first and last and first != last and share:
        return (f"It turns at {100 * share['value']:.0f} % of inputs rephrased or noisy (95 % interval "
                f"{100 * share['low']:.0f}–{100 * share['high']:.0f}): with more of them the {last} scores higher, as "
                "long as neither is changed for them.")
    if first and first == last:
        return f"It does not turn in the range tried, from none to all inputs rephrased or noisy: the {first} scores " \
               "higher at either end."
    return "No turning point is shown between plain and rephrased or noisy inputs."


def _price_sentence(kind: str, price: Mapping[str, float], who: str | None) -> str:
    unchanged = ", as long as neither is changed for them," if kind == NOISY else ""
    return (f"On {kind} inputs{unchanged} the {who}'s longer time pays once a wrong answer costs more than "
            f"{format_duration(price['value'])} of processor time (95 % interval {format_duration(price['low'])}–"
            f"{format_duration(price['high'])}).")


def _determinism_sentences(contestants: Mapping[str, Any]) -> list[str]:
    changing = [f"the {who} repeated {100 * contestants[who]['deterministic']:.4g} % of its answers"
                for who in (PROGRAM, MODEL) if contestants[who]["deterministic"] < 1]
    if not changing:
        return ["Asked three times, both gave every answer again."]
    text = " and ".join(changing)
    return [f"Asked three times, {text}."]


def _change_sentences(changes: Mapping[str, Any], able: Mapping[str, bool]) -> list[str]:
    """One measurement each, so facts and no comparison."""
    return [f"Asked to answer rephrased or noisy inputs, the {who} {_changed(who, changes[who])}."
            for who in (PROGRAM, MODEL) if able[who] and changes[who] is not None]


def _after_sentence(who: str | None, contestants: Mapping[str, Any], changes: Mapping[str, Any], p: float) -> str:
    scores = ", ".join(f"{who} {_percent((changes[who]['accuracy'] or contestants[who]['accuracy'])[NOISY])}"
                       for who in (PROGRAM, MODEL))
    return ("After the changes " + (f"the {who} scores higher" if who else "no difference is shown")
            + f" on {NOISY} inputs ({scores}; {_p(p)}).")


def _changed(who: str, change: Mapping[str, Any]) -> str:
    bar = f"{100 * change['bar']:.0f} %"
    if not change["accuracy"]:
        return f"needs no change: its score on the examples is {100 * change['before']:.0f} % already, and {bar} passes"
    how = "edited and tested (writing the edit is not counted)" if who == PROGRAM else "trained further and tested"
    scores = f"{100 * change['before']:.0f} → {100 * change['after']:.0f} % of the examples, {bar} passes"
    if change["passed"]:
        after = "" if not change["not_yet_s"] else f" (not yet after {format_duration(change['not_yet_s'])})"
        return f"passed {format_duration(change['seconds'])} after the request{after}, {how}: {scores}"
    return f"did not pass within {format_duration(change['seconds'])}, {how}: {scores}"


def wins(conclusions: Sequence[Mapping[str, Any]], who: str | None) -> int:
    """Kinds of input, of all jobs, on which ``who`` scores higher (``None``: on which no difference is shown)."""
    return sum(list(one["better"].values()).count(who) for one in conclusions)
