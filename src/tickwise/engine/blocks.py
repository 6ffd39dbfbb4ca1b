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

    @property
    def available(self) -> int:
        """Blocks that ``allocate`` can still give."""
        return len(self._free) + len(self._idle)

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
            del self._block_of[self._digest_of.pop(block)]
        self._holders[block] = 1
        return block

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

    def remember(self, block: int, digest: bytes) -> None:
        """The block is full and will not be written again. Where another one has the same content, that one counts."""
        if digest not in self._block_of and block not in self._digest_of:
            self._block_of[digest] = block
            self._digest_of[block] = digest

    def forget(self, block: int) -> None:
        """What the held block contains is not to be found again."""
        digest = self._digest_of.pop(block, None)
        if digest is not None:
            del self._block_of[digest]

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
        assert set(self._idle) <= set(self._digest_of)


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
