"""Clean text on disk between the two passes, with the table of its documents."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tickwise.data.jobs import DROPPED
from tickwise.data.workers import Message
from tickwise.text.duplicates import BandFiles
from tickwise.text.shingles import N_BINS

BLOCK_BYTES = 1 << 18
_WINDOW_BYTES = 1 << 12
_COMBINE = 0x9E3779B97F4A7C15


class Spool:
    """Filled by ``append`` in the order of the input, then read in blocks.

    lengths: (documents,) bytes of each; hashes, unit_offsets, unit_lengths: (units,) what is compared for
    duplicates (documents, or paragraphs when ``units_are_documents`` is off).
    """

    def __init__(self, folder: Path, *, units_are_documents: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "text"
        self._file = self._path.open("wb")
        self.bands = BandFiles(folder)
        self.units_are_documents = units_are_documents
        self.n_bytes = self.n_characters = self.removed = self.normalised = 0
        # With millions of documents these tables are what takes memory, so those of units exist only if they differ.
        self._tables: dict[str, list[npt.NDArray[np.int64]]] = {"lengths": []}
        if not units_are_documents:
            self._tables |= {"unit_offsets": [], "unit_lengths": []}
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._chunks: list[tuple[int, int]] = []  # (bytes, characters) before each chunk
        self.character_counts: dict[int, int] = {}
        self._ends: npt.NDArray[np.uint8] | None = None  # None: every piece is a document

    def append(self, scanned: Message) -> None:
        """Add the answer of ``jobs.scan`` for the next chunk."""
        lengths, hashes = scanned["lengths"], scanned["hashes"]
        marks = scanned["signatures"].reshape(-1, N_BINS)
        joins = scanned["continues"] and len(lengths) > 0 and len(self._tables["lengths"]) > 0
        if joins:
            self._tables["lengths"][-1][-1] += lengths[0]
            lengths = lengths[1:]
        unit_offsets, unit_lengths = scanned["unit_offsets"] + self.n_bytes, scanned["unit_lengths"]
        if joins and self.units_are_documents:
            before = int(self._hashes[-1][-1])
            self._hashes[-1][-1] = (before * _COMBINE + int(hashes[0])) & (2**64 - 1)
            hashes = hashes[1:]
            marks = marks[1:]
        for name, values in (("lengths", lengths), ("unit_offsets", unit_offsets), ("unit_lengths", unit_lengths)):
            if len(values) and name in self._tables:
                self._tables[name].append(values.astype(np.int64))
        if len(hashes):
            self._hashes.append(hashes.copy())
        if len(marks):
            self.bands.append(marks)
        self._chunks.append((self.n_bytes, self.n_characters))
        self._file.write(scanned["text"])
        self.n_bytes += len(scanned["text"])
        self.n_characters += scanned["n_characters"]
        self.removed += scanned["removed"]
        self.normalised += scanned["normalised"]
        for point, count in zip(scanned.get("points", ()), scanned.get("point_counts", ()), strict=True):
            self.character_counts[int(point)] = self.character_counts.get(int(point), 0) + int(count)

    @property
    def n_units(self) -> int:
        return sum(map(len, self._hashes))

    def finish(self) -> None:
        """No more text comes."""
        self._file.close()
        self.bands.close()
        self._reader = self._path.open("rb", buffering=0)
        self.lengths = _joined(self._tables.pop("lengths"))
        if self.units_are_documents:
            self.unit_lengths = self.lengths
            self.unit_offsets = np.cumsum(self.lengths)
            self.unit_offsets -= self.lengths
        else:
            self.unit_offsets = _joined(self._tables.pop("unit_offsets"))
            self.unit_lengths = _joined(self._tables.pop("unit_lengths"))
        self.hashes = _joined(self._hashes)

    def divide(self, lengths: npt.NDArray[np.int64], ends: npt.NDArray[np.uint8]) -> None:
        """Cut the text anew into pieces of ``lengths`` bytes; ``ends``: 1 for those that end their document."""
        self.lengths, self._ends = lengths, ends

    def close(self) -> None:
        self._file.close()
        if hasattr(self, "_reader"):
            self._reader.close()

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the clean text."""
        self._reader.seek(offset)
        data = self._reader.read(length)
        while len(data) < length:
            more = self._reader.read(length - len(data))
            assert more, "the spool file is shorter than its table"
            data += more
        return data

    def unit_text(self, unit: int) -> str:
        """The text of one unit (its first megabytes)."""
        length = min(int(self.unit_lengths[unit]), 4 * BLOCK_BYTES)
        return self.read(int(self.unit_offsets[unit]), length).decode("utf-8", "ignore")

    def byte_of_character(self, character: int) -> int:
        """The byte offset of the ``character``-th character of the whole clean text."""
        index = int(np.searchsorted([before for _, before in self._chunks], character, side="right")) - 1
        start, before = self._chunks[index]
        stop = self._chunks[index + 1][0] if index + 1 < len(self._chunks) else self.n_bytes
        text = self.read(start, stop - start).decode()
        return start + len(text[: character - before].encode())

    def blocks(self, splits: npt.NDArray[np.uint8]) -> Iterator[Message]:
        """Messages for ``jobs.encode``: about a megabyte each, with ``splits`` the (documents,) split numbers.

        A longer document comes in pieces that are cut before a space or line feed after a visible character, where
        every tokenizer that splits at spaces has a border anyway.
        """
        stops = np.cumsum(self.lengths)
        first = 0
        n = len(self.lengths)
        all_end = np.ones(n, dtype=np.uint8) if self._ends is None else self._ends
        while first < n:
            start = int(stops[first] - self.lengths[first])
            last = max(int(np.searchsorted(stops, start + BLOCK_BYTES, side="right")), first + 1)
            if splits[first] == DROPPED and last == first + 1:
                pass
            elif last == first + 1 and self.lengths[first] > BLOCK_BYTES:
                yield from self._long_document(start, int(stops[first]), int(splits[first]), bool(all_end[first]))
            else:
                yield {
                    "text": self.read(start, int(stops[last - 1]) - start), "lengths": self.lengths[first:last],
                    "splits": splits[first:last], "ends": all_end[first:last],
                }
            first = last

    def _long_document(self, start: int, stop: int, split: int, ends_document: bool) -> Iterator[Message]:
        while start < stop:
            data = self.read(start, min(BLOCK_BYTES, stop - start))
            is_last = start + len(data) == stop
            if not is_last:
                data = data[: safe_cut(data)]
            yield {
                "text": data, "lengths": np.array([len(data)]), "splits": np.array([split], dtype=np.uint8),
                "ends": np.array([is_last and ends_document], dtype=np.uint8),
            }
            start += len(data)


def _joined(parts: list[Any]) -> npt.NDArray[Any]:
    """The arrays as one; the list is emptied."""
    result = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    parts.clear()
    return result


def safe_cut(data: bytes) -> int:
    """An offset near the end of UTF-8 ``data`` before whitespace that follows a visible character; failing that,
    before the last (perhaps incomplete) character."""
    window = _WINDOW_BYTES
    while True:
        begin = max(0, len(data) - window)
        while begin and data[begin] & 0xC0 == 0x80:
            begin -= 1
        text = data[begin:].decode("utf-8", "ignore")
        for at in range(len(text) - 1, 0, -1):
            if text[at].isspace() and not text[at - 1].isspace():
                return begin + len(text[:at].encode())
        if begin == 0:
            whole = len(text.encode())
            return whole if whole < len(data) else whole - len(text[-1].encode())
        window *= 16
