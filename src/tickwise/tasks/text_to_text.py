"""From text to text: train an encoder–decoder on pairs, load it, and translate."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tickwise.core.console import say
from tickwise.core.device import resolve_device
from tickwise.core.errors import CheckpointError, DataError
from tickwise.core.paths import write_text_atomic
from tickwise.data import catalogue
from tickwise.data.pair_batches import ResegmentedPairs, encode_pairs, pairs_from_ids, train_pair_tokenizer
from tickwise.data.pairs import Pairs, ReadPairs, hold_out, read_pairs, sides_in, without_sides_of
from tickwise.engine.batch_beam import BeamOptions, beam_search
from tickwise.engine.beam_costs import BeamCosts
from tickwise.evaluation.translation import Tokenize, TranslationScores, translation_scores
from tickwise.interop.warm_start import warm_start
from tickwise.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tickwise.profiling.ledger import Ledger
from tickwise.profiling.recording import record_trace
from tickwise.tasks.pair_start import longest_pair, pair_start
from tickwise.tasks.pair_training import PairRun, pair_loop_config, train_pairs
from tickwise.tasks.text_to_text_options import PairOptions, TextToTextOptions
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.dial import hidden_width
from tickwise.training.distributed.ranks import is_leader
from tickwise.training.text_to_text import mean_loss

if TYPE_CHECKING:
    from tickwise.evaluation.attention import AttentionMap
    from tickwise.training.run import TrainResult

LONGEST_TARGET = "tickwise_longest_target"
"""Where a model's tokenizer keeps how many tokens, with the end, the longest target of its training has."""
PREFIXES = "tickwise_prefixes"
"""And which texts stand before the sources of its tasks."""
_DEVELOPMENT_SHARE, _MOST_DEVELOPMENT = 0.05, 1000
_STRANGE_SHARE = 0.5
"""Of a source's tokens; from there on it is said that its language is one that the tokenizer never saw."""


@dataclass(frozen=True)
class PairParts:
    """Pairs to train on, to choose the best model by, and, where they were held out, to test on."""

    training: Pairs
    development: Pairs
    held_out: Pairs | None


def read_parts(train: Sequence[str], development: Sequence[str], read: ReadPairs, n_held_out: int, *,
               targets_repeat: bool = False, test: Pairs | None = None) -> PairParts:
    """The pairs of files or known data sets. Where no development part is given, a data set brings its own, and else
    up to 1,000 pairs (a twentieth) are held out for it, by the rule of ``hold_out``; ``n_held_out`` of the training
    pairs, of which neither side occurs in any other part, are for the test: a development part that is given goes
    without pairs that share one. The training part goes without what such a development part and ``test`` have
    (``without_given``)."""
    training, developing, held_out = read_pairs(train, read), None, None
    if n_held_out:
        training, held_out = hold_out(training, n_held_out, "test")
    own = _own_parts(train, "validation")
    if development or (own and not n_held_out):
        developing = read_pairs(development or own, read, split="validation")
        if held_out is not None:
            developing = _without(developing, held_out)
    if developing is not None and test is not None:
        developing = without_given(developing, None, test, targets_repeat=targets_repeat, what_for="development part")
    training = without_given(training, developing, test, targets_repeat=targets_repeat)
    if developing is None:
        n = min(_MOST_DEVELOPMENT, max(1, round(_DEVELOPMENT_SHARE * len(training))))
        training, developing = hold_out(training, n, "validation", targets_repeat=targets_repeat)
    return PairParts(training, developing, held_out)


def without_given(training: Pairs, development: Pairs | None, test: Pairs | None, *, targets_repeat: bool,
                  what_for: str = "training") -> Pairs:
    """Without the training pairs (or what else they are for) that a given part has, by the ``identity`` of their texts;
    how many is said.

    Where targets may repeat, as labels and summaries do, that is asked of sources alone. Else of both sides: neither
    may stand in the test part, and not both in the development part, which only chooses the model; how many pairs
    share one side with that is said.

    Raises ``DataError`` when nothing would be left.
    """
    taken: list[set[int]] = []
    said: list[str] = []
    n_one = 0
    for part, where in ((development, "the development part"), (test, "the test part")):
        shared = [] if part is None else sides_in(training, part)
        if targets_repeat:
            own, what = {number for number, (source, _) in enumerate(shared) if source}, "whose source is in"
        elif part is development:
            own, what = {number for number, sides in enumerate(shared) if all(sides)}, "of which both sides are in"
            n_one = sum(map(any, shared)) - len(own)
        else:
            own, what = {number for number, sides in enumerate(shared) if any(sides)}, "of which a side is in"
        taken.append(own)
        said += [f"{len(own):,} {what} {where}"] if own else []
    left_out = set().union(*taken)
    if len(left_out) == len(training):
        raise DataError(f"{training.name}: every pair in it stands in the development or the test part too; give other "
                        f"pairs for the {what_for}")
    words = [f"left out of the {what_for} " + " and ".join(said)] if said else []
    words += [f"{n_one:,} that share one side with the development part are trained on"] if n_one else []
    if words:
        say(f"{training.name}: {'; '.join(words)}")
    return training.take([number for number in range(len(training)) if number not in left_out])


def _without(development: Pairs, held_out: Pairs) -> Pairs:
    rest = without_sides_of(development, held_out)
    if not len(rest):
        raise DataError(f"{development.name}: every pair in it has a side that is held out for the test; give other "
                        "pairs to choose the model by")
    if len(rest) < len(development):
        say(f"{development.name}: left out {len(development) - len(rest):,} pairs with a side that is held out")
    return rest


def own_test(train: Sequence[str]) -> tuple[str, ...]:
    """The test parts of the known data sets in ``train``."""
    return _own_parts(train, "test")


def _own_parts(train: Sequence[str], split: str) -> tuple[str, ...]:
    """The known data sets of whose training parts ``train`` is made (``multi30k``, ``multi30k/train``) and that have
    this split."""
    names = [name.removesuffix("/train") for name in train if not Path(name).exists()]
    return tuple(name for name in names if name in catalogue.DATA_SETS and split in catalogue.DATA_SETS[name].files)


def train_text_to_text(parts: PairParts, *, out: Path, options: TextToTextOptions | None = None,
                       lowercase: bool = False, test: Pairs | None = None, start: Path | None = None,
                       **run: Unpack[PairRun]) -> "TrainResult":
    """Train an encoder–decoder and keep the model that predicts the development part best; with ``lowercase`` it reads
    and writes everything in lower case. ``start`` is an encoder–decoder to go on from, whose shape and tokenizer stay.
    What was held out is written to ``out`` as ``held-out.jsonl``. ``test`` is what the model will be scored on, if that
    is something else: what it cannot read is counted before the training.

    Raises a ``UserError`` for data that cannot be used.
    """
    options = options or TextToTextOptions()
    resolve_device(run.get("device", "auto"))  # at once: refused later, it would cost what is replaced below
    base = None if start is None else pair_start(start, options)
    config = pair_loop_config(options, out=out, width=None if base is None else base.shape.width, **run)
    if base is None:
        tokenizer = train_pair_tokenizer(parts.training, vocab_size=options.vocab_size, lowercase=lowercase)
        shape = model_config(options, tokenizer)
    else:
        tokenizer, shape = base.tokenizer, base.shape
        for name in (PREFIXES, LONGEST_TARGET):  # of what it was trained on before
            tokenizer.config.pop(name, None)
    longest = longest_pair(shape, options)
    usual, development = (encode_pairs(part, tokenizer, *longest, shape.start_id)
                          for part in (parts.training, parts.development))
    training = usual if not options.bpe_dropout else ResegmentedPairs(
        parts.training, usual, tokenizer, longest, rate=options.bpe_dropout, seed=config.seed)
    module = EncoderDecoder(shape).initialise(config.seed)
    started = [] if base is None else [*warm_start(module, base.folder).lines(),
                                       *base.without_effect(options, lowercase)]
    n_left_out = len(parts.training) - len(usual)
    left_out = f" ({n_left_out:,} left out: too long)" if n_left_out else ""
    lines = [*started, f"{len(usual):,} pairs to train on{left_out}, {len(development):,} to choose the model by"]
    lines += _unread({"development": parts.development, "test": test or parts.held_out}, tokenizer,
                     shape.source_length)
    about = {"source": parts.training.name, "fingerprint": parts.training.fingerprint(), "pairs": len(usual),
             "tokenizer": tokenizer.fingerprint}
    result = train_pairs(config, module, training, development, tokenizer, options, data=about, lines=lines,
                         trace=run.get("trace"))
    if parts.held_out is not None and is_leader():
        from tickwise.training.run import HELD_OUT

        rows = zip(parts.held_out.sources, parts.held_out.targets, strict=True)
        write_text_atomic(Path(out) / HELD_OUT, "".join(
            json.dumps({"source": source, "target": target}, ensure_ascii=False) + "\n" for source, target in rows))
    return result


def _unread(parts: dict[str, Pairs | None], tokenizer: Tokenizer, longest: int) -> list[str]:
    """What is said of sources that the model will not read; ``DataError`` for a part that has no other."""
    counts = {name: len(part) - len(_readable(part.sources, tokenizer, longest))
              for name, part in parts.items() if part is not None}
    for name, n in counts.items():
        part = parts[name]
        if part is not None and n == len(part):
            raise DataError(f"{part.name}: every source of the {name} part has more than {longest - 1:,} tokens; split "
                            "them into sentences, or let a new model read more with --options.longest")
    said = ", ".join(f"{n:,} of the {name} part" for name, n in counts.items() if n)
    return [f"not scored, because their sources have more than {longest - 1:,} tokens: {said}"] if said else []


def _readable(sources: Sequence[str], tokenizer: Tokenizer, longest: int) -> list[int]:
    """Which of the sources have at most ``longest`` tokens, their end counted."""
    return [number for number, ids in enumerate(tokenizer.encode_sources(sources)) if len(ids) < longest]


def model_config(options: PairOptions, tokenizer: Tokenizer) -> EncoderDecoderConfig:
    """The model of that size for the tokenizer; the end-of-text token also starts targets and pads."""
    assert tokenizer.eos_id is not None
    return EncoderDecoderConfig(
        vocab_size=tokenizer.vocab_size, source_length=options.longest, context_length=options.longest,
        width=options.width, n_encoder_layers=options.encoder_layers, n_decoder_layers=options.decoder_layers,
        n_heads=options.n_heads, n_kv_heads=options.n_heads, head_dim=options.width // options.n_heads,
        hidden=options.hidden or hidden_width(options.width, gated=True), dropout=options.dropout,
        pad_id=tokenizer.eos_id, start_id=tokenizer.eos_id, eos_id=tokenizer.eos_id,
    )


@dataclass(frozen=True)
class Written:
    """What a model wrote for a text."""

    text: str
    cut: bool = False
    """Whether it did not end within the most tokens that it may have."""
    problem: str | None = None
    """Why nothing was written."""


def say_cut(n: int, total: int, what: str = "texts") -> None:
    """Say how many were cut, if any."""
    if n:
        say(f"{n:,} of {total:,} {what} were cut: they did not end within the most tokens that the model writes, "
            "or that --max-tokens allows")


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
        self._ledger: Ledger | None = None

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> "TextToText":
        """Of a model or run directory; ``CheckpointError`` when it is missing, damaged or no encoder–decoder."""
        from tickwise.interop.directory import load_module, resolve_model_path

        folder = resolve_model_path(Path(path))
        module = load_module(folder, device=device)
        if not isinstance(module, EncoderDecoder):
            raise CheckpointError(f"{folder}: not an encoder–decoder; train one with tickwise run translate --train")
        return cls(module, Tokenizer.load(folder))

    @contextlib.contextmanager
    def traced_writing(self, path: Path | None, *, name: str) -> Iterator[None]:
        """Inside the block every step of ``translate`` is a tick of a trace at ``path``, if one is given; ``name`` is
        the model's there. Raises ``OutputError`` when ``path`` cannot be written or holds something already."""
        if path is None:
            yield
            return
        costs = BeamCosts(self.module)
        with record_trace(path, model=name, dtype=next(self.module.parameters()).dtype, device=self.device, costs=costs,
                          listing=costs.typical_listing) as self._ledger:
            try:
                yield
            finally:
                self._ledger = None

    @property
    def lowercase(self) -> bool:
        """Whether it reads everything in lower case."""
        return "Lowercase" in str(self.tokenizer.backend.normalizer)

    def beam_options(self, width: int = 4, length_penalty: float = 1.0, max_tokens: int | None = None) -> BeamOptions:
        """A search of texts of at most ``max_tokens`` tokens, the end counted. Left out, of a tenth more than the
        longest target of its training, if the model was trained on tasks or summaries and says so, else of a length
        that goes by the source's."""
        longest = self.tokenizer.config.get(LONGEST_TARGET)
        if max_tokens is None and isinstance(longest, int):
            max_tokens = math.ceil(1.1 * longest)
        if max_tokens is None:
            return BeamOptions(width=width, length_penalty=length_penalty)
        return BeamOptions(width=width, length_penalty=length_penalty, max_ratio=0.0, max_extra=max_tokens)

    def encode(self, texts: Sequence[str], first_number: int = 1) -> list[list[int]]:
        """The ids of each text, without an end. ``DataError`` for one that is longer than the model reads; it counts
        the texts from ``first_number``."""
        sources = self.tokenizer.encode_sources(texts)
        if problem := next(filter(None, self._too_long(texts, sources, first_number)), None):
            raise DataError(problem)
        return sources

    def _too_long(self, texts: Sequence[str], sources: Sequence[Sequence[int]], first_number: int) -> list[str | None]:
        """What is said of each text of which the model does not read as many tokens."""
        longest = self.module.config.source_length
        return [None if len(ids) < longest else
                f"text {number:,} ('{' '.join(text.split())[:40]} …') has {len(ids):,} tokens, the model reads at most "
                f"{longest - 1:,}; split it into sentences"
                for number, (text, ids) in enumerate(zip(texts, sources, strict=True), start=first_number)]

    def translate(self, texts: Sequence[str], options: BeamOptions | None = None, *, first_number: int = 1,
                  advance: Callable[[float], None] | None = None) -> list[str]:
        """The target of each text, the best that the beam search finds; nothing for a blank text.

        ``advance`` is told of every text that is done. Raises ``DataError`` as ``encode`` does.
        """
        return [one.text for one in self._written(self.encode(texts, first_number), options, advance)]

    def write(self, texts: Sequence[str], options: BeamOptions | None = None, *, first_number: int = 1,
              advance: Callable[[float], None] | None = None) -> list[Written]:
        """As ``translate``; also which targets were cut, and for a text that is too long what is said of it."""
        sources = self.tokenizer.encode_sources(texts)
        problems = self._too_long(texts, sources, first_number)
        strange = [n for n, ids in enumerate(sources, start=first_number)
                   if self.tokenizer.strange_share(ids) > _STRANGE_SHARE]
        if strange:
            say(f"{len(strange):,} of {len(texts):,} texts (the first is text {strange[0]:,}) are mostly in characters "
                "that the tokenizer has no tokens for: the model hardly knows their language")
        read = [[] if problem else ids for ids, problem in zip(sources, problems, strict=True)]
        return [replace(one, problem=problem)
                for one, problem in zip(self._written(read, options, advance), problems, strict=True)]

    def _written(self, sources: Sequence[Sequence[int]], options: BeamOptions | None,
                 advance: Callable[[float], None] | None) -> list[Written]:
        """The target of each source, given as ids; nothing for one that has none."""
        told = advance or (lambda amount: None)
        targets = [Written("")] * len(sources)
        places = [place for place, ids in enumerate(sources) if ids]
        told(len(sources) - len(places))
        for index, hypotheses in beam_search(self.module, [sources[place] for place in places], options,
                                             vocab_size=self.tokenizer.vocab_size, ledger=self._ledger):
            best = hypotheses[0]
            targets[places[index]] = Written(self.tokenizer.decode(best.token_ids).strip(), not best.ended)
            told(1)
        return targets

    def attention(self, text: str, translation: str) -> "list[AttentionMap]":
        """What the model looks at when it reads ``text`` and writes ``translation`` (``evaluation/attention.py``).

        Raises ``DataError`` as ``encode`` does."""
        from tickwise.evaluation.attention import translation_maps

        (source,), (target,) = self.encode([text]), self.tokenizer.encode_sources([translation])
        return translation_maps(self.module, self.tokenizer, source, target)

    def score(self, translations: Sequence[str], references: Sequence[str], *, lowercase: bool = False,
              tokenize: Tokenize = "auto") -> TranslationScores:
        """BLEU and chrF against ``references``; without regard to case for a lower-case model."""
        return translation_scores(translations, [references], lowercase=lowercase or self.lowercase, tokenize=tokenize)

    def readable(self, sources: Sequence[str]) -> list[int]:
        """The numbers of the texts that are not too long."""
        return _readable(sources, self.tokenizer, self.module.config.source_length)

    def scorable(self, sources: Sequence[str], name: str) -> list[int]:
        """``readable``; what is left out is said. ``DataError`` where every text is too long."""
        numbers = self.readable(sources)
        if not numbers:
            raise DataError(f"{name}: every source is longer than the {self.module.config.source_length - 1:,} tokens "
                            "that the model reads; split them")
        if n := len(sources) - len(numbers):
            say(f"{name}: {n:,} of {len(sources):,} texts are not scored, because the model does not read sources as "
                "long")
        return numbers

    def perplexity(self, pairs: Pairs) -> float | None:
        """e to the mean nats per target token of the pairs that are not too long, which are counted; ``None`` where
        all are."""
        config = self.module.config
        sources, targets = (self.tokenizer.encode_sources(side) for side in (pairs.sources, pairs.targets))
        encoded = pairs_from_ids(sources, targets, (config.source_length, config.context_length), config.eos_id,
                                 config.start_id)
        if n := len(pairs) - (0 if encoded is None else len(encoded)):
            say(f"{pairs.name}: {n:,} of {len(pairs):,} pairs have no part in the perplexity, because the model reads "
                "no sources, or writes no targets, as long")
        return None if encoded is None else math.exp(mean_loss(self.module, encoded, self.device))
