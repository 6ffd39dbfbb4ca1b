"""The next word of a story, by a count of n-grams and by a decoder that has the same tokens."""

import random
from pathlib import Path
from typing import TYPE_CHECKING

from tickwise.compare.cases import NEW, NOISY, SEEN, Case, Material, in_typing_errors, mistyped
from tickwise.compare.contestants import Classical
from tickwise.compare.learners import Decoders, Texts
from tickwise.compare.search_programs import NextWord
from tickwise.compare.setting import Prepared, Setting
from tickwise.compare.spelling import corrected
from tickwise.core.errors import DataError

if TYPE_CHECKING:
    from tickwise.tokenizers.tokenizer import Tokenizer

_VOCABULARY, _CONTEXT, _WORDS = 2048, 64, 24
_ORDER = 5
_MOST_DRAWS = 100
_SHARES = (0.85, 0.05, 0.1)
"""Of the text in its order: training, development, test."""
_NOISY_CHARACTERS = 500_000
_LEARNT_FROM = 2_000
"""Contexts of the training text that stand for it where cases are asked for."""


def next_word(setting: Setting, folder: Path, path: Path) -> Prepared:
    """``DataError`` for a text without enough words."""
    from tickwise.interop.directory import load_module
    from tickwise.models.ngram import Ngram
    from tickwise.training.tables import NgramTrainConfig, train_ngram

    parts = _parts(path.read_text(encoding="utf-8"))
    rng = random.Random(setting.seed)
    training, development, test = parts
    some = training[:_NOISY_CHARACTERS]
    learner = Decoders(
        Texts(training, development),
        Texts(some + _noisy(some, rng), development + _noisy(development, rng)),
        context=_CONTEXT, vocab_size=_VOCABULARY, depth=3, batch_size=32, template="{}", most_tokens=1)
    data = learner.prepared(folder / "model")
    n = setting.n

    def cases(text: str, most: int) -> tuple[Case, ...]:
        found = _cases(data.tokenizer, text, most, rng)
        if not found:
            raise DataError(f"{path}: too short, or without words between spaces; give a longer story")
        return found

    new, choosing = cases(test, n), cases(development, n)
    material = Material(
        cases(training, _LEARNT_FROM), choosing,
        {SEEN: cases(training, n), NEW: new, NOISY: in_typing_errors(new, rng)}, (), in_typing_errors(choosing, rng),
        "the next token of children's stories, where it begins a word")
    counted = folder / "ngram"
    if not (counted / "config.json").exists():
        train_ngram(NgramTrainConfig(data=data.path, out=counted, order=_ORDER, overwrite=True))
    module = load_module(counted, device="cpu")
    assert isinstance(module, Ngram)
    program = NextWord(module, data.tokenizer)
    return Prepared(material, (Classical(program, lambda: corrected(program, [training])),), learner, most_tokens=1)


def _parts(text: str) -> list[str]:
    """The text in three, cut between lines."""
    lines = text.splitlines(keepends=True)
    parts, share = [], 0.0
    start = 0
    for own in _SHARES:
        share += own
        end, length = start, sum(map(len, lines[:start]))
        while end < len(lines) and length < share * len(text):
            length += len(lines[end])
            end += 1
        parts.append("".join(lines[start:end]))
        start = end
    return parts


def _noisy(text: str, rng: random.Random) -> str:
    return "".join(mistyped(line, rng) for line in text.splitlines(keepends=True))


def _cases(tokenizer: "Tokenizer", text: str, n: int, rng: random.Random) -> tuple[Case, ...]:
    """Contexts of so many tokens whose next token begins a word of letters, and that word."""
    tokens = tokenizer.encode(text)
    found: list[Case] = []
    for _ in range(_MOST_DRAWS * n if len(tokens) > 2 * _WORDS else 0):
        if len(found) == n:
            break
        start = rng.randrange(len(tokens) - _WORDS - 1)
        ids = tokens[start : start + _WORDS + 1]
        answer, context = tokenizer.decode(ids[-1:]), tokenizer.decode(ids[:-1])
        if tokenizer.encode(context)[1 - _ORDER :] == ids[-_ORDER:-1] and answer.startswith(" ") \
                and answer.strip().isalpha():
            found.append(Case(context, answer.strip()))
    return tuple(found)
