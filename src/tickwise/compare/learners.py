"""How the models of a comparison learn: from the job's training texts, and then the change, going on from there."""

import dataclasses
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tickwise.compare.cases import Case, Material
from tickwise.compare.contestants import Contestant, Labeller, Training, Writer
from tickwise.core.config import read_json
from tickwise.core.paths import write_text_atomic

if TYPE_CHECKING:
    from tickwise.data.prepared import PreparedData
    from tickwise.training.config import TrainConfig
    from tickwise.training.run import TrainResult

_BYTES = 256 + 1
_UPDATE_TOKENS = 1024
"""Small updates: in a minute their number counts for more than their size."""
LOOP: dict[str, Any] = {"compile": "off", "resume": "auto", "checkpoint_seconds": 20.0, "keep_checkpoints": 1,
                        "evaluate_tokens": 16_384}
"""Settings of all trainings: short ones, that may be stopped and gone on with."""
ANSWERS = "\n{}="
"""A line of training text is an input, ``=`` and its answer; a prompt begins a line."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a model may train, and with which seed."""

    seconds: float
    seed: int


class Learner(ABC):
    """Trains a job's model. Its runs lie in ``folder / "run"``, where one that was stopped goes on."""

    @abstractmethod
    def train(self, folder: Path, budget: Budget) -> Contestant:
        """On the training texts; the best state is that of the development part."""

    @abstractmethod
    def tune(self, before: Path, folder: Path, budget: Budget) -> Contestant:
        """The model of the run ``before``, trained further on plain and on rephrased or noisy texts alike."""


def whole(result: "TrainResult") -> None:
    """``KeyboardInterrupt`` for a training that Ctrl-C ended: the comparison ends, too, and goes on from there."""
    if result.interrupted:
        raise KeyboardInterrupt


def training_of(run: Path) -> Training:
    """What it took to train the model of a run (or model) directory, from its ``run.json``."""
    path = next((p for p in (run / "run.json", run / "model" / "run.json") if p.is_file()), None)
    record: dict[str, Any] = {} if path is None else read_json(path, "the run's record")
    result = record.get("result") or {}
    flops, tokens = record.get("flops_per_token"), result.get("tokens")
    return Training(result.get("seconds", record.get("seconds")),
                    None if flops is None or tokens is None else flops * tokens)


def mixed(material: Material, seed: int) -> list[Case]:
    """What a change is trained on: its examples, and as many plain ones, so that these are not forgotten."""
    rng = random.Random(seed)
    plain = rng.choices(material.training, k=len(material.change_training))
    return rng.sample([*plain, *material.change_training], 2 * len(plain))


@dataclass(frozen=True)
class Texts:
    """What a decoder learns from, and what its best state is chosen by."""

    training: str
    development: str


@dataclass(frozen=True)
class Decoders(Learner):
    """Decoders over bytes, or over ``vocab_size`` tokens, that go on with a text."""

    plain: Texts
    change: Texts
    context: int
    vocab_size: int = _BYTES
    depth: int = 2
    batch_size: int | None = None
    template: str = ANSWERS
    backwards: bool = False
    """Answers are learnt with their last sign first."""
    most_tokens: int = 40

    def train(self, folder: Path, budget: Budget) -> Writer:
        from tickwise.training.run import train

        self.prepared(folder)
        whole(train(self._config(folder, budget)))
        return self._writer(folder / "run")

    def tune(self, before: Path, folder: Path, budget: Budget) -> Writer:
        from tickwise.data.batches import BatchCursor
        from tickwise.interop.directory import load_module
        from tickwise.training.next_token import NextToken
        from tickwise.training.run import about_data, plan, train_module

        data = prepared_texts(folder, self.change, self.vocab_size, tokenizer=before / "model")
        config = plan(self._config(folder, budget), data).config
        assert config.batch_size is not None
        module = load_module(before, device="cpu")
        cursor = BatchCursor(data.split("train").tokens, batch_size=config.batch_size, context=self.context,
                             seed=budget.seed)
        whole(train_module(config, module.requires_grad_(True), NextToken(cursor, data.split("validation").tokens),
                           data.tokenizer, data=about_data(data, data.path)))
        return self._writer(folder / "run")

    def prepared(self, folder: Path) -> "PreparedData":
        """The plain texts in tokens."""
        return prepared_texts(folder, self.plain, self.vocab_size)

    def _config(self, folder: Path, budget: Budget) -> "TrainConfig":
        from tickwise.training.config import ModelOptions, TrainConfig

        return TrainConfig(
            data=folder / "data", out=folder / "run", context=self.context, depth=self.depth,
            batch_size=self.batch_size or max(1, _UPDATE_TOKENS // self.context),
            model=ModelOptions(width=128, tie_embeddings=True), max_seconds=budget.seconds, seed=budget.seed, **LOOP)

    def _writer(self, run: Path) -> Writer:
        from tickwise.engine.language_model import load

        return Writer(load(run, device="cpu"), "decoder", template=self.template, backwards=self.backwards,
                      most_tokens=self.most_tokens, training=training_of(run))


def prepared_texts(folder: Path, texts: Texts, vocab_size: int, tokenizer: Path | None = None) -> "PreparedData":
    """The texts in tokens, in ``folder / "data"``, prepared now if they are not there."""
    from tickwise.data.config import PrepareConfig
    from tickwise.data.prepare import prepare
    from tickwise.data.prepared import PreparedData

    out = folder / "data"
    if out.is_dir():
        return PreparedData.open(out)
    for name, text in dataclasses.asdict(texts).items():
        write_text_atomic(folder / f"{name}.txt", text)
    return prepare(PrepareConfig(
        train=(str(folder / "training.txt"),), validation=(str(folder / "development.txt"),), out=out,
        vocab_size=None if tokenizer else vocab_size, tokenizer_from=tokenizer, duplicates="keep"))


def line_writer(material: Material, *, context: int, seed: int, backwards: bool = False) -> Decoders:
    """A decoder over bytes of lines with an input and its answer; ``backwards``: answers end with their first letter,
    so that a sum's carries come before the digits that they change (Lee et al. 2023, "Teaching arithmetic to small
    transformers")."""
    step = -1 if backwards else 1

    def lines(cases: Sequence[Case]) -> str:
        return "".join(f"{case.text}={case.answer[::step]}\n" for case in cases)

    return Decoders(
        Texts(lines(material.training), lines(material.development)),
        Texts(lines(mixed(material, seed)), lines([*material.development, *material.change_development])),
        context=context, backwards=backwards)


@dataclass(frozen=True)
class WordClassifiers(Learner):
    """Bidirectional LSTMs over words that choose a label."""

    material: Material

    def train(self, folder: Path, budget: Budget) -> Labeller:
        from tickwise.tasks.classify import train_classifier
        from tickwise.tasks.classify_config import ClassifyConfig, RecurrentOptions

        for name, part in (("dev", self.material.development), ("train", self.material.training)):
            write_text_atomic(folder / f"{name}.jsonl", "".join(
                json.dumps({"text": case.text, "label": case.answer}) + "\n" for case in part))
        if not (folder / "done").exists():
            whole(train_classifier(ClassifyConfig(
                train=(str(folder / "train.jsonl"),), dev=(str(folder / "dev.jsonl"),), out=folder / "run",
                architecture="recurrent", recurrent=RecurrentOptions(epochs=50.0), max_seconds=budget.seconds,
                seed=budget.seed, device="cpu", **LOOP)).trained)
            write_text_atomic(folder / "done", "")
        return self._labeller(folder / "run")

    def tune(self, before: Path, folder: Path, budget: Budget) -> Labeller:
        import torch

        from tickwise.data.examples import Examples
        from tickwise.tasks.classifier import Classifier, SequenceClassifier, class_numbers
        from tickwise.training.config import LoopConfig, OptimizerOptions, ScheduleOptions
        from tickwise.training.run import train_module
        from tickwise.training.sequence_classification import SequenceClassification

        classifier = Classifier.load(before, device="cpu")
        assert isinstance(classifier, SequenceClassifier)
        parts = [Examples(tuple(case.text for case in part), tuple(case.answer for case in part), "the change")
                 for part in (mixed(self.material, budget.seed),
                              [*self.material.development, *self.material.change_development])]
        (train, train_classes), (dev, dev_classes) = (
            (classifier.words.encode(part.texts), torch.from_numpy(class_numbers(part, classifier.labels)))
            for part in parts)
        objective = SequenceClassification(train, train_classes, (dev, dev_classes), batch_size=32, seed=budget.seed,
                                           word_dropout=0.1)
        config = LoopConfig(
            out=folder / "run", batch_size=32, max_seconds=budget.seconds, seed=budget.seed, device="cpu",
            dtype="fp32", evaluate_every=objective.steps_per_epoch, ema_decay=0.998,
            optimizer=OptimizerOptions(name="adamw", lr=1e-3, weight_decay=0.0, beta2=0.999),
            schedule=ScheduleOptions(warmup=0.02, decay=0.7), **LOOP)
        whole(train_module(config, classifier.module.requires_grad_(True), objective, classifier.words,
                           data={"source": "the change", "fingerprint": parts[0].fingerprint()}))
        return self._labeller(folder / "run")

    def _labeller(self, run: Path) -> Labeller:
        from tickwise.tasks.classifier import Classifier

        return Labeller(Classifier.load(run, device="cpu"), "LSTM classifier", training_of(run))


@dataclass(frozen=True)
class Translators(Learner):
    """Small encoder–decoders on pairs, in lower case."""

    material: Material
    most_tokens: int

    def train(self, folder: Path, budget: Budget) -> Writer:
        from tickwise.tasks.text_to_text import PairParts, train_text_to_text

        whole(train_text_to_text(
            PairParts(_pairs(self.material.training), _pairs(self.material.development), None), out=folder / "run",
            lowercase=True, seed=budget.seed, max_seconds=budget.seconds, resume=True, device="cpu",
            options=self._options()))
        return self._writer(folder / "run")

    def tune(self, before: Path, folder: Path, budget: Budget) -> Writer:
        from tickwise.data.pair_batches import encode_pairs
        from tickwise.interop.directory import load_module
        from tickwise.models.encoder_decoder import EncoderDecoder
        from tickwise.tasks.pair_training import pair_loop_config, train_pairs
        from tickwise.tokenizers.tokenizer import Tokenizer

        options = self._options()
        tokenizer, module = Tokenizer.load(before / "model"), load_module(before, device="cpu")
        assert isinstance(module, EncoderDecoder)
        training = _pairs(mixed(self.material, budget.seed))
        development = _pairs([*self.material.development, *self.material.change_development])
        config = pair_loop_config(options, out=folder / "run", seed=budget.seed, max_seconds=budget.seconds,
                                  device="cpu")
        whole(train_pairs(config, module.requires_grad_(True), encode_pairs(training, tokenizer, options.longest),
                          encode_pairs(development, tokenizer, options.longest), tokenizer, options,
                          data={"source": "the change", "fingerprint": training.fingerprint()}))
        return self._writer(folder / "run")

    def _options(self) -> Any:
        from tickwise.tasks.text_to_text_options import TextToTextOptions

        return TextToTextOptions(vocab_size=2000, width=128, encoder_layers=2, decoder_layers=2, longest=96)

    def _writer(self, run: Path) -> Writer:
        from tickwise.engine.language_model import load

        return Writer(load(run, device="cpu"), "encoder–decoder", most_tokens=self.most_tokens,
                      training=training_of(run))


def _pairs(cases: Sequence[Case]) -> Any:
    from tickwise.data.pairs import Pairs

    return Pairs([case.text for case in cases], [case.answer for case in cases], "the job's pairs")
