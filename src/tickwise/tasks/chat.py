"""Fine-tuning a decoder on conversations (supervised fine-tuning of a chat model)."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch
import xxhash

from tickwise.core.console import say
from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.data import catalogue
from tickwise.data.chats import Chat, EncodedChats, read_chats
from tickwise.interop.directory import load_module, read_config, resolve_model_path
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.tasks.fine_tune_options import FineTuneOptions
from tickwise.tokenizers.chat import with_chat
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.chat_turns import ChatTurns
from tickwise.training.config import AdaptLoopConfig
from tickwise.training.run import TrainResult, check_outputs, train_module

_DEV_SHARE, _MOST_DEV = 0.1, 500
_NEW_ROWS = 0.1
"""How far the vectors of new tokens lie from the mean of the others, in their deviations."""


@dataclass(frozen=True, kw_only=True)
class ChatConfig(AdaptLoopConfig):
    """One fine-tuning on conversations."""

    model: Path
    """Model or run directory of a decoder to start from."""
    train: tuple[str, ...]
    dev: tuple[str, ...] = ()
    context: int | None = None
    """Tokens of a conversation that the model will read; left out, those of the model to start from."""
    tuning: FineTuneOptions = field(default_factory=FineTuneOptions)


def read_chat_parts(train: tuple[str, ...], dev: tuple[str, ...]) -> tuple[list[Chat], list[Chat]]:
    """Conversations to learn from and to choose the model by: ``dev``, the validation parts of known data sets, or a
    tenth (at most 500) by their text. What is in both, from its beginning, is not learned from, which is said."""
    chats = read_chats(train)
    own = tuple(name for name in train
                if not Path(name).exists() and (entry := catalogue.find(name)) and "validation" in entry.files)
    if dev or own:
        developing = read_chats(dev or own, "validation")
    else:
        developing = [chat for chat in chats if int(_digest(chat), 16) / 2**128 < _DEV_SHARE][:_MOST_DEV]
    whole = {_digest(chat) for chat in developing}
    begun = {digest for chat in developing for digest in _beginnings(chat)}
    training = [chat for chat in chats if _digest(chat) not in begun and whole.isdisjoint(_beginnings(chat))]
    if (dev or own) and len(training) < len(chats):
        say(f"{len(chats) - len(training):,} conversations are not learned from, because they or their beginnings are "
            "among those to choose the model by")
    if not training:
        raise DataError(f"{', '.join(train)}: no conversation to learn from that is not among those to choose the "
                        "model by; give more")
    return training, developing


def _digest(chat: Chat) -> str:
    text = "\0".join(f"{message['role']}\t{message['content']}" for message in chat)
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))


def _beginnings(chat: Chat) -> list[str]:
    """The digests of the conversation up to each of the assistant's turns."""
    return [_digest(chat[:end]) for end, message in enumerate(chat, start=1) if message["role"] == "assistant"]


def train_chat(config: ChatConfig, trace: Path | None = None) -> TrainResult:
    """Fine-tune ``config.model`` on what the assistant says; keeps the model that predicts the development part best.
    The tokenizer gets a chat template, if it has none.

    Raises a ``UserError`` for data and models that cannot be used.
    """
    check_outputs(config, trace)
    folder = resolve_model_path(config.model)
    family, shape = read_config(folder)
    if not isinstance(shape, DecoderConfig):
        raise CheckpointError(f"{folder}: a {family.name}, not a decoder; make one with tickwise train")
    training, developing = read_chat_parts(config.train, config.dev)
    tokenizer = with_chat(Tokenizer.load(folder))
    context = config.context or shape.context_length
    if context > shape.context_length and shape.positions == "learned":
        raise ConfigError(f"--context {context}: {folder} has learned positions for {shape.context_length:,} tokens")
    parts = [EncodedChats(part, tokenizer, context) for part in (training, developing)]
    learned, chosen_by = parts
    if not len(learned):
        raise DataError(f"{', '.join(config.train)}: no conversation whose first answer ends within {context:,} "
                        "tokens; raise --context")
    options = config.tuning
    module = started_decoder(folder, dataclasses.replace(
        shape, vocab_size=max(shape.vocab_size, tokenizer.vocab_size), context_length=context, dropout=options.dropout),
        config.seed, fresh=options.fresh)
    objective = ChatTurns(learned, chosen_by if len(chosen_by) else None, batch_size=options.batch_size,
                          seed=config.seed)
    loop = {f.name: getattr(config, f.name) for f in dataclasses.fields(AdaptLoopConfig)} | options.loop_settings()
    steps = max(1, round(options.epochs * objective.steps_per_epoch))
    if loop["max_steps"] is None:
        loop["max_steps"] = steps
    loop["evaluate_every"] = config.evaluate_every or max(1, steps // 8)
    lines = [f"{len(learned):,} conversations to learn from, {len(chosen_by):,} to choose the model by; the assistant "
             f"wrote {learned.n_own:,} tokens"]
    if learned.n_cut or learned.n_left_out:
        lines.append(f"longer than {context:,} tokens: {learned.n_cut:,} cut behind an answer, {learned.n_left_out:,} "
                     "left out")
    digest = xxhash.xxh3_128_hexdigest("".join(map(_digest, training)).encode())
    return train_module(
        AdaptLoopConfig(**loop), module, objective, tokenizer, lines=lines, trace=trace,
        data={"source": ", ".join(config.train), "fingerprint": digest, "conversations": len(learned)})


def started_decoder(folder: Path, config: DecoderConfig, seed: int, *, fresh: bool = False) -> Decoder:
    """A decoder of that shape with the weights of the one in ``folder``. Where the vocabulary is larger, tokens that
    are new start near the mean of the others. ``fresh`` leaves the weights."""
    module = Decoder(config).initialise(seed)
    if fresh:
        say(f"fresh weights in the shape of {folder}")
        return module
    generator = torch.Generator().manual_seed(seed)
    given = load_module(folder, device="cpu").state_dict()
    with torch.no_grad():
        for name, target in module.state_dict().items():
            old = given[name].to(target.dtype)
            n = min(len(old), len(target))  # learned positions are fewer for a shorter context
            target[:n] = old[:n]
            if len(old) < len(target):
                noise = torch.randn(target[len(old) :].shape, generator=generator)
                target[len(old) :] = old.mean(0) + _NEW_ROWS * old.std() * noise
    return module
