"""Finding entities: train a tagger on tagged sentences, load it, and mark the entities of texts."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.data import catalogue
from tickwise.data.tag_features import TagFeatures
from tickwise.data.tagged import Span, TaggedSentence, entity_types, iobes_labels, read_tagged
from tickwise.evaluation.entities import EntityScores, entity_scores
from tickwise.models.encoder_heads import EncoderTagger
from tickwise.models.tagger import Tagger, TaggerConfig
from tickwise.tasks.tag_options import TagOptions, TagReading
from tickwise.text.sources import STANDARD_INPUT
from tickwise.text.word_habits import WordHabits
from tickwise.text.words import Place, split_by_spaces, split_characters, split_sentences
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.tagging_objective import TaggingObjective, examples, predict

if TYPE_CHECKING:
    from tickwise.interop.directory import Assets
    from tickwise.training.run import TrainResult

_FEWEST_STEPS = 300
"""However few sentences there are, a tagger takes this many updates to learn anything."""
_LONGEST_TRAINED = 1000
"""Longer sentences are cut for training, outside of entities: one of 10,000 tokens would be a batch of its own."""


@dataclass(frozen=True)
class TagData:
    """Tagged sentences to train on, and to choose the best model by (none when there is just one sentence)."""

    training: list[TaggedSentence]
    development: list[TaggedSentence]

    @property
    def fingerprint(self) -> str:
        """Of the tokens and entities that are trained on, in hexadecimal."""
        digest = hashlib.sha256()
        for sentence in self.training:
            digest.update(repr((sentence.tokens, sentence.entities)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:32]


def read_parts(train: Sequence[str], development: Sequence[str], options: TagReading) -> TagData:
    """The sentences of files or known data sets. A data set in ``train`` brings its own development part where none is
    given; without any, about a tenth of the training data becomes the development part: sentences go by a hash of their
    tokens, so that equal ones stay together."""
    training = read_sentences(train, "train", options)
    own = [name for name in train if data_set(name) is not None]
    developing = read_sentences(development or own, "validation", options)
    if not developing and len(training) > 1:
        training, developing = _split(training)
    if not any(sentence.entities for sentence in training):
        raise DataError(f"{', '.join(train)}: every tag is O; the training data needs entities")
    return TagData(training, developing)


def _split(sentences: list[TaggedSentence]) -> tuple[list[TaggedSentence], list[TaggedSentence]]:
    """Nine tenths to train on, one to choose by, at least one sentence each where two of them differ."""
    places = [xxhash.xxh3_64_intdigest("\0".join(s.tokens).encode("utf-8", "surrogatepass")) for s in sentences]
    bound = min(max(2**64 // 10, min(places)), max(places) - 1)
    parts: tuple[list[TaggedSentence], list[TaggedSentence]] = ([], [])
    for sentence, place in zip(sentences, places, strict=True):
        parts[place <= bound].append(sentence)
    return parts if parts[0] else (sentences, [])


def data_set(name: str) -> "catalogue.DataSet | None":
    """The known data set of that name, None for a file."""
    return None if Path(name).exists() or name == STANDARD_INPUT else catalogue.find(name)


def read_sentences(sources: Sequence[str], split: str, options: TagReading) -> list[TaggedSentence]:
    """The tagged sentences of files, or of the ``split`` of known data sets."""
    sentences: list[TaggedSentence] = []
    for source in sources:
        entry = data_set(source)
        files: list[Path] | None = [Path(source)]
        if entry is not None:
            files = entry.local_files(None, split)
            if files is None:
                raise DataError(f"{source}: the files of its {split} part are not here; see tickwise data ls")
        for file in files or ():
            more = read_tagged(file, scheme=options.scheme, token_column=options.token_column,
                               tag_column=options.tag_column)
            after = sentences[-1].document + 1 if sentences else 0
            sentences += [TaggedSentence(s.tokens, s.entities, s.line, s.document + after) for s in more]
    return sentences


def cut(sentence: TaggedSentence, longest: int) -> Iterator[TaggedSentence]:
    """``sentence`` in pieces of at most about ``longest`` tokens, none of which ends inside an entity."""
    start, n = 0, len(sentence.tokens)
    while start < n:
        end = min(start + longest, n)
        end = next((span.end for span in sentence.entities if span.start < end < span.end), end)
        inside = tuple(Span(s.start - start, s.end - start, s.type) for s in sentence.entities
                       if start <= s.start and s.end <= end)
        yield TaggedSentence(sentence.tokens[start:end], inside, sentence.line, sentence.document)
        start = end


@dataclass(frozen=True)
class TagTraining:
    """What the training loop takes: the module, its objective, and what makes it usable on text."""

    module: Tagger
    objective: TaggingObjective
    features: TagFeatures


def build_training(data: TagData, options: TagOptions, seed: int) -> TagTraining:
    """A fresh tagger for the types in ``data`` and its objective."""
    pieces = [piece for sentence in data.training for piece in cut(sentence, _LONGEST_TRAINED)]
    labels = iobes_labels(entity_types(data.training))
    features = TagFeatures.build([sentence.tokens for sentence in pieces], min_count=options.min_count)
    narrow = options.feature_width or (25 if features.unit == "word" else 50)
    config = TaggerConfig(
        labels=labels, feature_sizes=tuple(features.sizes.values()),
        feature_widths=tuple(options.word_width if name == "word" else narrow for name in features.sizes),
        n_characters=features.n_characters, hidden=options.hidden, n_layers=options.n_layers, dropout=options.dropout,
        context=options.context,
    )
    known = set(entity_types(data.training))
    # What the training data has no example of cannot be found; it stays in the gold data and counts as missed.
    reachable = [TaggedSentence(s.tokens, tuple(span for span in s.entities if span.type in known), s.line, s.document)
                 for s in data.development]
    objective = TaggingObjective(
        examples(pieces, features, labels, options.context), examples(reachable, features, labels, options.context),
        [sentence.entities for sentence in data.development], features, batch_tokens=options.batch_tokens,
        word_dropout=options.word_dropout, seed=seed,
    )
    return TagTraining(Tagger(config).initialise(seed), objective, features)


def train_tagger(train: Sequence[str], development: Sequence[str] = (), *, out: Path,
                 options: TagOptions | None = None, seed: int = 1, max_seconds: float | None = None,
                 patience: int | None = None, resume: bool = False, overwrite: bool = False, device: str = "auto",
                 trace: Path | None = None) -> "TrainResult":
    """Train a tagger on tagged files (or known data sets) and keep the model that finds the development part's
    entities best; with ``patience`` end after so many validations without a better one. Raises a ``UserError`` for data
    that cannot be used."""
    from tickwise.training.config import OptimizerOptions, ScheduleOptions, TaskLoopConfig
    from tickwise.training.run import train_module

    options = options or TagOptions()
    data = read_parts(train, development, options)
    made = build_training(data, options, seed)
    epoch_steps = made.objective.n_batches
    max_steps = max(round(options.epochs * epoch_steps), _FEWEST_STEPS)
    config = TaskLoopConfig(
        out=Path(out), seed=seed, device=device, dtype="fp32", compile="off", batch_size=1, max_steps=max_steps,
        max_seconds=max_seconds, patience=patience, evaluate_every=max(epoch_steps, max_steps // 30),
        evaluate_tokens=sys.maxsize,
        optimizer=OptimizerOptions(name="adamw", lr=options.lr, weight_decay=0.0, beta2=0.999),
        schedule=ScheduleOptions(name="wsd", warmup=0.02, decay=0.7),
        ema_decay=min(max(1 - 1 / epoch_steps, 0.9), 0.998), resume="auto" if resume else "never", overwrite=overwrite,
    )
    types = ", ".join(entity_types(data.training))
    lines = [f"{len(data.training):,} sentences to train on, {len(data.development):,} to choose the model by; "
             f"types: {types}",
             f"BiLSTM-CRF over {made.features.unit}s: {made.module.n_parameters():,} parameters, "
             f"{max_steps:,} steps"]
    about = {"source": ", ".join(train), "fingerprint": data.fingerprint, "sentences": len(data.training)}
    assets = TaggerAssets(made.features, learned_habits(data.training) if made.features.unit == "word" else None)
    return train_module(config, made.module, made.objective, assets, data=about, lines=lines, trace=trace)


def learned_habits(sentences: Sequence[TaggedSentence]) -> WordHabits:
    """How text is split into words as the tokens of ``sentences`` are."""
    return WordHabits.learn([sentence.tokens for sentence in sentences])


@dataclass(frozen=True)
class TaggerAssets:
    """What makes a tagger usable on text: its feature table or its tokenizer, and how text is split into words."""

    reads: "Assets"
    habits: WordHabits | None
    """None where characters are tagged."""

    def save(self, folder: Path) -> None:
        self.reads.save(folder)
        if self.habits is not None:
            self.habits.save(folder)


@dataclass(frozen=True)
class Entity:
    """Characters ``start`` up to (not including) ``end`` of a text, its type, and the model's probability of just this
    entity: these tokens, this type."""

    start: int
    end: int
    text: str
    type: str
    probability: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"start": self.start, "end": self.end, "text": self.text, "type": self.type,
                "probability": self.probability}


class EntityTagger:
    """A trained tagger on text: an LSTM, or an encoder (``tasks/encoder_tagger.py``).

    >>> tagger = EntityTagger.load(Path("out/news/model"))
    >>> tagger.tag(["Ada Lovelace lived in London."])[0][0].type
    """

    def __init__(self, module: Tagger, features: TagFeatures, habits: WordHabits | None = None) -> None:
        if tuple(features.sizes.values()) != module.config.feature_sizes:
            raise CheckpointError("the feature table and the model do not belong together; copy both again")
        self.module: Tagger | EncoderTagger = module.eval()
        self.features = features
        self.habits = habits or WordHabits()
        self.device = next(module.parameters()).device

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> "EntityTagger":
        """Of a model or run directory; ``CheckpointError`` when it is missing, damaged or no tagger."""
        from tickwise.interop.directory import load_module, resolve_model_path

        folder = resolve_model_path(Path(path))
        module = load_module(folder, device=device)
        if isinstance(module, EncoderTagger):
            from tickwise.tasks.encoder_tagger import EncodedTagger

            return EncodedTagger(module, Tokenizer.load(folder), WordHabits.load(folder))
        if not isinstance(module, Tagger):
            raise CheckpointError(f"{folder}: not a tagger; train one with tickwise run entities --train")
        return cls(module, TagFeatures.load(folder), WordHabits.load(folder))

    @property
    def types(self) -> tuple[str, ...]:
        """The types that it can find."""
        return tuple(dict.fromkeys(label[2:] for label in self.module.config.labels if label != "O"))

    @property
    def reads_characters(self) -> bool:
        """Whether what is tagged are single characters, as in Chinese, and not words."""
        return self.features.unit == "character"

    def _find(self, sentences: Sequence[TaggedSentence], probabilities: bool) -> list[list[tuple[Span, float | None]]]:
        """The entities of sentences that have tokens; those of one document may be read together."""
        config = self.module.config
        assert isinstance(config, TaggerConfig)
        plain = [TaggedSentence(s.tokens, (), s.line, s.document) for s in sentences]
        data = examples(plain, self.features, config.labels, config.context)
        assert isinstance(self.module, Tagger)
        return predict(self.module, data, self.device, probabilities=probabilities)

    def tag_tokens(self, sentences: Sequence[Sequence[str]]) -> list[list[Span]]:
        """The entities of sentences that are tokens already, read as one document; none in one without tokens."""
        return self.tag_sentences([TaggedSentence(tuple(s), ()) for s in sentences])

    def tag_sentences(self, sentences: Sequence[TaggedSentence]) -> list[list[Span]]:
        """Likewise; those of one document may be read together. What is tagged there already is not looked at."""
        return [[span for span, _ in found] for found in self._find_in(sentences, probabilities=False)]

    def tag_surely(self, sentences: Sequence[TaggedSentence]) -> list[list[tuple[Span, float]]]:
        """``tag_sentences``, with how likely just that entity is there."""
        return [[(span, probability) for span, probability in found if probability is not None]
                for found in self._find_in(sentences, probabilities=True)]

    def _find_in(self, sentences: Sequence[TaggedSentence],
                 probabilities: bool) -> list[list[tuple[Span, float | None]]]:
        full = [sentence for sentence in sentences if sentence.tokens]
        found = iter(self._find(full, probabilities) if full else ())
        return [next(found) if sentence.tokens else [] for sentence in sentences]

    def tag(self, texts: Sequence[str], *, tokenized: bool = False) -> list[list[Entity]]:
        """The entities of each text, in order. ``tokenized``: white space separates the words, as the training data has
        them, and each line is a sentence. ``ConfigError`` for that with a model that reads characters."""
        if tokenized and self.reads_characters:
            raise ConfigError("--tokenized: this model tags characters, which need no splitting; leave it out")
        split = split_by_spaces if tokenized else split_characters if self.reads_characters else self.habits.split
        placed: list[list[Place]] = []
        data: list[TaggedSentence] = []
        for owner, text in enumerate(texts):
            for places in split_sentences(text, split(text), at_marks=not tokenized):
                placed.append(places)
                data.append(TaggedSentence(tuple(text[p.start : p.end] for p in places), (), document=owner))
        found: list[list[Entity]] = [[] for _ in texts]
        for places, sentence, spans in zip(placed, data, self._find(data, True), strict=True):
            owner = sentence.document
            for span, probability in spans:
                start, end = places[span.start].start, places[span.end - 1].end
                found[owner].append(Entity(start, end, texts[owner][start:end], span.type, probability))
        return found

    def evaluate(self, sentences: Sequence[TaggedSentence], seed: int = 0) -> EntityScores:
        """Precision, recall, F1 and calibration against the sentences' own entities."""
        return scored(sentences, self.tag_surely(sentences), seed)


def scored(sentences: Sequence[TaggedSentence], found: Sequence[Sequence[tuple[Span, float]]],
           seed: int = 0) -> EntityScores:
    """The scores of entities that were found with their probabilities."""
    return entity_scores([s.entities for s in sentences], [[span for span, _ in row] for row in found],
                         probabilities=[[sure for _, sure in row] for row in found], seed=seed)
