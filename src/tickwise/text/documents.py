"""Chunks of input to documents."""

import dataclasses
import json
import re
from collections.abc import Iterator

from tickwise.core.errors import DataError
from tickwise.text.clean import clean
from tickwise.text.sources import Chunk, ReadSettings, decode, text_of_field

_SPACED_BLANK_LINE = re.compile(r"\n[ \t\u3000\r]+\n")
_BLANK_LINES = re.compile(r"\r?\n(?:[ \t\u3000]*\r?\n)+")
# Longer than this between blank lines it is no paragraph but a text with a paragraph or sentence on each line.
_LONGEST_PARAGRAPH = 4096


@dataclasses.dataclass(frozen=True)
class ChunkDocuments:
    """The documents of one chunk; ``removed`` control characters; ``normalised`` texts that NFC changed."""

    texts: list[str]
    removed: int = 0
    normalised: int = 0


def chunk_documents(chunk: Chunk, settings: ReadSettings, *, cleaned: bool = True) -> ChunkDocuments:
    """Decode, clean and split one chunk. Documents without a visible character are left out.

    Raises ``DataError`` with the file and the byte offset or line number.
    """
    if chunk.kind == "text":
        text = decode(chunk.data, chunk.origin, chunk.position, settings.errors)
        removed = normalised = 0
        if cleaned:
            result = clean(text)
            text, removed, normalised = result.text, result.removed, int(result.normalised)
        return ChunkDocuments(split_documents(text, settings), removed, normalised)
    rows = _json_lines(chunk, settings) if chunk.kind == "jsonl" else _rows(chunk, settings)
    if not cleaned:
        return ChunkDocuments([row for row in rows if row and not row.isspace()])
    results = [clean(row) for row in rows]
    return ChunkDocuments(
        [result.text for result in results if result.text and not result.text.isspace()],
        sum(result.removed for result in results),
        sum(result.normalised for result in results),
    )


def split_documents(text: str, settings: ReadSettings) -> list[str]:
    """The documents of a text; line feeds around each are not part of it (except when it is a whole file)."""
    separator = settings.separator
    if separator is None:
        return [text] if text else []
    if separator == "\n\n" and _SPACED_BLANK_LINE.search(text):
        pieces = _BLANK_LINES.split(text)
    else:
        pieces = text.split(separator)
    stripped = [piece.strip("\r\n") for piece in pieces]
    return [piece for piece in stripped if piece and not piece.isspace()]


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """(offset in characters, paragraph) for the parts between blank lines that have a visible character; of parts
    longer than 4096 characters, their lines."""
    offset = 0
    for border in _BLANK_LINES.finditer(text):
        yield from _visible_lines(offset, text[offset : border.start()])
        offset = border.end()
    yield from _visible_lines(offset, text[offset:])


def _visible_lines(offset: int, piece: str) -> Iterator[tuple[int, str]]:
    """``piece`` whole, or its lines when it is long."""
    for line in [piece] if len(piece) <= _LONGEST_PARAGRAPH else piece.split("\n"):
        if line and not line.isspace():
            yield offset, line
        offset += len(line) + 1


def _rows(chunk: Chunk, settings: ReadSettings) -> Iterator[str]:
    start = 0
    for index, length in enumerate(chunk.lengths):
        origin = chunk.origins[index] if chunk.origins else chunk.origin
        yield decode(chunk.data[start : start + length], origin, 0, settings.errors)
        start += length


def _json_lines(chunk: Chunk, settings: ReadSettings) -> Iterator[str]:
    for number, line in enumerate(chunk.data.split(b"\n"), start=chunk.position):
        if not line.strip():
            continue
        where = f"{chunk.origin}, line {number}"
        try:
            row = json.loads(decode(line, where, 0, settings.errors))
        except DataError:
            raise
        except (ValueError, RecursionError) as problem:
            raise DataError(f"{where}: not valid JSON ({problem}); mend or remove that line") from None
        text = text_of_field(row, settings.field, where)
        # JSON can spell half of a surrogate pair, which is no character.
        yield text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
