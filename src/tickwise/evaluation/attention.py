"""Looking inside a Transformer: what each head of each layer looks at, computed from the model's own weights.

Shape legend: L layers, H heads, T queries, S keys.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tickwise.core.errors import ConfigError, DataError
from tickwise.layers.attention_weights import WatchedSource, WatchedText
from tickwise.models.decoder import Decoder
from tickwise.models.encoder import Encoder
from tickwise.models.encoder_decoder import EncoderDecoder

if TYPE_CHECKING:
    from tickwise.tokenizers.tokenizer import Tokenizer

_MOST_WEIGHTS = 1 << 24
"""Of all maps of a text: more would make a page that no browser opens."""


@dataclass(frozen=True)
class AttentionMap:
    """What the tokens of one text take of those of another, or of each other."""

    name: str
    """``self``, ``encoder``, ``decoder`` or ``cross``."""
    queries: tuple[str, ...]
    """T tokens, as text."""
    keys: tuple[str, ...]
    """S tokens, as text."""
    weights_LHTS: Tensor  # noqa: N815
    """Float32 on the CPU; every row adds up to 1."""

    def mean(self) -> Tensor:
        """(T, S): the mean over all layers and heads."""
        return self.weights_LHTS.mean((0, 1))


def decoder_maps(module: Decoder, tokenizer: "Tokenizer", ids: list[int]) -> list[AttentionMap]:
    """``self``: each token looks at those before it and at itself."""
    config = module.config
    _check(len(ids), config.context_length, config.n_layers * config.n_heads * len(ids) ** 2)
    watched = WatchedText(causal=True)
    with torch.inference_mode():
        module.hidden_states(_row(module, ids), cache=watched)
    tokens = token_texts(tokenizer, ids)
    return [AttentionMap("self", tokens, tokens, _stacked(watched.weights))]


def encoder_maps(module: Encoder, tokenizer: "Tokenizer", ids: list[int]) -> list[AttentionMap]:
    """``self``: each token looks at all of them. ``ids`` have the marks that the model reads around a text."""
    config = module.config
    _check(len(ids), config.context_length, config.n_layers * config.n_heads * len(ids) ** 2)
    watched = WatchedText(causal=False)
    with torch.inference_mode():
        module.states(module.embed(_row(module, ids)), watched=watched)
    tokens = token_texts(tokenizer, ids)
    return [AttentionMap("self", tokens, tokens, _stacked(watched.weights))]


def translation_maps(
    module: EncoderDecoder, tokenizer: "Tokenizer", source: list[int], target: list[int]
) -> list[AttentionMap]:
    """``cross``: where each token of the target was written from; ``encoder``: the source's tokens among themselves;
    ``decoder``: the target's tokens and those before them. ``source`` and ``target`` are without marks; of a
    target that is longer than the model writes, the beginning counts.

    The rows of ``cross`` are the tokens that were written, the end mark last; those of ``decoder`` the tokens that were
    read to write them, the start mark first.
    """
    config = module.config
    read, written = [*source, config.eos_id], [*target, config.eos_id][: config.context_length]
    begun = [config.start_id, *written[:-1]]
    n, m = len(read), len(written)
    _check(n, config.source_length, config.n_heads * (
        config.n_encoder_layers * n * n + config.n_decoder_layers * m * (n + m)))
    of_source, of_target = WatchedText(causal=False), WatchedText(causal=config.positions != "relative")
    with torch.inference_mode():
        memory = module.encode(_row(module, read), watched=of_source)
        across = WatchedSource(memory.keys, memory.values)
        module.hidden_states(_row(module, begun), across, cache=of_target)
    sources, start = token_texts(tokenizer, read), token_texts(tokenizer, begun)
    start = ("⟨start⟩", *start[1:])
    return [AttentionMap("cross", token_texts(tokenizer, written), sources, _stacked(across.weights)),
            AttentionMap("encoder", sources, sources, _stacked(of_source.weights)),
            AttentionMap("decoder", start, start, _stacked(of_target.weights))]


def token_texts(tokenizer: "Tokenizer", ids: list[int]) -> tuple[str, ...]:
    """Each token as text of its own: a space is shown as ␣ where it begins a token, bytes that are no whole character
    as their numbers, marks by their names."""
    return tuple(_token_text(tokenizer, token_id) for token_id in ids)


def _token_text(tokenizer: "Tokenizer", token_id: int) -> str:
    name = tokenizer.backend.id_to_token(token_id)
    if name is None:
        return f"⟨{token_id}⟩"
    if tokenizer.is_special(token_id) or token_id in (tokenizer.eos_id, tokenizer.bos_id):
        return "⟨end⟩" if token_id == tokenizer.eos_id else str(name)
    if tokenizer.is_byte_level:
        raw = tokenizer.token_bytes(token_id)
        text = raw.decode("utf-8", "replace")
        if "\ufffd" in text:
            return f"⟨{raw.hex(' ')}⟩"
    else:
        text = str(name).replace("▁", " ")
    return text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")


def _row(module: nn.Module, ids: list[int]) -> Tensor:
    return torch.tensor([ids], device=next(module.parameters()).device)


def _stacked(weights: dict[int, Tensor]) -> Tensor:
    """(L, H, T, S) of one text."""
    return torch.stack([weights[layer][0] for layer in sorted(weights)]).float().cpu()


def _check(n: int, longest: int, n_weights: int) -> None:
    if n == 0:
        raise DataError("the text is empty; give some to look at")
    if n > longest:
        raise ConfigError(f"the text has {n:,} tokens and the model reads at most {longest:,}; shorten it")
    if n_weights > _MOST_WEIGHTS:
        raise ConfigError(f"a text of {n:,} tokens has {n_weights:,} weights, too many for a picture; shorten it")
