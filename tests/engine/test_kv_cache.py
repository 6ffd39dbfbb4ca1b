import pytest
import torch

from tickwise.engine.kv_cache import KVCache


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
    cache.advance(5)
    assert cache.bytes_stored == cache.bytes * 5 // 8


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


def test_keeps_the_chosen_rows_in_the_chosen_order():
    cache = new_cache(batch=3)
    k, v = random_kv(3, 2)
    cache.update(1, k, v)
    cache.advance(2)
    cache.keep_rows([2, 0])
    all_k, all_v = cache.update(1, *random_kv(2, 1))
    assert torch.equal(all_k[:, :, :2], k[[2, 0]])
    assert torch.equal(all_v[:, :, :2], v[[2, 0]])


def test_starts_again_after_a_reset():
    cache = new_cache(capacity=4)
    cache.update(0, *random_kv(2, 4))
    cache.advance(4)
    cache.reset()
    k, v = random_kv(2, 4)
    all_k, _ = cache.update(0, k, v)
    assert torch.equal(all_k, k)
