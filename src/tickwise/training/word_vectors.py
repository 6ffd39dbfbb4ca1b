"""Word vectors from text: skip-gram with negative sampling, GloVe, and the SVD of (shifted) positive PMI.

All three are batches of matrix products. Words that stand in a batch several times get the sum of their gradients, and
AdaGrad steps keep such sums in bounds.

Shape legend: P pairs of a batch, G groups of them, S negatives that a group shares, V words, C width.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tickwise.core.errors import ConfigError, DataError
from tickwise.core.stages import Stage, mark
from tickwise.models.word_vectors import NamedVectors, WordVectors, WordVectorsConfig
from tickwise.profiling.ledger import Ledger
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.cooccurrence import positive_pmi, truncated_svd, window_counts
from tickwise.training.step_trace import recorded_step, recorded_steps

Method = Literal["sgns", "glove", "svd"]
# Pairs of a step, pairs that share negatives, negatives that they share (each weighs negatives / this many).
_BATCH, _GROUP, _SHARED = 8192, 128, 32
_NO_VECTOR, _NO_WORD = -1, -2
# Words that are turned into pairs at once: about 50 MB of them.
_CHUNK = 200_000
_NOISE_POWER = 0.75  # of the words' frequencies, for negatives (Mikolov et al. 2013, section 2.2)


@dataclass(frozen=True, kw_only=True)
class WordVectorSettings:
    """How word vectors are made."""

    method: Method = "sgns"
    """sgns: skip-gram with negative sampling; glove: weighted logarithms of counts; svd: factors of PPMI, which
    --shift makes shifted PPMI."""
    width: int = 100
    """Numbers per word."""
    window: int = 2
    """Words on either side that count as near. Few find words that can stand for each other, many find a topic's."""
    min_count: int = 5
    """Words that occur less often get no vector."""
    negatives: int = 5
    """Negative samples per pair (sgns)."""
    shift: float = 1.0
    """Entries are max(PMI - log shift, 0) (svd): skip-gram with so many negatives factorises PMI - log shift (Levy &
    Goldberg 2014). 1 is PPMI; more leaves fewer pairs, which a small text can hardly spare."""
    subsample: float = 0.0
    """Words more frequent than this share are left out at random (sgns, svd), which saves time on large texts; 0 keeps
    all."""
    epochs: int = 10
    """Passes over the text (sgns) or over the counts (glove)."""
    lr: float = 0.05
    """Learning rate of AdaGrad (sgns, glove)."""
    glove_max: float = 20.0
    """Counts from here on weigh fully (glove)."""
    lowercase: bool = False
    """Treat words that differ in case as one."""
    seed: int = 0
    """Of everything that is drawn."""

    def __post_init__(self) -> None:
        for name in ("width", "window", "min_count", "negatives", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')}: must be at least 1, got {getattr(self, name)}")
        if self.method not in ("sgns", "glove", "svd"):
            raise ConfigError(f"--method {self.method}: not one of sgns, glove, svd")
        for name in ("lr", "glove_max"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ConfigError(f"--{name.replace('_', '-')}: must be positive, got {getattr(self, name)}")
        if not (self.shift >= 1 and math.isfinite(self.shift)):
            raise ConfigError(f"--shift: must be at least 1, got {self.shift}")
        if not 0 <= self.subsample < 1:
            raise ConfigError(f"--subsample: must be from 0 to below 1, got {self.subsample}")


class WordText(NamedTuple):
    """A text as numbers of words, -1 where a word has none; words by falling frequency."""

    numbers: NDArray[numpy.int64]
    words: tuple[str, ...]
    counts: NDArray[numpy.int64]


def word_text(ids: NDArray[Any], tokenizer: Tokenizer, *, min_count: int, lowercase: bool = False) -> WordText:
    """The words of a tokenized text: tokens without the space around them, so that `` king`` and ``king`` are one.

    Line ends and special tokens are no words and do not stand between words; rare and unknown words do, without a
    vector. Raises ``DataError`` when fewer than two words are frequent enough.
    """
    index: dict[str, int] = {}
    word_of = numpy.full(tokenizer.vocab_size, _NO_WORD, dtype=numpy.int64)
    for token_id in range(tokenizer.vocab_size):
        if token_id in (tokenizer.eos_id, tokenizer.bos_id) or tokenizer.is_special(token_id):
            continue
        if token_id == tokenizer.unk_id:
            word_of[token_id] = _NO_VECTOR
            continue
        word = (tokenizer.backend.id_to_token(token_id) or "").strip()
        if word:
            word_of[token_id] = index.setdefault(word.lower() if lowercase else word, len(index))
    names = list(index)
    numbers = word_of[ids]
    numbers = numbers[numbers != _NO_WORD]
    counts = numpy.bincount(numbers[numbers >= 0], minlength=len(names))
    kept = numpy.flatnonzero(counts >= min_count)
    kept = kept[numpy.argsort(-counts[kept], kind="stable")]
    if len(kept) < 2:
        raise DataError(f"fewer than two words occur {min_count} times; give more text or a lower --min-count")
    renumbered = numpy.full(len(names) + 1, _NO_VECTOR, dtype=numpy.int64)  # the last one is that of _NO_VECTOR itself
    renumbered[kept] = numpy.arange(len(kept))
    return WordText(renumbered[numbers], tuple(names[number] for number in kept), counts[kept])


def train_word_vectors(
    text: WordText, settings: WordVectorSettings,
    on_progress: Callable[[int, float], None] = lambda epoch, loss: None, trace: Path | None = None,
) -> NamedVectors:
    """Vectors of the words of ``text``. ``on_progress`` hears of every pass and its mean loss (not with svd). In a
    ``trace`` every update is a tick; with svd, counting and factorising are one."""
    with recorded_steps(trace, f"word vectors ({settings.method})", torch.device("cpu")) as ledger:
        if settings.method == "svd":
            with recorded_step(ledger, len(text.numbers)):
                weight = _ppmi_svd(text, settings)
        elif settings.method == "glove":
            weight = _glove(text, settings, on_progress, ledger)
        else:
            weight = _skip_gram(text, settings, on_progress, ledger)
    module = WordVectors(WordVectorsConfig(vocab_size=len(text.words), width=weight.shape[1]))
    module.weight.data = weight
    return NamedVectors(text.words, module.eval())


def _ppmi_svd(text: WordText, settings: WordVectorSettings) -> Tensor:
    """Rows of U S, of (shifted) positive pointwise mutual information."""
    mark(Stage.DATA)
    numbers = _subsampled(text, settings, numpy.random.default_rng(settings.seed))
    ppmi = positive_pmi(window_counts(numbers, len(text.words), settings.window), shift=settings.shift)
    if not len(ppmi.values):
        often, instead = ("more often than by chance", "") if settings.shift == 1 else (
            f"more than {settings.shift:g} times as often as by chance", " or a lower --shift")
        raise DataError(f"no two words stand together {often}; give more text{instead}")
    mark(Stage.FORWARD)
    left, values, _ = truncated_svd(ppmi, settings.width, settings.seed)
    return left * values


class _AdaGrad:
    """A matrix and the squares of its gradients (Duchi, Hazan & Singer 2011)."""

    def __init__(self, weight: Tensor, lr: float) -> None:
        self.weight, self.lr = weight, lr
        self._squares = torch.zeros_like(weight)

    def descend(self, gradient: Tensor) -> None:
        self._squares.addcmul_(gradient, gradient)
        self.weight.addcdiv_(gradient, (self._squares + 1e-10).sqrt_(), value=-self.lr)


def _uniform(rows: int, width: int, generator: torch.Generator) -> Tensor:
    return (torch.rand(rows, width, generator=generator) - 0.5) / width


# ---------------------------------------------------------------- skip-gram with negative sampling


def _skip_gram(text: WordText, settings: WordVectorSettings, on_progress: Callable[[int, float], None],
               ledger: Ledger | None) -> Tensor:
    """Mikolov et al. (2013), equation 4. Negatives are shared by the pairs of a group, weighed to be as many."""
    random = numpy.random.default_rng(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    n_words = len(text.words)
    centres = _AdaGrad(_uniform(n_words, settings.width, generator), settings.lr)
    contexts = _AdaGrad(torch.zeros(n_words, settings.width), settings.lr)
    noise = torch.from_numpy(text.counts**_NOISE_POWER).cumsum(0)
    for epoch in range(1, settings.epochs + 1):
        loss, n_pairs = 0.0, 0
        for centre_P, context_P in _pair_batches(text, settings, random):
            with recorded_step(ledger, len(centre_P)):
                mark(Stage.SAMPLE)
                draws = torch.rand(len(centre_P) // _GROUP * _SHARED, generator=generator, dtype=torch.float64)
                negatives = torch.searchsorted(noise, draws * noise[-1]).clamp(max=n_words - 1)
                loss += _skip_gram_step(centres, contexts, centre_P, context_P, negatives, settings.negatives)
            n_pairs += len(centre_P)
        if not n_pairs:
            raise DataError("the text has too few words near each other to train on; give more text, a lower "
                            "--min-count or --subsample 0")
        on_progress(epoch, loss / n_pairs)
    return centres.weight


def _skip_gram_step(centres: _AdaGrad, contexts: _AdaGrad, centre_P: Tensor, context_P: Tensor, negatives: Tensor,
                    n_negatives: int) -> float:
    """One step on a batch; returns the sum of its losses."""
    mark(Stage.FORWARD)
    width = centres.weight.shape[1]
    centre_PC, context_PC = centres.weight[centre_P], contexts.weight[context_P]
    negative_GSC = contexts.weight[negatives].view(-1, _SHARED, width)
    centre_GPC = centre_PC.view(-1, _GROUP, width)
    weight = n_negatives / _SHARED
    score_P = (centre_PC * context_PC).sum(1)
    noise_GPS = torch.bmm(centre_GPC, negative_GSC.transpose(1, 2))
    pull_P1 = -torch.sigmoid(-score_P).unsqueeze(1)
    push_GPS = torch.sigmoid(noise_GPS) * weight
    mark(Stage.BACKWARD)
    centre_gradient = torch.bmm(push_GPS, negative_GSC).view(-1, width) + pull_P1 * context_PC
    negative_gradient = torch.bmm(push_GPS.transpose(1, 2), centre_GPC).view(-1, width)
    loss = -F.logsigmoid(score_P).sum() - weight * F.logsigmoid(-noise_GPS).sum()
    mark(Stage.OPTIMIZER)
    centres.descend(torch.zeros_like(centres.weight).index_add_(0, centre_P, centre_gradient))
    moved = torch.zeros_like(contexts.weight).index_add_(0, context_P, pull_P1 * centre_PC)
    contexts.descend(moved.index_add_(0, negatives, negative_gradient))
    return float(loss)


def _subsampled(text: WordText, settings: WordVectorSettings, random: numpy.random.Generator) -> NDArray[numpy.int64]:
    """The text without rare words, and without frequent ones at random (word2vec's rule: √(t/f) + t/f stay)."""
    numbers = text.numbers[text.numbers >= 0]
    if settings.subsample:
        share = settings.subsample / (text.counts / text.counts.sum())
        numbers = numbers[random.random(len(numbers)) < (numpy.sqrt(share) + share)[numbers]]
    return numbers


def _pair_batches(
    text: WordText, settings: WordVectorSettings, random: numpy.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass: (centres, contexts), each (P,), where P is a multiple of the group size. Each centre draws its window
    from 1 to ``window``; pairs are shuffled within a chunk of text, and fewer than a group at its end are left out."""
    numbers = _subsampled(text, settings, random)
    for start in range(0, len(numbers), _CHUNK):
        chunk = numbers[start : start + _CHUNK]
        reach = random.integers(1, settings.window + 1, size=len(chunk))
        pairs = []
        for distance in range(1, min(settings.window, len(chunk) - 1) + 1):
            left, right = chunk[:-distance], chunk[distance:]
            sees_right, sees_left = reach[:-distance] >= distance, reach[distance:] >= distance
            pairs += [numpy.stack([left[sees_right], right[sees_right]]),
                      numpy.stack([right[sees_left], left[sees_left]])]
        if not pairs:
            continue
        both = numpy.concatenate(pairs, axis=1)
        if not both.size:
            continue
        # A text of less than a group is repeated until it makes one.
        order = numpy.resize(random.permutation(both.shape[1]), max(_GROUP, both.shape[1]))
        for at in range(0, len(order) - _GROUP + 1, _BATCH):
            chosen = order[at : at + _BATCH]
            chosen = chosen[: len(chosen) // _GROUP * _GROUP]
            yield torch.from_numpy(both[0, chosen]), torch.from_numpy(both[1, chosen])


# ---------------------------------------------------------------- GloVe


def _glove(text: WordText, settings: WordVectorSettings, on_progress: Callable[[int, float], None],
           ledger: Ledger | None) -> Tensor:
    """Pennington, Socher & Manning (2014), equation 8; the sum of both vectors of a word, as there in section 4.2."""
    counts = window_counts(text.numbers, len(text.words), settings.window)
    if not len(counts.values):
        raise DataError("no two words stand near each other; give more text or a lower --min-count")
    row, column = torch.from_numpy(counts.rows), torch.from_numpy(counts.columns)
    value = torch.from_numpy(counts.values)
    weight_P = (value / settings.glove_max).clamp(max=1.0).pow(0.75).float()
    log_P = value.log().float()
    generator = torch.Generator().manual_seed(settings.seed)
    n_words, width = len(text.words), settings.width
    sides = [_AdaGrad(_uniform(n_words, width, generator), settings.lr) for _ in range(2)]
    biases = [_AdaGrad(torch.zeros(n_words), settings.lr) for _ in range(2)]
    for epoch in range(1, settings.epochs + 1):
        loss = 0.0
        for at in torch.randperm(len(row), generator=generator).split(2 * _BATCH):
            with recorded_step(ledger, len(at)):
                mark(Stage.FORWARD)
                places = (row[at], column[at])
                vectors = [side.weight[place] for side, place in zip(sides, places, strict=True)]
                error = (vectors[0] * vectors[1]).sum(1) - log_P[at]
                error += biases[0].weight[places[0]] + biases[1].weight[places[1]]
                pull = weight_P[at] * error
                loss += float(pull @ error)
                mark(Stage.OPTIMIZER)
                for own, place in enumerate(places):
                    gradient = pull.unsqueeze(1) * vectors[1 - own]
                    sides[own].descend(torch.zeros_like(sides[own].weight).index_add_(0, place, gradient))
                    biases[own].descend(torch.zeros_like(biases[own].weight).index_add_(0, place, pull))
        on_progress(epoch, loss / len(row))
    return sides[0].weight + sides[1].weight
