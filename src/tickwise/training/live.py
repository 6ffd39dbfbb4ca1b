"""What a run shows and keeps while it goes: the live line, ``metrics.jsonl`` and TensorBoard events."""

import json
import time
from pathlib import Path
from typing import Any

from tickwise.core import console
from tickwise.core.console import format_bytes, format_count, format_seconds
from tickwise.training.contention import OtherPrograms

_PLAIN_INTERVAL_S = 5.0


class Journal:
    """Writes each metrics row to ``metrics.jsonl`` and TensorBoard, and shows it.

    On a terminal one line is redrawn; elsewhere a plain line appears every few seconds. What ``others`` has to say of
    other programs gets a line of its own. Use as a context manager: entering it makes all that a row needs, so that no
    step pays for it, and leaving it flushes everything. Events of ``first_step`` and later ones, which a run left that
    was killed after its last checkpoint, do not count.
    """

    def __init__(self, out: Path, others: OtherPrograms | None = None, *, first_step: int = 1) -> None:
        self._path = out / "metrics.jsonl"
        self._file = self._path.open("a", encoding="utf-8")
        self._others = others
        self._events_folder = out / "tensorboard"
        self._first_step = first_step
        self._writer: Any = None
        self._live: Any = None
        self._last_plain = 0.0
        self._latest: dict[str, Any] = {}

    def __enter__(self) -> "Journal":
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._events_folder), purge_step=self._first_step, flush_secs=30)
        if console.is_terminal():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=False)
            self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None
        self._file.close()
        self._writer.close()

    def record(self, row: dict[str, Any]) -> None:
        """Keep one row; keys: step, tokens, seconds, loss, lr, grad_norm, tokens_per_s, share_of_peak,
        memory_bytes, and validation_loss where there is one. ``None`` means not known."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for key, value in row.items():
            if key not in ("step", "tokens") and isinstance(value, int | float):
                self._writer.add_scalar(key, value, row["step"], walltime=time.time())

    def show(self, row: dict[str, Any], seconds_left: float | None, *, important: bool = False) -> None:
        """Draw the live line; ``important`` rows (validations) always get a line of their own."""
        warning = None if self._others is None else self._others.warning()
        if warning is not None:
            self.say(warning)
        self._latest |= {k: v for k, v in row.items() if v is not None}
        text = live_text(self._latest, seconds_left)
        if self._live is not None:
            if important:
                self._live.console.print(text, highlight=False)
            self._live.update(text)
            return
        now = time.monotonic()
        if important or now - self._last_plain >= _PLAIN_INTERVAL_S:
            self._last_plain = now
            console.say(text)

    def say(self, text: str) -> None:
        """A line beside the live one."""
        if self._live is not None:
            self._live.console.print(text, highlight=False)
        else:
            console.say(text)


class Unheard(Journal):
    """The journal of a rank that does not lead: nothing is kept or shown."""

    def __init__(self) -> None:
        pass

    def __enter__(self) -> "Unheard":
        return self

    def __exit__(self, *exception: Any) -> None:
        pass

    def record(self, row: dict[str, Any]) -> None:
        pass

    def show(self, row: dict[str, Any], seconds_left: float | None, *, important: bool = False) -> None:
        pass

    def say(self, text: str) -> None:
        pass


def live_text(row: dict[str, Any], seconds_left: float | None) -> str:
    """One line: step, loss (a moving average over about ten steps), validation loss, tokens/s, share of peak,
    memory, time left."""

    def number(key: str, form: str) -> str:
        return format(row[key], form) if row.get(key) is not None else "n/a"

    more = "".join(f"  {key.removeprefix('validation_')} {value:.4f}" for key, value in row.items()
                   if key.startswith("validation_") and key != "validation_loss")
    share = f"{100 * row['share_of_peak']:.0f}%" if row.get("share_of_peak") is not None else "n/a"
    memory = format_bytes(row["memory_bytes"]) if row.get("memory_bytes") is not None else "n/a"
    rate = format_count(row["tokens_per_s"]) if row.get("tokens_per_s") is not None else "n/a"
    left = format_seconds(seconds_left) if seconds_left is not None else "n/a"
    return (f"step {row.get('step', 0):>6,}  mean loss {number('loss', '.4f')}  "
            f"val {number('validation_loss', '.4f')}{more}  {rate} tok/s  {share} of peak  {memory}  {left} left")
