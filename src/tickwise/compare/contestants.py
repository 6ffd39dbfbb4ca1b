"""Who does a job: a classical program, or a model that writes or labels. All are asked, timed and recorded alike."""

import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from tickwise.compare.programs import Program, Tally, code_bytes
from tickwise.core.errors import UserError
from tickwise.core.stages import Stage, mark, marking
from tickwise.engine.language_model import LanguageModel
from tickwise.engine.tracing import traced, writing_costs
from tickwise.profiling.calls import traced_calls
from tickwise.profiling.ledger import RequestRow
from tickwise.profiling.recording import record_trace

if TYPE_CHECKING:
    from tickwise.profiling.ledger import Phase
    from tickwise.tasks.classifier import Classifier

Kind = Literal["classical", "language model"]
_ROUNDS = 5
_SHORTEST_S = 2e-4
"""What is timed takes at least so long: a shorter answer is given several times."""


@dataclass(frozen=True)
class Training:
    """What it took to make a model. ``None``: not known."""

    seconds: float | None
    flops: float | None


class Contestant(ABC):
    """Answers texts."""

    kind: Kind
    name: str
    operations: str
    """What an operation is."""
    training: Training | None = None

    @abstractmethod
    def answer(self, text: str) -> str:
        """Of one text, as quickly as it can be had."""

    def answers(self, texts: Sequence[str]) -> list[str]:
        """Of all texts, in order."""
        return [self.answer(text) for text in texts]

    @abstractmethod
    def record(self, texts: Sequence[str], folder: Path) -> int:
        """Answer the texts one after the other under the ledger, which goes to ``folder``; returns how many answers it
        holds."""

    @abstractmethod
    def memory_bytes(self) -> int:
        """What has to be kept to answer."""


@dataclass(frozen=True)
class Time:
    """Of an answer."""

    processor_s: float
    """Of all threads together. Other programs on the machine change it little."""
    wall_s: float


def times_of(answer: Callable[[str], str], texts: Sequence[str]) -> list[Time]:
    """Of an answer to each text, one after the other and without a ledger: medians of five."""
    return [_time(answer, text) for text in texts]


def _time(answer: Callable[[str], str], text: str) -> Time:
    answer(text)
    n = 1
    found: list[Time] = []
    while len(found) < _ROUNDS:
        wall, start = time.perf_counter(), time.process_time()
        for _ in range(n):
            answer(text)
        seconds, wall = time.process_time() - start, time.perf_counter() - wall
        if seconds < _SHORTEST_S:
            n = max(2 * n, math.ceil(n * _SHORTEST_S / max(seconds, 1e-9)))
            found.clear()
        else:
            found.append(Time(seconds / n, wall / n))
    return Time(statistics.median(one.processor_s for one in found), statistics.median(one.wall_s for one in found))


@dataclass
class _ProgramWork:
    """One pass of a program over ``batch`` texts."""

    batch: int
    phase: "Phase" = "prefill"
    kv_tokens: int = 0
    rows: tuple[RequestRow, ...] = ()


class Classical(Contestant):
    """A program. Its steps are counted in a pass of their own, by the same code."""

    kind: Kind = "classical"
    operations = "steps of the algorithm"

    def __init__(self, program: Program, edit: Callable[[], tuple[Program, str]]) -> None:
        """``edit`` makes the program that answers rephrased or noisy inputs, too, and says what was changed."""
        self.program, self.name, self._edit = program, program.name, edit

    def answer(self, text: str) -> str:
        return self.program.answer(text)

    def tally(self, texts: Sequence[str]) -> Tally:
        """Steps of all texts together."""
        tally = Tally()
        for text in texts:
            self.program.answer(text, tally)
        return tally

    def record(self, texts: Sequence[str], folder: Path) -> int:
        """A tick is a pass over all texts: a single answer can be shorter than reading the clock. The program's steps
        are no FLOPs, and the ledger says of them that they are not known."""
        answer = self.program.answer
        with record_trace(folder, model=self.name, dtype=torch.float32, device=torch.device("cpu"),
                          overwrite=True) as ledger, marking(ledger):
            for _ in range(_ROUNDS):
                ledger.begin_tick()
                ledger.tick_work(_ProgramWork(len(texts)))
                mark(Stage.FORWARD)
                for text in texts:
                    answer(text)
                mark(Stage.HOST)
                ledger.end_tick(())
        return _ROUNDS * len(texts)

    def memory_bytes(self) -> int:
        return self.program.memory_bytes() + code_bytes(self.program)

    def edited(self) -> "tuple[Classical, str]":
        """The program after the change, and what was changed."""
        program, what = self._edit()
        return Classical(program, self._edit), what


def _module_bytes(module: torch.nn.Module) -> int:
    tensors = {tensor.data_ptr(): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


class Writer(Contestant):
    """A model that writes the answer, the likeliest token each time."""

    kind: Kind = "language model"
    operations = "FLOPs"

    def __init__(self, model: LanguageModel, name: str, *, template: str = "{}", most_tokens: int = 40,
                 backwards: bool = False, training: Training | None = None) -> None:
        """``template``: the prompt around a text. ``backwards``: what it writes is read from its end."""
        self.model, self.name, self.training = model, name, training
        self._template, self._step = template, -1 if backwards else 1
        self._settings = {"temperature": 0.0, "max_tokens": most_tokens, "stop": ("\n",), "seed": 1}

    def answer(self, text: str) -> str:
        """Empty for a text that the model cannot read."""
        try:
            answer = self.model.generate(self._template.format(text), **self._settings)
        except UserError:
            return ""
        assert not isinstance(answer, list)
        return self._read(answer.text)

    def answers(self, texts: Sequence[str]) -> list[str]:
        found = [""] * len(texts)
        prompts = [self._template.format(text) for text in texts]
        for answer in self.model.generate_batch(prompts, **self._settings):
            found[answer.index] = "" if answer.error is not None else self._read(answer.text)
        return found

    def _read(self, written: str) -> str:
        return written.strip()[:: self._step]

    def record(self, texts: Sequence[str], folder: Path) -> int:
        with traced(self.model, folder, writing_costs(self.model, True), overwrite=True):
            for text in texts:
                self.answer(text)
        return len(texts)

    def memory_bytes(self) -> int:
        return _module_bytes(self.model.module)


class Labeller(Contestant):
    """A model that chooses a label."""

    kind: Kind = "language model"
    operations = "FLOPs"

    def __init__(self, classifier: "Classifier", name: str, training: Training | None = None) -> None:
        self.classifier, self.name, self.training = classifier, name, training

    def answer(self, text: str) -> str:
        return self.classifier.predict([text])[0].label

    def answers(self, texts: Sequence[str]) -> list[str]:
        return [prediction.label for prediction in self.classifier.predict(list(texts))]

    def record(self, texts: Sequence[str], folder: Path) -> int:
        with traced_calls(self.classifier.module, folder, model=self.name, overwrite=True):
            for text in texts:
                self.answer(text)
        return len(texts)

    def memory_bytes(self) -> int:
        return _module_bytes(self.classifier.module)
