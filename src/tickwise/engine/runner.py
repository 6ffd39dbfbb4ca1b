"""What the engine needs of a model family, and how decoders give it.

The engine never looks at a model's state. It hands a runner, for every row of a tick, the tokens to read, how many
were read before, and the numbers of the blocks in which the row's state lives; the runner reads and writes those
blocks. So other families can join: a recurrent one has one block per row, as long as the context; an encoder–decoder
keeps its source's keys and values before its target's. ``TextRunner``, whose state is the text itself, is the smallest
example.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from tickwise.engine.kv_cache import KVBlocks
from tickwise.models.decoder import Decoder
from tickwise.models.writing_rules import NO_RULES, WritingRules


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
    n_source: int = 0
    """How many of the row's first tokens are the source of an encoder–decoder; they are read together."""


@dataclass(frozen=True)
class SourceFormat:
    """How the row of an encoder–decoder begins: its source, ``end_id``, and ``start_id``, which begins the target."""

    longest: int
    """Most tokens of a source, its end counted."""
    end_id: int
    start_id: int
    rules: WritingRules = NO_RULES
    """Of its target."""


class Runner(Protocol):
    """A model with room for the state of ``n_blocks`` blocks of ``block_size`` tokens."""

    context_length: int
    """Most tokens of a row."""
    sources: SourceFormat | None
    """``None``: the text goes on from its prompt."""
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


class KeyValueRunner(ABC):
    """Base of runners whose state is keys and values."""

    sources: SourceFormat | None = None

    def __init__(
        self, module: nn.Module, n_layers: int, n_kv_heads: int, head_dim: int, *, context_length: int,
        vocab_size: int, n_blocks: int, block_size: int, lane: int | None,
    ) -> None:
        """Texts that begin in neighbouring lanes of ``lane`` blocks attend as one batch; left out, each for itself."""
        weight = next(module.parameters())
        self.context_length, self.vocab_size = context_length, vocab_size
        self.block_size, self.n_blocks = block_size, n_blocks
        self._device = weight.device
        self._blocks = KVBlocks(
            n_layers, n_kv_heads, head_dim, n_blocks, block_size, weight.dtype, weight.device, lane=lane)
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

    @abstractmethod
    def _run(self, rows: Sequence[RowInput]) -> Tensor | None:
        """``run`` in inference mode."""


class DecoderRunner(KeyValueRunner):
    """Runs a decoder over all rows at once: their new tokens side by side in one sequence, each at its position."""

    def __init__(self, module: Decoder, n_blocks: int, block_size: int, lane: int | None = None) -> None:
        """As ``KeyValueRunner``."""
        config = module.config
        super().__init__(
            module, config.n_layers, config.n_kv_heads, config.head_dim, context_length=config.context_length,
            vocab_size=config.vocab_size, n_blocks=n_blocks, block_size=block_size, lane=lane)
        self._module = module

    def _run(self, rows: Sequence[RowInput]) -> Tensor | None:
        ids = list(rows[0].ids) if len(rows) == 1 else [token_id for row in rows for token_id in row.ids]
        ids_1T = torch.tensor([ids], device=self._device)
        hidden_1TC = self._module.hidden_states(ids_1T, cache=self._blocks.tick(rows))
        asked = asked_positions((len(row.ids), row.n_logits) for row in rows)
        if not asked:
            return None
        if len(asked) < len(ids):
            is_run = asked[-1] - asked[0] == len(asked) - 1
            hidden_1TC = hidden_1TC[:, asked[0] : asked[-1] + 1] if is_run else hidden_1TC[:, asked]
        return self._module.logits(hidden_1TC)[0]


class TokenIdRunner:
    """Base of runners whose state is the text itself: their blocks hold token ids."""

    sources: SourceFormat | None = None

    def __init__(self, module: nn.Module, context_length: int, vocab_size: int, n_blocks: int, block_size: int) -> None:
        self.context_length, self.vocab_size = context_length, vocab_size
        self.block_size, self.n_blocks = block_size, n_blocks
        self._device = next(module.parameters()).device
        self._ids_NS = torch.zeros(n_blocks, block_size, dtype=torch.long)

    @property
    def state_bytes(self) -> int:
        return self._ids_NS.nbytes

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        for source, target in copies:
            self._ids_NS[target] = self._ids_NS[source]

    def clear_blocks(self, blocks: Sequence[int]) -> None:
        """Token ids are always finite."""

    def _stored(self, row: RowInput, start: int) -> Tensor:
        """Store the row's new tokens; its ids from position ``start``, which has been read before or is the first new
        one, to the end."""
        end = row.n_cached + len(row.ids)
        slots = [row.blocks[i // self.block_size] * self.block_size + i % self.block_size for i in range(start, end)]
        flat_ids = self._ids_NS.view(-1)
        flat_ids[slots[row.n_cached - start :]] = torch.tensor(list(row.ids))
        return flat_ids[slots]


class TextRunner(TokenIdRunner):
    """Computes the whole text again in every tick: the slow twin of ``DecoderRunner``, without keys and values."""

    def __init__(self, module: Decoder, n_blocks: int, block_size: int) -> None:
        super().__init__(module, module.config.context_length, module.config.vocab_size, n_blocks, block_size)
        self._module = module

    @torch.inference_mode()
    def run(self, rows: Sequence[RowInput]) -> Tensor | None:
        logits = []
        for row in rows:
            ids_T = self._stored(row, 0)
            if row.n_logits:
                hidden_1TC = self._module.hidden_states(ids_T.unsqueeze(0).to(self._device))
                logits.append(self._module.logits(hidden_1TC[:, -row.n_logits :])[0])
        return torch.cat(logits) if logits else None


def asked_positions(rows: Iterable[tuple[int, int]]) -> list[int]:
    """Which of the new tokens, counted over all rows, want the token after them: of each row its new tokens, and how
    many of the last of them are asked."""
    asked: list[int] = []
    end = 0
    for n_new, n_logits in rows:
        end += n_new
        asked += range(end - n_logits, end)
    return asked
