"""Train a grid of models and budgets, resumable, into one table that tickwise scale fit reads."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import format_number
from tickwise.core.errors import ConfigError
from tickwise.data.config import TokenizerKind
from tickwise.training.config import ModelOptions, OptimizerOptions, ScheduleOptions

if TYPE_CHECKING:
    from tickwise.scaling.sweep import Data
    from tickwise.scaling.sweep_grid import Trial
    from tickwise.scaling.sweep_workers import Start
    from tickwise.training.config import TrainConfig

_NEVER = 1 << 60
_WIDTH = 150
"""Of a table that no terminal limits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file or folder, or the name of a known data set."""
    out: Path = Path("out/sweep")
    """Folder of the sweep. A sweep that was stopped, or killed, goes on there; a finished trial never runs again."""
    sizes: tuple[str, ...] = ()
    """Models as DEPTHxWIDTH, such as 2x64 4x96."""
    flops: tuple[float, ...] = ()
    """Budgets of equal compute: each size is trained on FLOPs / (6 × parameters) tokens."""
    tokens: tuple[float, ...] = ()
    """Numbers of tokens that each size is trained on."""
    tokens_per_parameter: tuple[float, float] = (0.0, math.inf)
    """Least and most: trials outside are left out."""
    law: Path | None = None
    """fit.json of tickwise scale fit: predict the trials' losses, into predictions.json with the time, before the first
    runs."""

    tokenizer: TokenizerKind = "bpe"
    """For raw text: char, word or bpe. Prepared data brings its own."""
    vocab_size: int | None = None
    """For raw text: most entries of the vocabulary."""
    context: int = 256
    """Tokens in a window."""
    batch_size: int | None = None
    """Sequences in an update, the same for all trials (1.25 × √tokens tokens)."""
    model: ModelOptions = dataclasses.field(default_factory=ModelOptions)
    optimizer: OptimizerOptions = dataclasses.field(default_factory=OptimizerOptions)
    """A learning rate given here holds for all trials (that of tickwise train for each width)."""
    schedule: ScheduleOptions = dataclasses.field(default_factory=ScheduleOptions)
    """Warm-up and decay are shares of each trial, and end with it."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the computation."""
    device: str = "auto"
    compile: Literal["auto", "on", "off"] = "off"
    """torch.compile, in each trial anew."""
    evaluate_tokens: int = 131_072
    """Validation tokens of the loss at a trial's end, the same ones in all trials."""
    seed: int = 1

    scheduler: Literal["auto", "ray", "local"] = "auto"
    """Ray if it is installed (tickwise[distributed]; RAY_ADDRESS names a cluster) and has the cores, else processes of
    this machine."""
    workers: int | None = None
    """Trials at a time (as many as there are cores for; on a cluster Ray decides)."""
    threads: int = 1
    """Cores that each trial reserves and computes with."""
    gpus: float = 0.0
    """GPUs that each trial reserves, with Ray."""
    hardware: str = "here"
    """For the times of a dry run: here (measured), a JSON file, or a data sheet: a100, h100, rtx4090."""
    dry_run: bool = False
    """Print the trials with their FLOPs, time and the sum, and stop."""


def run(arguments: Arguments) -> int:
    from tickwise.core.console import say
    from tickwise.data.config import PrepareConfig
    from tickwise.data.prepare import open_or_prepare
    from tickwise.scaling import sweep
    from tickwise.scaling.sweep_grid import Grid, trials

    _check(arguments)
    data = open_or_prepare(arguments.data, PrepareConfig(tokenizer=arguments.tokenizer,
                                                         vocab_size=arguments.vocab_size))
    if "validation" not in data.splits:
        raise ConfigError(f"{arguments.data}: has no validation part, and a trial's loss is measured there")
    about = sweep.Data(fingerprint=data.fingerprint, train_tokens=len(data.split("train").tokens),
                       vocab_size=data.tokenizer.vocab_size)
    least, most = arguments.tokens_per_parameter
    grid = Grid(sizes=arguments.sizes, flops=arguments.flops, tokens=arguments.tokens, least_tokens_per_parameter=least,
                most_tokens_per_parameter=most)
    planned = trials(grid, _base(arguments, data.path), data.tokenizer.vocab_size, about.train_tokens)
    if arguments.dry_run:
        return _dry_run(arguments, planned, about, data.tokenizer.vocab_size)
    with sweep.locked(arguments.out):
        sweep.lay_out(arguments.out, planned, about)
        if arguments.law is not None:
            sweep.predict(arguments.out, planned, arguments.law)
            say(f"predicted {len(planned)} trials in {arguments.out / sweep.PREDICTIONS_FILE}")
        seconds = _seconds(arguments, planned, data.tokenizer.vocab_size, calibrate=False)
        work = {trial.name: trial.flops if seconds is None else seconds[trial.name] for trial in planned}
        with _workers(arguments) as start:
            failed = sweep.run(arguments.out, planned, start, work)
        found = sweep.write_table(arguments.out)
    _report(arguments, found, failed)
    return 1 if failed else 0


def _check(arguments: Arguments) -> None:
    from tickwise.core.device import resolve_device
    from tickwise.scaling.study import read_law
    from tickwise.scaling.sweep_workers import check_ray

    for name in ("workers", "threads", "context", "batch_size", "evaluate_tokens"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')}: must be at least 1, got {value}")
    if arguments.gpus < 0:
        raise ConfigError(f"--gpus: must not be negative, got {arguments.gpus:g}")
    if arguments.gpus and arguments.scheduler == "local":
        raise ConfigError("--gpus: only Ray reserves these; take --scheduler ray, or --device cuda with --workers 1")
    if arguments.model.width is not None:
        raise ConfigError("--model.width: --sizes says how wide each model is")
    resolve_device(arguments.device)
    if arguments.law is not None:
        read_law(arguments.law)
    if not arguments.dry_run and _by_ray(arguments):
        check_ray(_at_a_time(arguments), arguments.threads)


def _by_ray(arguments: Arguments) -> bool:
    from tickwise.scaling.sweep_workers import has_ray, ray_fits

    if arguments.scheduler != "auto":
        return arguments.scheduler == "ray"
    # Nobody asked for Ray: processes of this machine have no limit of theirs, but cannot reserve GPUs.
    return arguments.gpus > 0 or (has_ray() and ray_fits(_at_a_time(arguments), arguments.threads))


def _at_a_time(arguments: Arguments) -> int:
    from tickwise.profiling.machine import cores

    return arguments.workers or max(1, cores() // arguments.threads)


def _base(arguments: Arguments, data: Path) -> "TrainConfig":
    """What all trials share. Only the end of a run is validated, and a killed trial loses at most a minute."""
    from tickwise.training.config import TrainConfig

    return TrainConfig(
        data=data.resolve(), context=arguments.context, batch_size=arguments.batch_size, model=arguments.model,
        optimizer=arguments.optimizer, schedule=arguments.schedule, dtype=arguments.dtype, device=arguments.device,
        compile=arguments.compile, seed=arguments.seed, evaluate_every=_NEVER, checkpoint_seconds=60.0,
        keep_checkpoints=1, evaluate_tokens=arguments.evaluate_tokens)


def _workers(arguments: Arguments) -> "contextlib.AbstractContextManager[Start]":
    from tickwise.core.console import say
    from tickwise.scaling.sweep_workers import has_ray, local_workers, ray_workers

    workers = _at_a_time(arguments)
    if _by_ray(arguments):
        say(f"trials by Ray, {arguments.threads} CPUs and {arguments.gpus:g} GPUs each")
        return ray_workers(workers, arguments.threads, arguments.gpus)
    why = " (Ray would need more cores than there are)" if arguments.scheduler == "auto" and has_ray() else ""
    say(f"trials in processes of this machine, {workers} at a time with {arguments.threads} threads each{why}")
    return local_workers(workers, arguments.threads)


@contextlib.contextmanager
def _computing_with(threads: int) -> Iterator[None]:
    """As a trial's process computes: calibrations are kept for each number of threads."""
    import os

    import torch

    variable, before = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if variable is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = variable


class _NotCalibratedError(Exception):
    """Training steps have not been measured here."""


def _is_calibrated() -> bool:
    from tickwise.profiling import overheads
    from tickwise.profiling.reference import cached_corrections

    def measure() -> NoReturn:
        raise _NotCalibratedError

    try:
        cached_corrections("training", measure)
    except _NotCalibratedError:
        return False
    return overheads.is_cached()


def _seconds(arguments: Arguments, planned: "list[Trial]", vocab_size: int, *,
             calibrate: bool) -> dict[str, float] | None:
    """What ``tickwise estimate`` says that each trial's updates take; ``None`` where this machine has not been
    calibrated for that number of threads and shall not be."""
    from tickwise.core.device import resolve_device
    from tickwise.profiling.ceilings import ceilings
    from tickwise.profiling.choices import training_dtype
    from tickwise.profiling.predict import find_machine
    from tickwise.training.dial import decoder_from_dial
    from tickwise.training.prediction import predict_step

    with _computing_with(arguments.threads):
        if not calibrate and (resolve_device(arguments.device).type != "cpu" or not _is_calibrated()):
            return None
        machine = find_machine(arguments.hardware if calibrate else "here")
        dtype: str = arguments.dtype
        if dtype == "auto" and machine.is_here:
            dtype = training_dtype(ceilings(device=machine.device), machine.device)[0]
        elif dtype == "auto":
            dtype = "bf16" if "bf16" in machine.hardware.flops_per_s else "fp32"
        found = {}
        for trial in planned:
            config = trial.config
            model = decoder_from_dial(config.depth, config.context, vocab_size, config.model)
            assert config.max_steps is not None
            found[trial.name] = config.max_steps * predict_step(model, config, dtype, machine).seconds
    return found


def _dry_run(arguments: Arguments, planned: "list[Trial]", data: "Data", vocab_size: int) -> int:
    from tickwise.core.console import format_count, format_seconds
    from tickwise.scaling import sweep

    seconds = _seconds(arguments, planned, vocab_size, calibrate=True)
    said = None if arguments.law is None else sweep.predictions(planned, arguments.law)
    losses = {} if said is None else {item["name"]: item["loss"] for item in said["trials"]}
    listed: list[dict[str, Any]] = []
    for trial in planned:
        result = sweep.result_of(arguments.out, trial.name)
        config = trial.config
        assert config.batch_size is not None
        listed.append({
            "trial": trial.name, "parameters": trial.parameters, "tokens": trial.tokens, "flops": trial.flops,
            "batch_tokens": config.batch_size * config.context, "steps": config.max_steps,
            "learning_rate": config.optimizer.lr, "epochs": trial.tokens / data.train_tokens,
            "predicted_seconds": None if seconds is None else seconds[trial.name],
            "predicted_loss": losses.get(trial.name), "over": result is not None})
    sums = {"trials": len(listed), "flops": sum(row["flops"] for row in listed),
            "decades_of_compute": math.log10(listed[-1]["flops"] / listed[0]["flops"]),
            "predicted_seconds": None if seconds is None else sum(seconds.values()), "time_is": "modelled"}
    if arguments.json:
        print(json.dumps({"trials": listed, "sum": sums, "predictions": said}, indent=2))
        return 0
    shown = [(row["trial"], format_count(row["parameters"]), format_count(row["tokens"]), format_number(row['flops']),
              f"{row['batch_tokens']:,}", f"{row['steps']:,}", f"{row['learning_rate']:.3g}", f"{row['epochs']:.2f}",
              "n/a" if row["predicted_seconds"] is None else format_seconds(row["predicted_seconds"]),
              "n/a" if row["predicted_loss"] is None else f"{row['predicted_loss']:.4f}",
              "over" if row["over"] else "") for row in listed]
    _print_table(("trial", "parameters", "tokens", "FLOP", "batch tokens", "updates", "learning rate", "epochs",
                  "time", "loss by --law", ""), shown)
    total = sums["predicted_seconds"]
    print(f"{len(listed)} trials, {format_number(sums['flops'])} FLOP over {sums['decades_of_compute']:.2f} decades; "
          "time (modelled, updates only, one trial after the other): "
          + ("n/a" if total is None else format_seconds(total)))
    return 0


def _report(arguments: Arguments, found: list[dict[str, Any]], failed: list[str]) -> None:
    import sys

    from tickwise.core.console import format_count, format_seconds, say
    from tickwise.scaling.sweep import TABLE_FILE

    for line in failed:
        print(f"note: {line}; the same command tries it again", file=sys.stderr)
    for row in found:
        if row["status"] == "diverged":
            print(f"note: {row['trial']} diverged and is left out of fits: {row['why']}", file=sys.stderr)
    table = arguments.out / TABLE_FILE
    if arguments.json:
        plain = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
                 for row in found]
        print(json.dumps({"table": str(table), "trials": plain, "failed": failed}, indent=2))
        return
    predicted = any(row["predicted_loss"] is not None for row in found)
    header = ("trial", "parameters", "tokens", "FLOP", "loss", "time",
              *(("predicted loss", "error") if predicted else ()))
    shown = []
    for row in found:
        cells = [row["trial"], format_count(row["parameters"]), format_count(row["tokens"]),
                 format_number(row["flops"]), f"{row['loss']:.4f}", format_seconds(row["seconds"])]
        if predicted:
            guess = row["predicted_loss"]
            cells += ["n/a", "n/a"] if guess is None else [f"{guess:.4f}", f"{100 * row['prediction_error']:+.2f} %"]
        shown.append(tuple(cells))
    _print_table(header, shown)
    say(f"wrote {table}; fit laws to it: tickwise scale fit {table}")


def _print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    import sys

    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH).print(table)
