"""Training a sentence embedder: texts and their partners near each other, all others of the batch far.

Sources: van den Oord et al. 2018 (the loss), Gao et al. 2021 (SimCSE: a text's partner may be itself, read with other
dropout). Shape legend: B texts, T tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.core.errors import CheckpointError
from tickwise.core.stages import Stage, mark
from tickwise.data.encoder_inputs import Marks, padded
from tickwise.models.encoder_heads import SentenceEmbedder, contrastive_loss
from tickwise.training.encoder_classification import classify_encoded
from tickwise.training.objective import Batch

Rows = Sequence[NDArray[np.int64]]


class Contrastive:
    """The ``Objective`` of a sentence embedder. Text i of ``left`` belongs to text i of ``right``; where both are the
    same list, a text and itself, told apart by dropout and by ``word_dropout`` (the chance that a token is masked).
    Everything random but dropout follows from ``seed`` and the number of batches so far."""

    fixed_shapes = False

    def __init__(self, left: Rows, right: Rows, validation: tuple[Rows, Rows] | None, marks: Marks, *, batch_size: int,
                 seed: int, word_dropout: float) -> None:
        assert len(left) == len(right)
        self._left, self._right, self._validation, self._marks = left, right, validation, marks
        self._batch_size, self._seed, self._word_dropout = min(batch_size, len(left)), seed, word_dropout
        self._step, self._pass = 0, -1
        self._order = np.empty(0, dtype=np.int64)

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else sum(map(len, [*self._validation[0], *self._validation[1]]))

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self._left) // self._batch_size)

    @property
    def epochs_done(self) -> float:
        return self._step / self.steps_per_epoch

    def _batch(self, chosen: NDArray[np.int64], step: int | None) -> Batch:
        inputs: list[Tensor] = []
        draws = np.random.default_rng((self._seed, 1 << 32, step or 0))
        for rows in (self._left, self._right):
            ids_BT, lengths_B = padded([rows[i] for i in chosen], self._marks.pad)
            if self._word_dropout and step is not None:
                dropped = torch.from_numpy(draws.random(ids_BT.shape, dtype=np.float32) < self._word_dropout)
                dropped[:, 0] = False
                ids_BT[dropped & (torch.arange(ids_BT.shape[1]) < lengths_B[:, None] - 1)] = self._marks.mask
            inputs += [ids_BT, lengths_B]
        return Batch(tuple(inputs), int(inputs[1].sum() + inputs[3].sum()))

    def next_batch(self) -> Batch:
        number, place = divmod(self._step, self.steps_per_epoch)
        if number != self._pass:
            self._pass = number
            self._order = np.random.default_rng((self._seed, number)).permutation(len(self._left))
        self._step += 1
        return self._batch(self._order[place * self._batch_size : (place + 1) * self._batch_size], self._step)

    def example(self) -> Batch:
        return self._batch(np.arange(self._batch_size), None)

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        """Each part then tells its own texts apart only."""
        parts = zip(*(x.chunk(n) for x in batch.inputs), strict=True)
        return [Batch(tuple(part), int(part[1].sum() + part[3].sum())) for part in parts]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert isinstance(module, SentenceEmbedder)
        left_ids, left_lengths, right_ids, right_lengths = inputs
        left_BC, right_BC = module(left_ids, left_lengths), module(right_ids, right_lengths)
        mark(Stage.LOSS)
        return contrastive_loss(left_BC, right_BC, module.config.temperature), ()

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:
        """Batches are independent."""

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """The loss among all development pairs at once, and how many left texts find their partner first."""
        assert self._validation is not None
        assert isinstance(module, SentenceEmbedder)
        left, right = (classify_encoded(module, rows, self._marks, device) for rows in self._validation)
        found = (left @ right.t()).argmax(1) == torch.arange(len(left))
        return {"loss": contrastive_loss(left, right, module.config.temperature).item(),
                "recall": found.float().mean().item()}

    def state(self) -> dict[str, Any]:
        return {"step": self._step, "seed": self._seed, "texts": len(self._left), "batch_size": self._batch_size}

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        own = self.state()
        for name in ("seed", "texts", "batch_size"):
            if state.get(name) != own[name]:
                raise CheckpointError(f"{name.replace('_', ' ')} was {state.get(name)}, this run has {own[name]}; give "
                                      "the same, or a new --out")
        self._step = int(state["step"])
