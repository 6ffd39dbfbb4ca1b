"""Sentences as vectors, by a fine-tuned encoder: train, embed, find the likest."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from tickwise.core.console import progress, say
from tickwise.core.device import resolve_device
from tickwise.core.errors import ConfigError, DataError, NumericsError
from tickwise.data.encoder_inputs import TextIds
from tickwise.data.pairs import identity
from tickwise.data.rows import numbered_lines
from tickwise.interop.directory import load_module, read_config, resolve_model_path
from tickwise.interop.warm_start import encoder_like, headed_encoder, warm_start
from tickwise.models.encoder_heads import SentenceEmbedder, SentenceEmbedderConfig
from tickwise.tasks.fine_tune_options import FineTuneOptions
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.config import AdaptLoopConfig
from tickwise.training.contrastive import Contrastive, check_whole
from tickwise.training.distributed.ranks import is_one_of_several, n_ranks
from tickwise.training.encoder_classification import encoded_outputs
from tickwise.training.run import TrainResult, check_outputs, train_module

_DEV_SHARE, _MOST_DEV = 0.05, 1000
_FEWEST = 4
_AT_ONCE = 1024
"""Texts that are read between two signs of progress."""

Partners = tuple[str, str]
"""Two texts that say the same, or a text twice."""


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(AdaptLoopConfig):
    """One fine-tuning of a sentence embedder."""

    encoder: Path
    """Model or run directory to start from."""
    train: tuple[str, ...]
    dev: tuple[str, ...] = ()
    tuning: FineTuneOptions = field(default_factory=FineTuneOptions)


def read_partners(sources: Sequence[str]) -> list[Partners]:
    """Of each line the two texts that a tab separates; a line without a tab is its own partner. Blank lines are left
    out; ``DataError`` for a file that cannot be read, or a line with more tabs."""
    pairs = []
    for source, number, line in numbered_lines([Path(source) for source in sources]):
        parts = [part.strip() for part in line.split("\t")]
        if not any(parts):
            continue
        if len(parts) > 2 or not all(parts):
            raise DataError(f"{source}, line {number}: a line is a text, or two texts with a tab between them")
        pairs.append((parts[0], parts[-1]))
    if len(pairs) < _FEWEST:
        raise DataError(f"{', '.join(sources)}: {len(pairs)} texts; at least {_FEWEST} are told apart")
    return pairs


def train_embedder(config: EmbedConfig, test: Sequence[Partners] = ()) -> TrainResult:
    """Fine-tune ``config.encoder`` so that partners are near each other; keeps the model with the lowest loss on the
    development pairs (a twentieth, by their text, where none are given), or the last one where too few development
    texts have a partner other than themselves to be found by. No text of theirs is trained on, nor one of ``test``, by
    which the model will be scored."""
    check_whole(config.accumulate * (n_ranks() if is_one_of_several() else 1))
    check_outputs(config)
    pairs, developing = split_partners(_without(read_partners(config.train), test, "training"),
                                       _without(read_partners(config.dev), test, "development") if config.dev else None)
    if len(pairs) < 2:
        raise DataError(f"{', '.join(config.train)}: nothing is left to train on that has no text of the development "
                        f"{'or test ' if test else ''}pairs")
    source, options = resolve_model_path(config.encoder), config.tuning
    tokenizer = Tokenizer.load(source)
    module = headed_encoder(SentenceEmbedder, SentenceEmbedderConfig, source, config.seed, fresh=options.fresh,
                            dropout=options.dropout)
    reader = TextIds(tokenizer, module.config.context_length)

    def encoded(part: Sequence[Partners]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
        return reader.encode([left for left, _ in part]), reader.encode([right for _, right in part])

    objective = Contrastive(*encoded(pairs), encoded(developing) if developing else None, reader.marks,
                            batch_size=options.batch_size, seed=config.seed, word_dropout=options.word_dropout)
    _say_cuts(reader, 2 * (len(pairs) + len(developing)))
    loop = {f.name: getattr(config, f.name) for f in dataclasses.fields(AdaptLoopConfig)} | options.loop_settings()
    steps = max(1, round(options.epochs * objective.steps_per_epoch))
    if loop["max_steps"] is None:
        loop["max_steps"] = steps
    loop["evaluate_every"] = config.evaluate_every or max(1, steps // 8)
    digest = xxhash.xxh3_128_hexdigest("\0".join(f"{a}\t{b}" for a, b in pairs).encode("utf-8", "surrogatepass"))
    own = sum(left == right for left, right in pairs)
    return train_module(
        AdaptLoopConfig(**loop), module, objective, tokenizer,
        data={"source": ", ".join(config.train), "fingerprint": digest, "pairs": len(pairs)},
        lines=[f"{len(pairs):,} pairs ({own:,} of a text with itself), {len(developing):,} to choose the model by"],
    )


def _without(pairs: list[Partners], test: Sequence[Partners], part: str) -> list[Partners]:
    """The pairs that have no text of the test pairs; how many have one is said."""
    held = {identity(text) for pair in test for text in pair}
    kept = [pair for pair in pairs if held.isdisjoint(map(identity, pair))]
    if n := len(pairs) - len(kept):
        say(f"{n:,} {part} pairs have a text of the test pairs; left out")
    return kept


def split_partners(pairs: Sequence[Partners],
                   given: Sequence[Partners] | None) -> tuple[list[Partners], list[Partners]]:
    """(training, developing): no text (its ``identity``) is in both. Pairs that are linked by texts which they have in
    common go one way together, and are trained on where they are too many to be held back. ``given`` is the
    development part; None has one made."""
    if given is None:
        developing, why_not = _held_back(pairs)
        if len(developing) < _FEWEST:
            say(f"{why_not}: none are held back, and the last model is kept; give a --dev of pairs of other texts")
    else:
        developing = [(left, right) for left, right in given if left != right]
        if len(developing) < _FEWEST:
            say(f"--dev: {len(developing)} usable pairs (of two different texts), at least {_FEWEST} are needed to "
                "choose the model by; the last model is kept")
    if len(developing) < _FEWEST:
        return list(pairs), []
    held = {identity(text) for pair in developing for text in pair}
    training = [pair for pair in pairs if held.isdisjoint(map(identity, pair))]
    n_known = len(pairs) - len(training) - (len(developing) if given is None else 0)
    if n_known:
        say(f"{n_known:,} training pairs have a text of the development pairs; left out")
    return training, developing


def _held_back(pairs: Sequence[Partners]) -> tuple[list[Partners], str]:
    """The pairs of different texts of about a twentieth of all groups, drawn by a text; and why these are few, where
    they are."""
    groups: dict[str, list[Partners]] = {}
    for name, pair in zip(_linked(pairs), pairs, strict=True):
        groups.setdefault(name, []).append(pair)
    held: list[Partners] = []
    n_different = n_eligible = 0
    for group in groups.values():
        own = [(left, right) for left, right in group if left != right]
        n_different += len(own)
        if not own or len(group) > max(_FEWEST, _DEV_SHARE * len(pairs)):
            continue
        n_eligible += len(own)
        drawn = xxhash.xxh3_64_intdigest(own[0][0].encode("utf-8", "surrogatepass")) / 2**64 < _DEV_SHARE
        if drawn and len(held) + len(own) <= _MOST_DEV:
            held += own
    if not n_different:
        return held, "no pair has two different texts to choose the model by"
    if n_different * _DEV_SHARE < _FEWEST:
        return held, f"a twentieth of {n_different:,} pairs is fewer than {_FEWEST}"
    if n_eligible * _DEV_SHARE < _FEWEST:
        return held, (f"{n_eligible:,} of {n_different:,} pairs are linked to few enough others to be held back, and a "
                      f"twentieth of them is fewer than {_FEWEST}")
    return held, f"of {n_eligible:,} pairs {len(held)} were drawn to be held back, fewer than {_FEWEST}"


def _linked(pairs: Sequence[Partners]) -> list[str]:
    """For each pair what its group is called: pairs that have a text in common, directly or by way of others."""
    above: dict[str, str] = {}

    def top(text: str) -> str:
        while above.setdefault(text, text) != text:
            above[text] = above[above[text]]
            text = above[text]
        return text

    for left, right in pairs:
        above[top(identity(left))] = top(identity(right))
    return [top(identity(left)) for left, _ in pairs]


class Embedder:
    """Texts to vectors of length 1. A plain encoder's are its mean states; one that was fine-tuned for it (tickwise
    adapt --task embed) is better.

    >>> embedder = Embedder.load("out/embedder")                # doctest: +SKIP
    >>> embedder.embed(["a cat", "a kitten"]) @ embedder.embed(["a dog"]).T    # doctest: +SKIP
    """

    def __init__(self, module: SentenceEmbedder, tokenizer: Tokenizer) -> None:
        self.module = module.eval()
        self.texts = TextIds(tokenizer, module.config.context_length)
        self.device = next(module.parameters()).device
        self._told_of_cuts = False

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> "Embedder":
        """Of a model or run directory; ``CheckpointError`` when it is no encoder."""
        folder = resolve_model_path(Path(path))
        if read_config(folder)[0].module_name == SentenceEmbedder.__name__:
            module = load_module(folder, device=device)
            assert isinstance(module, SentenceEmbedder)
        else:
            module = encoder_like(SentenceEmbedder, SentenceEmbedderConfig, folder, seed=0)
            warm_start(module, folder)
            module = module.requires_grad_(False).to(resolve_device(device))
            say(f"{path}: not fine-tuned for vectors of texts, which are the means of its states; tickwise adapt "
                "--task embed makes better ones")
        return cls(module, Tokenizer.load(folder))

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self.module.config.width

    def embed(self, texts: Sequence[str], advance: Callable[[float], None] | None = None) -> NDArray[np.float32]:
        """(N, C); zeros for a text without a token. Of a text longer than the encoder reads the beginning counts, which
        is said once. ``advance`` is told how many more texts are done. ``NumericsError`` for vectors that are no finite
        numbers."""
        self.texts.n_cut = 0
        parts = [np.zeros((0, self.width), dtype=np.float32)]
        for start in range(0, len(texts), _AT_ONCE):
            rows = self.texts.encode(texts[start : start + _AT_ONCE])
            outputs = encoded_outputs(self.module, rows, self.texts.marks, self.device)
            vectors = outputs.numpy().reshape(len(rows), self.width)
            vectors[[len(row) <= 2 for row in rows]] = 0
            if not np.isfinite(vectors).all():
                raise NumericsError("the encoder's vectors are no finite numbers; its weights are damaged, train it "
                                    "again")
            parts.append(vectors)
            if advance is not None:
                advance(len(rows))
        if not self._told_of_cuts:
            self._told_of_cuts = _say_cuts(self.texts, len(texts))
        return np.concatenate(parts)


def _say_cuts(reader: TextIds, n_texts: int) -> bool:
    """Say that some of the texts that were encoded were cut, and return whether."""
    if reader.n_cut:
        say(f"{reader.n_cut:,} of {n_texts:,} texts are longer than the encoder's {reader.longest:,} tokens; only the "
            "beginning of such texts counts")
    return bool(reader.n_cut)


@dataclass(frozen=True)
class Near:
    """A text that was found, its number among those searched, and the cosine to what it was searched with."""

    text: str
    number: int
    cosine: float


class SimilarTexts:
    """Texts to search in by meaning; blank ones are never found, and equal ones once, by the first of them.
    ``DataError`` when there are none."""

    def __init__(self, embedder: Embedder, texts: Sequence[str]) -> None:
        firsts: dict[str, int] = {}
        for number, text in enumerate(texts):
            if text.strip():
                firsts.setdefault(text, number)
        self._numbers = list(firsts.values())
        if not firsts:
            raise DataError("no texts to search in")
        self._embedder, self._texts = embedder, texts
        with progress("embedding", len(firsts), "texts") as bar:
            self._vectors = embedder.embed(list(firsts), bar.advance)

    def find(self, queries: Sequence[str], n: int = 10, *, others: bool = False) -> list[list[Near]]:
        """For each query the ``n`` texts with the highest cosine, best first; with ``others``, without those equal to
        it."""
        if n < 1:
            raise ConfigError(f"--n: must be at least 1, got {n}")
        cosines = self._embedder.embed(queries) @ self._vectors.T
        found = []
        for query, row in zip(queries, cosines.clip(-1, 1), strict=True):
            near = (Near(self._texts[self._numbers[i]], self._numbers[i], float(row[i]))
                    for i in np.argsort(-row, kind="stable"))
            found.append(list(itertools.islice((one for one in near if not others or one.text != query), n)))
        return found
