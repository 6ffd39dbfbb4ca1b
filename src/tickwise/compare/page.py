"""A comparison as one self-contained page: an overview, then for each job a picture, its conclusion and its figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from tickwise.core.console import format_bytes, format_count
from tickwise.report.data import Figure
from tickwise.report.figure_page import Section, figure_page
from tickwise.scaling.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, svg

_FACTORS = (("seconds", "time", BLUE), ("energy", "energy", ORANGE), ("operations", "operations", GREEN),
            ("memory", "memory", PURPLE))
_PROGRAMS = (BLUE, GREEN)
_NOT_KNOWN = "n/a"


def comparison_page(found: Mapping[str, Any], command: str) -> str:
    """The page of what ``run.compare`` returned."""
    jobs: list[dict[str, Any]] = list(found["jobs"].values())
    sections = []
    if jobs:
        sections = [Section("What an answer of the model costs beside one of the program",
                            "The language model's figure over the program's, on a logarithmic axis: right of 1 the "
                            "model costs more. Figures that are not known have no dot.",
                            svg("factors", lambda figure: _draw_factors(figure, jobs), width=9.0,
                                height=1.6 + 0.42 * len(jobs))),
                    Section("Where each kind of computer wins", "Who is right more often on plain and on rephrased or "
                            "noisy inputs, and the model's time and energy of an answer and its time of a change over "
                            "the program's.", header=(
                        "job", "right more often, plain", "right more often, rephrased", "turns at", "time ÷",
                        "energy ÷", "change ÷"), rows=tuple(map(_overview, jobs)))]
    sections += [section for job in jobs for section in _job_sections(job)]
    notes = [f"{name} was left out: {why}" for name, why in found["skipped"].items()]
    sections.append(Section("How this was measured", _METHOD))
    return figure_page(
        "Language models and classical programs", "The same jobs done by a language model and by a classical program, "
        "on the same inputs, under the same ledger.", _headline(jobs), sections, command, notes)


_METHOD = (
    "Time is measured by the ledger, one answer after the other: that of the median tick of each phase, times the "
    "ticks of an answer (a program's tick is a pass over all texts). A model's operations are the FLOPs of its "
    "program listing, a program's the steps of its algorithm, counted as it runs: comparisons, hash probes, "
    "additions, characters examined; the interpreter's own instructions are not among them, so these two differ in "
    "kind. Bytes are those of tensors, and of the texts and entries that the steps touch. Memory is that of "
    "weights, or of rules, tables and code. Energy says whether it was measured or modelled. Intervals are of 95 %; "
    "one is called right more often where a sign test over the cases leaves chance less than 5 %.")


def _headline(jobs: Sequence[dict[str, Any]]) -> list[Figure]:
    better = [job["conclusion"]["better"] for job in jobs]
    who = [value for kinds in better for value in kinds.values()]
    factors = sorted(job["conclusion"]["factors"]["seconds"] for job in jobs)
    boxes = [Figure("jobs", str(len(jobs)), "counted"),
             Figure("program right more often", f"{who.count('program')} of {len(who)}", "counted", "kinds of input"),
             Figure("model right more often", f"{who.count('model')} of {len(who)}", "counted", "kinds of input")]
    if factors:
        boxes.append(Figure("time of an answer, model ÷ program", f"{_factor(factors[0])} to {_factor(factors[-1])}",
                            "measured"))
    return boxes


def _factor(value: float | None) -> str:
    return _NOT_KNOWN if value is None else f"{format_count(value)} ×" if value >= 1 else f"{value:.2g} ×"


def _overview(job: dict[str, Any]) -> tuple[str, ...]:
    conclusion = job["conclusion"]
    kinds = list(conclusion["better"].items())
    plain = next((who for kind, who in kinds if kind == "new"), kinds[0][1])
    noisy = conclusion["better"].get("rephrased or noisy")
    share = conclusion["turning_share"]
    changes = [one["change"] for one in job["contestants"] if one["name"] in (conclusion["program"],
                                                                              conclusion["model"])]
    seconds = [None if change is None or change["make_s"] is None else change["make_s"] + change["test_s"]
               for change in changes]
    ratio = seconds[-1] / seconds[0] if len(seconds) > 1 and seconds[0] and seconds[-1] is not None else None
    return (job["title"], plain or "neither", noisy or "neither",
            "never" if share is None else f"{100 * share:.0f} % rephrased",
            _factor(conclusion["factors"]["seconds"]), _factor(conclusion["factors"]["energy"]), _factor(ratio))


def _job_sections(job: dict[str, Any]) -> list[Section]:
    kinds = tuple(job["cases"])
    examples = "; ".join(f"{kind}: “{_short(example['input'])}” → “{_short(example['answer'])}”"
                         for kind, example in job["examples"].items())
    header = ("", *(one["name"] for one in job["contestants"]))
    return [
        Section(job["title"], " ".join(job["conclusion"]["sentences"]),
                svg(job["job"], lambda figure: _draw_accuracy(figure, job), width=8.4, height=2.8)),
        Section(f"{job['title']}: the figures", f"{_capital(job['about'])}. A score is {job['score']}. {examples}.",
                header=header, rows=tuple(_figures(job["contestants"], kinds))),
    ]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 70 else text[:69] + "…"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _figures(contestants: Sequence[dict[str, Any]], kinds: Sequence[str]) -> list[tuple[str, ...]]:
    def row(name: str, cell: Any) -> tuple[str, ...]:
        return (name, *(cell(one) for one in contestants))

    def of(value: float | None, shown: Any) -> str:
        return _NOT_KNOWN if value is None else shown(value)

    def seconds(value: float) -> str:
        return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"

    def accuracy(values: Mapping[str, Any] | None, kind: str) -> str:
        if values is None:
            return _NOT_KNOWN
        found = values[kind]
        return f"{100 * found['value']:.1f} % ({100 * found['low']:.1f}–{100 * found['high']:.1f})"

    def change(one: dict[str, Any], shown: Any) -> str:
        return _NOT_KNOWN if one["change"] is None else shown(one["change"])

    rows = [row(f"score, {kind} (measured)", lambda one, kind=kind: accuracy(one["accuracy"], kind)) for kind in kinds]
    rows += [
        row("time of an answer (measured)", lambda one: seconds(one["costs"]["seconds"])),
        row("operations of an answer (counted)", lambda one: of(one["costs"]["operations"], format_count)
            + ("" if one["costs"]["operations"] is None else f" {one['operations']}")),
        row("bytes moved (counted)", lambda one: of(one["costs"]["bytes_moved"], format_bytes)),
        row("energy of an answer", lambda one: of(one["costs"]["energy_j"], lambda j: f"{j:.3g} J")
            + f" ({one['costs']['energy_source']})"),
        row("memory (counted)", lambda one: format_bytes(one["memory_bytes"])),
        row("same answer every time (measured)", lambda one: f"{100 * one['deterministic']:.4g} %"),
        row("to change it", lambda one: change(one, lambda c: c["what"])),
        row("making it anew, and testing (measured)", lambda one: change(
            one, lambda c: of(c["make_s"], lambda s: f"{seconds(s)} + {seconds(c['test_s'])}"))),
        row("FLOPs of making it anew (counted)", lambda one: change(one, lambda c: of(c["flops"], format_count))),
    ]
    rows += [row(f"score after the change, {kind}", lambda one, kind=kind: change(
        one, lambda c: accuracy(c["accuracy"], kind))) for kind in kinds]
    return rows


def _draw_factors(figure: Any, jobs: Sequence[dict[str, Any]]) -> None:
    axes = figure.add_subplot()
    for place, job in enumerate(jobs):
        for index, (name, _, colour) in enumerate(_FACTORS):
            value = job["conclusion"]["factors"][name]
            if value:
                height = place + 0.16 * (index - (len(_FACTORS) - 1) / 2)
                axes.scatter([value], [height], color=colour, s=36, zorder=3)
    axes.axvline(1, color=GREY, linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(jobs)), [job["title"] for job in jobs])
    axes.invert_yaxis()
    axes.set_xlabel("language model ÷ classical program")
    axes.grid(alpha=0.25, axis="x")
    handles = [axes.scatter([], [], color=colour, s=36, label=label) for _, label, colour in _FACTORS]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.9 / max(2.0, 0.42 * len(jobs))),
                ncols=len(handles))


def _draw_accuracy(figure: Any, job: dict[str, Any]) -> None:
    axes = figure.add_subplot()
    contestants, kinds = job["contestants"], list(job["cases"])
    width = 0.8 / len(contestants)
    for index, one in enumerate(contestants):
        colour = ORANGE if one["kind"] == "language model" else _PROGRAMS[index % len(_PROGRAMS)]
        places = [place + (index - (len(contestants) - 1) / 2) * width for place in range(len(kinds))]
        values = [100 * one["accuracy"][kind]["value"] for kind in kinds]
        errors = [[100 * max(0.0, one["accuracy"][kind]["value"] - one["accuracy"][kind]["low"]) for kind in kinds],
                  [100 * max(0.0, one["accuracy"][kind]["high"] - one["accuracy"][kind]["value"]) for kind in kinds]]
        axes.bar(places, values, width * 0.92, color=colour, label=one["name"])
        axes.errorbar(places, values, errors, fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_ylim(0, 105)
    axes.set_ylabel("score in %")
    axes.grid(alpha=0.25, axis="y")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
