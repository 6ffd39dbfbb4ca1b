"""Texts as an encoder reads them: ``[CLS] text [SEP]``, and the marks that a tokenizer needs for that."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import tokenizers
from tickwise.core.errors import CheckpointError, DataError
from tickwise.tokenizers.tokenizer import Tokenizer

_NAMES = {"pad": ("[PAD]", "<pad>"), "cls": ("[CLS]", "<s>"), "sep": ("[SEP]", "</s>"), "mask": ("[MASK]", "<mask>")}


@dataclass(frozen=True)
class Marks:
    """Ids of tokens that stand for no text: behind a text's end, at its beginning, at its end, in place of a word."""

    pad: int
    cls: int
    sep: int
    mask: int


def with_marks(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer of the same ids that has ``[PAD]``, ``[CLS]``, ``[SEP]`` and ``[MASK]`` besides."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    # A mask takes the place of a word and of the space before it, as when words are masked in training.
    backend.add_special_tokens([tokenizers.AddedToken(names[0], lstrip=name == "mask", special=True)
                                for name, names in _NAMES.items()])
    return Tokenizer(backend, tokenizer.kind,
                     tokenizer.config | {f"{name}_token": names[0] for name, names in _NAMES.items()})


def marks_of(tokenizer: Tokenizer) -> Marks:
    """The marks' ids; ``CheckpointError`` for a tokenizer that lacks one."""
    found = {}
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    for name, usual in _NAMES.items():
        given = tokenizer.config.get(f"{name}_token")
        given = given.get("content") if isinstance(given, dict) else given
        token = next((t for t in (given, *usual) if t in vocabulary), None)
        if token is None:
            raise CheckpointError(f"the tokenizer has no {usual[0]} token, which an encoder needs")
        found[name] = vocabulary[token]
    return Marks(**found)


class TextIds:
    """Makes ids of texts, at most ``longest`` with the marks; a longer text is cut and counted in ``n_cut``."""

    def __init__(self, tokenizer: Tokenizer, longest: int) -> None:
        if longest < 3:
            raise DataError(f"an encoder of {longest} tokens has no room for a text between its marks")
        self.tokenizer, self.longest, self.marks = tokenizer, longest, marks_of(tokenizer)
        self.n_cut = 0

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """``[CLS] text [SEP]`` of each."""
        room, rows = self.longest - 2, []
        for ids in self.tokenizer.encode_batch(list(texts)):
            self.n_cut += len(ids) > room
            rows.append(np.array([self.marks.cls, *ids[:room], self.marks.sep], dtype=np.int64))
        return rows


def padded(rows: Sequence[np.ndarray], pad: int) -> tuple[Tensor, Tensor]:
    """Ids (B, T) with ``pad`` behind each end, and lengths (B)."""
    lengths = [len(row) for row in rows]
    out = np.full((len(rows), max(lengths)), pad, dtype=np.int64)
    for number, row in enumerate(rows):
        out[number, : len(row)] = row
    return torch.from_numpy(out), torch.tensor(lengths, dtype=torch.long)


def mask_words(ids_BT: Tensor, lengths_B: Tensor, marks: Marks, share: float, draws: np.random.Generator) -> None:
    """Put the mask in place of each token of the texts, their marks aside, with the chance ``share``."""
    dropped_BT = torch.from_numpy(draws.random(ids_BT.shape, dtype=np.float32) < share)
    dropped_BT[:, 0] = False
    ids_BT[dropped_BT & (torch.arange(ids_BT.shape[1]) < lengths_B[:, None] - 1)] = marks.mask
