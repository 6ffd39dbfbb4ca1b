"""Keys and values of the tokens that a decoder has already seen, so that a tick computes only the new ones.

Shapes: L layers, B batch rows, H key/value heads, T new tokens, S tokens stored so far plus the new
ones, C capacity in tokens, D head dimension.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class KVCache:
    """Preallocated storage for ``capacity`` tokens; every row holds the same number of tokens.

    A tick calls ``update`` once per layer and ``advance`` once after the last layer. Both storages have
    the shape L·B·H·C·D, so that appending is one copy into a slice and reading is a view.

    >>> cache = KVCache(n_layers=2, batch=1, n_kv_heads=4, head_dim=8, capacity=16)
    >>> keys, values = cache.update(0, torch.zeros(1, 4, 3, 8), torch.zeros(1, 4, 3, 8))
    >>> keys.shape, cache.length
    (torch.Size([1, 4, 3, 8]), 0)
    """

    def __init__(
        self,
        n_layers: int,
        batch: int,
        n_kv_heads: int,
        head_dim: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape_LBHCD = (n_layers, batch, n_kv_heads, capacity, head_dim)
        if min(shape_LBHCD) < 1:
            raise ValueError(f"KV cache: every dimension must be at least 1, got {shape_LBHCD}")
        # Never read before it is written: every view that leaves this class ends at the last stored token.
        self._use_storage(
            torch.empty(shape_LBHCD, dtype=dtype, device=device),
            torch.empty(shape_LBHCD, dtype=dtype, device=device),
        )
        self._length = 0

    def _use_storage(self, k_LBHCD: Tensor, v_LBHCD: Tensor) -> None:
        self._k_LBHCD, self._v_LBHCD = k_LBHCD, v_LBHCD
        self._tick: tuple[int, int] | None = None

    @property
    def length(self) -> int:
        """Tokens stored so far, the same for every row."""
        return self._length

    @property
    def capacity(self) -> int:
        """The most tokens that a row can hold."""
        return self._k_LBHCD.shape[3]

    @property
    def batch(self) -> int:
        """Rows."""
        return self._k_LBHCD.shape[1]

    @property
    def bytes(self) -> int:
        """Bytes that are reserved, whether filled or not."""
        return self._k_LBHCD.nbytes + self._v_LBHCD.nbytes

    @property
    def bytes_stored(self) -> int:
        """Bytes of the tokens stored so far: what the attention of the next tick reads."""
        return self.bytes // self.capacity * self._length

    def _begin_tick(self, n_new: int) -> None:
        """Slice all layers at once: per layer and tick, slicing would cost more than the copy itself."""
        stored, end = self._length, self._length + n_new
        if end > self.capacity:
            raise ValueError(
                f"KV cache is full: {stored} tokens stored, {n_new} new ones, capacity {self.capacity}"
            )
        self._tick = (stored, n_new)
        _, batch, n_kv_heads, _, head_dim = self._k_LBHCD.shape
        self._new_shape = (batch, n_kv_heads, n_new, head_dim)
        self._new_k = self._k_LBHCD.narrow(3, stored, n_new).unbind(0)
        self._new_v = self._v_LBHCD.narrow(3, stored, n_new).unbind(0)
        self._all_k = self._k_LBHCD.narrow(3, 0, end).unbind(0)
        self._all_v = self._v_LBHCD.narrow(3, 0, end).unbind(0)

    def update(self, layer: int, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new tokens of one layer; returns views ``k_BHSD, v_BHSD`` of all its tokens.

        Raises ``ValueError`` past the capacity or for tensors of another batch, head count or head size.
        """
        n_new = k_BHTD.shape[2]
        if self._tick != (self._length, n_new):
            self._begin_tick(n_new)
        if k_BHTD.shape != self._new_shape or v_BHTD.shape != self._new_shape:
            raise ValueError(
                f"KV cache: expected keys and values of shape {self._new_shape}, "
                f"got {tuple(k_BHTD.shape)} and {tuple(v_BHTD.shape)}"
            )
        self._new_k[layer].copy_(k_BHTD)
        self._new_v[layer].copy_(v_BHTD)
        return self._all_k[layer], self._all_v[layer]

    def advance(self, n_new: int) -> None:
        """Count ``n_new`` tokens as stored; the model calls this once, after its last layer."""
        if self._length + n_new > self.capacity:
            raise ValueError(
                f"KV cache is full: {self._length} tokens stored, {n_new} new ones, capacity {self.capacity}"
            )
        self._length += n_new

    def reset(self) -> None:
        """Forget all tokens; the storage stays."""
        self._length = 0
        self._tick = None

    def expand(self, batch: int) -> None:
        """Copy a single row ``batch`` times, so that a prompt is read once however many samples follow."""
        if self.batch != 1:
            raise ValueError(f"KV cache: only a cache of one row can be expanded, this one has {self.batch}")
        self._select(torch.zeros(batch, dtype=torch.long, device=self._k_LBHCD.device))

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order (finished samples stop costing time)."""
        self._select(torch.tensor(rows, dtype=torch.long, device=self._k_LBHCD.device))

    def _select(self, rows: Tensor) -> None:
        self._use_storage(self._k_LBHCD.index_select(1, rows), self._v_LBHCD.index_select(1, rows))
