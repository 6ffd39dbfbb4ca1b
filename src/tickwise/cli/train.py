"""Train a decoder from text or prepared data; everything left out follows from --depth."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tickwise.cli.common_flags import CommonArguments, config_of, finish_training
from tickwise.cli.launch_flags import LaunchFlags, check_launch, start, torchrun
from tickwise.core.errors import MemoryLimitError
from tickwise.training.config import TrainConfig

if TYPE_CHECKING:
    from tickwise.training.compilation_memory import CompilationMemory
    from tickwise.training.distributed.launch import Launch
    from tickwise.training.run import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, LaunchFlags, TrainConfig):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file or folder, or the name of a known data set."""
    dry_run: bool = False
    """Print the resolved settings, the memory estimate and, of several ranks, the launch command, and stop."""
    trace: Path | None = None
    """Folder for a trace: every step's stages with time, FLOPs and bytes (tickwise trace show)."""


def _memory(made: "Plan", compilation: "CompilationMemory") -> dict[str, int]:
    """Bytes by term and ``total``: on a CPU of the whole process, as the live line and ``estimate`` count."""
    from tickwise.cli.estimate import process_term

    terms = dataclasses.asdict(made.memory) | compilation.term
    if made.device.type == "cpu":
        terms["process"] = process_term("train", made.dtype)
    return terms | {"total": sum(terms.values())}


def _step_seconds(made: "Plan") -> float | None:
    """Modelled; ``None`` before this machine is calibrated."""
    from tickwise.profiling import overheads
    from tickwise.profiling.predict import find_machine
    from tickwise.training.prediction import predict_step

    if made.device.type != "cpu" or not overheads.is_cached():
        return None
    return predict_step(made.model, made.config, made.dtype, find_machine("here")).seconds


def _step_time(made: "Plan", seconds: float | None) -> str:
    from tickwise.core.console import format_count, format_duration

    if seconds is None:
        return "n/a: this machine is not calibrated yet; tickwise estimate does so in about a minute"
    assert made.config.batch_size is not None
    rate = made.config.batch_size * made.config.context / seconds
    return f"{format_duration(seconds)} a step, {format_count(rate)} tokens/s"


def _refused(made: "Plan", launch: "Launch") -> str | None:
    """Why this machine has not the memory for its ranks, if so."""
    from tickwise.training.distributed.traffic import check_ranks_fit

    try:
        check_ranks_fit(made.model, made.config, made.dtype, made.device, launch.n_ranks, launch.ranks_per_node)
    except MemoryLimitError as problem:
        return str(problem)
    return None


def run(arguments: Arguments) -> int:
    launch = arguments.launch()  # before PyTorch is imported
    from tickwise.cli.estimate_show import ON_TOP
    from tickwise.core.console import format_bytes
    from tickwise.training.dial import describe
    from tickwise.training.run import check_outputs, open_data, plan, run_plan

    config = config_of(TrainConfig, arguments)
    if not arguments.dry_run:
        check_outputs(config, arguments.trace)
        if launch is not None:
            check_launch(launch)
    data = open_data(config)
    made = plan(config, data)
    if launch is not None:
        from tickwise.training.distributed.ranks import check_split

        check_split(made.config, launch.n_ranks)
    if arguments.dry_run:
        from tickwise.training.compilation_memory import compilation_memory

        step_seconds = _step_seconds(made)
        compilation = compilation_memory(made.config, made.model.n_layers, made.dtype, made.device, step_seconds)
        memory = _memory(made, compilation)
        if arguments.json:
            commands = {} if launch is None else {"launch": torchrun(launch), "refused": _refused(made, launch)}
            print(json.dumps({**made.as_json(), "memory_bytes": memory, "compilation": dataclasses.asdict(compilation),
                              **commands}, indent=2))
        else:
            for line in describe(made.model, made.config, made.n_parameters):
                print(line)
            terms = ", ".join(f"{name} {format_bytes(size)}" for name, size in memory.items() if name != "total")
            print(f"memory (modelled): {format_bytes(memory['total'])}: {terms}")
            if "process" in memory:
                print(f"    {ON_TOP['train']}")
            if compilation.sentence:
                print(f"    {compilation.sentence}")
            print(f"time (modelled): {_step_time(made, step_seconds)}")
            if launch is not None:
                of_each = "; tickwise estimate --for train --ranks tells memory and traffic of each"
                print(f"both of one process alone{of_each}\nlaunch on every node: {torchrun(launch)}")
                if refused := _refused(made, launch):
                    print(f"this machine would refuse it: {refused}")
        return 0
    if launch is not None:
        if refused := _refused(made, launch):
            raise MemoryLimitError(refused)
        return start(launch)
    result = run_plan(made, data, arguments.trace)
    return finish_training(arguments, result, f"tickwise generate {result.out} --prompt \"…\"",
                           interrupted=result.interrupted)
