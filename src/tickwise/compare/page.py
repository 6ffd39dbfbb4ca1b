"""A comparison as one self-contained page: an overview, then each job's conclusions, picture and figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from tickwise.compare.cases import NOISY
from tickwise.compare.conclusions import MODEL, PROGRAM, wins
from tickwise.compare.evidence import SIGNIFICANT
from tickwise.core.console import format_bytes, format_count, format_duration, format_energy, format_number
from tickwise.profiling.energy import DEFAULT_COEFFICIENTS
from tickwise.report.data import Figure
from tickwise.report.figure_page import Section, figure_page
from tickwise.scaling.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, svg

_PROGRAMS = (BLUE, GREEN)
_NOT_KNOWN = "n/a"


def comparison_page(found: Mapping[str, Any], command: str) -> str:
    """The page of what ``run.compare`` returned."""
    jobs: list[dict[str, Any]] = list(found["jobs"].values())
    sections = []
    if jobs:
        sections = [
            Section("Where each kind of computer does better", "Mean score of the model less that of the program, in "
                    "percentage points, with intervals of 95 %: right of 0 the model is better. Hollow and grey: no "
                    "difference is shown. An interval is of one comparison, its test is corrected for all of them.",
                    svg=svg("differences", lambda figure: _draw_differences(figure, jobs), width=9.0,
                            height=1.6 + 0.22 * sum(len(job["cases"]) for job in jobs))),
            Section("What it costs, and where it turns", "Factors are the model's figure over the program's, with "
                    "intervals of 95 %. There is none where one of the two, then in brackets, is not shown to be above "
                    "a constant answer. It turns at a share of rephrased or noisy inputs.",
                    svg=svg("factors", lambda figure: _draw_factors(figure, jobs), width=9.0,
                            height=1.4 + 0.34 * len(jobs)),
                    header=("job", "better on plain", "rephrased", "turns at", "processor time ÷", "memory ÷"),
                    rows=tuple(map(_overview, jobs))),
            Section("What a change takes", "The time from the request, to answer rephrased or noisy inputs, to "
                    "examples that pass, and who scores higher on such inputs then. Measured once; the time of whoever "
                    "wrote the edit is not counted.",
                    header=("job", "program", "model", "score of the program", "of the model", "better then"),
                    rows=tuple(map(_change_row, jobs)))]
    sections += [section for job in jobs for section in _job_sections(job)]
    notes = [f"{name} was left out: {why}" for name, why in found["skipped"].items()]
    sections.append(Section("How this was measured", points=_method(found["tests"])))
    return figure_page(
        "Language models and classical programs", "The same jobs done by a language model and by a classical program, "
        "with the same training texts and on the same inputs.", _headline(jobs), sections, command, notes)


def _method(n_tests: int) -> tuple[str, ...]:
    watts = DEFAULT_COEFFICIENTS.idle_watts_per_core
    return (
        "Both get the same training texts, in the plain form. Programs and states of a model are chosen on a "
        "development part; new inputs, and what rephrased ones are made of, are in neither.",
        f"Differences are tested case by case: right or wrong by McNemar's exact test, other scores by a paired "
        f"bootstrap, times by a sign test of which one was faster. All {n_tests} tests of this page are corrected "
        f"together (Holm), at {100 * SIGNIFICANT:.0f} %. What they leave open is called no difference shown. Counted "
        "figures (memory, operations, bytes) need no test.",
        "Time is each contestant's own: one answer after the other in one process, the median of five; models run in "
        "tickwise's engine, programs in Python. The factor is "
        "of processor time, all threads together, which other programs on the machine change little. The time under "
        "the ledger, with its marks, stands beside it.",
        "Operations are of one answer. A model's are the FLOPs of its program listing; a program's are the steps of "
        "its algorithm, counted as it runs. The interpreter's instructions are not among them, and the processor's "
        "were not counted: n/a. So the two are different units, and no factor is made of them, nor of bytes, which "
        "for programs are those of the texts, keys and entries that the steps touch.",
        "Energy is measured where the machine has a counter. Else it is modelled from processor time alone "
        f"({watts:g} W): it says nothing that the time does not say, so it has no factor.",
        "Memory is that of weights, or of rules, tables and code; the interpreter and the libraries are left out.",
        "A change passes once examples of such inputs score 95 % of what plain ones did before. Edits of programs were "
        "written beforehand, and the time of whoever wrote them is not counted. Models are trained further in rounds "
        "of doubling length. A change is measured once.")


def _headline(jobs: Sequence[dict[str, Any]]) -> list[Figure]:
    found = [job["conclusion"] for job in jobs]
    n_kinds = sum(len(one["better"]) for one in found)
    boxes = [Figure("jobs", str(len(jobs)), "counted")]
    boxes += [Figure(name, f"{wins(found, who)} of {n_kinds}", "measured", "kinds of input")
              for name, who in (("program scores higher", PROGRAM), ("model scores higher", MODEL),
                                ("no difference shown", None))]
    factors = sorted(one["time"]["value"] for one in found if one["time"])
    if factors:
        boxes.append(Figure("processor time of an answer, model ÷ program",
                            " to ".join(dict.fromkeys((_factor(factors[0]), _factor(factors[-1])))), "measured",
                            f"{len(factors)} of {len(jobs)} jobs"))
    return boxes


def _factor(value: float | None) -> str:
    return _NOT_KNOWN if value is None else f"{format_number(value)} ×"


def _overview(job: dict[str, Any]) -> tuple[str, ...]:
    one = job["conclusion"]
    time, share = one["time"], one["turning_share"]
    unable = [who for who in (PROGRAM, MODEL) if not one["able"][who]]
    if time:
        factor = f"{_factor(time['value'])} ({format_number(time['low'])}–{format_number(time['high'])})"
    else:
        factor = f"{_NOT_KNOWN} ({' and '.join(unable)})" if unable else \
            "too few timed" if one["too_few_timed"] else "no difference shown"
    ends = [one["better"][job["plain"]], one["better"].get(NOISY)]
    turns = f"{100 * share['value']:.0f} % ({100 * share['low']:.0f}–{100 * share['high']:.0f})" if share \
        else _NOT_KNOWN if unable else "not in the range" if ends[0] and ends[0] == ends[1] else "none shown"
    return job["title"], *(_who(end) for end in ends), turns, factor, _factor(one["memory"])


def _change_row(job: dict[str, Any]) -> tuple[str, ...]:
    one, found = job["conclusion"], job["evidence"]["after_changes"]
    changes = [job["changes"][who] if one["able"][who] else None for who in (PROGRAM, MODEL)]
    contestants = [next(other for other in job["contestants"] if other["name"] == one[who]) for who in (PROGRAM, MODEL)]
    scores = [_NOT_KNOWN if change is None else
              f"{100 * (change['accuracy'] or contestant['accuracy'])[NOISY]['value']:.1f} %"
              for change, contestant in zip(changes, contestants, strict=True)]
    return (job["title"], *map(_change, changes), *scores,
            _NOT_KNOWN if None in changes or found is None else _who(one["better_after_changes"]))


def _who(who: str | None) -> str:
    return who or "none shown"


def _change(change: Mapping[str, Any] | None) -> str:
    if change is None:
        return _NOT_KNOWN
    if not change["accuracy"]:
        return "needs none"
    return ("" if change["passed"] else "not within ") + format_duration(change["seconds"])


def _job_sections(job: dict[str, Any]) -> list[Section]:
    kinds = tuple(job["cases"])
    examples = "; ".join(f"{kind}: “{_short(example['input'])}” → “{_short(example['answer'])}”"
                         for kind, example in job["examples"].items())
    header = ("", *(one["name"] for one in job["contestants"]))
    edited = job["changes"][PROGRAM]
    change = f" The edit of the program: {edited['what']}." if edited and edited["accuracy"] else ""
    given = " It is not known what the given model was trained on." if job["given"] else ""
    chosen = f" Of the programs, {job['evidence']['program']} is compared: it was best on the development part." \
        if len(job["development"]) > 1 else ""
    return [
        Section(job["title"], points=tuple(job["conclusion"]["sentences"]),
                svg=svg(job["job"], lambda figure: _draw_accuracy(figure, job), width=8.4, height=2.8)),
        Section(f"{job['title']}: the figures", f"{_capital(job['about'])}. A score is {job['score']}. {examples}."
                f"{given}{chosen}{change}", header=header, rows=tuple(_figures(job, kinds))),
    ]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 70 else text[:69] + "…"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _figures(job: Mapping[str, Any], kinds: Sequence[str]) -> list[tuple[str, ...]]:
    contestants = job["contestants"]
    changes = [job["changes"][MODEL] if one is contestants[-1] else
               job["changes"][PROGRAM] if one["name"] == job["evidence"]["program"] else None for one in contestants]

    def row(name: str, cell: Any) -> tuple[str, ...]:
        return (name, *map(cell, contestants))

    def changed(name: str, cell: Any) -> tuple[str, ...]:
        return (name, *(_NOT_KNOWN if one is None else cell(one) for one in changes))

    def of(value: float | None, shown: Any) -> str:
        return _NOT_KNOWN if value is None else shown(value)

    def score(values: Mapping[str, Any] | None, kind: str) -> str:
        if values is None:
            return "as before"
        found = values[kind]
        return f"{100 * found['value']:.1f} % ({100 * found['low']:.1f}–{100 * found['high']:.1f})"

    def flops(one: Mapping[str, Any]) -> str:
        return of(one["costs"]["operations"] if one["steps"] is None else None, format_count)

    def steps(one: Mapping[str, Any], kind: str) -> str:
        return of((one["steps"] or {}).get(kind), format_number)

    step_kinds = list(dict.fromkeys(kind for one in contestants for kind in one["steps"] or ()))
    energy_sources = " or ".join(sorted({one["costs"]["energy_source"] for one in contestants}))

    def training(one: Mapping[str, Any]) -> str:
        made = one["training"]
        if made is None or made["seconds"] is None:
            return _NOT_KNOWN
        flops = "" if made["flops"] is None else f", {format_count(made['flops'])} FLOPs"
        return format_duration(made["seconds"]) + flops

    return [
        *(row(f"score, {kind} (measured)", lambda one, kind=kind: score(one["accuracy"], kind)) for kind in kinds),
        (f"score of a constant answer, {job['plain']}",
         *([f"{100 * job['constant']['score']:.1f} %"] * len(contestants))),
        row("processor time of an answer (measured)", lambda one: format_duration(one["costs"]["processor_s"])),
        row("time by the clock (measured)", lambda one: format_duration(one["costs"]["wall_s"])),
        row("time under the ledger, by the clock (measured)", lambda one: format_duration(one["costs"]["ledger_s"])),
        row("FLOPs of an answer (counted)", flops),
        *(row(f"{kind} for an answer (counted)", lambda one, kind=kind: steps(one, kind)) for kind in step_kinds),
        row("bytes moved (counted)", lambda one: of(one["costs"]["bytes_moved"], format_bytes)),
        row(f"energy of an answer ({energy_sources})", lambda one: format_energy(one["costs"]["energy_j"])),
        row("memory (counted)", lambda one: format_bytes(one["memory_bytes"])),
        row("same answer every time (measured)", lambda one: f"{100 * one['deterministic']:.4g} %"),
        row("training (measured, counted)", training),
        changed("examples of the change: before → after, bar", lambda one:
                f"{100 * one['before']:.1f} → {100 * one['after']:.1f} %, {100 * one['bar']:.1f} %"),
        changed("time of the change (measured)", _change),
        *(changed(f"score after the change, {kind}", lambda one, kind=kind: score(one["accuracy"], kind))
          for kind in kinds),
    ]


def _draw_differences(figure: Any, jobs: Sequence[dict[str, Any]]) -> None:
    axes = figure.add_subplot()
    place, ticks = 0.0, []
    for job in jobs:
        for kind, found in job["evidence"]["differences"].items():
            who = job["conclusion"]["better"][kind]
            colour = GREY if who is None else ORANGE if who == MODEL else BLUE
            axes.plot([100 * found["low"], 100 * found["high"]], [place, place], color=colour, linewidth=1.4)
            axes.scatter([100 * found["value"]], [place], s=26, zorder=3, edgecolor=colour,
                         color="white" if who is None else colour)
            ticks.append((place, f"{job['title']}, {kind}"))
            place += 1
        place += 0.5
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
    axes.set_ylim(place - 0.5, -1)
    axes.set_xlim(-105, 105)
    axes.set_xlabel("← program better · percentage points · model better →")
    axes.grid(alpha=0.25, axis="x")


def _draw_factors(figure: Any, jobs: Sequence[dict[str, Any]]) -> None:
    axes = figure.add_subplot()
    for place, job in enumerate(jobs):
        one = job["conclusion"]
        if one["time"]:
            axes.plot([one["time"]["low"], one["time"]["high"]], [place - 0.12] * 2, color=BLUE, linewidth=1.4)
            axes.scatter([one["time"]["value"]], [place - 0.12], color=BLUE, s=30, zorder=3)
        if not one["time"] and not one["memory"]:
            axes.text(1.1, place, "no factor", color=GREY, verticalalignment="center")
        if one["memory"]:
            axes.scatter([one["memory"]], [place + 0.12], color=PURPLE, s=30, zorder=3)
    axes.axvline(1, color=GREY, linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(jobs)), [job["title"] for job in jobs])
    axes.set_ylim(len(jobs) - 0.5, -0.5)
    axes.set_xlabel("language model ÷ classical program; right of 1 the model takes more")
    axes.grid(alpha=0.25, axis="x")
    handles = [axes.scatter([], [], color=colour, s=30, label=label)
               for label, colour in (("processor time", BLUE), ("memory", PURPLE))]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))


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
    plain = kinds.index(job["plain"])
    axes.plot([plain - 0.45, plain + 0.45], [100 * job["constant"]["score"]] * 2, color="#333333", linestyle=":",
              label="a constant answer")
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_ylim(0, 105)
    axes.set_ylabel("score in %")
    axes.grid(alpha=0.25, axis="y")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
