"""One principled dial: from ``depth`` to a whole decoder, batch and learning rate."""

import dataclasses
from typing import TypeVar

from tickwise.core.errors import ConfigError
from tickwise.interop.tensor_names import saved_format
from tickwise.models.decoder import DecoderConfig
from tickwise.training.config import LoopConfig, ModelOptions, TrainConfig

WIDTH_PER_LAYER = 64
_BATCH_TOKENS = 4096
PAIR_ADAMW = 0.002
"""AdamW's peak learning rate for an encoder–decoder of width 256."""
_CHINCHILLA_TOKENS_PER_PARAMETER = 20
MAX_EPOCHS_BY_DEFAULT = 10


def decoder_from_dial(depth: int, context: int, vocab_size: int, options: ModelOptions) -> DecoderConfig:
    """The decoder of that depth; explicit options win. ``ConfigError`` where they contradict each other."""
    width, n_heads = width_and_heads(depth, options.width, options.n_heads)
    kind = options.architecture
    if kind == "gpt2":
        base = {"positions": "learned", "norm": "layernorm", "activation": "gelu_tanh", "bias": True,
                "tie_embeddings": True}
    elif kind == "llama":
        base = {}
    elif kind == "qwen3":
        base = {"qk_norm": True}
    else:
        base = {"qk_norm": True, "value_residual": True}
    chosen = {"activation": options.activation, "bias": options.bias, "qk_norm": options.qk_norm,
              "tie_embeddings": options.tie_embeddings, "value_residual": options.value_residual,
              "logit_soft_cap": options.logit_soft_cap}
    base |= {name: value for name, value in chosen.items() if value is not None}
    gated = base.get("activation", "swiglu") == "swiglu"
    hidden = options.hidden if options.hidden is not None else hidden_width(width, gated)
    return DecoderConfig(
        vocab_size=vocab_size, context_length=context, width=width, n_layers=depth, n_heads=n_heads,
        n_kv_heads=options.n_kv_heads if options.n_kv_heads is not None else n_heads, head_dim=width // n_heads,
        hidden=hidden, rope_theta=options.rope_theta, dropout=options.dropout, **base,  # type: ignore[arg-type]
    )


def width_and_heads(depth: int, width: int | None, n_heads: int | None) -> tuple[int, int]:
    """Features of the residual stream and attention heads: those given, else the depth's."""
    width = width if width is not None else WIDTH_PER_LAYER * depth
    n_heads = n_heads if n_heads is not None else max(1, width // 64 if width >= 256 else width // 32)
    if width < 1 or n_heads < 1:
        raise ConfigError(f"--model.width {width}, --model.n-heads {n_heads}: both must be at least 1")
    if width % n_heads:
        raise ConfigError(f"--model.n-heads: {n_heads} heads do not divide the width of {width}")
    return width, n_heads


def hidden_width(width: int, gated: bool) -> int:
    """Features inside a feed-forward block: a gated one has three matrices where a plain one has two, and 8/3 keeps the
    parameter count."""
    return -(-8 * width // (3 * 32)) * 32 if gated else 4 * width


def resolve(config: TrainConfig, model: DecoderConfig, n_parameters: int, n_train_tokens: int) -> TrainConfig:
    """``config`` with every derived field filled in."""
    config = with_batch_and_lr(config, config.context, model.width)
    return limited(config, min(_CHINCHILLA_TOKENS_PER_PARAMETER * n_parameters,
                               MAX_EPOCHS_BY_DEFAULT * n_train_tokens))


_Config = TypeVar("_Config", bound=LoopConfig)


def peak_lr(optimizer: str, width: int, adamw: float = 0.004) -> float:
    """The learning rate that goes with a width."""
    return {"muon": 0.012, "adamw": adamw, "sgd": 0.1}[optimizer] * (256 / width) ** 0.5


def with_batch_and_lr(config: _Config, context: int, width: int, adamw: float = 0.004) -> _Config:
    """``config``, with a batch of some thousand tokens and the width's learning rate if it has none."""
    batch = config.batch_size
    if batch is None:
        batch = max(config.accumulate, _BATCH_TOKENS // context // config.accumulate * config.accumulate)
    lr = config.optimizer.lr
    if lr is None:
        lr = peak_lr(config.optimizer.name, width, adamw)
    return dataclasses.replace(config, batch_size=batch, optimizer=dataclasses.replace(config.optimizer, lr=lr))


def limited(config: _Config, max_tokens: int) -> _Config:
    """``config``, with that limit if it has none."""
    if config.max_steps is None and config.max_tokens is None and config.max_seconds is None:
        return dataclasses.replace(config, max_tokens=max_tokens)
    return config


def describe(model: DecoderConfig, config: TrainConfig, n_parameters: int) -> list[str]:
    """The lines that say what the dial stands at and what follows from it."""
    heads = f"{model.n_heads} heads" + (f" over {model.n_kv_heads} key-value heads"
                                         if model.n_kv_heads != model.n_heads else "")
    return [
        f"model: depth {model.n_layers}, width {model.width}, {heads} of {model.head_dim}, {model.activation} "
        f"{model.hidden}, vocabulary {model.vocab_size:,}, {n_parameters:,} parameters",
        describe_run(config, config.context),
        saved_format(model),
    ]


def describe_run(config: LoopConfig, context: int) -> str:
    """One line: batch, optimizer, schedule, limits."""
    assert config.batch_size is not None
    assert config.optimizer.lr is not None
    limits = [f"{value:,} {unit}" for value, unit in
              ((config.max_steps, "steps"), (config.max_tokens, "tokens"), (config.max_seconds, "seconds"))
              if value is not None]
    micro = f" in {config.accumulate} micro-batches" if config.accumulate > 1 else ""
    return (f"run: batch {config.batch_size} × {context} tokens{micro}, {config.optimizer.name} at "
            f"{config.optimizer.lr:.2g}, {config.schedule.name}, at most {' or '.join(limits)}")
