"""Who does a job: a classical program, or a model that writes or labels. All are asked and recorded alike."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy
import torch

from tickwise.compare.programs import Program, Tally, code_bytes
from tickwise.core.errors import UserError
from tickwise.core.stages import Stage, mark, marking
from tickwise.engine.language_model import LanguageModel
from tickwise.engine.tracing import traced, writing_costs
from tickwise.profiling.calls import traced_calls
from tickwise.profiling.ledger import CostTable, RequestRow, TickCosts
from tickwise.profiling.recording import record_trace

if TYPE_CHECKING:
    from tickwise.profiling.ledger import Phase
    from tickwise.tasks.classifier import Classifier

Kind = Literal["classical", "language model"]
_ROUNDS = 5


@dataclass(frozen=True)
class Change:
    """What it costs to change the behaviour: make the contestant anew and test it. ``None``: not known."""

    what: str
    make_s: float | None
    flops: float | None


class Contestant(ABC):
    """Answers texts. ``record`` answers them one after the other under the ledger."""

    kind: Kind
    name: str
    operations: str
    """What an operation is."""

    @abstractmethod
    def answers(self, texts: Sequence[str]) -> list[str]:
        """Of all texts, in order."""

    @abstractmethod
    def record(self, texts: Sequence[str], folder: Path) -> int:
        """Leave a trace in ``folder``; returns how many answers it holds."""

    @abstractmethod
    def memory_bytes(self) -> int:
        """What has to be kept to answer."""

    @abstractmethod
    def change(self) -> "tuple[Contestant, Change] | None":
        """The contestant after a change of what it does, and what that took."""


@dataclass
class _ProgramWork:
    """One pass of a program over ``batch`` texts."""

    batch: int
    phase: "Phase" = "prefill"
    kv_tokens: int = 0
    rows: tuple[RequestRow, ...] = ()


class Classical(Contestant):
    """A program; its steps are counted in a pass of their own, by the same code."""

    kind: Kind = "classical"

    def __init__(self, program: Program, *, counts: bool = True) -> None:
        self.program, self.name, self._counts = program, program.name, counts
        self.operations = "steps of the algorithm" if counts else "n/a"

    def answers(self, texts: Sequence[str]) -> list[str]:
        return [self.program.answer(text) for text in texts]

    def tally(self, texts: Sequence[str]) -> Tally | None:
        """Steps of all texts together; ``None`` where the program does not count."""
        if not self._counts:
            return None
        tally = Tally()
        for text in texts:
            self.program.answer(text, tally)
        return tally

    def record(self, texts: Sequence[str], folder: Path) -> int:
        """A tick is a pass over all texts: a single answer can be shorter than reading the clock."""
        tally = self.tally(texts)
        costs = None
        if tally is not None:
            table = CostTable(((Stage.FORWARD, None),),
                              numpy.array([[tally.total, tally.bytes_read, tally.bytes_written]], dtype=numpy.int64),
                              numpy.zeros((0, 1, 3), dtype=numpy.int64), frozenset({Stage.FORWARD}))
            costs = lambda work: TickCosts(table, ())  # noqa: E731
        answer = self.program.answer
        with record_trace(folder, model=self.name, dtype=torch.float32, device=torch.device("cpu"), costs=costs,
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

    def change(self) -> "tuple[Classical, Change] | None":
        start = time.perf_counter()
        edited = self.program.edited()
        seconds = time.perf_counter() - start
        if edited is None:
            return None
        return Classical(edited[0], counts=self._counts), Change(edited[1], seconds, None)


def _module_bytes(module: torch.nn.Module) -> int:
    tensors = {tensor.data_ptr(): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


class Writer(Contestant):
    """A model that writes the answer, the likeliest token each time."""

    operations = "FLOPs"

    def __init__(self, model: LanguageModel, name: str, *, template: str = "{}", most_tokens: int = 40,
                 kind: Kind = "language model", backwards: bool = False, retraining: Change | None = None) -> None:
        """``template``: the prompt around a text. ``backwards``: what it writes is read from its end."""
        self.model, self.name, self.kind = model, name, kind
        self._template, self._retraining, self._step = template, retraining, -1 if backwards else 1
        self._settings = {"temperature": 0.0, "max_tokens": most_tokens, "stop": ("\n",), "seed": 1}

    def answers(self, texts: Sequence[str]) -> list[str]:
        found = [""] * len(texts)
        prompts = [self._template.format(text) for text in texts]
        for answer in self.model.generate_batch(prompts, **self._settings):
            found[answer.index] = "" if answer.error is not None else answer.text.strip()[:: self._step]
        return found

    def record(self, texts: Sequence[str], folder: Path) -> int:
        answered = 0
        with traced(self.model, folder, writing_costs(self.model, True), overwrite=True):
            for text in texts:
                try:
                    self.model.generate(self._template.format(text), **self._settings)
                    answered += 1
                except UserError:  # a text that the model cannot read is answered at once
                    continue
        return answered

    def memory_bytes(self) -> int:
        return _module_bytes(self.model.module)

    def change(self) -> tuple[Contestant, Change] | None:
        return None if self._retraining is None else (self, self._retraining)


class Labeller(Contestant):
    """A model that chooses a label."""

    kind: Kind = "language model"
    operations = "FLOPs"

    def __init__(self, classifier: "Classifier", name: str, retraining: Change | None = None) -> None:
        self.classifier, self.name, self._retraining = classifier, name, retraining

    def answers(self, texts: Sequence[str]) -> list[str]:
        return [prediction.label for prediction in self.classifier.predict(list(texts))]

    def record(self, texts: Sequence[str], folder: Path) -> int:
        with traced_calls(self.classifier.module, folder, model=self.name, overwrite=True):
            for text in texts:
                self.classifier.predict([text])
        return len(texts)

    def memory_bytes(self) -> int:
        return _module_bytes(self.classifier.module)

    def change(self) -> tuple[Contestant, Change] | None:
        return None if self._retraining is None else (self, self._retraining)
