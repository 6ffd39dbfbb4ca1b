"""Token files of one split, written in order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from tickwise.data.prepared import SplitInfo


class SplitWriter:
    """Appends ids to ``<name>.bin`` and remembers where documents start."""

    def __init__(self, folder: Path, name: str) -> None:
        self._starts_path = folder / f"{name}.documents.npy"
        self._file = (folder / f"{name}.bin").open("wb")
        self._digest = xxhash.xxh3_128()
        self._starts: list[npt.NDArray[np.uint64]] = []
        self._inside_document = False
        self._tokens = 0
        self._totals = [0, 0, 0, 0]  # bytes, words, Han characters, largest id

    def append(
        self, ids: npt.NDArray[Any], counts: npt.NDArray[np.int64], ends: npt.NDArray[np.bool_],
        totals: Sequence[int],
    ) -> None:
        """ids: (n,) in the final type; counts: tokens of each piece; ends: whether the piece ends its document."""
        begins = np.empty(len(ends), dtype=bool)
        begins[0] = not self._inside_document
        begins[1:] = ends[:-1]
        self._inside_document = not ends[-1]
        starts = np.cumsum(counts) - counts + self._tokens
        self._starts.append(starts[begins].astype(np.uint64))
        data = ids.data.cast("B") if len(ids) else b""
        self._file.write(data)
        self._digest.update(data)
        self._tokens += len(ids)
        for index in range(3):
            self._totals[index] += totals[index]
        self._totals[3] = max(self._totals[3], totals[3])

    def finish(self) -> SplitInfo:
        """Write the document table; what ``dataset.json`` says about the split."""
        self._file.close()
        starts = np.concatenate(self._starts) if self._starts else np.empty(0, dtype=np.uint64)
        np.save(self._starts_path, starts, allow_pickle=False)
        n_bytes, words, han, max_id = self._totals
        return SplitInfo(
            tokens=self._tokens, documents=len(starts), bytes=n_bytes, words=words, chinese_characters=han,
            max_id=max_id, xxh3_128=self._digest.hexdigest(),
        )

    def close(self) -> None:
        self._file.close()
