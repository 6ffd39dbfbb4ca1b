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
from tickwise.text.segment import has_chinese

if TYPE_CHECKING:
    from tickwise.tokenizers.tokenizer import Tokenizer

_MOST_WEIGHTS = 1 << 24
"""Of all maps of a text: more would make a page that no browser opens."""


@dataclass(frozen=True)
class AttentionMap:
    """What the tokens of one text take of those of another, or of each other."""

    name: str
    """``self``, ``encoder``, ``decoder``, ``cross``, ``copy`` or ``words``."""
    queries: tuple[str, ...]
    """T tokens, as text."""
    keys: tuple[str, ...]
    """S tokens, as text."""
    weights_LHTS: Tensor  # noqa: N815
    """Float32 on the CPU; every row adds up to 1."""
    copied: tuple[float, ...] = ()
    """Of ``copy``, for each of the T tokens the probability that it is copied at all."""

    def mean(self) -> Tensor:
        """(T, S): the mean over all layers and heads."""
        return self.weights_LHTS.mean((0, 1))


    def pharaoh(self) -> str:
        """Of ``words``: for each word of the target the source's word that it is aligned with, as pairs ``i-j`` of
        source and target, both from 0, in the order of the target."""
        return " ".join(f"{source}-{target}" for target, source in enumerate(self.mean().argmax(1).tolist()))


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
    """``cross``: what each token of the target took of the source's when it was written; ``encoder``: the source's
    tokens among themselves; ``decoder``: the target's tokens and those before them. ``source`` and ``target`` are
    without marks; of a target that is longer than the model writes, the beginning counts.

    The rows of ``cross`` are the tokens that were written, the end mark last; those of ``decoder`` the tokens that were
    read to write them, the start mark first. Of a model that copies (See et al. 2017) ``copy`` comes first: its
    pointer, which is mixed into the output, with the rows of ``cross``. ``words`` comes last, where both texts have
    words: ``word_map`` of ``cross``.
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
        hidden_1TC = module.hidden_states(_row(module, begun), across, cache=of_target)
        pointed_1TS, copied_1T = module.pointer(hidden_1TC, memory) if config.copies else (None, None)
    sources, start = token_texts(tokenizer, read), token_texts(tokenizer, begun)
    start = ("⟨start⟩", *start[1:])
    targets = token_texts(tokenizer, written)
    cross = AttentionMap("cross", targets, sources, _stacked(across.weights))
    maps = [cross, AttentionMap("encoder", sources, sources, _stacked(of_source.weights)),
            AttentionMap("decoder", start, start, _stacked(of_target.weights))]
    if pointed_1TS is not None and copied_1T is not None:
        maps.insert(0, AttentionMap("copy", targets, sources, pointed_1TS[None].float().cpu(),
                                    tuple(copied_1T[0].tolist())))
    words = word_map(cross, words_of(tokenizer, written), words_of(tokenizer, read))
    return maps if words is None else [*maps, words]


@dataclass(frozen=True)
class Words:
    """The words of a text, and for each of its tokens the number of the word that it is of, -1 for one of none."""

    texts: tuple[str, ...]
    of_token: tuple[int, ...]


def words_of(tokenizer: "Tokenizer", ids: list[int]) -> Words:
    """What blanks separate; a Han character begins a word of its own, unless it shares a token with the one before.
    Marks are of no word. Every token is of one word: a word begins where a token does."""
    raw = [b"" if _is_mark(tokenizer, token_id) else tokenizer.spelled_bytes(token_id) for token_id in ids]
    # Bytes that are no whole character become one that is neither a blank nor a Han character.
    characters: list[str] = []
    for character in b"".join(raw).decode("utf-8", "surrogateescape"):
        characters += [character, *[""] * (len(character.encode("utf-8", "surrogateescape")) - 1)]
    parts: list[bytes] = []
    of_token: list[int] = []
    at, apart, last = 0, True, ""
    for piece in raw:
        own = characters[at : at + len(piece)]
        at += len(piece)
        goes_on = own[:1] == [""]  # inside a character
        if not goes_on and not "".join(own).strip():  # a mark, or blanks alone
            of_token.append(-1)
            apart = True
            continue
        if not goes_on and (apart or own[0].isspace() or has_chinese(own[0])):
            parts.append(b"")
        parts[-1] += piece
        of_token.append(len(parts) - 1)
        last = next((character for character in reversed(own) if character), last)
        apart = tokenizer.kind == "word" or last.isspace() or has_chinese(last)
    return Words(tuple(part.decode("utf-8", "replace").strip() for part in parts), tuple(of_token))


def word_map(cross: AttentionMap, targets: Words, sources: Words) -> AttentionMap | None:
    """``words``: how much of each word of the source each word of the target takes, in the mean of all heads of the
    decoder's last layer but one (of the only layer, where there is one), as Garg et al. 2019 do, "Jointly Learning to
    Align and Translate with Transformer Models": of all layers they found its mean to agree best with how people align
    words. The weights of a word's tokens are added up on the source's side and averaged on the target's; marks are left
    out, and each row adds up to 1 again. None where a side has no words."""
    if not targets.texts or not sources.texts:
        return None
    weights_TS = cross.weights_LHTS[max(0, len(cross.weights_LHTS) - 2)].mean(0)
    of_target, of_source = (_membership(words) for words in (targets, sources))
    weights_IJ = (of_target / of_target.sum(1, keepdim=True)) @ weights_TS @ of_source.T
    weights_IJ = weights_IJ / weights_IJ.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return AttentionMap("words", targets.texts, sources.texts, weights_IJ[None, None])


def _membership(words: Words) -> Tensor:
    """(words, tokens): 1 where the token is of the word."""
    return torch.tensor([[float(number == word) for word in words.of_token] for number in range(len(words.texts))])


def token_texts(tokenizer: "Tokenizer", ids: list[int]) -> tuple[str, ...]:
    """Each token as text of its own: a space is shown as ␣ where it begins a token, bytes that are no whole character
    as their numbers, marks by their names."""
    return tuple(_token_text(tokenizer, token_id) for token_id in ids)


def _is_mark(tokenizer: "Tokenizer", token_id: int) -> bool:
    special = tokenizer.is_special(token_id) or token_id in (tokenizer.eos_id, tokenizer.bos_id)
    return special and token_id != tokenizer.unk_id


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
