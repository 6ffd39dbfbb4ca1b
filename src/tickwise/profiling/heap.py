"""The heap of the C library, simulated: memory that stays resident although its tensors are gone.

Freed memory serves again only what fits into the hole that it leaves, so a process holds more than its live tensors.
These are the rules of glibc's malloc (malloc/malloc.c, "Trim and mmap thresholds", ``_int_malloc``, ``_int_memalign``)
for blocks as large as tensors: best fit, neighbouring holes become one, the last one is the top of the heap and goes
back to the system when it is large; what is above a threshold gets pages of its own, and the threshold grows to the
largest such block that was freed, unless it has been set (``core/allocator.py``).

Those rules alone leave few holes. In a training process small blocks (the nodes of autograd's graph and what they
hold, freed ones that the library keeps for its threads) lie between the large ones and keep holes apart. They come and
go, but their number does not grow for ever: a process holds more from step to step for some ten steps, and then no
more. So the simulation leaves a small block beside every n-th large one and frees the oldest when there are many; in a
validation and in serving, where autograd records nothing, it leaves none. How many and how often was fitted to what
nine trainings held after thirty steps, where a dry run takes five; none of them is among the configurations of
``bench/estimate_accuracy.py``. That is of a process that ``core/allocator.py`` has set up; one that was left alone
keeps to an older fit, to three trainings, in which they stay, cut off from the large ones.
"""

import bisect
import collections
import dataclasses

from tickwise.core.allocator import KEPT_FREE, OWN_PAGES_FROM

_PAGE = 4096
_TOP_PAD = 128 * 1024
"""What the heap grows by beyond a request, and what trimming leaves (M_TOP_PAD)."""
_FIRST_THRESHOLD = 128 * 1024
LARGEST_RECYCLED = 32 * 2**20
"""The most that the threshold grows to (DEFAULT_MMAP_THRESHOLD_MAX): larger blocks always get pages of their own."""
_TRIM_AFTER = 64 * 1024
"""Only a hole at least this large makes the top be looked at (FASTBIN_CONSOLIDATION_THRESHOLD)."""
_SPLINTER = 80
_Splinters = tuple[int, int | None]
_SPLINTERS_TUNED: _Splinters = (5, 220)
_SPLINTERS_LEFT_ALONE: _Splinters = (15, None)
"""Beside every n-th large block, and how many at most."""
_OVERHEAD = 16 + 64 + 32
"""Header, and what PyTorch's alignment of 64 bytes makes the library ask for on top."""


@dataclasses.dataclass(eq=False, slots=True)
class Block:
    """A piece of the heap, in use or a hole, between its neighbours; or pages of its own."""

    start: int
    size: int
    is_free: bool = False
    is_mapped: bool = False
    returned: int = 0
    """Bytes of a hole that the system has back."""
    before: "Block | None" = None
    after: "Block | None" = None


class Heap:
    """``allocate`` and ``free`` as the program does; ``resident`` bytes now and ``peak`` since ``reset_peak``.

    ``phase`` (from 0 to 1) says where in the order of large blocks the first small one stays. ``tuned``: with the
    thresholds of ``core/allocator.py``.
    """

    def __init__(self, phase: float = 0.0, *, tuned: bool = False) -> None:
        self.resident = self.peak = 0
        self._mapped = self._returned = 0
        self._holes: list[tuple[int, int, Block]] = []  # by size, then address
        self._last: Block | None = None  # the highest block in use or hole below the top
        self._end = 0  # where the top ends
        self._touched = 0  # the top is resident up to here
        self._grows = not tuned
        self._threshold = OWN_PAGES_FROM if tuned else _FIRST_THRESHOLD
        self._trim_above = KEPT_FREE if tuned else _TOP_PAD
        self._splinter_every, self._most_splinters = _SPLINTERS_TUNED if tuned else _SPLINTERS_LEFT_ALONE
        self._n_large = round(phase * self._splinter_every)
        self._splinters: collections.deque[Block] = collections.deque()

    def reset_peak(self) -> None:
        self.peak = self.resident

    def allocate(self, n_bytes: int, among_small: bool = True) -> Block:
        """Memory that is written to from end to end; ``among_small`` blocks, or with none beside it."""
        size = -(-(n_bytes + _OVERHEAD) // 16) * 16
        older_fit = self._most_splinters is None  # which tells no kinds of work apart
        is_large = (among_small or older_fit) and size >= _FIRST_THRESHOLD // 8
        beside_small = is_large and (self._n_large + 1) % self._splinter_every == 0
        room = size + _SPLINTER if beside_small and self._most_splinters else size
        block = self._from_hole(room) or self._from_top(room)
        if is_large and not block.is_mapped:
            self._n_large += 1
            if beside_small:
                self._leave_splinter(block)
        self._count()
        return block

    def _leave_splinter(self, block: Block) -> None:
        """The end of the block stays in use, until so many others do."""
        block.size -= _SPLINTER
        splinter = Block(block.start + block.size, _SPLINTER, before=block, after=block.after)
        self._link(splinter, block.after)
        block.after = splinter
        self._splinters.append(splinter)
        if self._most_splinters is not None and len(self._splinters) > self._most_splinters:
            self._release(self._splinters.popleft())

    def free(self, block: Block) -> None:
        if block.is_mapped:
            self._mapped -= block.size
            if self._grows and self._threshold < block.size <= LARGEST_RECYCLED:
                self._threshold, self._trim_above = block.size, 2 * block.size
        else:
            self._release(block)
        self._count()

    def give_back(self) -> None:
        """``malloc_trim``: whole pages of every hole go back to the system, and what is free above the last block."""
        for size, start, block in self._holes:
            pages = max(0, (start + size) // _PAGE - -(-start // _PAGE)) * _PAGE
            self._returned += pages - block.returned
            block.returned = pages
        end = 0 if self._last is None else self._last.start + self._last.size
        self._touched = min(self._touched, end)
        self._count()

    def _count(self) -> None:
        self.resident = self._mapped + self._touched - self._returned
        self.peak = max(self.peak, self.resident)

    def _from_hole(self, size: int) -> Block | None:
        index = bisect.bisect_left(self._holes, size, key=lambda hole: hole[0])
        if index == len(self._holes):
            return None
        block = self._holes.pop(index)[2]
        block.is_free = False
        self._returned -= block.returned
        if block.size - size >= 32:
            still = min(block.returned, (block.size - size) // _PAGE * _PAGE)
            rest = Block(block.start + size, block.size - size, is_free=True, before=block, after=block.after,
                         returned=still)
            self._returned += still
            block.size = size
            self._link(block, rest)
            self._link(rest, rest.after)
            bisect.insort(self._holes, (rest.size, rest.start, rest))
        block.returned = 0
        return block

    def _link(self, before: Block, after: Block | None) -> None:
        before.after = after
        if after is None:
            self._last = before
        else:
            after.before = before

    def _from_top(self, size: int) -> Block:
        start = 0 if self._last is None else self._last.start + self._last.size
        if start + size + 32 > self._end:
            if size >= self._threshold:
                size = -(-(size + 16) // _PAGE) * _PAGE
                self._mapped += size
                return Block(0, size, is_mapped=True)
            self._end = -(-(start + size + _TOP_PAD + 32) // _PAGE) * _PAGE
        block = Block(start, size, before=self._last)
        if self._last is not None:
            self._last.after = block
        self._last = block
        self._touched = max(self._touched, start + size)
        return block

    def _release(self, block: Block) -> None:
        for neighbour in (block.before, block.after):
            if neighbour is not None and neighbour.is_free:
                del self._holes[bisect.bisect_left(self._holes, (neighbour.size, neighbour.start))]
                block.start = min(block.start, neighbour.start)
                block.size += neighbour.size
                block.returned += neighbour.returned
                if neighbour is block.before:
                    block.before = neighbour.before
                    if block.before is not None:
                        block.before.after = block
                else:
                    self._link(block, neighbour.after)
        if block.after is not None:
            block.is_free = True
            bisect.insort(self._holes, (block.size, block.start, block))
            return
        self._last = block.before
        if self._last is not None:
            self._last.after = None
        self._returned -= block.returned
        self._touched = max(block.start, self._touched - block.returned)
        top = self._end - block.start
        if block.size >= _TRIM_AFTER and top >= self._trim_above:
            self._end -= max(0, (top - _TOP_PAD - 32) // _PAGE * _PAGE)
            self._touched = min(self._touched, self._end)
