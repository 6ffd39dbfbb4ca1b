import random

import pytest

from tickwise.engine.blocks import BlockPool, first_digest, next_digest


def test_a_block_is_free_again_when_its_last_holder_lets_go():
    pool = BlockPool(2)
    block = pool.allocate()
    pool.hold(block)
    assert pool.available == 1
    pool.release([block])
    assert pool.available == 1
    pool.release([block])
    assert pool.available == 2
    pool.check([])


def test_blocks_of_one_text_lie_side_by_side_while_they_can():
    pool = BlockPool(6)
    first, second = [pool.allocate()], [pool.allocate()]
    pool.release(second)
    for _ in range(3):
        first.append(pool.allocate(first[-1]))
    assert first == [0, 1, 2, 3]


def test_texts_are_placed_where_they_can_grow():
    pool = BlockPool(12, lane=4)
    texts = [[pool.allocate()] for _ in range(3)]
    assert texts == [[0], [4], [8]]
    for text in texts * 3:
        text.append(pool.allocate(text[-1]))
    assert texts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    pool.release(texts[1][1:])
    pool.release(texts[2][2:])
    assert pool.allocate() == 5, "the longest free run"


def test_a_new_text_takes_the_place_of_the_oldest_one_from_its_beginning():
    pool = BlockPool(8, lane=4)
    texts = [[0, 1, 2, 3], [4, 5, 6, 7]]
    for text in texts:
        for index, block in enumerate(text):
            assert pool.allocate(text[index - 1] if index else None) == block
            pool.remember(block, bytes([block]) * 32)
    for text in (texts[1], texts[0]):
        pool.release(text)
    new = [pool.allocate()]
    while len(new) < 4:
        new.append(pool.allocate(new[-1]))
    assert new == [4, 5, 6, 7]
    assert pool.n_idle == 4


def test_a_remembered_block_is_found_until_its_room_is_needed():
    pool = BlockPool(2)
    block, digest = pool.allocate(), next_digest(first_digest("m"), [1, 2])
    pool.remember(block, digest)
    pool.release([block])
    assert (pool.find(digest), pool.available, pool.n_idle) == (block, 2, 1)
    pool.allocate()
    assert pool.find(digest) == block, "a free block is given before one with content"
    pool.allocate()
    assert pool.find(digest) is None


def test_the_block_that_was_let_go_longest_ago_is_given_away_first():
    pool = BlockPool(3)
    digests = [bytes([i]) * 32 for i in range(3)]
    blocks = [pool.allocate() for _ in digests]
    for block, digest in zip(blocks, digests, strict=True):
        pool.remember(block, digest)
    for index in (1, 0, 2):
        pool.release([blocks[index]])
    pool.hold(blocks[1])
    pool.release([blocks[1]])
    pool.allocate()
    assert [pool.find(digest) is None for digest in digests] == [True, False, False]


def test_the_end_of_a_text_is_given_away_before_its_beginning():
    pool = BlockPool(3)
    blocks = [pool.allocate() for _ in range(3)]
    for block in blocks:
        pool.remember(block, bytes([block]) * 32)
    pool.release(blocks)
    pool.allocate()
    assert pool.find(bytes([blocks[2]]) * 32) is None
    assert pool.find(bytes([blocks[0]]) * 32) == blocks[0]


def test_the_same_content_is_remembered_once():
    pool = BlockPool(2)
    first, second = pool.allocate(), pool.allocate()
    pool.remember(first, b"x" * 32)
    pool.remember(second, b"x" * 32)
    assert pool.find(b"x" * 32) == first
    pool.release([first, second])
    assert pool.n_idle == 1
    pool.check([])


def test_the_check_finds_a_block_that_is_counted_wrongly():
    pool = BlockPool(3)
    block = pool.allocate()
    pool.check([[block]])
    with pytest.raises(AssertionError, match="counts 1 holders, 2 tables"):
        pool.check([[block], [block]])
    with pytest.raises(AssertionError, match="counts 1 holders, 0 tables"):
        pool.check([])


def test_every_block_is_in_one_place_after_any_sequence_of_uses():
    chooser = random.Random(3)
    pool, tables = BlockPool(12), []
    for _ in range(2000):
        action = chooser.randrange(4)
        if action == 0 and pool.available:
            tables.append([pool.allocate()])
        elif action == 1 and tables and pool.available:
            table = chooser.choice(tables)
            table.append(pool.allocate(table[-1]))
        elif action == 2 and tables:
            table = list(chooser.choice(tables))
            for block in table:
                pool.hold(block)
                pool.remember(block, chooser.randbytes(2) * 16)
            tables.append(table)
        elif tables:
            pool.release(tables.pop(chooser.randrange(len(tables))))
        pool.check(tables)


def test_digests_depend_on_namespace_order_and_everything_before():
    chains = [
        next_digest(next_digest(first_digest(*names), ids[:2]), ids[2:])
        for names in (("model", "a"), ("model", "b"), ("modela", ""), ("", "modela"))
        for ids in ([1, 2, 3, 4], [2, 1, 3, 4], [1, 2, 4, 3])
    ]
    assert len(set(chains)) == 12


def test_a_block_is_found_by_its_first_tokens_behind_the_same_text():
    pool = BlockPool(4)
    before, other = first_digest("m", "a"), first_digest("m", "b")
    for ids in ([1, 2, 3, 4], [1, 2, 9, 9], [7, 2, 3, 4]):
        pool.remember(pool.allocate(), next_digest(before, ids), before, ids)
    assert pool.find_beginning(before, [1, 2, 9, 8]) == (1, 3)
    assert pool.find_beginning(before, [7]) == (2, 1)
    assert pool.find_beginning(before, [2, 3]) is None
    assert pool.find_beginning(before, []) is None
    assert pool.find_beginning(other, [1, 2, 9, 8]) is None
    pool.forget(1)
    assert pool.find_beginning(before, [1, 2, 9, 8]) == (0, 2)
    pool.check([[0], [1], [2]])


def test_a_forgotten_idle_block_is_free():
    pool = BlockPool(1)
    block = pool.allocate()
    pool.remember(block, b"x" * 32, b"y" * 32, [1])
    pool.release([block])
    assert (pool.n_idle, pool.n_free) == (1, 0)
    pool.forget(block)
    assert (pool.n_idle, pool.n_free) == (0, 1)
    assert pool.find_beginning(b"y" * 32, [1]) is None
    pool.check([])


def test_a_run_of_blocks_is_taken_where_a_lane_has_room():
    pool = BlockPool(12, lane=4)
    first = pool.allocate()
    assert pool.allocate_run(2, room=4) == [4, 5]
    assert pool.allocate_run(2, room=5) == []
    pool.release([4])
    assert pool.allocate_run(1, room=2) == [8], "block 5 is in the way"
    assert pool.allocate_run(1, room=1) == [4]
    pool.check([[first], [5], [8], [4]])


def test_what_nobody_can_find_any_more_is_forgotten_with_the_block_before_it():
    pool = BlockPool(4)
    blocks = [pool.allocate() for _ in range(4)]
    digest = first_digest("m")
    for block in blocks[:3]:
        before, digest = digest, next_digest(digest, [block])
        pool.remember(block, digest, before, [block])
    pool.remember(3, b"x" * 32)
    pool.release([0, 1, 2, 3])
    pool.forget_from(1)
    assert (pool.n_free, pool.n_idle) == (2, 2)
    pool.check([])
