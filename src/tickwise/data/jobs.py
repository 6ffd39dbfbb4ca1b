"""What a worker does with a message: ``scan`` a chunk of input, or ``encode`` a block of clean text.

Imported in every worker process, so it imports little.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from tickwise.data.workers import Job, Message
from tickwise.text.codepoints import byte_offsets, code_points, count_words
from tickwise.text.documents import chunk_documents, paragraphs
from tickwise.text.shingles import N_BINS, jaccard, signatures
from tickwise.text.sources import Chunk, ReadSettings

DROPPED = 255  # the split number of a document that goes nowhere
N_SPLITS = 3


def chunk_message(chunk: Chunk) -> Message:
    """A chunk as a message for ``scan``."""
    return {
        "data": chunk.data, "kind": chunk.kind, "origin": chunk.origin, "position": chunk.position,
        "lengths": list(chunk.lengths), "origins": list(chunk.origins), "continues": chunk.continues,
    }


def scan(settings: Message) -> Job:
    """Make the job: chunk → clean text and what is needed to find duplicates.

    settings: ``read`` (fields of ReadSettings), ``clean``, ``paragraphs`` (look for duplicates among paragraphs
    instead of documents), ``characters`` (count each character).
    Answer: ``text`` (UTF-8, documents one after the other), ``lengths`` (bytes of each document),
    ``unit_offsets``, ``unit_lengths`` (bytes, the places of what is compared), ``hashes`` (uint64), ``signatures``
    (uint16, 64 for each), ``n_characters``, ``visible`` (whether there is a visible character),
    ``removed``, ``normalised``, ``continues``.
    """
    read = ReadSettings(**settings["read"])

    def job(message: Message) -> Message:
        chunk = Chunk(
            message["data"], message["kind"], message["origin"], message["position"], tuple(message["lengths"]),
            tuple(message["origins"]), message["continues"],
        )
        found = chunk_documents(chunk, read, cleaned=settings["clean"])
        encoded = [text.encode() for text in found.texts]
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        if settings["paragraphs"]:
            whole = "".join(found.texts)
            units = list(paragraphs(whole))
            unit_texts = [text for _, text in units]
            unit_bytes = [text.encode() for text in unit_texts]
            unit_lengths = np.fromiter(map(len, unit_bytes), dtype=np.int64, count=len(units))
            unit_offsets = byte_offsets(whole)[[offset for offset, _ in units]] if units else unit_lengths
        else:
            unit_texts, unit_bytes, unit_lengths = found.texts, encoded, lengths
            unit_offsets = np.cumsum(lengths) - lengths
        hashes = [xxhash.xxh3_64_intdigest(unit.strip()) for unit in unit_bytes]
        answer: Message = {
            "text": b"".join(encoded),
            "lengths": lengths,
            "unit_offsets": unit_offsets,
            "unit_lengths": unit_lengths,
            "hashes": np.array(hashes, dtype=np.uint64),
            "n_characters": sum(map(len, found.texts)),
            "visible": not all(map(str.isspace, found.texts)),
            "n_read": len(chunk.data),
            "removed": found.removed,
            "normalised": found.normalised,
            "continues": chunk.continues,
        }
        marks = signatures(unit_texts) if unit_texts else np.empty((0, N_BINS), dtype=np.uint16)
        answer["signatures"] = marks.reshape(-1)
        if settings["characters"]:
            points = code_points("".join(found.texts))
            counts = np.bincount(points)
            answer["points"] = np.flatnonzero(counts)
            answer["point_counts"] = counts[answer["points"]]
        return answer

    return job


def compare(settings: Message) -> Job:
    """Make the job: two lists of texts, ``first`` and ``second`` → ``similarities`` (float64, Jaccard) of each pair."""

    def job(message: Message) -> Message:
        return {"similarities": jaccard(message["first"], message["second"])}

    return job


def encode(settings: Message) -> Job:
    """Make the job: block of clean text → token ids by split.

    settings: ``tokenizer`` (folder), ``dtype`` (of the ids), ``mark_ends`` (put ``eos_id`` after each document).
    Message: ``text``, ``lengths`` (bytes of each piece), ``splits`` (number of its split, 255 for none), ``ends``
    (whether its document ends there). Answer: for each split s ``ids-s``, ``counts-s`` (tokens of each piece)
    and ``totals-s`` (bytes, words, Han characters, largest id).
    """
    from tickwise.tokenizers.bulk import BulkEncoder
    from tickwise.tokenizers.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(Path(settings["tokenizer"]))
    encoder = BulkEncoder(tokenizer)
    end_id = tokenizer.eos_id if settings["mark_ends"] else None

    def job(message: Message) -> Message:
        answer: Message = {}
        for split, texts, ends in _pieces_by_split(message):
            found, counts = encoder.encode(texts)
            ids: npt.NDArray[Any] = found
            if end_id is not None:
                ids = np.insert(found, np.cumsum(counts)[ends], end_id)
                counts = counts + ends
            text = "\n".join(texts)
            words, han = count_words(text)
            n_bytes = int(message["lengths"][message["splits"] == split].sum())
            answer[f"ids-{split}"] = ids.astype(settings["dtype"])
            answer[f"counts-{split}"] = counts
            answer[f"totals-{split}"] = [n_bytes, words, han, int(ids.max(initial=0))]
        return answer

    return job


def _pieces_by_split(message: Message) -> Iterator[tuple[int, list[str], Any]]:
    text, splits, ends = message["text"], message["splits"], message["ends"].astype(bool)
    stops = np.cumsum(message["lengths"])
    starts = stops - message["lengths"]
    for split in range(N_SPLITS):
        chosen = np.flatnonzero(splits == split)
        if len(chosen):
            spans = zip(starts[chosen].tolist(), stops[chosen].tolist(), strict=True)
            yield split, [text[start:stop].decode() for start, stop in spans], ends[chosen]
