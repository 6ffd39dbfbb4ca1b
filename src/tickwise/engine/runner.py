"""What the engine needs of a model family, and how decoders give it.

The engine never looks at a model's state. It hands a runner, for every row of a tick, the tokens to read, how many
were read before, and the numbers of the blocks in which the row's state lives; the runner reads and writes those
blocks. So other families can join: a recurrent one has one block per row, as long as the context; an encoder–decoder
keeps its source's keys and values in blocks of their own. ``TextRunner``, whose state is the text itself, is the
smallest example.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tickwise.engine.kv_cache import KVBlocks
from tickwise.models.decoder import Decoder


@dataclass(slots=True)
class RowInput:
    """What one row reads in a tick."""

    ids: Sequence[int]
    """New tokens."""
    n_cached: int
    """Tokens before them, whose state is stored."""
    blocks: Sequence[int]
    """Blocks of the row's state, for the new tokens too."""
    n_logits: int
    """For how many of the last new tokens the next token is asked; 0 in the middle of a prompt."""
    together: int = 1
    """The runner's note: how many rows it read as one padded batch with this one. They stand side by side."""
    gathered: bool = False
    """The runner's note: whether it copied the row's scattered blocks together."""


class Runner(Protocol):
    """A model with room for the state of ``n_blocks`` blocks of ``block_size`` tokens."""

    context_length: int
    vocab_size: int
    block_size: int
    n_blocks: int

    @property
    def state_bytes(self) -> int:
        """Bytes reserved for the blocks."""

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, one after the other: (source, target)."""

    def clear_blocks(self, blocks: Sequence[int]) -> None:
        """Overwrite blocks whose numbers may not be finite."""

    def run(self, rows: Sequence[RowInput]) -> Tensor | None:
        """One forward pass: logits_RV, for every row in order ``n_logits`` rows; ``None`` when none are asked."""


class DecoderRunner:
    """Runs a decoder over all rows at once: their new tokens side by side in one sequence, each at its position."""

    def __init__(self, module: Decoder, n_blocks: int, block_size: int, lane: int | None = None) -> None:
        """Texts that begin in neighbouring lanes of ``lane`` blocks attend as one batch; left out, each for itself."""
        config = module.config
        weight = next(module.parameters())
        self.context_length, self.vocab_size = config.context_length, config.vocab_size
        self.block_size, self.n_blocks = block_size, n_blocks
        self._module, self._device = module, weight.device
        self._blocks = KVBlocks(
            config.n_layers, config.n_kv_heads, config.head_dim, n_blocks, block_size, weight.dtype, weight.device,
            lane=lane,
        )
        self._inference = torch.inference_mode()  # making one costs more than all the rest of a tick's bookkeeping

    @property
    def state_bytes(self) -> int:
        return self._blocks.bytes

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        at = 0
        while at < len(copies):
            (source, target), n_blocks = copies[at], 1
            # Blocks that lie side by side are copied as one, unless a later one would read what an earlier one wrote.
            while (n_blocks < abs(source - target)
                   and copies[at + n_blocks : at + n_blocks + 1] == [(source + n_blocks, target + n_blocks)]):
                n_blocks += 1
            self._blocks.copy(source, target, n_blocks)
            at += n_blocks

    def clear_blocks(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._blocks.clear(block)

    def run(self, rows: Sequence[RowInput]) -> Tensor | None:
        if torch.is_inference_mode_enabled():  # asking costs less than entering it again
            return self._run(rows)
        with self._inference:
            return self._run(rows)

    def _run(self, rows: Sequence[RowInput]) -> Tensor | None:
        ids = list(rows[0].ids) if len(rows) == 1 else [token_id for row in rows for token_id in row.ids]
        ids_1T = torch.tensor([ids], device=self._device)
        hidden_1TC = self._module.hidden_states(ids_1T, cache=self._blocks.tick(rows))
        asked = _asked_positions(rows)
        if not asked:
            return None
        if len(asked) < len(ids):
            is_run = asked[-1] - asked[0] == len(asked) - 1
            hidden_1TC = hidden_1TC[:, asked[0] : asked[-1] + 1] if is_run else hidden_1TC[:, asked]
        return self._module.logits(hidden_1TC)[0]


class TextRunner:
    """Computes the whole text again in every tick: the slow twin of ``DecoderRunner``, without keys and values.

    Its blocks hold token ids.
    """

    def __init__(self, module: Decoder, n_blocks: int, block_size: int) -> None:
        self.context_length, self.vocab_size = module.config.context_length, module.config.vocab_size
        self.block_size, self.n_blocks = block_size, n_blocks
        self._module, self._device = module, next(module.parameters()).device
        self._ids_NS = torch.zeros(n_blocks, block_size, dtype=torch.long)

    @property
    def state_bytes(self) -> int:
        return self._ids_NS.nbytes

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        for source, target in copies:
            self._ids_NS[target] = self._ids_NS[source]

    def clear_blocks(self, blocks: Sequence[int]) -> None:
        """Token ids are always finite."""

    @torch.inference_mode()
    def run(self, rows: Sequence[RowInput]) -> Tensor | None:
        logits = []
        for row in rows:
            end = row.n_cached + len(row.ids)
            slots = [row.blocks[i // self.block_size] * self.block_size + i % self.block_size for i in range(end)]
            flat_ids = self._ids_NS.view(-1)
            flat_ids[slots[row.n_cached :]] = torch.tensor(list(row.ids))
            if row.n_logits:
                hidden_1TC = self._module.hidden_states(flat_ids[slots].unsqueeze(0).to(self._device))
                logits.append(self._module.logits(hidden_1TC[:, -row.n_logits :])[0])
        return torch.cat(logits) if logits else None


def _asked_positions(rows: Sequence[RowInput]) -> list[int]:
    """Which of the new tokens, counted over all rows, want the token after them."""
    asked: list[int] = []
    end = 0
    for row in rows:
        end += len(row.ids)
        asked += range(end - row.n_logits, end)
    return asked
