"""A trained classifier of texts: calibrated probabilities, decisions, and the words that drove them."""

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tickwise.core.console import say
from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.core.stages import marking
from tickwise.data.bags import FeatureIndex
from tickwise.data.examples import Examples
from tickwise.data.word_sequences import WordSequences
from tickwise.evaluation.calibration import decide, softmax
from tickwise.evaluation.classification import ClassificationResult, Judged, evaluate_judged
from tickwise.interop.directory import load_module, resolve_model_path, save_model
from tickwise.models.bag import Bag, product_quantise
from tickwise.models.encoder_heads import EncoderClassifier
from tickwise.models.families import family_of
from tickwise.models.recurrent_classifier import RecurrentClassifier
from tickwise.text.ngrams import Family, NgramSettings, ngrams
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.classification import classify_bags
from tickwise.training.sequence_classification import classify_sequences, collate_texts

_PROBABILITIES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Prediction:
    """The class of a text, its probability, and every class's."""

    label: str
    probability: float
    probabilities: dict[str, float]
    cut: bool = False
    """The text is longer than the model reads."""


@dataclass(frozen=True)
class Word:
    """A piece of a text by its characters, and how much it spoke for the class (logits; against it below 0)."""

    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Explanation:
    """Which words drove a decision. ``words`` lie one after the other; spaces belong to none."""

    text: str
    label: str
    probability: float
    words: tuple[Word, ...]

    def strongest(self, n: int) -> list[tuple[str, float]]:
        """The n different words of the largest effect, for or against."""
        total: dict[str, float] = {}
        for word in self.words:
            name = self.text[word.start : word.end]
            total[name] = total.get(name, 0.0) + word.score
        return sorted(total.items(), key=lambda item: -abs(item[1]))[:n]


class Classifier(ABC):
    """A trained classifier. ``predict`` and ``explain`` take texts; ``load`` reads a model or run directory.

    >>> classifier = Classifier.load("out/topics")            # doctest: +SKIP
    >>> classifier.predict(["stocks fell again"])[0].label     # doctest: +SKIP
    'Business'
    """

    def __init__(self, module: Bag | RecurrentClassifier | EncoderClassifier, path: Path | None = None) -> None:
        self.module, self.path = module.eval(), path
        self.also: Classifier | None = None
        """Another classifier of the same classes, whose probabilities are averaged with this one's."""
        self._told_of_cuts = False

    @staticmethod
    def load(path: str | Path, *, device: str = "auto") -> "Classifier":
        """Raises ``CheckpointError`` for a directory that holds no classifier, or a damaged one."""
        folder = resolve_model_path(Path(path))
        module = load_module(folder, device=device)
        if isinstance(module, Bag):
            return BagClassifier(module, FeatureIndex.load(folder), folder)
        if isinstance(module, RecurrentClassifier):
            return SequenceClassifier(module, WordSequences.load(folder), folder)
        if isinstance(module, EncoderClassifier):
            from tickwise.tasks.encoder_classifier import EncodedClassifier

            return EncodedClassifier(module, Tokenizer.load(folder), folder)
        raise CheckpointError(f"{path}: not a classifier but another kind of model ({family_of(module)[1].name}); "
                              "train one with tickwise run classify --train FILE --out DIRECTORY")

    @property
    def labels(self) -> tuple[str, ...]:
        return self.module.config.labels

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @abstractmethod
    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """(N, C) of this classifier alone, not divided by the temperature."""

    def cuts(self, text: str) -> bool:
        """Whether the text is longer than the model reads."""
        return False

    def _tell_of_cuts(self, n_cut: int, n_texts: int, what: str) -> None:
        """Say, once, that so many of the texts are not read whole, and ``what`` of them is."""
        if n_cut and not self._told_of_cuts:
            self._told_of_cuts = True
            say(f"{n_cut:,} of {n_texts:,} texts are longer than {what}")

    @abstractmethod
    def effects(self, text: str, target: int) -> tuple[Word, ...]:
        """How much each word spoke for class number ``target``: gradient × input on the class's logit less the mean of
        the others'."""

    @abstractmethod
    def save(self, folder: Path, run: dict[str, Any] | None = None) -> None:
        """Write a model directory, whole or not at all."""

    @abstractmethod
    def with_config(self, **changes: Any) -> "Classifier":
        """The same weights under a config with these fields changed."""

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """(N, C), calibrated; the mean of both where there is ``also`` another classifier."""
        own = softmax(self.logits(texts), self.module.config.temperature)
        if self.also is None:
            return own
        if set(self.also.labels) != set(self.labels):
            raise ConfigError(f"{self.also.path}: knows other classes than {self.path}; their probabilities cannot be "
                              "averaged")
        order = [self.also.labels.index(label) for label in self.labels]
        with marking(None):  # the other model's stages are not those of the one that is measured
            others = self.also.probabilities(texts)[:, order]
        return (own + others) / 2

    def classes(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """(N,) what the probabilities decide: the likeliest class, or a filter's by its threshold."""
        config = self.module.config
        if not config.positive:
            return probabilities.argmax(axis=1)
        return decide(probabilities, self.labels.index(config.positive), config.threshold)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in order. A text without any known feature gets what the labels' shares say."""
        probabilities = self.probabilities(texts)
        return [Prediction(self.labels[c], float(row[c]), dict(zip(self.labels, map(float, row), strict=True)),
                           self.cuts(text))
                for text, c, row in zip(texts, self.classes(probabilities), probabilities, strict=True)]

    def explain(self, text: str, label: str | None = None) -> Explanation:
        """The words that spoke for ``label`` (the predicted class by default), in this classifier's eyes alone."""
        with marking(None):  # a trace is of predictions
            prediction = self.predict([text])[0]
            label = prediction.label if label is None else label
            if label not in self.labels:
                raise ConfigError(f"no class '{label}'; the model has {', '.join(self.labels[:10])}")
            words = self.effects(text, self.labels.index(label))
        return Explanation(text, label, prediction.probabilities[label], words)

    def evaluate(self, examples: Examples, task: str, *, bootstrap_samples: int = 1000, seed: int = 0,
                 fitted: bool = False) -> ClassificationResult:
        """Metrics with intervals on labelled texts; ``DataError`` for labels that the model does not know. ``fitted``:
        the temperature was fitted to these very texts."""
        return evaluate_judged(
            self.judged(examples), class_numbers(examples, self.labels), self.labels, task=task,
            positive=self.module.config.positive or None, bootstrap_samples=bootstrap_samples, seed=seed, fitted=fitted,
        )

    def judged(self, examples: Examples) -> Judged:
        """What is predicted for labelled texts, and how probable; with many classes a part of the texts at a time, so
        that memory stays bounded."""
        classes, at_once = class_numbers(examples, self.labels), max(1, _PROBABILITIES_AT_ONCE // len(self.labels))
        parts = []
        for start in range(0, max(1, len(examples)), at_once):
            probabilities = self.probabilities(examples.texts[start : start + at_once])
            parts.append(Judged.of(probabilities, classes[start : start + at_once], self.classes(probabilities)))
        return Judged.joined(parts)


class BagClassifier(Classifier):
    """A classifier of bags of n-grams."""

    module: Bag

    def __init__(self, module: Bag, features: FeatureIndex, path: Path | None = None) -> None:
        if len(features) != module.config.n_features:
            raise CheckpointError(f"{path}: {len(features):,} features, but the model has rows for "
                                  f"{module.config.n_features:,}; they do not belong together")
        super().__init__(module, path)
        self.features = features

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        logits = classify_bags(self.module, self.features.encode(texts), self.device)
        return logits.reshape(len(texts), len(self.labels)).numpy().astype(np.float64)

    def effects(self, text: str, target: int) -> tuple[Word, ...]:
        """Each feature's effect is shared out to the characters that it stands for."""
        bag = self.features.encode([text])
        weights = bag.weights.to(self.device).requires_grad_()
        with torch.enable_grad():
            logits = self.module(bag.rows.to(self.device), weights, bag.offsets[:-1].to(self.device))[0]
            gradient, = torch.autograd.grad(lead(logits, target), weights)
        effect = (gradient * weights).detach().cpu().double().numpy()
        found = self.features.occurrences(text)
        place = np.searchsorted(bag.rows.numpy(), found.rows)  # rows of one text are distinct and rising
        share = effect[place] / np.bincount(place, minlength=len(effect))[place] if len(place) else effect
        length = np.maximum(found.end - found.start, 1)
        steps = np.zeros(len(text) + 1)
        np.add.at(steps, found.start, share / length)
        np.add.at(steps, np.minimum(found.start + length, len(text)), -share / length)
        totals = np.concatenate(([0.0], np.cumsum(np.cumsum(steps[:-1]))))
        units = _units(text, self.features.settings)
        return tuple(Word(a, b, float(totals[b] - totals[a])) for a, b in units)

    def save(self, folder: Path, run: dict[str, Any] | None = None) -> None:
        what = f"Bag of {self.module.config.n_features:,} words, word n-grams and character n-grams"
        save_model(folder, self.module, self.features, run=run, card=card(self.labels, what))

    def with_config(self, **changes: Any) -> "BagClassifier":
        module = Bag(dataclasses.replace(self.module.config, **changes))
        module.load_state_dict(self.module.state_dict(), assign=True)
        return BagClassifier(module.requires_grad_(False), self.features, None)

    def quantised(self, max_bytes: int) -> "BagClassifier":
        """A product-quantised classifier whose files take about ``max_bytes``: features with the largest rows are kept
        (Joulin et al. 2016), each row is a few bytes that name centroids. ``ConfigError`` when even the smallest is
        larger."""
        config = self.module.config
        if config.code_bytes:
            raise ConfigError("the model is quantised already")
        code_bytes = _code_bytes(config.row_width)
        overhead = 20_000 + sum(p.numel() for n, p in self.module.named_parameters() if n != "features") * 4 \
            + 256 * config.row_width * 4 + sum(len(label.encode()) + 8 for label in self.labels)
        most = (max_bytes - overhead) // (4 + 1 + code_bytes)
        if most < 1:
            raise ConfigError(f"--max-bytes: a quantised model of this shape takes about {overhead:,} bytes before its "
                              f"first feature, {max_bytes:,} are left for both")
        rows = self.module.features.detach()
        centred = rows.clone()  # what all classes share decides nothing
        centred[:, : len(self.labels)] -= centred[:, : len(self.labels)].mean(1, keepdim=True)
        effect = centred.norm(dim=1) * torch.from_numpy(self.features.weights)
        kept = effect.argsort(descending=True, stable=True)[: min(most, len(rows))].sort().values
        codes, codebooks = product_quantise(centred[kept], code_bytes)
        module = Bag(dataclasses.replace(config, n_features=len(kept), code_bytes=code_bytes))
        state = {n: p for n, p in self.module.state_dict().items() if n != "features"}
        module.load_state_dict(state | {"codes": codes, "codebooks": codebooks}, assign=True)
        return BagClassifier(module.requires_grad_(False), self.features.pruned(kept.numpy()).quantised())


class SequenceClassifier(Classifier):
    """A recurrent classifier of words in their order."""

    module: RecurrentClassifier

    def __init__(self, module: RecurrentClassifier, words: WordSequences, path: Path | None = None) -> None:
        if tuple(words.features.sizes.values()) != module.config.feature_sizes:
            raise CheckpointError(f"{path}: the words' table and the model do not belong together; copy both again")
        super().__init__(module, path)
        self.words = words

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        n_before = self.words.n_cut
        encoded = self.words.encode(texts)
        self._tell_of_cuts(self.words.n_cut - n_before, len(texts),
                           f"{self.words.longest:,} {self.words.features.unit}s: their middle is not read")
        logits = classify_sequences(self.module, encoded, self.device)
        return logits.reshape(len(texts), len(self.labels)).numpy().astype(np.float64)

    def cuts(self, text: str) -> bool:
        return self.words.cuts(text)

    def effects(self, text: str, target: int) -> tuple[Word, ...]:
        features, characters, lengths = (x.to(self.device) for x in collate_texts(self.words.encode([text])))
        words_BTW = self.module.embed(features, characters).detach().requires_grad_()
        with torch.enable_grad():
            gradient, = torch.autograd.grad(lead(self.module.classify(words_BTW, lengths)[0], target), words_BTW)
        effect = (gradient * words_BTW).sum(-1)[0].detach().cpu().double().tolist()
        return tuple(Word(p.start, p.end, score) for p, score in zip(self.words.places(text), effect, strict=False))

    def save(self, folder: Path, run: dict[str, Any] | None = None) -> None:
        config = self.module.config
        what = f"Bidirectional {config.kind.upper()} over {self.words.features.unit}s with attention"
        save_model(folder, self.module, self.words, run=run, card=card(self.labels, what))

    def with_config(self, **changes: Any) -> "SequenceClassifier":
        module = RecurrentClassifier(dataclasses.replace(self.module.config, **changes))
        module.load_state_dict(self.module.state_dict(), assign=True)
        return SequenceClassifier(module.requires_grad_(False), self.words, None)


def lead(logits_C: torch.Tensor, target: int) -> torch.Tensor:
    """How far a class's logit is above the mean of the others'."""
    return logits_C[target] - (logits_C.sum() - logits_C[target]) / (len(logits_C) - 1)


def _code_bytes(row_width: int) -> int:
    """Bytes of a row: parts of at most four numbers each, all of one size."""
    return next(n for n in range(-(-row_width // 4), row_width + 1) if row_width % n == 0)


def _units(text: str, settings: NgramSettings) -> list[tuple[int, int]]:
    """Where the words, characters and marks of ``text`` stand."""
    found = ngrams([text], NgramSettings(1, 0, 0, settings.segment))
    own = found.key >> 30 == Family.WORD
    return list(zip(found.start[own].tolist(), found.end[own].tolist(), strict=True))


def class_numbers(examples: Examples, labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """(N,) each example's number among ``labels``; a label that differs in case only counts as the same."""
    number = {label.casefold(): i for i, label in enumerate(labels)}
    unknown = Counter(label for label in examples.labels if label.casefold() not in number)
    if unknown:
        shown = ", ".join(f"'{label}'" for label in list(unknown)[:5])
        raise DataError(f"{examples.name}: {sum(unknown.values()):,} rows have labels that the training data does not: "
                        f"{shown}; it has {', '.join(labels[:10])}{' …' if len(labels) > 10 else ''}")
    return np.array([number[label.casefold()] for label in examples.labels], dtype=np.int64)


def card(labels: tuple[str, ...], what: str) -> str:
    shown = ", ".join(labels[:20]) + (" …" if len(labels) > 20 else "")
    return (f"# A text classifier\n\n{len(labels):,} classes: {shown}.\n\n{what}; see run.json for the data and the "
            "exact command.\n\n```\ntickwise run classify DIRECTORY \"a text\"\n```\n")
