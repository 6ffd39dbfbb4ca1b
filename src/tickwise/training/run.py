"""Build a run from its config, train it, and leave a run directory behind."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tickwise.core import allocator, console
from tickwise.core.config import to_dict
from tickwise.core.device import flushed_denormals, resolve_device, torch_dtype
from tickwise.core.errors import ConfigError, DataError, MemoryLimitError, OutputError
from tickwise.core.memory import is_out_of_memory
from tickwise.core.paths import output_error, remove_temporaries, write_text_atomic
from tickwise.core.seeds import seed_everything
from tickwise.core.signals import TerminatedError, handled_by
from tickwise.data.batches import BatchCursor
from tickwise.interop.directory import Assets, checkpoint_paths
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.ceilings import ceilings
from tickwise.profiling.choices import training_dtype
from tickwise.profiling.machine import use_cores
from tickwise.profiling.trace_store import check_trace_output
from tickwise.training.checkpoint import Counters, drop_metrics_after, save_best_model
from tickwise.training.compilation import decide_compilation
from tickwise.training.config import LoopConfig, TrainConfig
from tickwise.training.contention import OtherPrograms
from tickwise.training.dial import decoder_from_dial, describe, resolve
from tickwise.training.distributed.join import join_ranks, spread
from tickwise.training.distributed.ranks import (
    check_split,
    is_first_here,
    is_leader,
    is_one_of_several,
    n_ranks,
    own_device,
    ranks_here,
)
from tickwise.training.distributed.traffic import rank_memory
from tickwise.training.live import Journal, Unheard
from tickwise.training.loop import Training, ended, train_until_done
from tickwise.training.memory import TrainingMemory, check_memory, estimate_training_memory, memory_message
from tickwise.training.memory_saving import checkpoint_activations, is_hollow
from tickwise.training.next_token import NextToken
from tickwise.training.objective import Objective
from tickwise.training.optimizers import MasterWeights, Optimizer
from tickwise.training.record import run_facts
from tickwise.training.tracing import heard, traced

if TYPE_CHECKING:
    from tickwise.data.prepared import PreparedData


_ONE_SIGNAL_S = 2.0
HELD_OUT = "held-out.jsonl"
"""Examples that the training never saw, in the run directory: they belong to this run alone."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run came to. ``loss`` values are nats (per token, where tokens are predicted); ``None`` without a
    validation part."""

    out: Path
    model: Path
    reason: str
    step: int
    tokens: int
    seconds: float
    n_parameters: int
    validation_loss: float | None
    validation: dict[str, float]
    """All figures of the best validation."""
    best_step: int
    interrupted: bool


@dataclass(frozen=True)
class Plan:
    """A config with everything derived, its model and what it will need."""

    config: TrainConfig
    model: DecoderConfig
    n_parameters: int
    dtype: str
    device: torch.device
    memory: TrainingMemory

    def as_json(self) -> dict[str, Any]:
        memory = dataclasses.asdict(self.memory) | {"total": self.memory.total}
        return {"config": to_dict(self.config), "model": dataclasses.asdict(self.model),
                "parameters": self.n_parameters, "dtype": self.dtype, "device": str(self.device),
                "memory_bytes": memory}


def open_data(config: TrainConfig) -> "PreparedData":
    """The prepared data of ``config.data``, prepared now (and cached) when it is raw text."""
    from tickwise.data.config import PrepareConfig
    from tickwise.data.prepare import open_or_prepare

    _refuse_contradictions(config)
    data = open_or_prepare(config.data, PrepareConfig(
        tokenizer=config.tokenizer, vocab_size=config.vocab_size, word_style=config.word_style))
    allocator.give_back()  # what a preparation leaves, up to 70 MB, would stay under the peak of the training
    own = data.tokenizer
    if data.path == config.data and (config.vocab_size is not None or config.tokenizer not in ("bpe", own.kind)):
        raise ConfigError(f"{config.data}: prepared data brings its own tokenizer ({own.kind}, {own.vocab_size} "
                          "entries); leave out --tokenizer and --vocab-size, or give raw text")
    return data


def _refuse_contradictions(config: TrainConfig) -> None:
    """What no text can mend, said before time goes into the text."""
    decoder_from_dial(config.depth, config.context, config.vocab_size or 1, config.model)
    resolve_device(config.device)
    if config.data.suffix == ".txt" and config.data.is_file():
        size = config.data.stat().st_size
        if 3 * size < config.context:  # a token has at least one byte, and Unicode NFC may make three of one
            raise DataError(f"{config.data}: has {size:,} bytes, one context needs {config.context + 1:,} tokens; add "
                            "text or use a smaller --context")


def check_outputs(config: LoopConfig, trace: Path | None = None) -> None:
    """``OutputError`` when the run directory, or the folder for a trace, cannot be written or holds something."""
    if not is_leader():
        return
    if not is_one_of_several():  # these know only together whether they were started again
        _resume_path(config)
    for folder in (config.out, *([trace] if trace is not None else [])):
        try:
            there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        except OSError as problem:
            raise output_error(problem, folder) from None
        if not there.is_dir():
            raise OutputError(f"{folder}: {there.name} is a file; give another folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise output_error(PermissionError(errno.EACCES, ""), folder)
    if trace is not None:
        check_trace_output(trace)


def plan(config: TrainConfig, data: "PreparedData") -> Plan:
    """Derive every open setting; ``ConfigError`` for settings that contradict each other."""
    vocab_size = data.tokenizer.vocab_size
    model = decoder_from_dial(config.depth, config.context, vocab_size, config.model)
    with torch.device("meta"):
        n_parameters = Decoder(model).n_parameters()
    device = own_device(resolve_device(config.device))
    use_cores()
    dtype = config.dtype if config.dtype != "auto" else training_dtype(ceilings(device=device, quick=True), device)[0]
    resolved = resolve(config, model, n_parameters, len(data.split("train").tokens))
    if is_one_of_several():
        check_split(resolved, n_ranks())
        memory = rank_memory(model, resolved, dtype, device, n_ranks(), resolved.parallel.strategy)
    else:
        memory = estimate_training_memory(model, resolved, n_parameters, dtype, device)
    return Plan(resolved, model, n_parameters, dtype, device, memory)


def train(config: TrainConfig) -> TrainResult:
    """Train as ``config`` says and return what came of it; the run directory holds everything else.

    Raises a ``UserError`` for bad input, for numbers that stop being finite (the last checkpoint stays
    good) and for outputs that cannot be written.
    """
    check_outputs(config)
    data = open_data(config)
    made = plan(config, data)
    return run_plan(made, data)


def run_plan(made: Plan, data: "PreparedData", trace: Path | None = None) -> TrainResult:
    """Train what ``plan`` has laid out; with ``trace``, record every step's stages there."""
    if made.device.type == "cpu" and is_first_here():
        check_memory(made.memory, ranks_here())
    try:
        return start(build(made, data), describe(made.model, made.config, made.n_parameters), trace)
    except (MemoryError, RuntimeError) as problem:
        if is_out_of_memory(problem):
            raise MemoryLimitError(memory_message(made.memory, None)) from None
        raise


def train_module(config: LoopConfig, module: nn.Module, objective: Objective, assets: Assets, *, data: dict[str, Any],
                 lines: Sequence[str] = (), trace: Path | None = None, wants_last: bool = False) -> TrainResult:
    """Train any module towards any objective; ``config.optimizer.lr`` and ``config.batch_size`` must be set.

    ``data`` is what ``run.json`` says of the data: ``source`` (a path) and ``fingerprint``, and whatever else is worth
    knowing. ``lines`` are said before the first step. ``wants_last`` as for ``assemble``. Raises a ``UserError`` as
    ``train`` does.
    """
    check_outputs(config, trace)
    device = own_device(resolve_device(config.device))
    use_cores()
    dtype = config.dtype if config.dtype != "auto" else training_dtype(ceilings(device=device, quick=True), device)[0]
    return start(assemble(config, module, objective, assets, data, dtype, device, wants_last), lines, trace)


def start(training: Training, lines: Sequence[str] = (), trace: Path | None = None) -> TrainResult:
    """Run ``training`` to its end, from its newest checkpoint if it is to be resumed."""
    if trace is not None:
        check_trace_output(trace)
    parallel = training.parallel = join_ranks(training, trace)
    with parallel.faults_named(training):
        training.config = config = parallel.after_restart(training.config)
        resumed_from = _resume_path(config) if parallel.leads else None
        for line in lines:
            console.say(line)
        with parallel.leader_writes():
            if parallel.leads:
                _open_out(config)  # only now: what could refuse this run has had its say
        said = parallel.tell(str(resumed_from or ""))
        resumed_from = Path(said) if said else None
        spread(training, resumed_from)
        if resumed_from is not None:
            console.say(f"resumed from {resumed_from} (step {training.counters.step:,})")
        if parallel.leads:
            drop_metrics_after(config.out / "metrics.jsonl", training.counters.step)
            write_text_atomic(config.out / "run.json", json.dumps(training.run_record(), indent=2) + "\n")
        with flushed_denormals(), traced(training, trace):
            result = _train(training)
        training.parallel.leave()
    return result


def _resume_path(config: LoopConfig) -> Path | None:
    """The checkpoint to resume from, if any. Refuses to mix two runs; changes nothing."""
    out = config.out
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; give a folder to --out")
    if out.is_dir():
        remove_temporaries(out)
    if (out / "checkpoints").is_dir():
        remove_temporaries(out / "checkpoints")
    existing = checkpoint_paths(out)
    if config.resume == "never" and not config.overwrite and (existing or (out / "metrics.jsonl").exists()):
        go_on = f"go on with {config.flags.resume}" if existing else "it left no checkpoint to go on from"
        raise OutputError(f"{out}: holds a run already; {go_on}, replace it with --overwrite, or give another --out")
    return existing[-1] if existing and config.resume == "auto" else None


def replace_run(config: LoopConfig) -> None:
    """Of a run that has a training of its own before the main one: what is to be replaced goes before that. An
    interrupted one would else be gone on with from the checkpoints of the run that it replaces."""
    if config.overwrite and is_leader():
        _open_out(config)


def _open_out(config: LoopConfig) -> None:
    """Make the run directory, empty of an earlier run if that is to be replaced."""
    out = config.out
    try:
        if config.overwrite:
            for name in ("checkpoints", "model", "tensorboard"):
                shutil.rmtree(out / name, ignore_errors=True)
            for name in ("metrics.jsonl", "run.json", "loss.svg", HELD_OUT):
                (out / name).unlink(missing_ok=True)
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise output_error(problem, out) from None


def build(made: Plan, data: "PreparedData") -> Training:
    """The training of a language model: module, data, optimizer, nothing done yet."""
    config = made.config
    assert config.batch_size is not None
    train_tokens = data.split("train").tokens
    validation = data.split("validation").tokens if "validation" in data.splits else None
    if validation is not None and len(validation) < 2:
        validation = None
    cursor = BatchCursor(train_tokens, batch_size=config.batch_size, context=config.context, seed=config.seed,
                         vocab_size=made.model.vocab_size)
    if is_one_of_several() and config.parallel.strategy == "fsdp":
        with torch.device("meta"):  # ``Sharded`` makes this rank's share
            module = Decoder(made.model)
    else:
        module = Decoder(made.model).initialise(config.seed)
    return assemble(config, module, NextToken(cursor, validation, config.label_smoothing), data.tokenizer,
                    about_data(data, config.data), made.dtype, made.device)


def about_data(data: "PreparedData", source: Path) -> dict[str, Any]:
    """What ``run.json`` says of prepared data that came from ``source``."""
    return {"source": str(source), "prepared": str(data.path.resolve()), "fingerprint": data.fingerprint,
            "train_tokens": len(data.split("train").tokens)}


def assemble(config: LoopConfig, module: nn.Module, objective: Objective, assets: Assets, data: dict[str, Any],
             dtype: str, device: torch.device, wants_last: bool = False) -> Training:
    """A training ready for its first step. Takes the random-number state from ``config.seed``. ``wants_last``: that
    nothing is there to choose a model by is as it should be."""
    seed_everything(config.seed)
    if device.type == "cpu":
        use_cores()
    if not objective.n_validation_tokens:
        if config.patience is not None or config.stop_at_loss is not None:
            raise ConfigError("--patience and --stop-at-loss need a validation split, and this data has none")
        if not wants_last:
            console.say("no validation split: the last model is kept, not the best")
    if not is_hollow(module):
        module = module.to(device)
    weights = MasterWeights(module, torch_dtype(dtype))
    products = torch_dtype(dtype)  # pinned with the run's own format: a resumed run and all ranks have the same
    flops, peak = _speed_reference(module, objective, dtype, device)
    record = run_facts(config, module, data, dtype=dtype, device=device) | {
        "muon_products_dtype": str(products).removeprefix("torch."), "flops_per_token": flops,
        "peak_flops_per_s": peak,
    }
    if config.checkpoint_activations:
        checkpoint_activations(module)
    return Training(
        config=config, module=module, objective=objective, assets=assets, weights=weights,
        optimizer=Optimizer(module, weights, config.optimizer, products),
        counters=Counters(), device=device, dtype_name=dtype, data_fingerprint=data["fingerprint"],
        flops_per_token=flops, peak_flops_per_s=peak, record=record,
        average=[m.clone() for m in weights.masters] if config.ema_decay is not None else None,
    )


def _speed_reference(module: nn.Module, objective: Objective, dtype: str,
                     device: torch.device) -> tuple[float | None, float | None]:
    """Counted FLOPs of one training token, and this machine's measured peak in the run's number format. Not known
    where batches differ in shape."""
    from tickwise.profiling.program import list_training_program

    peak = ceilings(device=device, quick=True).peak_flops_per_s(dtype)
    if not objective.fixed_shapes:
        return None, peak
    batch = objective.example()
    inputs = [x.to(device) for x in batch.inputs]
    program = list_training_program(module, *inputs, call=lambda module, *x: objective.loss(module, *x)[0])
    return program.flops / batch.n_tokens, peak


@contextmanager
def interrupt_flag() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C (or SIGTERM) asks the loop to finish its step and save; the second one is immediate."""
    received: list[float] = []
    # Whoever starts ranks passes a signal on that they may have got themselves.
    same_s = _ONE_SIGNAL_S if is_one_of_several() else 0.0

    def handler(number: int, _frame: Any) -> None:
        if received and time.monotonic() - received[0] >= same_s:
            raise TerminatedError if number == signal.SIGTERM else KeyboardInterrupt
        received.append(time.monotonic())
        if console.verbosity() >= console.NORMAL and not is_one_of_several():
            # Not print: a signal may arrive in the middle of one.
            os.write(2, b"\nfinishing this step, then saving; press Ctrl-C again to stop at once without saving\n")

    with handled_by(handler, signal.SIGINT, signal.SIGTERM) as handles:  # else the caller has its own way to stop
        yield (lambda: bool(received)) if handles else (lambda: False)


def _train(training: Training) -> TrainResult:
    config, counters, parallel = training.config, training.counters, training.parallel
    decide_compilation(training)
    reason = ended(training)
    if reason:
        console.say(f"this run had ended already: {reason}")
    else:
        try:
            counts_others = training.device.type == "cpu" and parallel.n_ranks == 1
            others = OtherPrograms(torch.get_num_threads()) if counts_others else None
            own_journal = Journal(config.out, others, first_step=counters.step + 1) if parallel.leads else Unheard()
            with interrupt_flag() as interrupted, own_journal as journal, heard(training):
                reason = train_until_done(training, journal, interrupted)
        except OSError as problem:
            raise output_error(problem, config.out) from None
    model = config.out / "model"
    if parallel.agree(not training.validates or not model.exists()):
        save_best_model(training)
    with parallel.leader_writes():
        if parallel.leads:
            write_text_atomic(config.out / "run.json", json.dumps(training.run_record(), indent=2) + "\n")
            allocator.give_back()  # drawing takes 35 MB, which shall not come on top of what the steps took
            _draw_loss(config.out)
    interrupted_run = reason == "interrupted"
    if interrupted_run:
        console.say(f"interrupted: saved step {counters.step:,} in {config.out}; go on with the same command and "
                    f"{config.flags.resume}")
    else:
        best = f", validation loss {counters.best_loss:.4f} at step {counters.best_step:,}" \
            if counters.best_loss is not None else ""
        console.say(f"done: {reason} after {counters.step:,} steps, {counters.tokens:,} tokens, "
                    f"{console.format_seconds(counters.seconds)}{best}; model in {model}")
    return TrainResult(
        out=config.out, model=model, reason=reason, step=counters.step, tokens=counters.tokens,
        seconds=counters.seconds, n_parameters=training.record["parameters"], validation_loss=counters.best_loss,
        validation=counters.best_figures, best_step=counters.best_step, interrupted=interrupted_run,
    )


def _draw_loss(out: Path) -> None:
    from tickwise.report.loss_curve import loss_svg

    try:
        loss_svg(out / "metrics.jsonl", out / "loss.svg")
    except DataError as problem:
        console.note(f"no loss.svg: {problem}")
