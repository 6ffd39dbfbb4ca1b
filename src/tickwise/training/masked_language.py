"""The encoder's job on plain text: name the words that were masked, or tell the tokens that were replaced.

Sources: masked words (Devlin et al. 2019), whole words at once (Cui et al. 2021), replaced tokens (Clark et al. 2020).
Shape legend: B windows, T tokens with their marks, N masked tokens of a window, C width, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.core.stages import Stage, mark
from tickwise.data.batches import BatchCursor
from tickwise.data.encoder_inputs import Marks
from tickwise.data.word_borders import WordBorders
from tickwise.models.encoder import Electra, Encoder
from tickwise.training.objective import Batch
from tickwise.training.windows import WindowObjective

_REPLACED_WEIGHT = 50.0
"""Of the discriminator's loss beside the generator's (Clark et al. 2020, section 3.1)."""


class WholeWordMasks:
    """Chooses which tokens of a window are hidden: words at random until ``share`` of the tokens is reached (the last
    word may be cut), each token replaced by the mask (80 %), by any token (10 %) or left (10 %); with ``always`` all by
    the mask."""

    def __init__(self, borders: WordBorders, marks: Marks, words: NDArray[np.int64], share: float,
                 always: bool = False) -> None:
        """``words`` are the ids that stand for text; no other token is hidden while these suffice."""
        self._borders, self._mask, self._words = borders, marks.mask, words
        self._is_word = np.zeros(max(words.max(), marks.pad, marks.cls, marks.sep, marks.mask) + 1, dtype=np.bool_)
        self._is_word[words] = True
        self._share, self._always = share, always

    def n_hidden(self, length: int) -> int:
        """Tokens of a window that are hidden."""
        return max(1, round(self._share * length))

    def __call__(self, ids_BT: NDArray[np.int64], draws: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The window as the model sees it (B, T), the hidden places (B, N) and what stood there (B, N)."""
        word_BT = self._borders.begins(ids_BT).cumsum(1)
        chance_BT = np.take_along_axis(draws.random((len(ids_BT), ids_BT.shape[1] + 1)), word_BT, axis=1)
        chance_BT[~self._is_word[ids_BT]] = 2.0
        places_BN = np.sort(np.argsort(chance_BT, axis=1, kind="stable")[:, : self.n_hidden(ids_BT.shape[1])], axis=1)
        targets_BN = np.take_along_axis(ids_BT, places_BN, axis=1)
        shown_BN = np.full_like(targets_BN, self._mask)
        if not self._always:
            lot_BN = draws.random(places_BN.shape)
            other_BN = self._words[draws.integers(len(self._words), size=places_BN.shape)]
            shown_BN = np.where(lot_BN < 0.8, shown_BN, np.where(lot_BN < 0.9, other_BN, targets_BN))
        seen_BT = ids_BT.copy()
        np.put_along_axis(seen_BT, places_BN, shown_BN, axis=1)
        return torch.from_numpy(seen_BT), torch.from_numpy(places_BN), torch.from_numpy(targets_BN)


class MaskedLanguage(WindowObjective):
    """The ``Objective`` of an encoder: the words at masked places of windows, each between the marks of a text."""

    fixed_shapes = True

    def __init__(self, cursor: BatchCursor, validation: NDArray[Any] | None, masks: WholeWordMasks,
                 marks: Marks) -> None:
        """The cursor's context is the model's less the two marks."""
        super().__init__(cursor, validation)
        self._masks, self._marks = masks, marks

    def batch(self, windows_BT: NDArray[np.int64], draws: np.random.Generator) -> Batch:
        ids_BT = np.pad(windows_BT, ((0, 0), (1, 1)))
        ids_BT[:, 0], ids_BT[:, -1] = self._marks.cls, self._marks.sep
        return Batch(self._masks(ids_BT, draws), ids_BT.size)

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Mean nats of the hidden tokens."""
        assert isinstance(module, Encoder)
        seen_BT, places_BN, targets_BN = inputs
        return module.mlm_loss(states_at(module(seen_BT), places_BN), targets_BN.flatten()), ()

    def figures(self, module: nn.Module, inputs: Sequence[Tensor]) -> tuple[dict[str, float], int]:
        """Nats of hidden tokens, and how many of them were named."""
        assert isinstance(module, Encoder)
        seen_BT, places_BN, targets_BN = inputs
        logits_NV = module.mlm_logits(states_at(module(seen_BT), places_BN)).float()
        targets_N = targets_BN.flatten()
        return {"loss": F.cross_entropy(logits_NV, targets_N).item(),
                "accuracy": (logits_NV.argmax(-1) == targets_N).float().mean().item()}, len(targets_N)


class ReplacedTokens(MaskedLanguage):
    """The ``Objective`` of an ELECTRA: the generator names masked words, a word of its own choice takes each place, and
    the encoder tells for every token whether it was replaced."""

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert isinstance(module, Electra)
        seen_BT, places_BN, targets_BN = inputs
        generated, found, _ = electra_losses(module, seen_BT, places_BN, targets_BN)
        return generated + _REPLACED_WEIGHT * found, ()

    def figures(self, module: nn.Module, inputs: Sequence[Tensor]) -> tuple[dict[str, float], int]:
        assert isinstance(module, Electra)
        seen_BT, places_BN, targets_BN = inputs
        draws = torch.Generator(seen_BT.device).manual_seed(self._cursor.seed)  # the same replacements every time
        generated, found, right = electra_losses(module, seen_BT, places_BN, targets_BN, draws)
        return {"loss": found.item(), "generator_loss": generated.item(), "accuracy": right.item()}, places_BN.numel()


def states_at(states_BTC: Tensor, places_BN: Tensor) -> Tensor:
    """(B·N, C): the states at the hidden places."""
    batch, length, width = states_BTC.shape
    rows_BN = places_BN + torch.arange(0, batch * length, length, device=places_BN.device)[:, None]
    return states_BTC.reshape(-1, width).index_select(0, rows_BN.flatten())


def electra_losses(module: Electra, seen_BT: Tensor, places_BN: Tensor, targets_BN: Tensor,
                   draws: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Nats of the generator's hidden words, nats of each token's being replaced or not, and the share of tokens that
    were told rightly. A replacement that is the very word that stood there counts as not replaced. ``draws`` (of the
    inputs' device) draws the replacements; torch's own generator if left out."""
    generator = module.generator
    logits_NV = generator.mlm_logits(states_at(generator(seen_BT), places_BN)).float()
    mark(Stage.LOSS)
    generated = F.cross_entropy(logits_NV, targets_BN.flatten())
    with torch.no_grad():
        noise_NV = torch.empty_like(logits_NV).exponential_(generator=draws).log_()
        drawn_BN = (logits_NV - noise_NV).argmax(-1).view_as(targets_BN)  # Gumbel: a draw from the softmax
        read_BT = seen_BT.scatter(1, places_BN, drawn_BN)
        replaced_BT = torch.zeros_like(read_BT, dtype=torch.float32)
        replaced_BT.scatter_(1, places_BN, (drawn_BN != targets_BN).float())
    logits_BT = module.replaced_logits(module(read_BT)).float()
    mark(Stage.LOSS)
    right = ((logits_BT > 0) == (replaced_BT > 0)).float().mean()
    return generated, F.binary_cross_entropy_with_logits(logits_BT, replaced_BT), right
