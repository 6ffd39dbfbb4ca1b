"""Pre-training an encoder–decoder on plain text: name the spans that are hidden (T5, Raffel et al. 2020).

Shape legend: B texts, S source tokens, T target tokens, L tokens of a text, P target tokens of all texts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.data.batches import BatchCursor
from tickwise.data.pair_batches import PairTensors
from tickwise.data.span_corruption import corrupt, corrupted_lengths, noise_mask
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.training.objective import Batch
from tickwise.training.text_to_text import pair_loss
from tickwise.training.windows import WindowObjective


class SpanCorruption(WindowObjective):
    """The ``Objective`` of an encoder–decoder on plain text: hidden spans. A batch counts for the tokens of its
    windows."""

    fixed_shapes = False
    validates_the_rest = False

    def __init__(self, cursor: BatchCursor, validation: NDArray[Any] | None, model: EncoderDecoderConfig, *,
                 sentinels: Sequence[int], density: float, mean_span: float) -> None:
        """The cursor's context is the windows' length, L. ``ConfigError`` when such windows have more spans than there
        are ``sentinels``, or a source or a target that is longer than those of ``model``."""
        super().__init__(cursor, validation)
        self._sentinels, self._start_id, self._eos_id = sentinels, model.start_id, model.eos_id
        self._density, self._mean_span = density, mean_span
        source, target = corrupted_lengths(cursor.context, density, mean_span)
        if source > model.source_length or target > model.context_length:
            raise ConfigError(f"span corruption: of {cursor.context:,} tokens the source has {source:,} and the target "
                              f"{target:,}, the model takes {model.source_length:,} and {model.context_length:,}; hide "
                              "fewer tokens, in longer spans, or raise --longest")
        self.example()  # says at once whether there are sentinels enough

    def pairs(self, ids_BL: NDArray[np.int64], draws: np.random.Generator) -> PairTensors:
        """Sources and targets of windows that are equally long; so are these."""
        hidden = [noise_mask(len(ids), self._density, self._mean_span, draws) for ids in ids_BL]
        found = [corrupt(ids, mask, self._sentinels) for ids, mask in zip(ids_BL, hidden, strict=True)]
        source_BS, labels_BT = (torch.from_numpy(np.pad(np.stack(side), ((0, 0), (0, 1)), constant_values=self._eos_id))
                                for side in zip(*found, strict=True))
        start_B1 = torch.full((len(labels_BT), 1), self._start_id)
        return PairTensors(source_BS, _lengths(source_BS), torch.cat([start_B1, labels_BT[:, :-1]], 1),
                           _lengths(labels_BT), labels_BT.flatten())

    def batch(self, windows_BT: NDArray[np.int64], draws: np.random.Generator) -> Batch:
        return Batch(tuple(self.pairs(windows_BT, draws)), windows_BT.size)

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Mean nats of the targets' tokens."""
        assert isinstance(module, EncoderDecoder)
        return pair_loss(module, PairTensors(*inputs)), ()

    def figures(self, module: nn.Module, inputs: Sequence[Tensor]) -> tuple[dict[str, float], int]:
        loss, _ = self.loss(module, *inputs)
        return {"loss": loss.item()}, len(inputs[-1])


def _lengths(ids_BT: Tensor) -> Tensor:
    """(B,) all of them T."""
    return torch.full((len(ids_BT),), ids_BT.shape[1])
