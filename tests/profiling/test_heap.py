"""The simulated heap, against what malloc's manual and source promise."""

import itertools

import pytest

from tickwise.profiling import heap as heap_module
from tickwise.profiling.heap import LARGEST_RECYCLED, Heap

KB, MB = 1 << 10, 1 << 20


@pytest.fixture
def no_small_blocks(monkeypatch):
    """The rules of malloc alone."""
    for name in ("_SPLINTERS_TUNED", "_SPLINTERS_LEFT_ALONE"):
        monkeypatch.setattr(heap_module, name, (1 << 30, None))


def test_holes_stay_apart_by_small_blocks_whose_number_settles():
    heap, held = Heap(tuned=True), []
    for _ in range(40):
        heap.reset_peak()
        blocks = [heap.allocate((100 + 37 * n % 400) * KB) for n in range(60)]
        needed = sum(block.size for block in blocks)
        for block in blocks[::2] + blocks[1::2]:
            heap.free(block)
        held.append(heap.peak)
    assert held[0] < 1.01 * needed
    assert held[20] > 1.1 * needed, "what one step leaves free does not all serve the next"
    assert max(held[30:]) < 1.1 * max(held[10:20]), "but it does not grow for ever"


@pytest.mark.usefixtures("no_small_blocks")
def test_blocks_of_one_size_come_and_go_in_the_same_place():
    heap = Heap()
    kept = heap.allocate(MB)
    for _ in range(10):
        heap.free(heap.allocate(100 * KB))
    assert heap.peak < MB + 150 * KB
    heap.free(kept)


def test_a_hole_is_filled_by_what_fits_and_not_by_what_does_not():
    heap = Heap()
    heap.free(heap.allocate(LARGEST_RECYCLED - MB))  # from now on blocks come from the heap
    blocks = [heap.allocate(n * MB) for n in (1, 2, 1)]
    before = heap.resident
    heap.free(blocks[1])
    assert heap.resident == before, "a hole stays"
    heap.allocate(MB)
    assert heap.resident == before
    heap.allocate(3 * MB)
    assert heap.resident > before + 2.9 * MB


def test_neighbouring_holes_are_one():
    heap = Heap()
    heap.free(heap.allocate(LARGEST_RECYCLED - MB))
    blocks = [heap.allocate(MB) for _ in range(4)]
    before = heap.resident
    for index in (0, 2, 1):
        heap.free(blocks[index])
    heap.allocate(3 * MB)
    assert heap.resident == before


@pytest.mark.usefixtures("no_small_blocks")
def test_what_is_huge_goes_back_to_the_system_and_the_top_of_the_heap_too():
    heap = Heap()
    huge = heap.allocate(64 * MB)
    assert heap.resident >= 64 * MB
    heap.free(huge)
    assert heap.resident < MB
    pieces = [heap.allocate(100 * KB) for _ in range(9)]
    for piece in reversed(pieces):
        heap.free(piece)
    assert heap.resident < 400 * KB
    assert heap.peak > 64 * MB
    heap.reset_peak()
    assert heap.peak == heap.resident


@pytest.mark.usefixtures("no_small_blocks")
def test_with_set_thresholds_large_blocks_never_leave_holes():
    heap = Heap(tuned=True)
    for _ in range(3):
        blocks = [heap.allocate(n * MB) for n in (5, 8, 31, 5)]
        assert heap.resident < 49 * MB + 64 * KB
        for index in (1, 3, 0, 2):
            heap.free(blocks[index])
        assert heap.resident < 64 * KB
    small = [heap.allocate(3 * MB) for _ in range(12)]
    for block in reversed(small):
        heap.free(block)
    assert heap.resident <= 32 * MB, "what is free at the end goes back"


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_byte_is_lost_or_held_twice(seed, tuned):
    import random

    draw = random.Random(seed)
    heap, live = Heap(tuned=tuned), []
    for _ in range(3000):
        if live and draw.random() < 0.5:
            heap.free(live.pop(draw.randrange(len(live)))[0])
        else:
            n = draw.choice((2 * KB, 40 * KB, 300 * KB, 3 * MB, 40 * MB))
            live.append((heap.allocate(n), n))
        assert heap.resident >= sum(n for _, n in live)
        taken = sorted((b.start, b.start + b.size) for b, _ in live if not b.is_mapped)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(taken))


def test_what_is_given_back_is_resident_again_only_when_it_is_used():
    heap = Heap()
    heap.free(heap.allocate(LARGEST_RECYCLED - MB))
    blocks = [heap.allocate(n * MB) for n in (1, 4, 1)]
    heap.free(blocks[1])
    before = heap.resident
    heap.give_back()
    assert before - 4 * MB <= heap.resident < before - 3.9 * MB
    small = heap.resident
    kept = heap.allocate(MB)
    assert small + MB - 8 * KB <= heap.resident < small + 1.1 * MB
    heap.free(kept)
    assert heap.resident < small + 1.1 * MB
    heap.give_back()
    assert abs(heap.resident - small) < 16 * KB
    heap.free(blocks[2])
    heap.free(blocks[0])
    assert 0 <= heap.resident < 8 * MB


def test_a_hole_that_was_given_back_serves_the_top_again():
    heap = Heap()
    heap.free(heap.allocate(LARGEST_RECYCLED - MB))
    first, second = heap.allocate(MB), heap.allocate(8 * MB)
    last = heap.allocate(MB)
    heap.free(second)
    heap.give_back()
    heap.free(last)
    low = heap.resident
    assert low < 3.5 * MB
    heap.allocate(8 * MB)
    assert heap.resident > low + 6 * MB
    heap.free(first)
