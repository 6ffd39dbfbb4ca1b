"""Training a tagger: batches of sentences of like length, the CRF's loss, entity F1 on the development sentences.

Shape legend: B sequences, T tokens, F features of a token, L characters of a word, K tags.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.core.errors import CheckpointError, DataError
from tickwise.data.tag_features import UNKNOWN, EncodedSentence, TagFeatures, border
from tickwise.data.tagged import Span, TaggedSentence, chunks, count_matches, to_tags
from tickwise.layers.crf import LinearChainCRF
from tickwise.models.tagger import Tagger
from tickwise.training.objective import Batch
from tickwise.training.shuffled_passes import batches_by_length

_POOL_BATCHES = 32
"""Sequences are sorted by length within this many batches: little padding, and other batches in each epoch."""


@dataclass(frozen=True)
class Example:
    """A sequence that is tagged at once: one sentence, or several neighbours with borders between them.

    ``starts`` says where each of its sentences begins and ``lengths`` how long they are."""

    encoded: EncodedSentence
    tags: NDArray[np.int64]
    starts: tuple[int, ...]
    lengths: tuple[int, ...]


def join(sentences: Sequence[EncodedSentence], tags: Sequence[NDArray[np.int64]], outside: int) -> Example:
    """Sentences one after the other with a border token, tagged ``outside``, between them."""
    parts: list[EncodedSentence] = []
    joined_tags: list[NDArray[np.int64]] = []
    starts, at = [], 0
    for sentence, its_tags in zip(sentences, tags, strict=True):
        if parts:
            parts.append(border(sentence.features.shape[1]))
            joined_tags.append(np.array([outside], dtype=np.int64))
            at += 1
        starts.append(at)
        at += len(sentence)
        parts.append(sentence)
        joined_tags.append(its_tags)
    width = max(part.characters.shape[1] for part in parts)
    characters = np.zeros((at, width), dtype=np.int64)
    row = 0
    for part in parts:
        characters[row : row + len(part), : part.characters.shape[1]] = part.characters
        row += len(part)
    features = np.concatenate([part.features for part in parts])
    return Example(EncodedSentence(features, characters), np.concatenate(joined_tags), tuple(starts),
                   tuple(len(s) for s in sentences))


def examples(sentences: Sequence[TaggedSentence], features: TagFeatures, labels: Sequence[str],
             context: int = 0) -> list[Example]:
    """Sentences as ids. Neighbours of one document are joined while they have at most ``context`` tokens together;
    0 leaves every sentence alone. ``DataError`` for a type that is not among the labels."""
    ids = {label: i for i, label in enumerate(labels)}
    groups: list[list[TaggedSentence]] = []
    size, document = 0, -1
    for sentence in sentences:
        if not groups or sentence.document != document or size + 1 + len(sentence.tokens) > context:
            groups.append([])
            size, document = 0, sentence.document
        groups[-1].append(sentence)
        size += len(sentence.tokens) + 1
    result = []
    for group in groups:
        tags = []
        for sentence in group:
            names = to_tags(len(sentence.tokens), sentence.entities)
            unknown = next((name for name in names if name not in ids), None)
            if unknown is not None:
                raise DataError(f"line {sentence.line}: the type {unknown[2:]!r} does not occur in the training data; "
                                "remove it, or train with examples of it")
            tags.append(np.array([ids[name] for name in names], dtype=np.int64))
        result.append(join([features.encode(s.tokens) for s in group], tags, ids["O"]))
    return result


def collate(batch: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Feature ids (B, T, F), character ids (B, T, L), tags (B, T) and lengths (B), zeros behind each end."""
    lengths = [len(example.encoded) for example in batch]
    n_characters = max(example.encoded.characters.shape[1] for example in batch)
    n_features = batch[0].encoded.features.shape[1]
    features = np.zeros((len(batch), max(lengths), n_features), dtype=np.int64)
    characters = np.zeros((len(batch), max(lengths), n_characters), dtype=np.int64)
    tags = np.zeros((len(batch), max(lengths)), dtype=np.int64)
    for row, example in enumerate(batch):
        n, width = len(example.encoded), example.encoded.characters.shape[1]
        features[row, :n] = example.encoded.features
        characters[row, :n, :width] = example.encoded.characters
        tags[row, :n] = example.tags
    return (torch.from_numpy(features), torch.from_numpy(characters), torch.from_numpy(tags),
            torch.tensor(lengths, dtype=torch.long))


@torch.no_grad()
def predict(module: Tagger, data: Sequence[Example], device: torch.device, *, probabilities: bool = False,
            batch_tokens: int = 4096) -> list[list[tuple[Span, float | None]]]:
    """The entities of every sentence in ``data``, in order, by the most likely tags that IOBES allows; with
    ``probabilities`` also how likely the model finds just that entity there."""
    found: list[list[list[tuple[Span, float | None]]]] = [[] for _ in data]
    was_training = module.training
    module.eval()
    for indices in batches_by_length([len(example.encoded) for example in data], batch_tokens):
        features, characters, _, lengths = (x.to(device) for x in collate([data[i] for i in indices]))
        emissions_BTK = module(features, characters, lengths)
        tags_BT = module.crf.decode(emissions_BTK, lengths)
        for row, index in enumerate(indices):
            example = data[index]
            n = len(example.encoded)
            found[index] = tagged_spans(module.crf, module.config.labels, emissions_BTK[row, :n], tags_BT[row, :n],
                                        list(zip(example.starts, example.lengths, strict=True)), probabilities)
    module.train(was_training)
    return [entities for example in found for entities in example]


def tagged_spans(crf: LinearChainCRF, labels: Sequence[str], emissions_TK: Tensor, tags_T: Tensor,
                 sentences: Sequence[tuple[int, int]], probabilities: bool) -> list[list[tuple[Span, float | None]]]:
    """The entities in the tags of a sequence, for each of its sentences (where it begins, how many tokens it has), with
    their probabilities if asked."""
    names = [labels[tag] for tag in tags_T.tolist()]
    per_sentence = [chunks(names[start : start + n]) for start, n in sentences]
    placed = [(start + span.start, start + span.end)
              for (start, _), spans in zip(sentences, per_sentence, strict=True) for span in spans]
    sure: list[float | None] = [None] * len(placed)
    if probabilities and placed:
        logs = crf.span_log_probability(emissions_TK, tags_T, torch.tensor(placed, device=tags_T.device))
        sure = list(logs.exp().clamp(max=1.0).tolist())
    rest = iter(sure)
    return [[(span, next(rest)) for span in spans] for spans in per_sentence]


def entity_figures(gold: Sequence[Sequence[Span]], guess: Sequence[Sequence[Span]]) -> dict[str, float]:
    """F1 of the entities of all sentences, and ``loss``, which is 1 − F1: a tagger is chosen by what it finds."""
    counts = [count_matches(*pair) for pair in zip(gold, guess, strict=True)]
    correct, predicted, there = (sum(column) for column in zip(*counts, strict=True))
    f1 = 2 * correct / (predicted + there) if correct else 0.0
    return {"loss": 1.0 - f1, "f1": f1}


def predict_entities(module: Tagger, data: Sequence[Example], device: torch.device) -> list[list[Span]]:
    """The entities of every sentence in ``data``, in order."""
    return [[span for span, _ in entities] for entities in predict(module, data, device)]


class TaggingObjective:
    """The loop's job for a tagger (``training/objective.py``). A batch has ``batch_tokens`` tokens, padding included;
    rare words are read as unknown now and then (``word_dropout`` is the α of ``TagFeatures.drop_rates``)."""

    def __init__(self, training: Sequence[Example], validation: Sequence[Example], gold: Sequence[Sequence[Span]],
                 features: TagFeatures, *, batch_tokens: int, word_dropout: float, seed: int) -> None:
        self.training, self.validation, self.gold = training, validation, gold
        self.batch_tokens, self.seed = batch_tokens, seed
        self.drop_rates = [torch.from_numpy(rates) for rates in features.drop_rates(word_dropout)]
        self.epoch = self.position = 0
        self.n_training_tokens = sum(len(example.encoded) for example in training)
        self._order = self._batches(0)

    @property
    def n_batches(self) -> int:
        """Batches of the first epoch; another one's may have one more or less."""
        return len(self._batches(0))

    @property
    def n_validation_tokens(self) -> int:
        return sum(len(example.encoded) for example in self.validation)

    @property
    def epochs_done(self) -> float:
        return self.epoch + self.position / len(self._order)

    def _batches(self, epoch: int) -> list[list[int]]:
        """The epoch's batches, in an order and composition that depend on the seed and the epoch alone."""
        chooser = np.random.default_rng((self.seed, epoch))
        order = chooser.permutation(len(self.training))
        mean = self.n_training_tokens / len(self.training)
        pool = max(1, round(_POOL_BATCHES * self.batch_tokens / mean))
        batches: list[list[int]] = []
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            lengths = [len(self.training[i].encoded) for i in part]
            batches += [[int(part[i]) for i in batch] for batch in batches_by_length(lengths, self.batch_tokens)]
        return [batches[i] for i in chooser.permutation(len(batches))]

    def next_batch(self) -> Batch:
        if self.position == len(self._order):
            self.epoch, self.position = self.epoch + 1, 0
            self._order = self._batches(self.epoch)
        features, characters, tags, lengths = collate([self.training[i] for i in self._order[self.position]])
        seed = np.random.SeedSequence((self.seed, self.epoch, self.position)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(seed) >> 1)
        for column, rates in enumerate(self.drop_rates):
            ids = features[..., column]
            drop = torch.rand(ids.shape, generator=generator) < rates[ids]
            ids.masked_fill_(drop, UNKNOWN)
        self.position += 1
        return Batch((features, characters, tags, lengths), int(lengths.sum()))

    @property
    def fixed_shapes(self) -> bool:
        return False

    def example(self) -> Batch:
        """The first batch of the first epoch, without dropped words."""
        features, characters, tags, lengths = collate([self.training[i] for i in self._batches(0)[0]])
        return Batch((features, characters, tags, lengths), int(lengths.sum()))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        """Rows in ``n`` parts, each of which weighs what it has of tokens."""
        parts = zip(*(x.chunk(n) for x in batch.inputs), strict=True)
        return [Batch(tuple(part), int(part[3].sum()), weight=float(part[3].sum())) for part in parts]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features, characters, tags, lengths = inputs
        assert isinstance(module, Tagger)
        return module.loss(module(features, characters, lengths), tags, lengths), ()

    def carry(self, state: tuple[Tensor, ...], micro: int) -> None:
        """Nothing goes from one batch to the next."""

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        assert isinstance(module, Tagger)
        return entity_figures(self.gold, predict_entities(module, self.validation, device))

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position, "seed": self.seed,
                "batch_tokens": self.batch_tokens, "n_training_tokens": self.n_training_tokens}

    def state_tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        for name in ("seed", "batch_tokens", "n_training_tokens"):
            if state.get(name) != getattr(self, name):
                raise CheckpointError(f"the checkpoint's data has {name} {state.get(name)}, this run "
                                      f"{getattr(self, name)}; resume with the same data and settings or start a new "
                                      "--out")
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._order = self._batches(self.epoch)
