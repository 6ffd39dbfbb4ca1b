"""The training loop of every family: batch → loss → gradient → check → update, and what happens every so often."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tickwise.core import allocator
from tickwise.core.errors import NumericsError
from tickwise.core.stages import Stage, mark, marking
from tickwise.interop.directory import checkpoint_paths
from tickwise.profiling.ledger import Ledger, TrainingWork
from tickwise.training.checkpoint import Counters, save_best_model, save_checkpoint
from tickwise.training.config import LoopConfig
from tickwise.training.live import Journal
from tickwise.training.objective import Batch, Objective
from tickwise.training.optimizers import MasterWeights, Optimizer
from tickwise.training.parallel import Alone
from tickwise.training.schedule import lr_scale

if TYPE_CHECKING:
    from tickwise.interop.directory import Assets


@dataclass(kw_only=True)
class Training:
    """All that a run consists of; ``training/run.py`` builds it, checkpoints store it."""

    config: LoopConfig
    module: nn.Module
    objective: Objective
    assets: "Assets"
    """What makes a saved module usable: its tokenizer, its features."""
    weights: MasterWeights
    optimizer: Optimizer
    counters: Counters
    device: torch.device
    dtype_name: str
    data_fingerprint: str
    flops_per_token: float | None
    peak_flops_per_s: float | None
    record: dict[str, Any]
    """What ``run.json`` says of the run's settings, data and machine."""
    average: list[Tensor] | None = None
    """Averaged weights, in the order of the masters."""
    compiled_loss: Callable[..., tuple[Tensor, tuple[Tensor, ...]]] | None = None
    last_validation_seconds: float | None = None
    ledger: Ledger | None = None
    """Where the steps' stages are recorded, if anywhere."""
    parallel: Alone = field(default_factory=Alone)
    """This process alone, or one rank of several (``training/distributed``)."""

    def begin_step(self) -> None:
        """The ledger's tick is one update and whatever follows it before the next one."""
        if self.ledger is not None:
            self.ledger.begin_tick()

    def note_batch(self, batch: Batch) -> None:
        """The ledger's tick works on this batch."""
        if self.ledger is not None:
            n_sequences = self.config.batch_size if batch.work is None else batch.work.n_texts
            assert n_sequences is not None
            self.ledger.tick_work(TrainingWork(n_sequences, shape=batch.work))

    def end_step(self) -> None:
        if self.ledger is not None:
            self.ledger.end_tick(())

    @property
    def validates(self) -> bool:
        """There is something to validate on."""
        return self.objective.n_validation_tokens > 0

    def run_record(self) -> dict[str, Any]:
        """``run.json``: the record, and how far the run is now."""
        return self.record | {"result": asdict(self.counters)}

    def progress(self) -> float:
        """The share of the run that is done, by whichever limit is nearest."""
        config, counters = self.config, self.counters
        shares = [0.0]
        if config.max_steps:
            shares.append(counters.step / config.max_steps)
        if config.max_tokens:
            shares.append(counters.tokens / config.max_tokens)
        if config.max_seconds:
            # The last validation belongs to the run: it begins early enough to end in time, if it takes less than half.
            available = config.max_seconds - min(self.validation_seconds(), 0.5 * config.max_seconds)
            shares.append(counters.seconds / available)
        return max(shares)

    def validation_seconds(self) -> float:
        """What one validation takes: measured, or before the first one a third of training on as many tokens."""
        if not self.validates:
            return 0.0
        if self.last_validation_seconds is not None:
            return self.last_validation_seconds
        if not self.counters.tokens:
            return 0.0
        n_tokens = min(self.config.evaluate_tokens, self.objective.n_validation_tokens)
        return n_tokens * self.counters.seconds / self.counters.tokens / 3


def gradient(training: Training) -> tuple[float, list[Tensor], int]:
    """One batch's mean loss and float32 gradients, in ``accumulate`` micro-batches, and its tokens."""
    objective, parallel = training.objective, training.parallel
    mark(Stage.DATA)
    batch = objective.next_batch()
    training.note_batch(batch)
    total = 0.0
    training.weights.clear()
    gradients: list[Tensor] = []
    parts = parallel.parts(objective, batch, training.config.accumulate)
    for index, part in enumerate(parts):
        with parallel.computing(training, part, last=index == len(parts) - 1):
            loss, state = _loss(training, part.batch)
            loss = loss / part.divisor
            mark(Stage.BACKWARD)
            loss.backward()
        total += loss.item()
        gradients = training.weights.collect(first=index == 0)
        parallel.carry(objective, state, part)
    return parallel.mean(total), gradients, batch.n_tokens


def _loss(training: Training, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
    inputs = [x.to(training.device, non_blocking=True) for x in batch.inputs]
    if training.compiled_loss is None:
        return training.parallel.loss(training.objective, training.module, inputs)
    mark(Stage.FORWARD)
    with marking(None):  # marks inside compiled code would have it compiled in pieces
        return training.compiled_loss(training.module, *inputs)


def update(training: Training, gradients: list[Tensor], scale: float) -> float:
    """Clip, check that the gradient is finite, step; returns the norm before clipping."""
    mark(Stage.OPTIMIZER)
    norm = training.parallel.norm(gradients).item()
    step = training.counters.step + 1
    if not math.isfinite(norm):
        raise not_finite(training, f"step {step}: the gradient is not finite; nothing was updated")
    if norm > training.config.optimizer.clip_norm:
        torch._foreach_mul_(gradients, training.config.optimizer.clip_norm / norm)
    training.optimizer.step(gradients, scale)
    if training.average is not None and training.config.ema_decay is not None:
        # The first steps use a shorter memory, so that the random start does not linger in the average.
        decay = min(training.config.ema_decay, step / (step + 10))
        torch._foreach_lerp_(training.average, training.weights.masters, 1 - decay)
    return norm


def not_finite(training: Training, what: str) -> NumericsError:
    """The one line for numbers that stopped being finite: what, which checkpoint is good, what to do."""
    kept = checkpoint_paths(training.config.out)
    good = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
    return NumericsError(f"{what}; {good}. Lower {training.config.flags.lr}, or use --dtype fp32")


@torch.no_grad()
def validation_figures(training: Training) -> dict[str, float]:
    """The objective's figures on its validation part, with averaged weights if any."""
    module = training.module
    module.eval()
    allocator.give_back()  # the steps leave holes of other sizes than a validation needs
    with training.weights.replaced_by(training.average), training.parallel.whole():
        figures = training.objective.validate(module, training.device, training.config.evaluate_tokens)
    module.train()
    return {name: training.parallel.agree(value) for name, value in figures.items()}


def ended(training: Training) -> str:
    """Why the run is over, in a few words; empty while it is not."""
    config, counters = training.config, training.counters
    best = counters.best_loss
    if config.stop_at_loss is not None and best is not None and best <= config.stop_at_loss:
        return f"reached the validation loss of {config.stop_at_loss}"
    if config.patience is not None and counters.evaluations_without_gain >= config.patience:
        return f"{config.patience} validations without a new best"
    return "reached its limit" if training.progress() >= 1.0 else ""


def train_until_done(training: Training, journal: Journal, interrupted: Callable[[], bool]) -> str:
    """Run steps until a limit, early stopping or an interrupt; returns the reason in a few words."""
    config, counters, parallel = training.config, training.counters, training.parallel
    evaluate_every = config.evaluate_every
    loss_average: float | None = None
    started = time.perf_counter() - counters.seconds
    last_checkpoint = last_shown = last_validation = time.perf_counter()
    window_start, window_tokens = time.perf_counter(), 0
    training.module.train()
    reason = ""
    while not reason:
        training.begin_step()
        progress = training.progress()
        loss, gradients, n_tokens = gradient(training)
        if not math.isfinite(loss):
            raise not_finite(training, f"step {counters.step + 1}: the loss is {loss}; nothing was updated")
        scale = lr_scale(config.schedule, progress)
        norm = update(training, gradients, scale)
        mark(Stage.HOST)
        assert config.optimizer.lr is not None
        counters.step += 1
        counters.tokens += n_tokens
        window_tokens += n_tokens
        now = time.perf_counter()
        counters.seconds = parallel.agree(now - started)
        loss_average = loss if loss_average is None else 0.9 * loss_average + 0.1 * loss

        done = training.progress() >= 1.0
        if not training.validates:
            validate = False
        elif done or evaluate_every is not None:
            validate = done or counters.step % (evaluate_every or 1) == 0
        else:  # about thirty times a run, and for at most a tenth of its time
            pause = max(10.0, 0.03 * _total_seconds(training), 10 * training.validation_seconds())
            validate = parallel.agree(now - last_validation > pause)
        row: dict[str, Any] = {}
        if counters.step % config.log_every == 0 or done or validate:
            rate = window_tokens / (now - window_start)
            share = None
            if training.flops_per_token is not None and training.peak_flops_per_s is not None:
                share = rate * training.flops_per_token / training.peak_flops_per_s
            row = {"step": counters.step, "tokens": counters.tokens, "epoch": training.objective.epochs_done,
                   "seconds": counters.seconds, "loss": loss,
                   "lr": config.optimizer.lr * scale, "grad_norm": norm, "tokens_per_s": rate,
                   "share_of_peak": share, "memory_bytes": memory_in_use(training.device)}
        if validate and (done or not parallel.agree(interrupted())):
            mark(Stage.VALIDATION)
            with marking(None):
                validation_started = time.perf_counter()
                figures = validation_figures(training)
                row |= {f"validation_{name}": value for name, value in figures.items()}
                training.last_validation_seconds = parallel.agree(time.perf_counter() - validation_started)
            if not math.isfinite(row["validation_loss"]):
                raise not_finite(training, f"step {counters.step}: the validation loss is {row['validation_loss']}")
            mark(Stage.CHECKPOINT)
            _note_validation(training, figures)
            mark(Stage.HOST)
            last_validation = time.perf_counter()
        if row:
            journal.record(row)
            window_start, window_tokens = time.perf_counter(), 0
        if row and ("validation_loss" in row or now - last_shown > 0.25):
            last_shown = now
            journal.show(row | {"loss": loss_average}, seconds_left(training), important="validation_loss" in row)
        reason = ended(training) or ("interrupted" if parallel.agree(interrupted()) else "")
        if config.checkpoint_every is not None:
            due = counters.step % config.checkpoint_every == 0
        else:
            due = parallel.agree(time.perf_counter() - last_checkpoint > config.checkpoint_seconds)
        if due or reason:
            mark(Stage.CHECKPOINT)
            counters.seconds = parallel.agree(time.perf_counter() - started)
            save_checkpoint(training)
            last_checkpoint = time.perf_counter()
        training.end_step()
    return reason


def _note_validation(training: Training, figures: dict[str, float]) -> None:
    """Keep the best model."""
    counters = training.counters
    if counters.best_loss is None or figures["loss"] < counters.best_loss:
        counters.best_loss, counters.best_step, counters.best_figures = figures["loss"], counters.step, figures
        counters.evaluations_without_gain = 0
        save_best_model(training)
    else:
        counters.evaluations_without_gain += 1


def seconds_left(training: Training) -> float | None:
    """By the speed so far and the nearest limit; ``None`` before there is a speed."""
    progress = training.progress()
    if progress <= 0:
        return None
    return training.counters.seconds * (1 - min(progress, 1.0)) / progress


def _total_seconds(training: Training) -> float:
    left = seconds_left(training)
    return training.counters.seconds + left if left is not None else 0.0


def memory_in_use(device: torch.device) -> int:
    """Peak bytes allocated on the accelerator, or this process's resident bytes on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import psutil

    return int(psutil.Process().memory_info().rss)
