"""What a rank holds and sends, modelled: memory at its peak, bytes of every collective of a step."""

import importlib
from dataclasses import replace
from typing import Literal

import torch

from tickwise.core.console import format_bytes
from tickwise.core.device import torch_dtype
from tickwise.core.errors import MemoryLimitError
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.machine import memory_bytes
from tickwise.training.config import TrainConfig
from tickwise.training.distributed.launch import least_rank_bytes
from tickwise.training.memory import TrainingMemory, estimate_training_memory
from tickwise.training.memory_saving import layers_of

Strategy = Literal["ddp", "fsdp"]
_FP32_BYTES = 4


def _parameters(model: DecoderConfig) -> tuple[int, int, int, int]:
    """All numbers, those of one layer, those of the layers' matrices, those of the largest matrix."""
    with torch.device("meta"):
        module = Decoder(model)
    layers = layers_of(module)
    matrices = [p.numel() for layer in layers for p in layer.parameters() if p.ndim == 2]
    return module.n_parameters(), sum(p.numel() for p in layers[0].parameters()), sum(matrices), max(matrices)


def step_traffic(model: DecoderConfig, config: TrainConfig, dtype: str, n_ranks: int,
                 strategy: Strategy, *, on_gpus: bool) -> dict[str, int]:
    """Bytes that each rank sends in a step, by collective, when they go round in a ring: (n - 1)/n of what is gathered
    or scattered, and twice that of what is reduced to all (Patarasuk & Yuan 2009). Uneven shares are padded; that, and
    the few numbers on which ranks agree, are left out. NCCL, on GPUs, scatters what it reduces; gloo, on CPUs, cannot,
    and reduces to all."""
    total, layer, matrices, _ = _parameters(model)
    compute_bytes = torch_dtype(dtype).itemsize
    share = (n_ranks - 1) / n_ranks
    if strategy == "ddp":
        return {"all_reduce_gradients": round(2 * share * total * _FP32_BYTES)}
    layers = model.n_layers * layer
    # A layer's weights are gathered for its forward pass and again for its backward pass, the others once for both.
    gathered = config.accumulate * ((total - layers) + 2 * layers) * compute_bytes
    reduced = share * total * _FP32_BYTES
    traffic = {"all_gather_weights": round(share * gathered)}
    if on_gpus:
        traffic["reduce_scatter_gradients"] = round(reduced)
    else:
        traffic["all_reduce_gradients"] = round(2 * reduced)
    if config.optimizer.name == "muon":
        traffic["all_gather_updates"] = round(share * matrices * _FP32_BYTES)
    return traffic


def engine_bytes(strategy: Strategy) -> int:
    """What a rank's process has loaded besides what training alone has, on this machine's CPU: measured once, then
    kept."""
    from tickwise.profiling.reference import process_bytes

    return process_bytes(f"ranks-{strategy}", f"{__name__}:load_engine('{strategy}')")


def load_engine(strategy: Strategy) -> int:
    """Bytes by which this process grows."""
    import psutil

    before = int(psutil.Process().memory_info().rss)
    importlib.import_module("torch._dynamo")  # DDP and FSDP2 load it where they are made
    if strategy == "fsdp":
        importlib.import_module("tickwise.training.distributed.sharded")
        importlib.import_module("torch.distributed.fsdp")
    return int(psutil.Process().memory_info().rss) - before


def check_ranks_fit(model: DecoderConfig, config: TrainConfig, dtype: str, device: torch.device, n_ranks: int,
                    n_here: int) -> None:
    """``MemoryLimitError`` when that many ranks cannot compute on this machine's processor."""
    if device.type != "cpu":
        return
    own, (_, available) = least_rank_bytes(), memory_bytes()
    need = rank_memory(model, config, dtype, device, n_ranks, config.parallel.strategy)
    if n_here * (need.total + own) > available:
        name, size = need.largest()
        raise MemoryLimitError(
            f"out of memory: {n_here} ranks on this machine need about {format_bytes(n_here * (need.total + own))}, "
            f"{format_bytes(available)} are free; each of them needs {format_bytes(own)} for Python and PyTorch alone "
            f"and {format_bytes(need.total)} for the model (the largest term is {name} with {format_bytes(size)}): "
            "start fewer")


def rank_memory(model: DecoderConfig, config: TrainConfig, dtype: str, device: torch.device, n_ranks: int,
                strategy: Strategy, *, on_cpu: bool | None = None) -> TrainingMemory:
    """Of one rank of several: a share of the batch, and with FSDP a share of the rest, besides what is gathered."""
    assert config.batch_size is not None
    own = replace(config, batch_size=config.batch_size // n_ranks)
    whole = estimate_training_memory(model, own, 0, dtype, device, on_cpu=on_cpu)
    total, layer, _, largest = _parameters(model)
    compute_bytes = torch_dtype(dtype).itemsize
    if strategy == "ddp":
        # In bf16 a micro-batch computes with casts of the master weights, besides the weights for validation.
        return whole if dtype == "fp32" else replace(whole, weights=whole.weights + compute_bytes * total)
    n_copies = 1 if config.ema_decay is None else 2
    rest = total - model.n_layers * layer
    gathered = (rest + 2 * layer) * compute_bytes  # what is in use, and the layer that comes next
    # Until they are exchanged, the gradients of several micro-batches add up unshared.
    unshared = total if config.accumulate > 1 else rest + layer
    muon = largest * _FP32_BYTES if config.optimizer.name == "muon" else 0
    return replace(whole, weights=n_copies * _FP32_BYTES * total // n_ranks + gathered,
                   gradients=_FP32_BYTES * (total // n_ranks + unshared), optimizer=whole.optimizer // n_ranks,
                   activations=whole.activations + muon)
