"""How the engine runs an encoder–decoder: a row's prompt is its source, with the start mark of its target behind it.

A row's blocks hold, for each token of its source, the keys and values that the decoder's layers look at in
cross-attention, and behind them, for each token of its target, those of self-attention: equally many numbers for both.
A source is encoded whole, in the tick that reads it, and never again. For a model that copies from its source, the
tokens of the source are kept beside its keys.

Shapes: R rows, T new target tokens of a row, H query heads, K key/value heads, S source tokens, W keys that are read,
D head dimension, C model width.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tickwise.core.stages import Stage, mark
from tickwise.engine.blocks import is_run
from tickwise.engine.kv_cache import KVBlocks
from tickwise.engine.runner import KeyValueRunner, RowInput, SourceFormat, asked_positions
from tickwise.layers.attention import PositionBias
from tickwise.models.encoder_decoder import EncoderDecoder


class EncoderDecoderRunner(KeyValueRunner):
    """Runs an encoder–decoder: encodes the sources that are new, then reads all rows' target tokens side by side."""

    def __init__(self, module: EncoderDecoder, n_blocks: int, block_size: int, lane: int | None = None) -> None:
        """Rows that begin in neighbouring lanes of ``lane`` blocks attend as one batch."""
        config = module.config
        super().__init__(
            module, config.n_decoder_layers, config.n_kv_heads, config.head_dim,
            context_length=config.source_length + config.context_length, vocab_size=config.vocab_size,
            n_blocks=n_blocks, block_size=block_size, lane=lane,
        )
        self._module = module
        self._tokens_N: Tensor | None = None
        """Where the model copies: the ids of sources, in the slots of their keys."""
        if config.copies:
            self._tokens_N = torch.zeros(n_blocks * block_size, dtype=torch.long, device=self._device)
        self.sources = SourceFormat(config.source_length, config.eos_id, config.start_id, config.writing)

    @property
    def state_bytes(self) -> int:
        return super().state_bytes + (0 if self._tokens_N is None else self._tokens_N.nbytes)

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        super().copy_blocks(copies)
        if self._tokens_N is not None:
            tokens_NB = self._tokens_N.view(-1, self.block_size)
            for source, target in copies:
                tokens_NB[target] = tokens_NB[source]

    def _run(self, rows: Sequence[RowInput]) -> Tensor | None:
        self.encode(rows)
        found = self.read(rows)
        return None if found is None else self.logits(rows, *found)

    def encode(self, rows: Sequence[RowInput]) -> None:
        """Read the sources that are new, equally long ones together, and store what the decoder looks at."""
        config = self._module.config
        for members in sources_by_length([row for row in rows if row.n_cached < row.n_source]):
            mark(Stage.SCHEDULE)
            length = members[0].n_source
            ids_RS = torch.tensor([list(row.ids[:length]) for row in members], device=self._device)
            slots = [slot for row in members for slot in self._blocks.slots(row.blocks, 0, length)]
            slots_N = torch.tensor(slots, device=self._device)
            if self._tokens_N is not None:
                self._tokens_N.index_copy_(0, slots_N, ids_RS.flatten())
            memory = self._module.encode(ids_RS)
            for layer, (k_RKSD, v_RKSD) in enumerate(zip(memory.keys, memory.values, strict=True)):
                mark(Stage.CROSS_ATTENTION, config.n_encoder_layers + layer)
                self._blocks.k_layers[layer].index_copy_(1, slots_N, k_RKSD.transpose(0, 1).flatten(1, 2))
                self._blocks.v_layers[layer].index_copy_(1, slots_N, v_RKSD.transpose(0, 1).flatten(1, 2))

    def read(self, rows: Sequence[RowInput]) -> "tuple[Tensor, list[_Part]] | None":
        """Read the rows' new target tokens: hidden states (1, T of all rows, C), and the parts in which their attention
        was computed; ``None`` where there are none."""
        mark(Stage.SCHEDULE)
        reading = [row for row in rows if n_target(row)]
        if not reading:
            return None
        relative = self._module.config.positions == "relative"
        parts = [_Part(self._blocks, members, relative) for members in read_together(reading)]
        ids = [token_id for row in reading for token_id in row.ids[-n_target(row) :]]
        hidden_1TC = self._module.hidden_states(
            torch.tensor([ids], device=self._device), _Sources(parts), cache=_Targets(self._blocks, reading, parts))
        return hidden_1TC, parts

    def logits(self, rows: Sequence[RowInput], hidden_1TC: Tensor, parts: "Sequence[_Part]") -> Tensor | None:
        """Logits (N, V) after the target tokens that are asked; ``None`` when none are."""
        asked = asked_positions((n_target(row), row.n_logits) for row in rows)
        if not asked:
            return None
        mark(Stage.HEAD)
        if self._tokens_N is not None:
            return self._copying_logits(rows, hidden_1TC, parts, self._tokens_N)
        if len(asked) < hidden_1TC.shape[1]:
            hidden_1TC = hidden_1TC[:, asked]
        return self._module.logits(hidden_1TC)[0]

    def _copying_logits(
        self, rows: Sequence[RowInput], hidden_1TC: Tensor, parts: "Sequence[_Part]", tokens_N: Tensor
    ) -> Tensor:
        """As ``logits``: every part's with its own sources."""
        reading, found = (row for row in rows if n_target(row)), []
        for part, hidden_1NC in zip(parts, hidden_1TC.split([part.n_tokens for part in parts], dim=1), strict=True):
            n_logits = [row.n_logits for row in itertools.islice(reading, part.n_rows)]
            if not any(n_logits):
                continue
            hidden_RTC = hidden_1NC[0].unflatten(0, (part.n_rows, -1))[:, -max(n_logits) :]
            logits_NV = self._module.logits(hidden_RTC, part.copied(tokens_N)).flatten(0, 1)
            asked = asked_positions((max(n_logits), n) for n in n_logits)
            found.append(logits_NV if len(asked) == len(logits_NV) else logits_NV[asked])
        return found[0] if len(found) == 1 else torch.cat(found)


def n_target(row: RowInput) -> int:
    """New tokens of the row's target."""
    return _end(row) - max(row.n_source, row.n_cached)


def sources_by_length(rows: Sequence[RowInput]) -> Iterator[list[RowInput]]:
    """Rows whose sources are encoded together."""
    for length in dict.fromkeys(row.n_source for row in rows):
        yield [row for row in rows if row.n_source == length]


def read_together(rows: Sequence[RowInput]) -> Iterator[list[RowInput]]:
    """Rows in order, neighbours with a single new target token together."""
    for is_single, members in itertools.groupby(rows, lambda row: n_target(row) == 1):
        if is_single:
            yield list(members)
        else:
            yield from ([row] for row in members)


class PartKind(NamedTuple):
    """What decides, besides how many keys it reads, which operations the attention of a part runs through."""

    n_rows: int
    n_new: int
    """New target tokens of each row."""
    gathered: bool
    """Whether keys and values are copied together, where they do not lie side by side."""
    uneven: bool
    """Whether sources are differently long, so that some keys of sources are hidden."""
    hides: bool
    """Whether some keys of targets are hidden."""


def part_kind(rows: Sequence[RowInput], gathered: bool) -> PartKind:
    """Of rows that are read as one part."""
    n_new, n_sources = n_target(rows[0]), [row.n_source for row in rows]
    _, n_keys = part_keys(rows, gathered)
    hides = n_new > 1 or any(_end(row) - row.n_source < n_keys for row in rows)
    return PartKind(len(rows), n_new, gathered, min(n_sources) < max(n_sources), hides)


def part_keys(rows: Sequence[RowInput], gathered: bool) -> tuple[int, int]:
    """How many keys of sources, and of targets, every row of a part reads, hidden ones included."""
    n_sources = [row.n_source for row in rows]
    if gathered:
        return max(n_sources), max(_end(row) - row.n_source for row in rows)
    return max(n_sources), max(map(_end, rows)) - min(n_sources)


def _end(row: RowInput) -> int:
    """The row's tokens, the new ones included."""
    return row.n_cached + len(row.ids)


@dataclass(frozen=True)
class _CopiedSources:
    """The ``CopiedMemory`` of a part: its keys are those of the last layer alone."""

    keys: tuple[Tensor]
    padding_B11S: Tensor | None  # noqa: N815
    tokens_BS: Tensor  # noqa: N815


class _Part:
    """Rows with equally many new target tokens, whose attention is one batch: views of neighbouring lanes, else copies.

    It sets the rows' notes ``together`` and ``gathered``.
    """

    def __init__(self, blocks: KVBlocks, rows: Sequence[RowInput], relative: bool) -> None:
        self._blocks = blocks
        views = _views(blocks, rows)
        n_sources, ends = [row.n_source for row in rows], [_end(row) for row in rows]
        # Distances are counted from each target's own beginning.
        gathered = views is None or (relative and min(n_sources) < max(n_sources))
        for row in rows:
            row.together, row.gathered = len(rows), gathered
        kind = part_kind(rows, gathered)
        self.n_rows, self._n_new = kind.n_rows, kind.n_new
        self._first_slot = rows[0].blocks[0] * blocks.block_size
        self.n_tokens = kind.n_rows * kind.n_new
        self._n_source_keys, n_target_keys = part_keys(rows, gathered)
        self._views = None if gathered else views
        # Keys of targets are counted from the beginning of the row that begins first.
        self._first = 0 if gathered else min(n_sources)
        if gathered:
            self._source_slots = _padded_slots(blocks, rows, [(0, n) for n in n_sources])
            self._target_slots = _padded_slots(blocks, rows, list(zip(n_sources, ends, strict=True)))
        device, dtype = blocks.k_layers[0].device, blocks.k_layers[0].dtype
        n_sources_R = torch.tensor(n_sources, device=device)
        begin_R = torch.zeros_like(n_sources_R) if gathered else n_sources_R - self._first
        length_R = torch.tensor(ends, device=device) - n_sources_R
        steps_T = torch.arange(-self._n_new, 0, device=device)
        # Number t of a row's T new tokens sees what stands before the others.
        last_RT = (begin_R + length_R)[:, None] + steps_T
        self._positions_N = (length_R[:, None] + steps_T).flatten()
        self._source_bias = self._target_bias = None
        if kind.uneven:
            is_hidden_RS = torch.arange(self._n_source_keys, device=device) >= n_sources_R[:, None]
            self._source_bias = _bias(is_hidden_RS, dtype)[:, None, None]
        if kind.hides:
            keys_W = torch.arange(n_target_keys, device=device)
            is_hidden_RTW = (keys_W > last_RT[..., None]) | (keys_W < begin_R[:, None, None])
            self._target_bias = _bias(is_hidden_RTW, dtype)[:, None]

    def attend_to_targets(self, layer: int, q_1HND: Tensor, distances: PositionBias | None) -> Tensor:
        """(1, H, N, D) for the part's N new tokens."""
        if self._views is None:
            k, v = self._gathered(layer, self._target_slots)
        else:
            k, v = (view[:, :, self._first :] for view in self._of_layer(layer))
        bias = self._target_bias
        if distances is not None:
            per_query_HNW = distances(self._positions_N, k.shape[2])
            per_query_RHTW = per_query_HNW.unflatten(1, (self.n_rows, self._n_new)).transpose(0, 1)
            bias = per_query_RHTW if bias is None else per_query_RHTW + bias
        return self._attend(q_1HND, k, v, bias)

    def attend_to_sources(self, layer: int, q_1HND: Tensor) -> Tensor:
        """(1, H, N, D) for the part's N new tokens."""
        if self._views is None:
            k, v = self._gathered(layer, self._source_slots)
        else:
            k, v = (view[:, :, : self._n_source_keys] for view in self._of_layer(layer))
        return self._attend(q_1HND, k, v, self._source_bias)

    def copied(self, tokens_N: Tensor) -> _CopiedSources:
        """What its rows copy from, of the ids ``tokens_N`` in all slots."""
        last, n_keys = self._blocks.n_layers - 1, self._n_source_keys
        if self._views is None:
            k_RKSD = self._together(self._blocks.k_layers[last], self._source_slots)
            tokens_RS = tokens_N.index_select(0, self._source_slots).unflatten(0, (self.n_rows, -1))
        else:
            k_RKSD = self._views[last][:, :, :n_keys]
            n_slots = n_keys if self.n_rows == 1 else (self._blocks.lane or 0) * self._blocks.block_size
            tokens_RS = tokens_N.narrow(0, self._first_slot, self.n_rows * n_slots).unflatten(0, (self.n_rows, -1))
            tokens_RS = tokens_RS[:, :n_keys]
        return _CopiedSources((k_RKSD,), self._source_bias, tokens_RS)

    def _of_layer(self, layer: int) -> tuple[Tensor, Tensor]:
        assert self._views is not None
        return self._views[layer], self._views[layer + self._blocks.n_layers]

    def _gathered(self, layer: int, slots_N: Tensor) -> tuple[Tensor, Tensor]:
        """Copies (R, K, W, D) of scattered slots."""
        return (self._together(self._blocks.k_layers[layer], slots_N),
                self._together(self._blocks.v_layers[layer], slots_N))

    def _together(self, plane_KND: Tensor, slots_N: Tensor) -> Tensor:
        return plane_KND.index_select(1, slots_N).unflatten(1, (self.n_rows, -1)).transpose(0, 1)

    def _attend(self, q_1HND: Tensor, k_RKWD: Tensor, v_RKWD: Tensor, bias: Tensor | None) -> Tensor:
        q_RHTD = q_1HND[0].unflatten(1, (self.n_rows, self._n_new)).transpose(0, 1)
        out_RHTD = F.scaled_dot_product_attention(
            q_RHTD, k_RKWD, v_RKWD, attn_mask=bias, enable_gqa=q_RHTD.shape[1] != k_RKWD.shape[1])
        return out_RHTD.transpose(0, 1).flatten(1, 2).unsqueeze(0)


class _Targets:
    """The ``BiasedCache`` of a tick: every target attends to its own tokens."""

    def __init__(self, blocks: KVBlocks, rows: Sequence[RowInput], parts: Sequence[_Part]) -> None:
        self._blocks, self._parts = blocks, parts
        self._sizes = [part.n_tokens for part in parts]
        positions: list[int] = []
        slots: list[int] = []
        for row in rows:
            end = _end(row)
            positions += range(end - row.n_source - n_target(row), end - row.n_source)
            slots += blocks.slots(row.blocks, end - n_target(row), end)
        device = blocks.k_layers[0].device
        self._positions_N = torch.tensor(positions, device=device)
        self._slots_N = torch.tensor(slots, device=device)

    def positions(self, n_new: int) -> Tensor:
        return self._positions_N

    def attend(
        self, layer: int, q_1HND: Tensor, k_1KND: Tensor, v_1KND: Tensor, bias: PositionBias | None = None
    ) -> Tensor:
        self._blocks.k_layers[layer].index_copy_(1, self._slots_N, k_1KND[0])
        self._blocks.v_layers[layer].index_copy_(1, self._slots_N, v_1KND[0])
        queries = q_1HND.split(self._sizes, dim=2)
        return _joined([part.attend_to_targets(layer, q, bias) for part, q in zip(self._parts, queries, strict=True)])

    def advance(self, n_new: int) -> None:
        """The engine counts."""


class _Sources:
    """The ``SourceMemory`` of a tick: every target attends to its row's source."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts
        self._sizes = [part.n_tokens for part in parts]

    def attend(self, layer: int, q_1HND: Tensor) -> Tensor:
        queries = q_1HND.split(self._sizes, dim=2)
        return _joined([part.attend_to_sources(layer, q) for part, q in zip(self._parts, queries, strict=True)])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=2)


def _bias(is_hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: -inf where a key is hidden, else 0."""
    return torch.zeros(is_hidden.shape, dtype=dtype, device=is_hidden.device).masked_fill_(is_hidden, -math.inf)


def _views(blocks: KVBlocks, rows: Sequence[RowInput]) -> tuple[Tensor, ...] | None:
    """Views (R, K, W, D) of the rows' keys, then of their values, for each layer, where they lie side by side."""
    tables = [blocks.table(row) for row in rows]
    if not all(map(is_run, tables)):
        return None
    longest = max(map(_end, rows))
    if len(rows) == 1:
        return blocks.views(tables[0][0] * blocks.block_size, longest)
    if not blocks.lane:
        return None
    lane, offset = divmod(tables[0][0], blocks.lane)
    firsts = [table[0] for table in tables]
    side_by_side = firsts == list(range(firsts[0], firsts[0] + len(rows) * blocks.lane, blocks.lane))
    if offset or not side_by_side or lane + len(rows) > blocks.n_lanes:
        return None
    return blocks.lanes(lane, len(rows), longest)


def _padded_slots(blocks: KVBlocks, rows: Sequence[RowInput], spans: Sequence[tuple[int, int]]) -> Tensor:
    """Numbers of the slots of each row's tokens from … to …, row by row, shorter ones padded with their first one."""
    longest = max(end - start for start, end in spans)
    slots: list[int] = []
    for row, (start, end) in zip(rows, spans, strict=True):
        own = blocks.slots(row.blocks, start, end)
        slots += own + own[:1] * (longest - len(own))
    return torch.tensor(slots, device=blocks.k_layers[0].device)
