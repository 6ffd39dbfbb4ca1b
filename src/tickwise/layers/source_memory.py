"""What an encoder–decoder's decoder reads of its sources, and the views through which its tokens see each other.

Shape legend: B batch, S source tokens, T target tokens, K key-value heads, H heads, D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tickwise.layers.attention import BiasedCache, PositionBias, WholeText, causal_attention, full_attention


class CopiedMemory(Protocol):
    """What pointing into sources needs of a memory; the names are those of ``Memory``."""

    @property
    def keys(self) -> Sequence[Tensor]: ...

    @property
    def padding_B11S(self) -> Tensor | None: ...  # noqa: N802

    @property
    def tokens_BS(self) -> Tensor | None: ...  # noqa: N802


@dataclass(frozen=True)
class Memory:
    """What the decoder reads of B sources: computed once for each, the same in every step."""

    keys: tuple[Tensor, ...]
    """For each decoder layer (B, K, S, D)."""
    values: tuple[Tensor, ...]
    """For each decoder layer (B, K, S, D)."""
    lengths_B: Tensor  # noqa: N815
    """Tokens of each source; what follows is padding."""
    padding_B11S: Tensor | None  # noqa: N815
    """What hides the padding, added to scores; ``None``: there is none."""
    dropout: float = 0.0
    """Share of the attention's weights that do not count."""
    tokens_BS: Tensor | None = None  # noqa: N815
    """Ids of the sources, where the model copies from them."""

    @property
    def longest(self) -> int:
        """Tokens of the longest source, S."""
        return self.keys[0].shape[2]

    def attend(self, layer: int, q_BHTD: Tensor) -> Tensor:
        """(B, H, T, D): every query looks at all tokens of its source."""
        return full_attention(
            q_BHTD, self.keys[layer], self.values[layer], bias=self.padding_B11S, dropout=self.dropout)


class EarlierTokens(WholeText):
    """Attention from every token to those before it and to itself."""

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        return causal_attention(q_BHTD, k_BKTD, v_BKTD, dropout=self._dropout)


class RememberedBias:
    """A cache, with a bias that is computed once for all layers of a call."""

    def __init__(self, cache: BiasedCache, bias: PositionBias) -> None:
        self._cache, self._bias = cache, bias
        self._known: list[tuple[slice | Tensor, int, Tensor]] = []

    def positions(self, n_new: int) -> slice | Tensor:
        return self._cache.positions(n_new)

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        return self._cache.attend(layer, q_BHTD, k_BKTD, v_BKTD, self._remembered)

    def advance(self, n_new: int) -> None:
        self._cache.advance(n_new)

    def _remembered(self, positions: slice | Tensor, n_keys: int) -> Tensor:
        for known, n_known, bias_HTS in self._known:
            same = known == positions if isinstance(known, slice) else known is positions
            if same and n_known == n_keys:
                return bias_HTS
        bias_HTS = self._bias(positions, n_keys)
        self._known.append((positions, n_keys, bias_HTS))
        return bias_HTS
