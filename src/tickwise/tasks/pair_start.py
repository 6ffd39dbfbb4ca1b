"""An encoder–decoder to go on from: its shape, its weights and the tokenizer that comes with them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from tickwise.core.errors import CheckpointError
from tickwise.interop.directory import read_config, resolve_model_path
from tickwise.models.encoder_decoder import EncoderDecoderConfig
from tickwise.tasks.text_to_text_options import PairOptions
from tickwise.tokenizers.tokenizer import Tokenizer

_OF_A_START = ("vocab_size", "width", "encoder_layers", "decoder_layers", "n_heads", "hidden", "whole")


@dataclass(frozen=True)
class PairStart:
    """A model to go on from. Shape and tokenizer stay as they are."""

    folder: Path
    shape: EncoderDecoderConfig
    tokenizer: Tokenizer

    def without_effect(self, options: PairOptions, lowercase: bool) -> list[str]:
        """What is said of options that cannot change such a model."""
        usual = type(options)()
        names = [f"--options.{name.replace('_', '-')}" for name in _OF_A_START
                 if getattr(options, name, None) != getattr(usual, name, None)]
        names += ["--lowercase"] if lowercase else []
        names += ["--options.longest"] if max(usual.longest, self.shape.source_length) < options.longest else []
        return [f"without effect, because the model's shape and tokenizer stay: {', '.join(names)}"] if names else []


def longest_pair(shape: EncoderDecoderConfig, options: PairOptions) -> tuple[int, int]:
    """How many tokens a source and a target of a training may have, their ends counted."""
    return min(options.longest, shape.source_length), min(options.longest, shape.context_length)


def pair_start(path: Path, options: PairOptions) -> PairStart:
    """The encoder–decoder in ``path`` (a model or run directory, or one of T5, BART or Marian), with these options
    where they change no tensor. ``CheckpointError`` where it is none."""
    folder = resolve_model_path(Path(path))
    family, config = read_config(folder)
    if not isinstance(config, EncoderDecoderConfig):
        raise CheckpointError(f"{folder}: a {family.name}, not an encoder–decoder; make one with tickwise train "
                              "text-to-text")
    tokenizer = Tokenizer.load(folder)
    if tokenizer.eos_id != config.eos_id:
        raise CheckpointError(f"{folder}: its tokenizer ends texts with token {tokenizer.eos_id}, its model with "
                              f"{config.eos_id}; it can be used, and not trained")
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(f"{folder}: its tokenizer has {tokenizer.vocab_size:,} tokens, its model only "
                              f"{config.vocab_size:,}; give the tokenizer that the model was trained with")
    longest = options.longest if config.positions != "learned" else 0
    shape = dataclasses.replace(
        config, copies=config.copies or bool(getattr(options, "copies", False)), dropout=options.dropout,
        source_length=max(config.source_length, longest), context_length=max(config.context_length, longest))
    return PairStart(folder, shape, tokenizer)
