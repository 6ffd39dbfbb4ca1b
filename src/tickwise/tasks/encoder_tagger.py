"""An encoder that finds entities: fine-tune it on tagged files, load it, mark the entities of texts."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tickwise.core.errors import CheckpointError
from tickwise.data.tag_features import unit_of
from tickwise.data.tagged import Span, TaggedSentence, entity_types, iobes_labels
from tickwise.data.word_pieces import WordPieces
from tickwise.evaluation.entities import EntityScores
from tickwise.interop.directory import resolve_model_path
from tickwise.interop.warm_start import headed_encoder
from tickwise.models.encoder_heads import EncoderTagger, EncoderTaggerConfig
from tickwise.tasks.fine_tune_options import FineTuneOptions
from tickwise.tasks.tag import EntityTagger, TaggerAssets, learned_habits, read_parts, read_sentences
from tickwise.tasks.tag_options import TagReading
from tickwise.text.word_habits import WordHabits
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.config import AdaptLoopConfig
from tickwise.training.encoder_tagging import EncoderTagging, find_entities
from tickwise.training.run import TrainResult, check_outputs, train_module


@dataclass(frozen=True, kw_only=True)
class TagAdaptConfig(AdaptLoopConfig):
    """One fine-tuning of an encoder for entities."""

    encoder: Path
    """Model or run directory to start from."""
    train: tuple[str, ...]
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    tuning: FineTuneOptions = field(default_factory=FineTuneOptions)
    options: TagReading = field(default_factory=TagReading)


@dataclass(frozen=True)
class TagResult:
    """What one fine-tuning gave."""

    trained: TrainResult
    dev: EntityScores | None
    test: EntityScores | None


class EncodedTagger(EntityTagger):
    """A tagger that an encoder is at the bottom of."""

    module: EncoderTagger

    def __init__(self, module: EncoderTagger, tokenizer: Tokenizer, habits: WordHabits) -> None:
        config = module.config
        if tokenizer.vocab_size > config.vocab_size:
            raise CheckpointError(f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model "
                                  f"{config.vocab_size:,}; they do not belong together")
        self.module = module.eval()
        self.habits = habits
        self.words = WordPieces(tokenizer, config.context_length, config.characters)
        self.device = next(module.parameters()).device

    @property
    def reads_characters(self) -> bool:
        return self.module.config.characters

    def _find(self, sentences: Sequence[TaggedSentence], probabilities: bool) -> list[list[tuple[Span, float | None]]]:
        pieces = self.words.make([s.tokens for s in sentences])
        return find_entities(self.module, pieces, len(sentences), self.words.marks, self.device,
                             probabilities=probabilities)


def train_encoder_tagger(config: TagAdaptConfig) -> TagResult:
    """Fine-tune ``config.encoder`` on tagged files or known data sets, keep the model that finds the development part's
    entities best (every tenth sentence where none is given), and evaluate. Raises a ``UserError`` for data and settings
    that cannot work."""
    check_outputs(config)
    data = read_parts(config.train, config.dev, config.options)
    testing = read_sentences(config.test, "test", config.options) if config.test else []
    source, options = resolve_model_path(config.encoder), config.tuning
    tokenizer = Tokenizer.load(source)
    characters = unit_of([s.tokens for s in data.training]) == "character"
    module = headed_encoder(EncoderTagger, EncoderTaggerConfig, source, config.seed, fresh=options.fresh,
                            dropout=options.dropout, labels=iobes_labels(entity_types(data.training)),
                            characters=characters)
    objective = EncoderTagging(
        data.training, data.development, WordPieces(tokenizer, module.config.context_length, characters),
        module.config.labels, batch_size=options.batch_size, seed=config.seed, word_dropout=options.word_dropout)
    steps = max(1, round(options.epochs * objective.steps_per_epoch))
    loop = {f.name: getattr(config, f.name) for f in dataclasses.fields(AdaptLoopConfig)} | options.loop_settings()
    if loop["max_steps"] is None:
        loop["max_steps"] = steps
    loop["evaluate_every"] = config.evaluate_every or max(1, steps // 16)
    trained = train_module(
        AdaptLoopConfig(**loop), module, objective,
        TaggerAssets(tokenizer, None if characters else learned_habits(data.training)),
        data={"source": ", ".join(config.train), "fingerprint": data.fingerprint, "sentences": len(data.training)},
        lines=[f"{len(data.training):,} sentences to train on, {len(data.development):,} to choose the model by; "
               f"types: {', '.join(entity_types(data.training))}"],
    )
    if trained.interrupted:
        return TagResult(trained, None, None)
    tagger = EntityTagger.load(trained.model, config.device)
    parts = (tagger.evaluate(part) if part else None for part in (data.development, testing))
    return TagResult(trained, *parts)
