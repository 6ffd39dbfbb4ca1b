"""More training texts from those there are: words swapped, left out, split, or replaced by neighbours.

Source: Wei & Zou 2019, "EDA: easy data augmentation techniques"; synonyms come from word vectors instead of a lexicon.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tickwise.core.errors import ConfigError
from tickwise.text.segment import HAN_RUN, cut_chinese

_WORD = re.compile(r"\S+")
_SPACES = re.compile(" {2,}")
Synonyms = Callable[[str], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """How many altered copies a training text gets, and which share of its words each kind of change touches."""

    copies: int = 0
    """Altered copies per text; 0 adds none."""
    swap: float = 0.1
    """Share of words that change places with another."""
    delete: float = 0.1
    """Share of words that are left out."""
    split: float = 0.0
    """Share of words that are cut in two."""
    synonym: float = 0.0
    """Share of words replaced by a neighbour among word vectors."""

    def __post_init__(self) -> None:
        if self.copies < 0:
            raise ConfigError(f"--augment.copies: must not be negative, got {self.copies}")
        for name in ("swap", "delete", "split", "synonym"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"--augment.{name}: must be in [0, 1], got {getattr(self, name)}")


def augmented(texts: Sequence[str], labels: Sequence[str], options: AugmentOptions, seed: int,
              synonyms: Synonyms | None = None) -> tuple[list[str], list[str], list[int]]:
    """The texts with their labels, then ``copies`` altered copies of each (fewer where nothing can be altered); and for
    each the number of the text that it is or was made of.

    ``synonyms`` gives the neighbours of a word, nearest first; ``ConfigError`` when they are asked for without it.
    """
    if options.copies and options.synonym and synonyms is None:
        raise ConfigError("--augment.synonym: needs word vectors")
    all_texts, all_labels, sources = list(texts), list(labels), list(range(len(texts)))
    chooser = random.Random(seed)
    for _ in range(options.copies):
        for source, (text, label) in enumerate(zip(texts, labels, strict=True)):
            changed = altered(text, options, chooser, synonyms)
            if changed != text:
                all_texts.append(changed)
                all_labels.append(label)
                sources.append(source)
    return all_texts, all_labels, sources


def altered(text: str, options: AugmentOptions, chooser: random.Random, synonyms: Synonyms | None = None) -> str:
    """One altered copy. Chinese words are jieba's; at least one word stays."""
    pieces = _pieces(text)
    words = [i for i, (_, is_word) in enumerate(pieces) if is_word]
    if not words:
        return text
    parts = [part for part, _ in pieces]
    for i in words:
        if options.synonym and synonyms is not None and chooser.random() < options.synonym:
            near = synonyms(parts[i])
            if near:
                parts[i] = chooser.choice(list(near))
        if len(parts[i]) > 3 and chooser.random() < options.split:
            cut = chooser.randrange(1, len(parts[i]))
            parts[i] = f"{parts[i][:cut]} {parts[i][cut:]}"
    for _ in range(_n_swaps(options.swap, len(words), chooser)):
        a, b = chooser.sample(words, 2)
        parts[a], parts[b] = parts[b], parts[a]
    kept = [i for i in words if chooser.random() >= options.delete] or [chooser.choice(words)]
    left = set(words) - set(kept)
    changed = "".join("" if i in left else part for i, part in enumerate(parts)).strip()
    return _SPACES.sub(" ", changed) if left else changed


def _n_swaps(share: float, n_words: int, chooser: random.Random) -> int:
    """How many pairs change places so that on average ``share`` of the words do: what is no whole pair is drawn."""
    if n_words < 2:
        return 0
    pairs = share * n_words / 2
    return int(pairs) + (chooser.random() < pairs % 1)


def _pieces(text: str) -> list[tuple[str, bool]]:
    """(piece, is it a word): the pieces joined are the text."""
    pieces: list[tuple[str, bool]] = []
    at = 0
    for word in _WORD.finditer(text):
        pieces.append((text[at : word.start()], False))
        inside = word.start()
        for run in HAN_RUN.finditer(text, word.start(), word.end()):
            pieces.append((text[inside : run.start()], inside < run.start()))
            pieces += [(part, True) for part in cut_chinese(run.group())]
            inside = run.end()
        pieces.append((text[inside : word.end()], inside < word.end()))
        at = word.end()
    return [*pieces, (text[at:], False)]
