"""Scaling laws of a table of training runs: optimal sizes three ways, with bootstrap bands, pictures and warnings."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import format_number
from tickwise.core.errors import ConfigError
from tickwise.scaling.runs import Columns

if TYPE_CHECKING:
    from tickwise.scaling.study import Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    table: tyro.conf.Positional[Path]
    """Runs, one a row (.csv, .tsv, .jsonl or .parquet): parameters, loss in nats per token, and tokens or FLOPs;
    unique_tokens as well for runs that repeat their data, and vocab_size for plans."""
    out: Path = Path("out/scale-fit")
    """Folder for fit.json (read by tickwise scale plan), report.html and the pictures as SVG."""
    resamples: int = 1000
    """Bootstrap resamples behind standard errors and bands; 0 leaves these out."""
    seed: int = 1
    drop_highest: int = 0
    """Exclude that many runs with the highest losses (Epoch AI's replication of Chinchilla drops 5)."""
    columns: Columns = dataclasses.field(default_factory=Columns)


def run(arguments: Arguments) -> int:
    import time

    from tickwise.core.console import say
    from tickwise.core.paths import write_text_atomic
    from tickwise.scaling.figures import study_figures
    from tickwise.scaling.runs import read_runs
    from tickwise.scaling.study import as_json, study, write_law

    if arguments.resamples != 0 and arguments.resamples < 20:
        raise ConfigError(f"--resamples {arguments.resamples}: give 0 or at least 20; fewer say nothing of "
                          "intervals")
    if arguments.seed < 0 or arguments.drop_highest < 0:
        raise ConfigError("--seed and --drop-highest: must not be negative")
    runs = read_runs(arguments.table, arguments.columns, arguments.drop_highest)
    start = time.perf_counter()
    result = study(runs, arguments.resamples, arguments.seed)
    seconds = time.perf_counter() - start
    found = {**as_json(result), "table": str(arguments.table), "seconds": seconds}
    pictures = study_figures(result)
    page = _page(arguments, found, pictures)  # everything is made before the first file is written
    write_law(arguments.out / "fit.json", found)
    write_text_atomic(arguments.out / "report.html", page)
    for name, (_, picture) in pictures.items():
        write_text_atomic(arguments.out / f"{name}.svg", picture)
    if arguments.json:
        shown = {**found, "parametric": {k: v for k, v in found["parametric"].items()
                                         if k not in ("draws", "residuals_log")}}
        print(json.dumps({**shown, "out": str(arguments.out)}, indent=2))
    else:
        _print_tables(result, found)
        say(f"wrote {arguments.out}/report.html and fit.json; plan with it: tickwise scale plan --law "
            f"{arguments.out}/fit.json --flops …")
    return 0


def _figure(value: dict[str, Any]) -> tuple[str, str, str]:
    """Value, standard error and interval as words."""
    stderr, interval = value["stderr"], value["interval_95"]
    number = value["value"]
    return ("n/a" if number is None else format_number(number, 5),
            "n/a" if stderr is None else format_number(stderr, 2),
            "n/a" if interval is None else f"{format_number(interval[0], 4)} to {format_number(interval[1], 4)}")


def _coefficient_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    part = found["parametric"]
    rows: list[tuple[str, ...]] = [(name, *_figure(value)) for name, value in part["coefficients"].items()]
    return [*rows, ("a = β/(α+β)", *_figure(part["a"]))]


def _allocation_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    parts = (("1 envelope", found["envelope"]), ("2 parabolas", found["iso_flop"]), ("3 parametric",
                                                                                     found["parametric"]))
    return [(name, *(_figure(part["a"]) if part else ("n/a", "n/a", "n/a"))) for name, part in parts]


def _other_rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [(f"L({law}), exponent", *_figure(part["exponent"]))
                                   for law, part in found["power_laws"].items()]
    if found["kaplan"]:
        rows += [(f"Kaplan's L(N, D), {name}", *_figure(value))
                 for name, value in found["kaplan"]["coefficients"].items()]
    if found["data_constrained"]:
        rows += [(f"repeated data, R*{name[1:]}", *_figure(value))
                 for name, value in found["data_constrained"]["coefficients"].items() if name.startswith("R_")]
    return rows


_HEADER = ("", "value", "standard error", "95 % interval")


def _print_tables(result: "Study", found: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    part = found["parametric"]
    console.print(f"{found['runs']} runs; L(N, D) = E + A/N^α + B/D^β: objective "
                  f"{format_number(part['objective'], 6)} (Huber on log loss, δ = 0.001, summed), "
                  f"{part['starts_agreeing']} of {part['starts']} starts agree; "
                  f"{part['resamples']} resamples, {found['seconds']:.1f} s")
    for title, rows in (("Parametric law", _coefficient_rows(found)),
                        ("Compute-optimal size N = k·C^a: exponent a by each approach", _allocation_rows(found)),
                        ("Other laws", _other_rows(found))):
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        for index, name in enumerate(_HEADER):
            table.add_column(name, justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in result.warnings:
        print(f"note: {line}", file=sys.stderr)


def _page(arguments: Arguments, found: dict[str, Any], pictures: dict[str, tuple[str, str]]) -> str:
    from tickwise.report.data import Figure
    from tickwise.report.figure_page import Section, figure_page

    part = found["parametric"]

    def box(name: str, value: dict[str, Any]) -> Figure:
        shown, stderr, _ = _figure(value)
        return Figure(name, shown, "modelled", "" if stderr == "n/a" else f"± {stderr}")

    names = {"alpha": "α", "beta": "β"}
    figures = [box(names.get(name, name), value) for name, value in part["coefficients"].items()]
    figures += [box("a = β/(α+β)", part["a"]), Figure("runs", str(found["runs"]), "counted")]
    titles = {"frontier": "Compute-optimal size and tokens", "loss": "Loss over compute",
              "iso_flop": "Equal compute", "residuals": "Residuals", "bootstrap": "What the resamples say",
              "kaplan": "Best so far", "repeats": "Repeated data"}
    sections = [Section(titles[name], text, picture) for name, (text, picture) in pictures.items()]
    sections += [
        Section("Compute-optimal exponent by each approach", "N = k·C^a.", header=_HEADER,
                rows=tuple(_allocation_rows(found))),
        Section("Parametric law", f"Objective {format_number(part['objective'], 6)}; {part['starts_agreeing']} of "
                f"{part['starts']} starts agree; condition number {format_number(part['condition'] or float('inf'))}.",
                header=_HEADER, rows=tuple(_coefficient_rows(found))),
        Section("Other laws", header=_HEADER, rows=tuple(_other_rows(found))),
    ]
    command = f"tickwise scale fit {arguments.table} --resamples {arguments.resamples} --seed {arguments.seed}"
    if arguments.drop_highest:
        command += f" --drop-highest {arguments.drop_highest}"
    return figure_page(f"Scaling laws of {arguments.table.name}",
                       "How the loss falls with parameters, tokens and compute, and which size a budget is best spent "
                       "on.", figures, sections, command, found["warnings"])
