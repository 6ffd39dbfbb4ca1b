"""Pre-training an encoder–decoder on plain text: name the spans that are hidden (T5, Raffel et al. 2020).

Shape legend: B texts, S source tokens, T target tokens, L tokens of a text, P target tokens of all texts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.data.batches import BatchCursor, evaluation_windows
from tickwise.data.pair_batches import PairTensors
from tickwise.data.span_corruption import corrupt, noise_mask
from tickwise.models.encoder_decoder import EncoderDecoder
from tickwise.training.objective import Batch
from tickwise.training.text_to_text import pair_loss

_VALIDATED_TOKENS = 8192


class SpanCorruption:
    """The ``Objective`` of an encoder–decoder on plain text: hidden spans, over shuffled windows of one token stream.

    Spans are drawn anew for every batch; everything random follows from ``seed`` and the number of batches so far.
    A batch counts for the tokens of its windows.
    """

    fixed_shapes = False

    def __init__(self, cursor: BatchCursor, validation: NDArray[Any] | None, *, sentinels: Sequence[int], eos_id: int,
                 density: float, mean_span: float) -> None:
        """Targets start with ``eos_id`` and end with it. The cursor's context is the windows' length, L."""
        self._cursor, self._validation = cursor, validation
        self._sentinels, self._eos_id = sentinels, eos_id
        self._density, self._mean_span = density, mean_span
        self._step = 0

    @property
    def n_validation_tokens(self) -> int:
        return 0 if self._validation is None else len(self._validation) - 1

    @property
    def epochs_done(self) -> float:
        return self._cursor.epochs_done

    def pairs(self, ids_BL: NDArray[np.int64], draws: np.random.Generator) -> PairTensors:
        """Sources and targets of windows that are equally long; so are these."""
        hidden = [noise_mask(len(ids), self._density, self._mean_span, draws) for ids in ids_BL]
        found = [corrupt(ids, mask, self._sentinels) for ids, mask in zip(ids_BL, hidden, strict=True)]
        source_BS, labels_BT = (torch.from_numpy(np.pad(np.stack(side), ((0, 0), (0, 1)), constant_values=self._eos_id))
                                for side in zip(*found, strict=True))
        start_B1 = torch.full((len(labels_BT), 1), self._eos_id)
        return PairTensors(source_BS, _lengths(source_BS), torch.cat([start_B1, labels_BT[:, :-1]], 1),
                           _lengths(labels_BT), labels_BT.flatten())

    def next_batch(self) -> Batch:
        ids_BL = self._cursor.next_batch()[0].numpy()
        draws = np.random.default_rng((self._cursor.seed, 1 << 32, self._step))
        self._step += 1
        return Batch(tuple(self.pairs(ids_BL, draws)), ids_BL.size)

    def example(self) -> Batch:
        ids_BL = np.zeros((self._cursor.batch_size, self._cursor.context), dtype=np.int64)
        return Batch(tuple(self.pairs(ids_BL, np.random.default_rng(0))), ids_BL.size)

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        """Texts have equally many labels, so that parts of equally many texts weigh the same."""
        pieces = zip(*(x.chunk(n) for x in batch.inputs), strict=True)
        return [Batch(inputs, batch.n_tokens // n) for inputs in pieces]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Mean nats of the targets' tokens."""
        assert isinstance(module, EncoderDecoder)
        return pair_loss(module, PairTensors(*inputs)), ()

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:
        """Windows are independent."""

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """Mean nats of the targets' tokens; the same spans every time."""
        assert isinstance(module, EncoderDecoder)
        assert self._validation is not None
        windows = evaluation_windows(self._validation, self._cursor.context, max_tokens,
                                     vocab_size=self._cursor.vocab_size)
        draws = np.random.default_rng((self._cursor.seed, 1 << 33))
        rows = max(1, _VALIDATED_TOKENS // self._cursor.context)
        total, count = 0.0, 0
        for ids_NL, _ in windows:
            if ids_NL.shape[1] < self._cursor.context:  # what is left over at the end is shorter
                continue
            for ids_BL in ids_NL.split(rows):
                inputs = PairTensors(*(x.to(device) for x in self.pairs(ids_BL.numpy(), draws)))
                total += pair_loss(module, inputs).item() * len(inputs.labels)
                count += len(inputs.labels)
        return {"loss": total / count}

    def state(self) -> dict[str, Any]:
        return self._cursor.state() | {"step": self._step}

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self._cursor.restore({name: value for name, value in state.items() if name != "step"})
        self._step = int(state["step"])


def _lengths(ids_BT: Tensor) -> Tensor:
    """(B,) all of them T."""
    return torch.full((len(ids_BT),), ids_BT.shape[1])
