"""What is in prepared data or raw text: counts, samples, duplicates."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tickwise.core.config import to_dict
from tickwise.core.errors import DataError
from tickwise.data.config import PrepareConfig
from tickwise.data.prepare import prepare
from tickwise.data.prepared import PreparedData, SplitInfo, TokenSplit

_COUNT_BLOCK_TOKENS = 1 << 24


@dataclasses.dataclass(frozen=True)
class Sample:
    """Tokens at the start of a document: their ids, and the text of each."""

    split: str
    document: int
    ids: list[int]
    pieces: list[str]
    text: str


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of ``tickwise data check``. used_ids: how many ids of the vocabulary occur in training."""

    path: str
    tokenizer_kind: str | None
    vocab_size: int | None
    used_ids: int | None
    splits: dict[str, SplitInfo]
    samples: list[Sample]
    duplicates: dict[str, Any]
    cleaning: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return to_dict(self)

    def as_text(self) -> str:
        """For people."""
        lines = [self.path]
        if self.tokenizer_kind is not None:
            lines.append(f"tokenizer: {self.tokenizer_kind}, vocabulary {self.vocab_size}, of which {self.used_ids} "
                         "occur in training")
        for name, info in self.splits.items():
            if self.tokenizer_kind is None:
                lines.append(f"{info.documents} documents, {info.bytes} bytes, {info.words} words, "
                             f"{info.chinese_characters} Chinese characters")
            elif info.tokens:
                lines.append(
                    f"{name}: {info.tokens} tokens, {info.documents} documents, {info.bytes} bytes, {info.words} words "
                    f"({info.bytes / info.tokens:.2f} bytes per token, {info.tokens / max(info.words, 1):.2f} tokens "
                    "per word)"
                )
            else:
                lines.append(f"{name}: empty")
        found = self.duplicates
        if found:
            lines.append(
                f"duplicates: of {found['units']} {found['unit']}s {found['exact']} exact, {found['near']} near "
                f"(Jaccard similarity of {found['near_threshold']:g} or more); {found['removed']} removed"
            )
            for name, count in found.get("leaks", {}).items():
                if count:
                    lines.append(f"{name}: {count} {found['unit']}s are also in train")
        if self.cleaning:
            lines.append(f"cleaning: {self.cleaning['characters_removed']} control characters removed")
        for sample in self.samples:
            lines += ["", f"{sample.split}, document {sample.document}, as the model sees it:",
                      "  " + "|".join(piece.replace("\n", "⏎").replace("\t", "⇥") for piece in sample.pieces),
                      "  " + " ".join(map(str, sample.ids))]
        return "\n".join(lines)


def check_prepared(path: Path, n_samples: int, sample_tokens: int) -> Report:
    """Read every token of a prepared folder: hashes, ids inside the vocabulary, samples spread over each split.

    Raises ``DataError`` for a file that changed or an id outside the vocabulary.
    """
    data = PreparedData.open(path)
    data.verify()
    samples: list[Sample] = []
    used = np.zeros(data.tokenizer.vocab_size, dtype=bool)
    for name in data.splits:
        split = data.split(name)
        for start in range(0, len(split), _COUNT_BLOCK_TOKENS):
            block = split.tokens[start : start + _COUNT_BLOCK_TOKENS]
            largest = int(block.max())
            if largest >= len(used):
                raise DataError(f"{path / f'{name}.bin'}: token id {largest} is outside the vocabulary of {len(used)}; "
                                "prepare the data again")
            if name == "train":
                used[np.unique(block)] = True
        samples += _samples(data, split, n_samples, sample_tokens)
    return Report(
        str(path), data.tokenizer.kind, data.tokenizer.vocab_size, int(used.sum()), data.split_info, samples,
        data.info.duplicates, data.info.cleaning,
    )


def _samples(data: PreparedData, split: TokenSplit, n_samples: int, sample_tokens: int) -> list[Sample]:
    starts = split.document_starts
    result = []
    for index in range(min(n_samples, len(starts))):
        document = index * len(starts) // n_samples
        begin = int(starts[document])
        end = int(starts[document + 1]) if document + 1 < len(starts) else len(split)
        ids = [int(token) for token in split.tokens[begin : min(end, begin + sample_tokens)]]
        pieces = [data.tokenizer.decode([token], skip_special=False) for token in ids]
        result.append(Sample(split.name, document, ids, pieces, data.tokenizer.decode(ids, skip_special=False)))
    return result


def check_raw(config: PrepareConfig) -> Report:
    """Counts and duplicates of raw text, by preparing it (with characters as tokens) in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="tickwise-check-") as folder:
        data = prepare(dataclasses.replace(
            config, out=Path(folder) / "data", tokenizer="char", validation_fraction=0.0, test_fraction=0.0,
        ))
        (source,) = config.sources
        found = {name: info for name, info in data.split_info.items() if info.tokens}
        return Report(source, None, None, None, found, [], data.info.duplicates, data.info.cleaning)
