"""The memory estimate of serving, by term."""

import dataclasses
import subprocess
import sys

import pytest

from tickwise.engine.memory import estimate_serving_memory
from tickwise.engine.runner import DecoderRunner
from tickwise.models.decoder import Decoder, DecoderConfig

MODEL = DecoderConfig(vocab_size=1000, context_length=256, width=128, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=32,
                      hidden=352)


def test_weights_and_cache_are_the_bytes_that_they_have():
    module = Decoder(MODEL)
    for dtype, itemsize in (("fp32", 4), ("bf16", 2)):
        need = estimate_serving_memory(MODEL, batch=5, context=160, dtype=dtype)
        assert need.weights == itemsize * module.n_parameters()
        assert need.kv_cache == itemsize * 2 * 3 * 2 * 32 * 160 * 5
        assert need.total == need.weights + need.kv_cache + need.activations + need.fragmentation
    runner = DecoderRunner(module, n_blocks=5 * 10, block_size=16)
    assert runner.state_bytes == estimate_serving_memory(MODEL, batch=5, context=160, dtype="fp32").kv_cache


def test_a_context_takes_whole_blocks():
    bytes_of = [estimate_serving_memory(MODEL, batch=1, context=n, dtype="fp32").kv_cache for n in (161, 176, 177)]
    assert bytes_of[0] == bytes_of[1] < bytes_of[2]


def test_more_texts_need_more_of_everything_but_weights():
    one, many = (estimate_serving_memory(MODEL, batch=n, context=256, dtype="fp32") for n in (1, 600))
    assert one.weights == many.weights
    assert many.kv_cache == 600 * one.kv_cache
    assert many.activations > one.activations


@pytest.mark.parametrize("context", [1, 2, 17])
def test_tiny_contexts_are_estimated_too(context):
    assert estimate_serving_memory(MODEL, batch=1, context=context, dtype="bf16").activations > 0


def test_the_cache_is_not_counted_among_the_activations():
    small, large = (estimate_serving_memory(MODEL, batch=n, context=256, dtype="fp32") for n in (32, 64))
    assert large.kv_cache - small.kv_cache == 32 * 256 * 2 * 3 * 2 * 32 * 4
    assert large.activations - small.activations < (large.kv_cache - small.kv_cache) // 2


def test_many_texts_are_extrapolated_from_few(monkeypatch):
    counted = estimate_serving_memory(MODEL, batch=64, context=64, dtype="fp32", on_cpu=False)
    monkeypatch.setattr("tickwise.engine.memory._COUNTED_ROWS", 32)
    extrapolated = estimate_serving_memory(MODEL, batch=64, context=64, dtype="fp32", on_cpu=False)
    assert extrapolated.total == pytest.approx(counted.total, rel=0.02)


def test_a_cache_of_terabytes_takes_no_memory_to_count():
    wide = DecoderConfig(vocab_size=1000, context_length=1 << 20, width=1024, n_layers=4, n_heads=8, n_kv_heads=8,
                         head_dim=128, hidden=1024)
    need = estimate_serving_memory(wide, batch=8, context=1 << 20, dtype="fp32", on_cpu=False)
    assert need.kv_cache == 8 * (1 << 20) * 4 * 2 * 1024 * 4


def test_layers_too_many_to_count_are_extrapolated(monkeypatch):
    deep = dataclasses.replace(MODEL, n_layers=12)
    counted = estimate_serving_memory(deep, batch=70, context=64, dtype="fp32", on_cpu=False)
    monkeypatch.setattr("tickwise.engine.memory._COUNTED_LAYERS", 8)
    assert estimate_serving_memory(deep, batch=70, context=64, dtype="fp32", on_cpu=False) == counted


def test_the_process_that_stands_for_serving_loads_nothing_that_serving_does_not():
    """Building a model by way of the meta device loads sympy, 38 MB of it."""
    code = ("import sys, tickwise.engine.prediction as p; p.run_smallest('bf16'); "
            "sys.exit('sympy' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
