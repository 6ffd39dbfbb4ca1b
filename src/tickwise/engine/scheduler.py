"""Chooses what the next tick computes: which rows, how many tokens of each, in which blocks.

Rows that decode come first, a token each, so that no long prompt ever keeps them waiting; what is left of the tick's
budget of tokens goes to pieces of prompts, first of requests that run, then of requests that wait. Waiting requests
are admitted first come, first served within a tenant; between tenants, every row that a tenant already has running
counts like a second of lost waiting time, so that nobody is crowded out and nobody starves.

When blocks run out, the request that was admitted last gives up all of its blocks and waits again; its rows read their
text anew later (most of it from idle blocks, if they are still there). The request that was admitted first is never
taken from, and one that would not fit alone is refused on submission, so some request always advances.
"""

import itertools
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tickwise.core.console import note
from tickwise.engine.blocks import BlockPool, is_run, next_digest
from tickwise.engine.requests import RequestState, Row
from tickwise.engine.runner import RowInput
from tickwise.engine.work import Phase, RowWork, TickWork

_TURN_S = 1.0
"""Waiting time that one running row of the same tenant is worth."""


@dataclass(slots=True)
class ScheduledRow:
    """One row's part of the next tick."""

    row: Row
    input: RowInput
    phase: Phase


class Plan(TickWork):
    """The next tick. It is its own record: what it does is told from ``items`` when somebody asks."""

    __slots__ = ("copies", "items")

    def __init__(self) -> None:
        super().__init__(self._told)
        self.items: list[ScheduledRow] = []
        self.copies: list[tuple[int, int]] = []
        """Blocks to copy before anything else, in this order: (source, target)."""

    def _told(self) -> tuple[RowWork, ...]:
        return tuple(
            RowWork(item.row.request.id, len(item.input.ids), item.input.n_cached, item.phase, item.input.n_logits,
                    item.input.together, item.input.gathered, item.input.n_source)
            for item in self.items
        )


class _Stored(NamedTuple):
    """What is stored of the beginning of a row's text."""

    blocks: list[int]
    """The last one may hold more than the row's text has in common with it."""
    digests: list[bytes]
    """Of the blocks that hold nothing else."""
    n_tokens: int


class Scheduler:
    """Waiting and running requests, and the blocks they hold."""

    def __init__(
        self, pool: BlockPool, *, block_size: int, max_rows: int, tick_tokens: int, prefix_cache: bool,
    ) -> None:
        self.pool = pool
        self.block_size = block_size
        self.max_rows, self.tick_tokens = max_rows, tick_tokens
        self.prefix_cache = prefix_cache
        self.running: list[RequestState] = []
        self._waiting: dict[str, deque[RequestState]] = {}
        self.n_preempted = 0

    @property
    def n_waiting(self) -> int:
        """Requests that have no slot."""
        return sum(map(len, self._waiting.values()))

    @property
    def has_work(self) -> bool:
        return bool(self.running or self._waiting)

    @property
    def requests(self) -> Iterator[RequestState]:
        """All of them, running ones first."""
        return itertools.chain(self.running, *self._waiting.values())

    def blocks_of(self, n_tokens: int) -> int:
        """Blocks that hold this many tokens."""
        return -(-n_tokens // self.block_size)

    def add(self, request: RequestState) -> None:
        """Let the request wait for its turn."""
        self._waiting.setdefault(request.request.tenant, deque()).append(request)

    def remove(self, request: RequestState) -> None:
        """Take a request out, wherever it is, with its blocks and slots."""
        for row in request.rows:
            self.release(row)
        if request in self.running:
            self.running.remove(request)
        else:
            self._dequeue(request)

    def release(self, row: Row) -> None:
        """Give back what the row holds."""
        self._remember(row)
        self.pool.release(row.forget_state())

    def own_blocks(self, request: RequestState) -> list[int]:
        """Blocks that no other request holds."""
        counts = Counter(block for row in request.rows for block in row.blocks)
        return [block for block, count in counts.items() if self.pool.holders(block) == count]

    def fork(self, request: RequestState) -> None:
        """The prompt is read: every other sample shares the first one's blocks."""
        first = request.rows[0]
        for row in request.rows[1:]:
            self.share(first, row)
        request.forked = True

    def share(self, source: Row, target: Row) -> None:
        """``target``, which holds nothing, goes on from the same state; whoever writes first copies the last block."""
        target.n_cached, target.n_sound = source.n_cached, source.n_sound
        target.window_start = source.window_start
        target.blocks = source.blocks[: self.blocks_of(source.n_cached)]
        target.digests = list(source.digests)
        for block in target.blocks:
            self.pool.hold(block)

    def schedule(self) -> Plan:
        """The next tick; no rows when nothing can run."""
        plan = Plan()
        self._fill(plan)
        while not plan.items and self._take_back():
            self._fill(plan)
        if len(plan.items) > 1:  # rows whose state lies side by side can be read as one batch
            plan.items.sort(key=lambda item: (item.phase, item.input.blocks[0]))
        return plan

    def _fill(self, plan: Plan) -> None:
        budget, n_preempted = self.tick_tokens, self.n_preempted
        for request in tuple(self.running):
            budget -= self._decode(request, budget, plan)
        for request in tuple(self.running):
            budget -= self._prefill(request, budget, plan)
        while budget > 0 and self.n_preempted == n_preempted:
            admitted = self._admit(plan)
            if admitted is None:
                break
            budget -= self._prefill(admitted, budget, plan)

    def _decode(self, request: RequestState, budget: int, plan: Plan) -> int:
        """Plan one token (and a guess) for every row that decodes; returns the tokens planned."""
        if request not in self.running:
            return 0
        rows = request.read_rows
        if request.beam is not None and any(row.pending > 1 for row in rows):
            return 0
        planned: list[ScheduledRow] = []
        spent = 0
        for row in rows:
            if not row.decoding or spent >= budget:
                continue
            guess: list[int] = []
            if row.proposer is not None and row.chooser is not None:
                room = row.room_for_guess(budget - spent - self.max_rows)
                guess = row.proposer.propose(row.tokens, room, row.chooser)
                if self._missing(row, 1 + len(guess)) > self.pool.available:
                    guess = []  # nobody gives up blocks for a guess
            n_new = 1 + len(guess)
            if self._grow(row, n_new, plan):
                ids = [row.tokens[-1], *guess]
                read = RowInput(ids, row.n_cached, row.blocks, n_new, n_source=request.n_source)
                planned.append(ScheduledRow(row, read, "decode"))
                spent += n_new
        if request.beam is not None and len(planned) < len(rows):
            return 0
        plan.items += planned
        return spent

    def _prefill(self, request: RequestState, budget: int, plan: Plan) -> int:
        """Plan the next pieces of what the request's rows have to read; returns the tokens planned."""
        if request not in self.running:
            return 0
        spent = 0
        for row in request.read_rows:
            if row.decoding:
                continue
            # Rows of a beam meet before their last token, which they read together.
            unread = row.pending - 1 if request.beam is not None and request.forked else row.pending
            n_new = min(unread, budget - spent)
            is_piece_of_source = row.n_cached + n_new < request.n_source  # it is read whole, in a tick with room enough
            if n_new < 1 or is_piece_of_source or not self._grow(row, n_new, plan):
                continue
            start = row.window_start + row.n_cached
            ids = row.tokens[start : start + n_new]
            n_logits = 1 if n_new == row.pending else 0
            read = RowInput(ids, row.n_cached, row.blocks, n_logits, n_source=request.n_source)
            plan.items.append(ScheduledRow(row, read, "prefill"))
            spent += n_new
        return spent

    def commit(self, row: Row, n_read: int, *, sound: bool) -> None:
        """The state of ``n_read`` more tokens is stored. ``sound``: the logits behind them are finite, and so is all
        that they look at; full blocks become findable, as far as the text is known."""
        row.n_cached += n_read
        if sound:
            row.n_sound = row.n_cached
            self._remember(row)

    def _remember(self, row: Row) -> None:
        """Let others find the row's full blocks. Of a guess that came true, the text may not have the tokens yet."""
        if not self.prefix_cache:
            return
        n_known = min(row.n_sound, len(row.tokens) - row.window_start)
        while (len(row.digests) + 1) * self.block_size <= n_known:
            index = len(row.digests)
            digest = self._digest(row, index)
            before = row.digests[-1] if row.digests else row.request.first_digest
            start = row.window_start + index * self.block_size
            row.digests.append(digest)
            self.pool.remember(row.blocks[index], digest, before, row.tokens[start : start + self.block_size])

    def _digest(self, row: Row, index: int) -> bytes:
        """Digest of the row's window up to the end of its block number ``index``."""
        request = row.request
        if row.window_start == 0 and index < len(request.prompt_digests):
            return request.prompt_digests[index]
        before = row.digests[index - 1] if index else request.first_digest
        start = row.window_start + index * self.block_size
        return next_digest(before, row.tokens[start : start + self.block_size])

    def _grow(self, row: Row, n_new: int, plan: Plan) -> bool:
        """Blocks for ``n_new`` more tokens, the first of them in a block that is the row's alone."""
        while (missing := self._missing(row, n_new)) > self.pool.available:
            if not self._preempt_after(row.request, plan):
                return False
        if not missing:
            return True
        blocks, pool = row.blocks, self.pool
        first = row.n_cached // self.block_size
        if self._shares(row):
            own = pool.allocate(blocks[first - 1] if first else None)
            plan.copies.append((blocks[first], own))
            pool.release(blocks[first : first + 1])
            blocks[first] = own
        while len(blocks) < self.blocks_of(row.n_cached + n_new):
            blocks.append(pool.allocate(blocks[-1] if blocks else None))
        return True

    def _missing(self, row: Row, n_new: int) -> int:
        """How many blocks the row needs besides its own to read ``n_new`` more tokens."""
        return max(0, self.blocks_of(row.n_cached + n_new) - len(row.blocks)) + self._shares(row)

    def _shares(self, row: Row) -> bool:
        """Whether somebody else holds, or may find, the block that the row's next token goes into."""
        first = row.n_cached // self.block_size
        if first >= len(row.blocks):
            return False
        return self.pool.holders(row.blocks[first]) > 1 or self.pool.is_known(row.blocks[first])

    def _preempt_after(self, request: RequestState, plan: Plan) -> bool:
        """Take the blocks of the request that was admitted last, unless that is ``request``."""
        victim = self.running[-1]
        if victim is request:
            return False
        self.running.pop()
        for row in victim.rows:
            self.release(row)
        plan.items = [item for item in plan.items if item.row.request is not victim]
        self._waiting.setdefault(victim.request.tenant, deque()).appendleft(victim)
        self.n_preempted += 1
        note(f"request {victim.id} gives up its blocks and will read its text again")
        return True

    def _take_back(self) -> bool:
        """When not even the first request can go on, its own rows are in each other's way: its last row gives way."""
        holding = [row for row in self.running[0].rows if row.blocks] if self.running else []
        if len(holding) < 2:
            return False
        self.release(holding[-1])
        self.n_preempted += 1
        return True

    def _admit(self, plan: Plan) -> RequestState | None:
        """Give the next waiting request a slot, if there is one, and what is stored of its text."""
        if not self._waiting:
            return None
        running = dict.fromkeys(self._waiting, 0)
        n_rows = 0
        for request in self.running:
            n_rows += len(request.rows)
            if request.request.tenant in running:
                running[request.request.tenant] += len(request.rows)
        heads = [queue[0] for queue in self._waiting.values()]
        request = min(heads, key=lambda r: r.submitted_at + _TURN_S * running[r.request.tenant])
        if n_rows + len(request.rows) > self.max_rows:
            return None
        found = [self._stored_prefix(row) for row in request.read_rows]
        if self._is_being_read(request, len(found[0].digests)):
            return None
        if self.running:
            held = sum(self.pool.holders(block) > 0 for one in found for block in one.blocks[: len(one.digests)])
            needed = sum(self.blocks_of(len(row.tokens) - row.window_start) + 1 for row in request.read_rows)
            if needed - held > self.pool.available - n_rows:
                return None
        for row, stored in zip(request.read_rows, found, strict=True):
            if stored.blocks:
                self._go_on_from(stored, row, plan)
        self._dequeue(request)
        self.running.append(request)
        if request.started_at is None:
            request.started_at = time.perf_counter()
            request.cached_tokens = request.rows[0].n_cached
        return request

    def _is_being_read(self, request: RequestState, n_found: int) -> bool:
        """Whether another request just reads what follows the stored beginning of the prompt: worth waiting for."""
        useful = (len(request.prompt_ids) - 1) // self.block_size
        if request.started_at is not None or n_found >= min(useful, len(request.prompt_digests)):
            return False
        missing = request.prompt_digests[n_found]
        return any(
            other.rows[0].first_token_at is None and missing in other.prompt_digests[len(other.rows[0].digests) :]
            for other in self.running
        )

    def _go_on_from(self, stored: _Stored, row: Row, plan: Plan) -> None:
        """Hold what is stored of the row's text; copy it to where the row can grow, if there is room enough."""
        pool, blocks = self.pool, stored.blocks
        for block in blocks:
            pool.hold(block)
        n_whole = len(stored.digests)
        grows_there = len(blocks) == n_whole and pool.is_free(blocks[-1] + 1) and is_run(blocks)
        own: list[int] = []
        if not grows_there and pool.n_free >= self._still_needed() + self._at_most(row):
            own = pool.allocate_run(len(blocks), self.blocks_of(len(row.tokens) - row.window_start))
        if own:
            plan.copies += zip(blocks, own, strict=True)
            pool.release(blocks)
            blocks = own
        elif len(blocks) > n_whole and pool.holders(blocks[-1]) == 1:
            pool.forget_from(blocks[-1])  # nothing lies side by side elsewhere: the text goes on in the old one's place
        row.blocks, row.digests = blocks, stored.digests
        row.n_cached = row.n_sound = stored.n_tokens

    def _still_needed(self) -> int:
        """Blocks that running requests may still ask for."""
        return sum(self._at_most(row) - len(row.blocks) for request in self.running for row in request.rows)

    def _at_most(self, row: Row) -> int:
        """Blocks that the row holds when its text is as long as it may become."""
        request = row.request
        longest = len(request.prompt_ids) + request.settings.max_tokens
        return self.blocks_of(min(request.context_length, longest))

    def _stored_prefix(self, row: Row) -> _Stored:
        """What is stored of the beginning of the row's window. The last token is always read."""
        blocks: list[int] = []
        if not self.prefix_cache:
            return _Stored(blocks, [], 0)
        n_readable = len(row.tokens) - row.window_start - 1
        for index in range(n_readable // self.block_size):
            digest = self._digest(row, index)
            block = self.pool.find(digest)
            if block is None:
                break
            row.digests.append(digest)
            blocks.append(block)
        digests, row.digests = row.digests, []
        n_tokens = len(blocks) * self.block_size
        start = row.window_start + n_tokens
        next_ids = row.tokens[start : start + min(self.block_size, n_readable - n_tokens)]
        begun = self.pool.find_beginning(digests[-1] if digests else row.request.first_digest, next_ids)
        if begun is not None:
            blocks.append(begun[0])
            n_tokens += begun[1]
        if n_tokens < row.request.n_source:  # a piece of it is of no use
            return _Stored([], [], 0)
        return _Stored(blocks, digests, n_tokens)

    def _dequeue(self, request: RequestState) -> None:
        queue = self._waiting[request.request.tenant]
        queue.remove(request)
        if not queue:
            del self._waiting[request.request.tenant]

    def check(self) -> None:
        """Assert that blocks, rows and requests agree between two ticks."""
        self.pool.check(row.blocks for request in self.requests for row in request.rows)
        assert sum(len(request.rows) for request in self.running) <= self.max_rows
        for request in self.requests:
            for row in request.rows:
                assert row.n_cached <= len(row.blocks) * self.block_size
                assert row.n_cached < len(row.tokens) - row.window_start
