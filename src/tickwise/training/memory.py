"""How much memory a training run needs, by term, before it starts."""

from dataclasses import asdict, dataclass

import torch

from tickwise.core.console import format_bytes
from tickwise.core.errors import MemoryLimitError
from tickwise.layers.attention import keeps_scores
from tickwise.models.decoder import DecoderConfig
from tickwise.profiling.machine import memory_bytes
from tickwise.training.config import TrainConfig

_FLAGS = {
    "weights": "--depth or --model.width",
    "gradients": "--depth or --model.width",
    "optimizer": "--depth or --model.width",
    "activations": "--batch-size or --context, or raise --accumulate",
    "logits": "--batch-size, --context or --vocab-size, or raise --accumulate",
}
_LOSS_CHUNK_VOCABULARY = 2048


@dataclass(frozen=True)
class TrainingMemory:
    """Modelled bytes by term."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def largest(self) -> tuple[str, int]:
        """The largest term and its bytes."""
        return max(asdict(self).items(), key=lambda item: item[1])


def estimate_training_memory(model: DecoderConfig, config: TrainConfig, n_parameters: int,
                             dtype: str, device: torch.device) -> TrainingMemory:
    """Modelled from shapes: what autograd keeps of one micro-batch, and four bytes per optimizer number."""
    assert config.batch_size is not None
    compute_bytes = 2 if dtype == "bf16" else 4
    tokens = config.batch_size // config.accumulate * config.context
    gated = model.activation == "swiglu"
    heads = (model.n_heads + 2 * model.n_kv_heads) * model.head_dim
    # Per token and layer: both normed inputs, the stream twice, q, k, v rotated and not, the attention output,
    # and the hidden activations before and after their non-linearity.
    per_token = 6 * model.width + 3 * heads + model.n_heads * model.head_dim + (4 if gated else 2) * model.hidden
    kept = keeps_scores(device, config.context, model.n_heads, model.n_kv_heads)
    scores = model.n_heads * config.context * 2 if kept else 0
    activations = model.n_layers * tokens * (per_token + scores) * compute_bytes
    chunked = model.vocab_size >= _LOSS_CHUNK_VOCABULARY and model.logit_soft_cap is None
    logits = tokens * model.vocab_size * (compute_bytes + 8)
    states = {"adamw": 2, "sgd": 1, "muon": 2}[config.optimizer.name]
    return TrainingMemory(
        weights=n_parameters * (4 + (2 if dtype == "bf16" else 0) + (4 if config.ema_decay is not None else 0)),
        gradients=n_parameters * (4 + (2 if dtype == "bf16" else 0)),
        optimizer=n_parameters * 4 * states,
        activations=activations,
        logits=logits // 8 if chunked else logits,
    )


def memory_message(need: TrainingMemory, available: int | None) -> str:
    """One line that names the largest term and the flags that shrink it."""
    name, size = need.largest()
    have = f", {format_bytes(available)} are free" if available is not None else ""
    return (f"out of memory: the run needs about {format_bytes(need.total)}{have}; the largest term is {name} with "
            f"{format_bytes(size)}: lower {_FLAGS[name]}")


def check_memory(need: TrainingMemory) -> None:
    """Refuse a run that cannot fit on this machine's CPU memory, before anything is allocated."""
    _, available = memory_bytes()
    if need.total > available:
        raise MemoryLimitError(memory_message(need, available))
