"""Who holds which block of stored state: reference counts, and shared prefixes (Kwon et al. 2023, section 4).

State (keys and values, for a decoder) is stored in blocks of a fixed number of tokens. This module counts; the storage
itself belongs to the runner. A block is in one of three places:

- free: nobody holds it and it holds nothing of use;
- held: one or more rows read it, each counted once;
- idle: nobody holds it, but it is full and known by the digest of its whole prefix, so that a later text that begins
  the same can hold it again. Idle blocks are given away, least recently used first, when free ones run out.
"""

import hashlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence


class BlockPool:
    """Counts the holders of ``n_blocks`` blocks and finds full ones by digest.

    Blocks that lie side by side are read as one piece, so texts are placed where they can grow: at the start of a lane
    of ``lane`` blocks, or else of the longest free run. Once nothing is free, a new text takes the place of the one
    that was used longest ago, from its beginning.

    >>> pool = BlockPool(n_blocks=4)
    >>> block = pool.allocate()
    >>> pool.hold(block); pool.release([block]); pool.available
    3
    """

    def __init__(self, n_blocks: int, lane: int = 1) -> None:
        self.n_blocks, self.lane = n_blocks, lane
        self._holders = [0] * n_blocks
        self._free = dict.fromkeys(range(n_blocks))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._digest_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}
        self._content_of: dict[int, tuple[bytes, Sequence[int]]] = {}
        """Of a block that can be found: the digest of the text before it, and its tokens."""
        self._behind: dict[bytes, set[int]] = {}
        """Blocks that can be found, by the digest of the text before them."""

    @property
    def available(self) -> int:
        """Blocks that ``allocate`` can still give."""
        return len(self._free) + len(self._idle)

    @property
    def n_free(self) -> int:
        """Blocks that hold nothing of use."""
        return len(self._free)

    @property
    def n_idle(self) -> int:
        """Blocks that nobody holds but whose content is kept."""
        return len(self._idle)

    def holders(self, block: int) -> int:
        """How many rows hold the block."""
        return self._holders[block]

    def allocate(self, after: int | None = None) -> int:
        """A block with one holder: the one behind block ``after`` if it can be, else one with room behind it.

        There must be one ``available``.
        """
        block = self._place(after)
        if block in self._free:
            del self._free[block]
        else:
            del self._idle[block]
            self.forget(block)
        self._holders[block] = 1
        return block

    def allocate_run(self, n_blocks: int, room: int) -> list[int]:
        """``n_blocks`` blocks side by side, at the start of a lane with ``room`` free blocks; empty without one."""
        for start in range(0, self.n_blocks, self.lane):
            if all(block in self._free for block in range(start, start + room)):
                run = list(range(start, start + n_blocks))
                for block in run:
                    del self._free[block]
                    self._holders[block] = 1
                return run
        return []

    def is_free(self, block: int) -> bool:
        """Whether there is such a block and it holds nothing of use."""
        return block in self._free

    def _place(self, after: int | None) -> int:
        behind = -1 if after is None else after + 1
        if behind in self._free:
            return behind
        if self._free:
            lanes = (block for block in range(0, self.n_blocks, self.lane) if block in self._free)
            lane = next(lanes, None)
            return self._longest_free_run() if lane is None else lane
        if behind in self._idle:
            return behind
        block = next(iter(self._idle))
        while block % self.lane and block - 1 in self._idle:
            block -= 1
        return block

    def _longest_free_run(self) -> int:
        """Its first block."""
        best = length = best_length = 0
        before = -2
        for block in sorted(self._free):
            length = length + 1 if block == before + 1 else 1
            before = block
            if length > best_length:
                best, best_length = block - length + 1, length
        return best

    def hold(self, block: int) -> None:
        """One more holder of a held or idle block."""
        if self._holders[block] == 0:
            del self._idle[block]
        self._holders[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """One holder less of each. The end of a text goes first, so that it is also the first to be given away."""
        for block in reversed(blocks):
            assert self._holders[block] > 0, "a block was released that nobody holds"
            self._holders[block] -= 1
            if self._holders[block] == 0:
                if block in self._digest_of:
                    self._idle[block] = None
                else:
                    self._free[block] = None

    def find(self, digest: bytes) -> int | None:
        """The block with this content, held or idle."""
        return self._block_of.get(digest)

    def find_beginning(self, before: bytes, token_ids: Sequence[int]) -> tuple[int, int] | None:
        """The block behind the text with digest ``before`` that begins with the most of ``token_ids``, and with how
        many of them."""
        best: tuple[int, int] | None = None
        for block in self._behind.get(before, ()):
            n_same = 0
            for stored, wanted in zip(self._content_of[block][1], token_ids, strict=False):
                if stored != wanted:
                    break
                n_same += 1
            if n_same > (0 if best is None else best[1]):
                best = block, n_same
        return best

    def is_known(self, block: int) -> bool:
        """Whether the block can be found, so that nobody may write into it."""
        return block in self._digest_of

    def remember(self, block: int, digest: bytes, before: bytes = b"", token_ids: Sequence[int] = ()) -> None:
        """The block is full, of ``token_ids`` behind the text with digest ``before``, and will not be written again.
        Where another one has the same content, that one counts."""
        if digest not in self._block_of and block not in self._digest_of:
            self._block_of[digest] = block
            self._digest_of[block] = digest
            self._content_of[block] = before, token_ids
            self._behind.setdefault(before, set()).add(block)

    def forget(self, block: int) -> None:
        """What the block contains is not to be found again. An idle block becomes free."""
        digest = self._digest_of.pop(block, None)
        if digest is None:
            return
        del self._block_of[digest]
        before, _ = self._content_of.pop(block)
        behind = self._behind[before]
        behind.remove(block)
        if not behind:
            del self._behind[before]
        if block in self._idle:
            del self._idle[block]
            self._free[block] = None

    def forget_from(self, block: int) -> None:
        """Forget the block, and idle ones behind it: nobody finds those without it."""
        doomed = [block]
        while doomed:
            block = doomed.pop()
            doomed += [b for b in self._behind.get(self._digest_of.get(block, b""), ()) if b in self._idle]
            self.forget(block)

    def check(self, tables: Iterable[Sequence[int]]) -> None:
        """Assert that every block is free, idle, or counted once per table that has it."""
        counted = Counter(block for table in tables for block in table)
        for block in range(self.n_blocks):
            places = (block in self._free) + (block in self._idle) + (self._holders[block] > 0)
            assert places == 1, f"block {block} is in {places} places"
            assert self._holders[block] == counted[block], (
                f"block {block} counts {self._holders[block]} holders, {counted[block]} tables have it"
            )
        assert all(self._block_of[digest] == block for block, digest in self._digest_of.items())
        assert len(self._block_of) == len(self._digest_of)
        assert set(self._content_of) == set(self._digest_of)
        assert sum(map(len, self._behind.values())) == len(self._content_of)
        assert set(self._idle) <= set(self._digest_of)


def is_run(blocks: Sequence[int]) -> bool:
    """Whether the blocks lie side by side, in order."""
    first = blocks[0]
    return blocks[-1] - first == len(blocks) - 1 and list(blocks) == list(range(first, first + len(blocks)))


def first_digest(*namespace: str) -> bytes:
    """Where a chain of digests begins. Texts in different namespaces (model, adapter, tenant) never share a block."""
    hasher = hashlib.sha256()
    for name in namespace:
        encoded = name.encode()
        hasher.update(len(encoded).to_bytes(8, "little") + encoded)
    return hasher.digest()


def next_digest(before: bytes, token_ids: Sequence[int]) -> bytes:
    """Digest of a text up to the end of a block, from that of the text before the block and the block's tokens."""
    return hashlib.sha256(before + array("q", token_ids).tobytes()).digest()
