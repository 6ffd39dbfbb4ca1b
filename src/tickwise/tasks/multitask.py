"""One encoder–decoder for many tasks, told apart by what stands before the text (T5, Raffel et al. 2020)."""

import copy
import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from tickwise.core.console import say
from tickwise.core.device import resolve_device
from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.data.batches import BatchCursor
from tickwise.data.mixture import MixedPairs
from tickwise.data.mixture_options import MixtureOptions
from tickwise.data.pair_batches import EncodedPairs, encode_pairs
from tickwise.data.pairs import Pairs, ReadPairs, identity, read_pairs
from tickwise.data.span_corruption import sentinel_ids, text_length, with_sentinels
from tickwise.engine.batch_beam import BeamOptions
from tickwise.evaluation.classification import Score
from tickwise.evaluation.overlap import rouge
from tickwise.evaluation.results import share_score
from tickwise.interop.directory import checkpoint_paths, resolve_model_path
from tickwise.interop.warm_start import warm_start
from tickwise.models.encoder_decoder import EncoderDecoder
from tickwise.tasks.pair_start import PairStart, longest_pair, pair_start
from tickwise.tasks.pair_training import PairRun, pair_loop_config, train_pairs
from tickwise.tasks.prefixed_options import PrefixedOptions
from tickwise.tasks.text_to_text import (
    LONGEST_TARGET,
    PREFIXES,
    PairParts,
    TextToText,
    Written,
    model_config,
    own_test,
    read_parts,
    without_given,
)
from tickwise.text.segment import has_chinese
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.tokenizers.train import train_tokenizer
from tickwise.training.distributed.ranks import is_leader, n_ranks
from tickwise.training.span_corruption import SpanCorruption

if TYPE_CHECKING:
    from tickwise.training.config import LoopConfig
    from tickwise.training.run import TrainResult

PRETRAINING = "pretraining"
_COLUMNS = re.compile(r"(?P<name>.+)\[(?P<source>[^\[\],]+),(?P<target>[^\[\],]+)\]")
_HIDDEN_SHARE, _HIDDEN_SPAN, _WINDOW = 0.15, 3.0, 256


@dataclass(frozen=True)
class TaskFiles:
    """Where a task's pairs are."""

    prefix: str
    names: tuple[str, ...]
    """Files or known data sets, as ``read_pairs`` takes them."""
    read: ReadPairs


def parse_tasks(given: Sequence[str], flag: str = "--task") -> list[TaskFiles]:
    """Tasks from ``PREFIX=FILE``, each file with the columns of source and target in brackets, or without them:
    ``translate English to German: =pairs.tsv[en,de]``. What has the same prefix and columns is one task.

    >>> parse_tasks(["summarise: =a.jsonl", "summarise: =b.jsonl"])[0].names
    ('a.jsonl', 'b.jsonl')
    """
    found: dict[tuple[str, ReadPairs], tuple[str, ...]] = {}
    for text in given:
        prefix, equals, name = text.partition("=")
        if not equals or not prefix.strip() or not name.strip():
            raise ConfigError(f"{flag} '{text}': give PREFIX=FILE, such as \"summarise: =pairs.tsv\"")
        columns = _COLUMNS.fullmatch(name.strip())
        read = ReadPairs() if columns is None else ReadPairs(source=columns["source"], target=columns["target"])
        name = name.strip() if columns is None else columns["name"]
        found[prefix, read] = (*found.get((prefix, read), ()), name)
    return [TaskFiles(prefix, names, read) for (prefix, read), names in found.items()]


def read_tasks(tasks: Sequence[TaskFiles], development: Sequence[TaskFiles] = (),
               tests: Mapping[str, Pairs] | None = None) -> dict[str, PairParts]:
    """The pairs of each task, by prefix. A task without a development part holds one out as ``read_parts`` does. No
    source of a development part, or of what the task is tested on (``tests``, by prefix), is trained on. No other task
    trains on these pairs the other way round either."""
    tests = tests or {}
    check_prefixes("--dev", [one.prefix for one in development], [task.prefix for task in tasks])
    parts: dict[str, PairParts] = {}
    for task in tasks:
        if task.prefix in parts:
            raise ConfigError(f"--task '{task.prefix}': twice, with different columns; put its pairs into one table")
        own = [dev for dev in development if dev.prefix == task.prefix]
        if own:
            developing = without_given(_read_all(own, "validation"), None, tests.get(task.prefix), targets_repeat=True,
                                       what_for="development part")
            training = without_given(read_pairs(task.names, task.read), developing, tests.get(task.prefix),
                                     targets_repeat=True)
            parts[task.prefix] = PairParts(training, developing, None)
        else:
            parts[task.prefix] = read_parts(task.names, (), task.read, 0, targets_repeat=True,
                                            test=tests.get(task.prefix))
    given = {prefix: [parts[prefix].development] if prefix in parts else [] for prefix in (*parts, *tests)}
    for prefix, test in tests.items():
        given[prefix].append(test)
    return {prefix: _without_others(own, [part for other in given if other != prefix for part in given[other]])
            for prefix, own in parts.items()}


def _without_others(own: PairParts, others: Sequence[Pairs]) -> PairParts:
    """Without training pairs that another task's development or test part has, in whatever direction."""
    def both(pairs: Pairs) -> list[frozenset[str]]:
        return [frozenset((identity(a), identity(b))) for a, b in zip(pairs.sources, pairs.targets, strict=True)]

    taken = {pair for other in others for pair in both(other)}
    if not taken:
        return own
    kept = [index for index, pair in enumerate(both(own.training)) if pair not in taken]
    if not kept:
        raise DataError(f"{own.training.name}: every pair in it is held out for another task; give more")
    if n := len(own.training) - len(kept):
        say(f"{own.training.name}: left out {n:,} pairs that another task's development or test part has")
    return dataclasses.replace(own, training=own.training.take(kept))


def read_tests(tests: Sequence[TaskFiles], tasks: Sequence[TaskFiles] = ()) -> dict[str, Pairs]:
    """The pairs to evaluate each prefix on: those of ``tests``, and else the test parts that known data sets bring.
    One of these that has other columns than the training part is left out, which is said."""
    if tests:
        return {prefix: _read_all([test for test in tests if test.prefix == prefix], "test")
                for prefix in dict.fromkeys(test.prefix for test in tests)}
    found: dict[str, Pairs] = {}
    for task in tasks:
        names = own_test(task.names)
        try:
            found |= {task.prefix: read_pairs(names, task.read, split="test")} if names else {}
        except DataError as problem:
            say(f"not scored at the end: {problem}")
    return found


def _read_all(files: Sequence[TaskFiles], split: str) -> Pairs:
    found = [read_pairs(one.names, one.read, split=split) for one in files]
    sources, targets = ([text for pairs in found for text in getattr(pairs, side)] for side in ("sources", "targets"))
    return Pairs(sources, targets, ", ".join(pairs.name for pairs in found))


def check_prefixes(flag: str, given: Sequence[str], known: Sequence[str]) -> None:
    """``ConfigError`` for a prefix that is not among those known; without any, every one is."""
    for prefix in given:
        if known and prefix not in known:
            raise ConfigError(f"{flag} '{prefix}': no such prefix; known are {_listed(known)}")


def prefixes_after(tasks: Sequence[str], start: Path | None = None) -> list[str]:
    """The prefixes that a model knows after a training on ``tasks`` from ``start``."""
    before = [] if start is None else prefixes_of(Tokenizer.load(resolve_model_path(Path(start))))
    return list(dict.fromkeys([*before, *tasks]))


def _listed(prefixes: Sequence[str]) -> str:
    return ", ".join(f"'{prefix}'" for prefix in prefixes)


def with_prefix(prefix: str, pairs: Pairs) -> Pairs:
    """The pairs with ``prefix`` before every source."""
    return Pairs([prefix + text for text in pairs.sources], pairs.targets, pairs.name)


def train_tasks(tasks: Mapping[str, PairParts], *, out: Path, options: PrefixedOptions | None = None,
                mixture: MixtureOptions | None = None, start: Path | None = None, lowercase: bool = False,
                **run: Unpack[PairRun]) -> "TrainResult":
    """Train an encoder–decoder on the tasks together and keep the model that predicts their development parts best.

    ``start`` is an encoder–decoder to go on from, whose shape and tokenizer stay. A single task may have the prefix
    ``""``. Raises a ``UserError`` for data that cannot be used.
    """
    from tickwise.training.run import replace_run

    options, mixture = options or PrefixedOptions(), mixture or MixtureOptions()
    resolve_device(run.get("device", "auto"))  # at once: refused later, it would cost what is replaced below
    base = None if start is None else pair_start(start, options)
    config = pair_loop_config(options, out=out, width=None if base is None else base.shape.width, **run)
    prefixed = {prefix: PairParts(with_prefix(prefix, parts.training), with_prefix(prefix, parts.development), None)
                for prefix, parts in tasks.items()}
    tokenizer = _tokenizer_for(prefixed, options, base, lowercase)
    shape = base.shape if base else dataclasses.replace(model_config(options, tokenizer), copies=options.copies)
    training, development = ([encode_pairs(getattr(parts, side), tokenizer, *longest_pair(shape, options),
                                           shape.start_id)
                              for parts in prefixed.values()] for side in ("training", "development"))
    mixed = MixedPairs(training, mixture, config.seed)
    tokenizer.config[LONGEST_TARGET] = 1 + max(int(pairs.targets.lengths.max()) for pairs in training)
    module = EncoderDecoder(shape).initialise(config.seed)
    lines = [] if base is None else [*warm_start(module, base.folder).lines(),
                                     *base.without_effect(options, lowercase)]
    if options.pretrain:
        replace_run(config)
        if not (config.resume == "auto" and checkpoint_paths(config.out)):  # else the training itself has begun
            pretrained = _pretrain(config, copy.deepcopy(module), training, tokenizer, options)
            if pretrained.interrupted:
                return pretrained
            lines += warm_start(module, pretrained.model).lines()
        config = dataclasses.replace(config, max_seconds=_share(config.max_seconds, 1 - options.pretrain))
    lines += [f"{prefix or 'pairs'}: {len(own):,} to train on{_left_out(parts.training, own)}, "
              f"{len(dev):,} to choose the model by, {rate:.1%} of what is seen"
              for (prefix, parts), own, dev, rate in zip(prefixed.items(), training, development, mixed.rates,
                                                         strict=True)]
    data = {"source": ", ".join(parts.training.name for parts in tasks.values()),
            "fingerprint": "-".join(parts.training.fingerprint() for parts in prefixed.values()),
            "pairs": {prefix: len(own) for prefix, own in zip(tasks, training, strict=True)},
            "mixture": dict(zip(tasks, mixed.rates, strict=True)), "tokenizer": tokenizer.fingerprint}
    if config.overwrite and not options.pretrain and is_leader():  # only now: what could refuse this run has done so
        shutil.rmtree(config.out / PRETRAINING, ignore_errors=True)
    return train_pairs(config, module, training[0] if len(training) == 1 else mixed,
                       MixedPairs(development, MixtureOptions(), config.seed).all, tokenizer, options, data=data,
                       lines=lines, trace=run.get("trace"))


def _left_out(pairs: Pairs, encoded: EncodedPairs) -> str:
    n = len(pairs) - len(encoded)
    return f" ({n:,} left out: too long)" if n else ""


def _share(seconds: float | None, share: float) -> float | None:
    return None if seconds is None else seconds * share


def _tokenizer_for(tasks: Mapping[str, PairParts], options: PrefixedOptions, base: PairStart | None,
                   lowercase: bool) -> Tokenizer:
    """That of ``base``, or one of all tasks' texts; it keeps the prefixes."""
    if base is not None:
        tokenizer = base.tokenizer
    else:
        texts = (text for parts in tasks.values() for side in (parts.training.sources, parts.training.targets)
                 for text in side)
        tokenizer = train_tokenizer("bpe", texts, vocab_size=options.vocab_size, lowercase=lowercase, prefix_space=True,
                                    whole=options.whole)
        if options.pretrain:
            tokenizer = with_sentinels(tokenizer)
    before, own = prefixes_of(tokenizer), [prefix for prefix in tasks if prefix]
    tokenizer.config.pop(PREFIXES, None)
    if own:  # a model for one task, which needs none, forgets those of the model it goes on from
        tokenizer.config[PREFIXES] = list(dict.fromkeys([*before, *own]))
    return tokenizer


def _pretrain(config: "LoopConfig", module: EncoderDecoder, tasks: Sequence[EncodedPairs], tokenizer: Tokenizer,
              options: PrefixedOptions) -> "TrainResult":
    """Train ``module`` to name hidden spans of the tasks' sources, in a run directory of its own inside ``out``."""
    from tickwise.training.run import train_module

    sources = [task.sources for task in tasks]
    tokens = np.concatenate([side.tokens for side in sources])
    length = min(text_length(min(_WINDOW, module.config.source_length), _HIDDEN_SHARE, _HIDDEN_SPAN), len(tokens) - 1)
    n_parts = n_ranks() * config.accumulate
    rows = max(1, options.batch_tokens // length // n_parts) * n_parts
    cursor = BatchCursor(tokens, batch_size=rows, context=length, seed=config.seed, vocab_size=module.config.vocab_size)
    objective = SpanCorruption(cursor, None, module.config, sentinels=sentinel_ids(tokenizer),
                               density=_HIDDEN_SHARE, mean_span=_HIDDEN_SPAN)
    steps = max(1, round(options.pretrain * options.epochs * len(tokens) / (rows * length)))
    config = dataclasses.replace(config, out=config.out / PRETRAINING, max_steps=steps, batch_size=rows,
                                 max_seconds=_share(config.max_seconds, options.pretrain))
    data = {"source": "the sources of the tasks", "fingerprint": tokenizer.fingerprint, "tokens": len(tokens)}
    return train_module(config, module, objective, tokenizer, data=data, lines=[
        f"first: naming hidden spans of {len(tokens):,} tokens of sources, at most {steps:,} steps"])


def prefixes_of(tokenizer: Tokenizer) -> list[str]:
    """The prefixes of a model's tasks, as they are kept with its tokenizer."""
    found = tokenizer.config.get(PREFIXES, [])
    if not isinstance(found, list) or not all(isinstance(prefix, str) for prefix in found):
        raise CheckpointError(f"tokenizer_config.json: '{PREFIXES}' is not a list of texts; copy the model again")
    return found


def own_prefixes(text: str, prefixes: Sequence[str]) -> list[str]:
    """The prefixes that stand before the text."""
    return [prefix for prefix in prefixes if _stands_before(prefix.strip(), text.strip())]


class PrefixedModel:
    """A trained encoder–decoder that is told its task by what stands before the text.

    >>> model = PrefixedModel.load(Path("out/tasks"))                                     # doctest: +SKIP
    >>> model.answer(["summarise: …"])                                                    # doctest: +SKIP
    """

    def __init__(self, model: TextToText) -> None:
        self.model, self.prefixes = model, prefixes_of(model.tokenizer)

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> "PrefixedModel":
        """Raises ``CheckpointError`` as ``TextToText.load`` does."""
        model = cls(TextToText.load(path, device))
        if not model.prefixes:
            say(f"{path}: does not say which prefixes it knows (it was made elsewhere, or not yet trained on tasks), "
                "so those of texts are not checked")
        return model

    def source(self, text: str, number: int = 1) -> str:
        """The text as the model was trained to read it: with one of its prefixes, and something behind it."""
        if not self.prefixes:
            return text
        own = own_prefixes(text, self.prefixes)
        if not own:
            start = " ".join(text.split())[:40]
            raise DataError(f"text {number:,} ('{start} …') begins with no prefix that this model knows; known are "
                            f"{_listed(self.prefixes)}")
        prefix = max(own, key=len)
        rest = text.strip()[len(prefix.strip()) :].strip()
        if not rest:
            raise DataError(f"text {number:,} is empty behind its prefix '{prefix}'")
        return prefix + rest

    def answer(self, texts: Sequence[str], options: BeamOptions | None = None, *, first_number: int = 1,
               advance: Callable[[float], None] | None = None) -> list[str]:
        """What the model writes for each text; nothing for a blank one. It counts the texts from ``first_number`` and
        raises ``DataError`` for one that is too long, begins with no prefix of the model, or has nothing behind it."""
        sources = [self.source(text, number) if text.strip() else ""
                   for number, text in enumerate(texts, start=first_number)]
        return self.model.translate(sources, options or self.model.beam_options(), first_number=first_number,
                                    advance=advance)

    def write(self, texts: Sequence[str], options: BeamOptions | None = None, *, first_number: int = 1,
              advance: Callable[[float], None] | None = None) -> list[Written]:
        """As ``answer``; also which answers were cut, and what is said of a text that cannot be answered."""
        sources, problems = [""] * len(texts), dict[int, str]()
        for place, text in enumerate(texts):
            try:
                sources[place] = self.source(text, first_number + place) if text.strip() else ""
            except DataError as problem:
                problems[place] = str(problem)
        written = self.model.write(sources, options or self.model.beam_options(), first_number=first_number,
                                   advance=advance)
        return [Written("", problem=problems[place]) if place in problems else one
                for place, one in enumerate(written)]

    def evaluate(self, prefix: str, pairs: Pairs, options: BeamOptions | None = None,
                 advance: Callable[[float], None] | None = None) -> tuple[dict[str, Score], list[Written | None]]:
        """Scores between 0 and 1 of the answers to the pairs' sources, which come without ``prefix``, and the answers:
        exact match (of words, whatever their case) and ROUGE. A source that is too long has ``None`` for an answer and
        no part in the scores."""
        check_prefixes("--test", [prefix], self.prefixes)
        numbers = self.model.scorable(with_prefix(prefix, pairs).sources, pairs.name)
        scored = pairs.take(numbers)
        found = self.model.write(with_prefix(prefix, scored).sources, options or self.model.beam_options(),
                                 advance=advance)
        written = [one.text for one in found]
        same = [text.lower().split() == target.lower().split()
                for text, target in zip(written, scored.targets, strict=True)]
        answers: list[Written | None] = [None] * len(pairs)
        for number, one in zip(numbers, found, strict=True):
            answers[number] = one
        return {"exact_match": share_score(same)} | rouge(written, [[target] for target in scored.targets]), answers


def _stands_before(prefix: str, text: str) -> bool:
    """Whether ``text`` begins with ``prefix``, and not just with a word that does: a blank follows, or the prefix ends
    in a mark, or in Chinese, which is written without blanks."""
    end = text[len(prefix) : len(prefix) + 1]
    return text.startswith(prefix) and (not end.strip() or not prefix[-1].isalnum() or has_chinese(prefix[-1]))
