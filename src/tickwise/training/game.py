"""The loop around a game of two networks: lines, metrics, checkpoints, a trace and the record, until the steps are
done, the time is over, or Ctrl-C."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tickwise.core import console
from tickwise.core.errors import NumericsError, OutputError
from tickwise.core.paths import output_error, write_text_atomic
from tickwise.core.stages import Stage, mark, marking
from tickwise.training.adversarial import LatentGame, Played, SeqGan, resume_game, save_game
from tickwise.training.checkpoint import drop_metrics_after
from tickwise.training.config import LoopConfig
from tickwise.training.run import interrupt_flag
from tickwise.training.step_trace import recorded_step, recorded_steps

LIKELIHOOD = "likelihood"
"""Folder, in the run directory of a GAN, of the training that its generator starts from."""
_SHOWN_EVERY_S = 5.0


@dataclass(frozen=True)
class GanResult:
    """What an adversarial training came to."""

    out: Path
    model: Path
    steps: int
    seconds: float
    """Of the game, earlier parts of a resumed one included."""
    figures: dict[str, float]
    """The last ones."""
    interrupted: bool


@dataclass(frozen=True, kw_only=True)
class Round:
    """One game to play: how long, what to look at now and then, what to keep."""

    game: SeqGan | LatentGame
    n_steps: int
    max_seconds: float | None
    """Earlier parts of a resumed game included."""
    settings: dict[str, Any]
    """What a resumed game must agree on."""
    record: dict[str, Any]
    """What ``run.json`` says beside the result."""
    figures: Callable[[], dict[str, float]]
    """Of the validation part."""
    save: Callable[[dict[str, Any]], None]
    """Write the models; takes the whole record."""


def play_round(config: LoopConfig, played: Round, trace: Path | None = None) -> GanResult:
    """Play to the end, or go on from the newest checkpoint and play to the end; with ``trace``, every step is a tick
    there (times are measured; FLOPs are not counted)."""
    game, out = played.game, config.out
    before = resume_game(out, game, played.settings) if config.resume == "auto" else None
    if before is not None:
        console.say(f"resumed at {game.place}")
    before = before or Played()
    try:
        out.mkdir(parents=True, exist_ok=True)
        drop_metrics_after(out / "metrics.jsonl", game.step)
        _write_record(out, played.record)
        with (out / "metrics.jsonl").open("a", encoding="utf-8") as metrics, interrupt_flag() as stopped, \
                recorded_steps(trace, str(out), game.device) as ledger:
            watch = _Watch(config, played, metrics, stopped, before)
            while not watch.ends:
                with recorded_step(ledger, game.batch_size):
                    warms_up = game.warms_up
                    row = game.move()
                    mark(Stage.HOST)
                    watch.look(row, warms_up)
    except OSError as problem:
        raise output_error(problem, out) from None
    seconds = watch.seconds()
    record = played.record | {"result": {"step": game.step, "seconds": seconds, **watch.figures}}
    played.save(record)
    _write_record(out, record)
    if watch.interrupted:
        console.say(f"interrupted: saved {game.place} in {out}; go on with the same command and {config.flags.resume}")
    else:
        console.say(f"done: {game.step:,} steps of the game in {console.format_seconds(seconds)}; model in "
                    f"{out / 'model'}")
        if game.step == 0 < played.n_steps:
            console.say("no step of the game was played: its time went into the discriminator's first updates, and the "
                        "model is that of the maximum likelihood; raise --adversarial.max-seconds or lower "
                        "--adversarial.discriminator-first")
    return GanResult(out, out / "model", game.step, seconds, watch.figures, watch.interrupted)


class _Watch:
    """Looks at a game after every move: is it over, is a line, a validation or a checkpoint due."""

    def __init__(self, config: LoopConfig, played: Round, metrics: TextIO, stopped: Callable[[], bool],
                 before: Played) -> None:
        self._config, self._played, self._metrics, self._stopped = config, played, metrics, stopped
        self._saved = self._shown = time.monotonic()
        self._started = self._saved - before.seconds
        self._evaluate_every = config.evaluate_every or max(1, min(played.n_steps, 10_000) // 20)
        self.ends, self.interrupted = played.game.step >= played.n_steps, False
        self.figures = dict(before.figures)

    def seconds(self) -> float:
        """Of the game so far, its earlier parts included."""
        return time.monotonic() - self._started

    def look(self, row: dict[str, float], warms_up: bool) -> None:
        """After a move with these figures; one that only warmed up has no row in the metrics."""
        config, played, step = self._config, self._played, self._played.game.step
        self.interrupted = self._stopped()
        self.ends = self.interrupted or step >= played.n_steps or (
            played.max_seconds is not None and self.seconds() > played.max_seconds)
        validates = not warms_up and (self.ends or step % self._evaluate_every == 0)
        if validates:
            mark(Stage.VALIDATION)
            with marking(None):
                row = row | played.figures()
            mark(Stage.HOST)
        if not all(np.isfinite(value) for value in row.values()):
            raise NumericsError(f"{played.game.place}: {row}; lower the learning rates")
        if validates or (not warms_up and step % config.log_every == 0):
            self._metrics.write(json.dumps({"step": step, "seconds": self.seconds(), **row}) + "\n")
            self._metrics.flush()
        self.figures |= row
        now = time.monotonic()
        if self.ends or now - self._shown > _SHOWN_EVERY_S:
            self._shown = now
            console.say(f"{played.game.place}  " + "  ".join(f"{k} {v:.4f}" for k, v in row.items()))
        due = config.checkpoint_every and not warms_up and step % config.checkpoint_every == 0
        if self.ends or due or now - self._saved > config.checkpoint_seconds:
            mark(Stage.CHECKPOINT)
            save_game(config.out, played.game, played.settings, config.keep_checkpoints,
                      Played(self.seconds(), self.figures))
            self._saved = time.monotonic()


def _write_record(out: Path, record: dict[str, Any]) -> None:
    write_text_atomic(out / "run.json", json.dumps(record, indent=2) + "\n")


def check_game_output(config: LoopConfig) -> None:
    """``OutputError`` where the game would be mixed with another run; changes nothing."""
    out = config.out
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; give a folder to --out")
    holds = any((out / name).exists() for name in ("checkpoints", "model", LIKELIHOOD, "metrics.jsonl"))
    if holds and not config.overwrite and config.resume == "never":
        raise OutputError(f"{out}: holds a run already; go on with {config.flags.resume}, replace it with --overwrite, "
                          "or give another --out")


def open_game_output(config: LoopConfig) -> None:
    """Empty ``out`` of an earlier game that is to be replaced."""
    if config.overwrite:
        for name in ("checkpoints", "model", "discriminator"):
            shutil.rmtree(config.out / name, ignore_errors=True)
        for name in ("metrics.jsonl", "run.json"):
            (config.out / name).unlink(missing_ok=True)
