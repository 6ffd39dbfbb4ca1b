"""From text to text: train an encoder–decoder on pairs, load it, and translate."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tickwise.core.errors import CheckpointError, DataError
from tickwise.core.paths import write_text_atomic
from tickwise.data import catalogue
from tickwise.data.pair_batches import ResegmentedPairs, encode_pairs, train_pair_tokenizer
from tickwise.data.pairs import Pairs, ReadPairs, hold_out, read_pairs
from tickwise.engine.batch_beam import BeamOptions, beam_search
from tickwise.evaluation.translation import Tokenize, TranslationScores, translation_scores
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.tasks.pair_training import pair_loop_config, train_pairs
from tickwise.tasks.text_to_text_options import TextToTextOptions
from tickwise.text.clean import clean
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.text_to_text import mean_loss

if TYPE_CHECKING:
    from tickwise.training.run import TrainResult

HELD_OUT = "held-out.jsonl"
_DEVELOPMENT_SHARE, _MOST_DEVELOPMENT = 0.05, 1000


@dataclass(frozen=True)
class PairParts:
    """Pairs to train on, to choose the best model by, and, where they were held out, to test on."""

    training: Pairs
    development: Pairs
    held_out: Pairs | None


def read_parts(train: Sequence[str], development: Sequence[str], read: ReadPairs, n_held_out: int) -> PairParts:
    """The pairs of files or known data sets. Where no development part is given, a data set brings its own, and else
    up to 1,000 pairs (a twentieth) are held out for it; ``n_held_out`` of the training pairs, of which neither side
    occurs in any other part, are for the test."""
    training = read_pairs(train, read)
    held_out = None
    if n_held_out:
        training, held_out = hold_out(training, n_held_out, "test")
    own = [name for name in train if (entry := _data_set(name)) is not None and "validation" in entry.files]
    if development or (own and not n_held_out):
        return PairParts(training, read_pairs(development or own, read, split="validation"), held_out)
    n = min(_MOST_DEVELOPMENT, max(1, round(_DEVELOPMENT_SHARE * len(training))))
    training, developing = hold_out(training, n, "validation")
    return PairParts(training, developing, held_out)


def own_test(train: Sequence[str]) -> tuple[str, ...]:
    """The known data sets in ``train`` that have a test part."""
    return tuple(name for name in train if (entry := _data_set(name)) is not None and "test" in entry.files)


def _data_set(name: str) -> "catalogue.DataSet | None":
    return None if Path(name).exists() else catalogue.DATA_SETS.get(name)


def train_text_to_text(parts: PairParts, *, out: Path, options: TextToTextOptions | None = None,
                       lowercase: bool = False, seed: int = 1, max_seconds: float | None = None, resume: bool = False,
                       overwrite: bool = False, device: str = "auto", dtype: str = "auto",
                       trace: Path | None = None) -> "TrainResult":
    """Train an encoder–decoder and keep the model that predicts the development part best; with ``lowercase`` it reads
    and writes everything in lower case. What was held out is written to ``out`` as ``held-out.jsonl``.

    Raises a ``UserError`` for data that cannot be used.
    """
    options = options or TextToTextOptions()
    config = pair_loop_config(options, out=out, seed=seed, max_seconds=max_seconds, resume=resume, overwrite=overwrite,
                              device=device, dtype=dtype, trace=trace)
    tokenizer = train_pair_tokenizer(parts.training, vocab_size=options.vocab_size, lowercase=lowercase)
    usual = encode_pairs(parts.training, tokenizer, options.longest)
    development = encode_pairs(parts.development, tokenizer, options.longest)
    training = usual if not options.bpe_dropout else ResegmentedPairs(
        parts.training, tokenizer, options.longest, rate=options.bpe_dropout, seed=seed)
    n_left_out = len(parts.training) - len(usual)
    left_out = f" ({n_left_out:,} left out: too long)" if n_left_out else ""
    lines = [f"{len(usual):,} pairs to train on{left_out}, {len(development):,} to choose the model by"]
    about = {"source": parts.training.name, "fingerprint": parts.training.fingerprint(), "pairs": len(usual),
             "tokenizer": tokenizer.fingerprint}
    result = train_pairs(config, EncoderDecoder(model_config(options, tokenizer)).initialise(seed), training,
                         development, tokenizer, options, data=about, lines=lines, trace=trace)
    if parts.held_out is not None:
        rows = zip(parts.held_out.sources, parts.held_out.targets, strict=True)
        write_text_atomic(Path(out) / HELD_OUT, "".join(
            json.dumps({"source": source, "target": target}, ensure_ascii=False) + "\n" for source, target in rows))
    return result


def model_config(options: TextToTextOptions, tokenizer: Tokenizer) -> EncoderDecoderConfig:
    """The model of that size for the tokenizer; the end-of-text token also starts targets and pads."""
    assert tokenizer.eos_id is not None
    return EncoderDecoderConfig(
        vocab_size=tokenizer.vocab_size, source_length=options.longest, context_length=options.longest,
        width=options.width, n_encoder_layers=options.encoder_layers, n_decoder_layers=options.decoder_layers,
        n_heads=options.n_heads, n_kv_heads=options.n_heads, head_dim=options.width // options.n_heads,
        hidden=options.hidden or -(-8 * options.width // (3 * 32)) * 32, dropout=options.dropout,
        pad_id=tokenizer.eos_id, start_id=tokenizer.eos_id, eos_id=tokenizer.eos_id,
    )


class TextToText:
    """A trained encoder–decoder on text.

    >>> model = TextToText.load(Path("out/en-de/model"))
    >>> model.translate(["A dog runs on the beach."])
    """

    def __init__(self, module: EncoderDecoder, tokenizer: Tokenizer) -> None:
        if tokenizer.vocab_size > module.config.vocab_size or tokenizer.eos_id is None:
            raise CheckpointError("the tokenizer and the model do not belong together; copy both again")
        self.module, self.tokenizer = module.eval(), tokenizer
        self.device = next(module.parameters()).device

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> "TextToText":
        """Of a model or run directory; ``CheckpointError`` when it is missing, damaged or no encoder–decoder."""
        from tickwise.interop.directory import load_module, resolve_model_path

        folder = resolve_model_path(Path(path))
        module = load_module(folder, device=device)
        if not isinstance(module, EncoderDecoder):
            raise CheckpointError(f"{folder}: not an encoder–decoder; train one with tickwise run translate --train")
        return cls(module, Tokenizer.load(folder))

    @property
    def lowercase(self) -> bool:
        """Whether it reads everything in lower case."""
        return type(self.tokenizer.backend.normalizer).__name__ == "Lowercase"

    def encode(self, texts: Sequence[str], first_number: int = 1) -> list[list[int]]:
        """The ids of each text, without an end. ``DataError`` for one that is longer than the model reads; it counts
        the texts from ``first_number``."""
        sources = self.tokenizer.encode_plain([clean(text).text.strip() for text in texts])
        longest = self.module.config.source_length
        for number, ids in enumerate(sources, start=first_number):
            if len(ids) >= longest:
                start = " ".join(texts[number - first_number].split())[:40]
                raise DataError(f"text {number:,} ('{start} …') has {len(ids):,} tokens, the model reads at most "
                                f"{longest - 1:,}; split it into sentences")
        return sources

    def translate(self, texts: Sequence[str], options: BeamOptions | None = None, *, first_number: int = 1,
                  advance: Callable[[float], None] | None = None) -> list[str]:
        """The target of each text, the best that the beam search finds; nothing for a blank text.

        ``advance`` is told of every text that is done. Raises ``DataError`` as ``encode`` does.
        """
        sources = self.encode(texts, first_number)
        told = advance or (lambda amount: None)
        targets = [""] * len(texts)
        places = [place for place, ids in enumerate(sources) if ids]
        told(len(texts) - len(places))
        for index, hypotheses in beam_search(self.module, [sources[place] for place in places], options):
            targets[places[index]] = self.tokenizer.decode(hypotheses[0].token_ids).strip()
            told(1)
        return targets

    def score(self, translations: Sequence[str], references: Sequence[str], *, lowercase: bool = False,
              tokenize: Tokenize = "auto") -> TranslationScores:
        """BLEU and chrF against ``references``; without regard to case for a lower-case model."""
        return translation_scores(translations, [references], lowercase=lowercase or self.lowercase, tokenize=tokenize)

    def perplexity(self, pairs: Pairs) -> float:
        """e to the mean nats per target token of the pairs that are not too long."""
        encoded = encode_pairs(pairs, self.tokenizer, self.module.config.source_length)
        return math.exp(mean_loss(self.module, encoded, self.device))
