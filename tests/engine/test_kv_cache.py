import pytest
import torch

from tickwise.engine.kv_cache import KVBlocks, KVCache
from tickwise.engine.runner import RowInput


def new_cache(batch: int = 2, capacity: int = 8) -> KVCache:
    return KVCache(n_layers=3, batch=batch, n_kv_heads=2, head_dim=4, capacity=capacity)


def random_kv(batch: int, n_new: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 2, n_new, 4), torch.randn(batch, 2, n_new, 4)


def test_returns_everything_stored_so_far_in_order_for_each_layer():
    cache = new_cache()
    stored = {layer: ([], []) for layer in range(3)}
    for n_new in (3, 1, 2):
        for layer in range(3):
            k, v = random_kv(2, n_new)
            stored[layer][0].append(k)
            stored[layer][1].append(v)
            all_k, all_v = cache.update(layer, k, v)
            assert torch.equal(all_k, torch.cat(stored[layer][0], dim=2))
            assert torch.equal(all_v, torch.cat(stored[layer][1], dim=2))
        cache.advance(n_new)
    assert cache.length == 6


def test_reading_is_a_view_of_the_storage_not_a_copy():
    cache = new_cache()
    k, v = random_kv(2, 2)
    first, _ = cache.update(0, k, v)
    cache.advance(2)
    second, _ = cache.update(0, *random_kv(2, 1))
    assert first.data_ptr() == second.data_ptr()


def test_counts_the_bytes_that_its_tensors_take():
    cache = KVCache(3, 2, 2, 4, 8, dtype=torch.bfloat16)
    assert cache.bytes == 2 * 3 * 2 * 2 * 4 * 8 * 2
    cache.update(0, *random_kv(2, 5))
    assert cache.bytes == cache._k_LBHCD.nbytes + cache._v_LBHCD.nbytes


def test_says_so_when_it_is_full():
    cache = new_cache(capacity=4)
    cache.advance(3)
    with pytest.raises(ValueError, match="full: 3 tokens stored, 2 new ones, capacity 4"):
        cache.update(0, *random_kv(2, 2))
    with pytest.raises(ValueError, match="full"):
        cache.advance(2)


def test_refuses_another_batch_instead_of_broadcasting_it():
    with pytest.raises(ValueError, match="expected keys and values of shape"):
        new_cache(batch=2).update(0, *random_kv(1, 1))


def test_expanded_rows_are_independent_copies():
    cache = new_cache(batch=1)
    k, v = random_kv(1, 2)
    cache.update(0, k, v)
    cache.advance(2)
    cache.expand(3)
    new_k, new_v = random_kv(3, 1)
    all_k, _ = cache.update(0, new_k, new_v)
    assert torch.equal(all_k[:, :, :2], k.expand(3, -1, -1, -1))
    assert torch.equal(all_k[:, :, 2:], new_k)


def test_goes_on_from_an_earlier_length():
    cache = new_cache(capacity=4)
    first_k, first_v = random_kv(2, 1)
    cache.update(0, first_k, first_v)
    cache.advance(1)
    cache.update(0, *random_kv(2, 3))
    cache.advance(3)
    cache.truncate(1)
    assert cache.positions(3) == slice(1, 4)
    k, v = random_kv(2, 3)
    all_k, _ = cache.update(0, k, v)
    assert torch.equal(all_k, torch.cat([first_k, k], dim=2))


def row(blocks, n_cached, n_new):
    return RowInput(ids=[0] * n_new, n_cached=n_cached, blocks=blocks, n_logits=1)


@pytest.mark.parametrize("n_heads", [2, 6])
@pytest.mark.parametrize("tables", [
    [([0, 1, 2, 3], 11, 1)],
    [([5, 6], 4, 3)],
    [([6, 2, 9], 9, 1)],
    [([6, 2, 9], 0, 11)],
    [([0, 1, 2, 3], 14, 1), ([4], 0, 1), ([9, 8, 5], 10, 1)],
    [([4], 2, 1), ([0, 1, 2], 0, 10), ([9, 7, 5], 5, 6), ([10], 0, 4)],
], ids=str)
def test_rows_in_blocks_attend_like_rows_with_a_cache_of_their_own(n_heads, tables):
    """Each row alone: attention over its own tokens, one after the other in a plain cache."""
    torch.manual_seed(0)
    blocks = KVBlocks(2, 2, 4, n_blocks=11, block_size=4, dtype=torch.float32, device=torch.device("cpu"))
    own, rows = [], []
    for table, n_cached, n_new in tables:
        cache = KVCache(n_layers=2, batch=1, n_kv_heads=2, head_dim=4, capacity=16)
        if n_cached:
            stored = blocks.tick([row(table, 0, n_cached)])
            for layer in range(2):
                k, v = random_kv(1, n_cached)
                cache.update(layer, k, v)
                stored.attend(layer, torch.randn(1, n_heads, n_cached, 4), k, v)
            cache.advance(n_cached)
        own.append(cache)
        rows.append(row(table, n_cached, n_new))
    tick = blocks.tick(rows)
    positions = torch.arange(100)[tick.positions(sum(len(r.ids) for r in rows))].tolist()
    assert positions == [p for _, n_cached, n_new in tables for p in range(n_cached, n_cached + n_new)]
    for layer in range(2):
        new = [(torch.randn(1, n_heads, len(r.ids), 4), *random_kv(1, len(r.ids))) for r in rows]
        out = tick.attend(layer, *(torch.cat(parts, dim=2) for parts in zip(*new, strict=True)))
        expected = torch.cat([c.attend(layer, q, k, v) for c, (q, k, v) in zip(own, new, strict=True)], dim=2)
        torch.testing.assert_close(out, expected)


def test_a_copied_block_has_the_same_content_in_every_layer():
    blocks = KVBlocks(2, 2, 4, n_blocks=3, block_size=4, dtype=torch.float32, device=torch.device("cpu"))
    tick = blocks.tick([row([0], 0, 4)])
    stored = [random_kv(1, 4) for _ in range(2)]
    for layer, (k, v) in enumerate(stored):
        tick.attend(layer, torch.randn(1, 2, 4, 4), k, v)
    blocks.copy(0, 2)
    for layer, (k, v) in enumerate(stored):
        assert torch.equal(blocks.k_layers[layer][:, 8:12], k[0])
        assert torch.equal(blocks.v_layers[layer][:, 8:12], v[0])


def test_blocks_count_the_bytes_that_their_tensors_take():
    blocks = KVBlocks(3, 2, 4, n_blocks=5, block_size=8, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert blocks.bytes == 2 * 3 * 2 * 5 * 8 * 4 * 2
    assert not blocks.k_layers[0].any()


@pytest.mark.parametrize("n_heads", [2, 6])
@pytest.mark.parametrize(("starts", "lengths"), [
    ([0, 4, 8], [5, 5, 5]), ([0, 4, 8], [1, 9, 3]), ([4, 8], [7, 16]), ([0, 8, 4], [3, 3, 3]), ([0, 4, 12], [2, 6, 3]),
    ([0, 5, 8], [4, 4, 4]),
])
def test_rows_in_neighbouring_lanes_attend_like_each_alone(n_heads, starts, lengths):
    """Three whole lanes of four blocks and a broken one; starts and lengths of rows that read one token."""
    torch.manual_seed(0)
    storage = [KVBlocks(2, 2, 4, 14, 4, torch.float32, torch.device("cpu"), lane) for lane in (None, 4)]
    rows = [row(range(start, start + -(-n // 4)), n - 1, 1) for start, n in zip(starts, lengths, strict=True)]
    for one in rows:
        if one.n_cached:
            new = [(torch.randn(1, n_heads, one.n_cached, 4), *random_kv(1, one.n_cached)) for _ in range(2)]
            for blocks in storage:
                tick = blocks.tick([row(one.blocks, 0, one.n_cached)])
                for layer in range(2):
                    tick.attend(layer, *new[layer])
    ticks = [blocks.tick(rows) for blocks in storage]
    for layer in range(2):
        new = torch.randn(1, n_heads, len(rows), 4), *random_kv(1, len(rows))
        alone, together = (tick.attend(layer, *new) for tick in ticks)
        torch.testing.assert_close(together, alone)
