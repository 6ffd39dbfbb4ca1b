"""Input files as a stream of chunks of about a megabyte, so that no file is ever held whole in memory.

A chunk ends where a document ends (or, inside a document that is longer than a chunk, after a line), so chunks
can be worked on independently and in parallel.
"""

import codecs
import csv
import dataclasses
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import xxhash

from tickwise.core import console
from tickwise.core.errors import DataError
from tickwise.text.encodings import UTF16_MARKS, guess_encoding, guess_utf16

STANDARD_INPUT = "-"
CHUNK_BYTES = 1 << 18
# A line or paragraph longer than this is not one; without a limit a file without borders would fill the memory.
_LONGEST_DOCUMENT_BYTES = 1 << 24
_SNIFFED_BYTES = 8192
_FORMAT_OF_SUFFIX = {
    ".txt": "text", ".text": "text", ".md": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
    ".parquet": "parquet", ".csv": "csv", ".tsv": "tsv",
}
_GZIP_MAGIC = b"\x1f\x8b"
InputFormat = Literal["auto", "text", "jsonl", "json", "csv", "tsv", "parquet"]


@dataclasses.dataclass(frozen=True)
class ReadSettings:
    """documents: ``file``, ``line``, ``paragraph`` (blank lines between) or the string that separates documents;
    it applies to text files, since a row of the other formats is always a document.
    field: which key or column holds the text (a number counts columns from 0 in a table without header).
    errors: ``strict`` stops at bytes that are not UTF-8, ``replace`` puts U+FFFD there."""

    documents: str = "file"
    field: str = "text"
    errors: Literal["strict", "replace"] = "strict"
    input_format: InputFormat = "auto"

    @property
    def separator(self) -> str | None:
        """The string between documents of a text file, None when the file is one document."""
        known = {"file": None, "line": "\n", "paragraph": "\n\n"}
        if self.documents in known:
            return known[self.documents]
        return self.documents.replace("\\n", "\n").replace("\\t", "\t")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A piece of input.

    kind: ``text`` (part of a text file), ``jsonl`` (whole lines) or ``rows`` (documents, one after the other).
    origin, position: for messages: the file, and the byte offset (text) or line number (jsonl) of its start.
    lengths, origins: of each document of ``rows``, in bytes; where it comes from.
    continues: the text goes on with the document of the chunk before.
    """

    data: bytes
    kind: Literal["text", "jsonl", "rows"]
    origin: str
    position: int = 0
    lengths: tuple[int, ...] = ()
    origins: tuple[str, ...] = ()
    continues: bool = False


@dataclasses.dataclass(frozen=True)
class SourceRead:
    """A source that was read to its end: its bytes on disk and their xxh3-128 in hexadecimal."""

    path: str
    bytes: int
    xxh3_128: str


def find_files(sources: Sequence[str]) -> list[str]:
    """The files that ``sources`` (files, folders, ``-``) stand for; of a folder, those with a known ending, sorted.

    Raises ``DataError`` for a source that does not exist or a folder without a usable file.
    """
    files: list[str] = []
    for source in sources:
        path = Path(source)
        if source == STANDARD_INPUT or path.is_file() or path.is_fifo():
            files.append(source)
        elif path.is_dir():
            known, other = [], 0
            for file in sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")):
                if format_of(file.name) is None:
                    other += 1
                else:
                    known.append(str(file))
            if not known:
                endings = ", ".join(_FORMAT_OF_SUFFIX)
                raise DataError(f"{source}: no text files in this folder; it needs files that end in {endings} "
                                "(or .gz)")
            if other:
                console.say(f"{source}: {len(known)} files, {other} of other types left out")
            files += known
        else:
            if path.exists():
                raise DataError(f"{source}: neither a file with text nor a folder")
            raise DataError(f"{source}: no such file or folder, and no data set of that name (see tickwise data ls)")
    return files


def format_of(name: str) -> str | None:
    """The format that a file name's ending stands for (``.gz`` aside), None when it is unknown."""
    path = Path(name)
    if path.suffix == ".gz":
        path = path.with_suffix("")
    return _FORMAT_OF_SUFFIX.get(path.suffix.lower())


class _Hashing(io.RawIOBase):
    """Passes on what is read from ``file`` and hashes it on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = xxhash.xxh3_128()
        self.n_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(len(buffer))
        self.digest.update(data)
        self.n_bytes += len(data)
        buffer[: len(data)] = data
        return len(data)


class _FromUtf16(io.RawIOBase):
    """What is read from ``file``, UTF-16 with a byte-order mark, as UTF-8."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self._decoder = codecs.getincrementaldecoder("utf-16")()
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = b"more"
        while not self._ready and block:
            block = self.file.read(len(buffer))
            try:
                self._ready = self._decoder.decode(block, final=not block).encode()
            except UnicodeDecodeError as problem:
                raise DataError(f"{self.name}: not valid UTF-16 ({problem.reason}), as its byte-order mark says; fetch "
                                "it again") from None
        given, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(given)] = given
        return len(given)


class ChunkReader:
    """Iterates over the chunks of ``files``; afterwards ``sources`` lists what was read.

    Raises ``DataError`` (one line: file, place, remedy) for what cannot be read.
    """

    def __init__(self, files: Sequence[str], settings: ReadSettings, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.files = list(files)
        self.settings = settings
        self.chunk_bytes = chunk_bytes
        self.sources: list[SourceRead] = []

    def __iter__(self) -> Iterator[Chunk]:
        chunks: Iterable[Chunk] = (chunk for file in self.files for chunk in self._file(file))
        if len(self.files) > 1 and self.settings.separator is None:
            chunks = _grouped(chunks, self.chunk_bytes)
        yield from chunks

    def _file(self, file: str) -> Iterator[Chunk]:
        name = "standard input" if file == STANDARD_INPUT else file
        kind = self.settings.input_format if self.settings.input_format != "auto" else (format_of(file) or "text")
        try:
            with sys.stdin.buffer if file == STANDARD_INPUT else open(file, "rb") as raw:
                hashing = _Hashing(cast(BinaryIO, raw))
                if kind == "parquet":
                    yield from self._rows(_parquet_rows(file, name, self.settings.field), name)
                    while hashing.read(1 << 20):
                        pass
                else:
                    yield from self._stream(io.BufferedReader(hashing, self.chunk_bytes), name, kind)
        except OSError as problem:
            if isinstance(problem, gzip.BadGzipFile):
                raise DataError(f"{name}: not a valid gzip file ({problem}); fetch it again") from None
            raise DataError(f"{name}: cannot read it: {problem.strerror or problem}") from None
        except (EOFError, zlib.error) as problem:
            reason = "it ends too early" if isinstance(problem, EOFError) else "its data is damaged"
            raise DataError(f"{name}: not a complete gzip file ({reason}); fetch it again") from None
        if not hashing.n_bytes:
            if len(self.files) == 1:
                raise DataError(f"{name}: empty; give a file with text")
            console.say(f"{name}: empty, left out")
        self.sources.append(SourceRead(file, hashing.n_bytes, hashing.digest.hexdigest()))

    def _stream(self, stream: io.BufferedReader, name: str, kind: str) -> Iterator[Chunk]:
        if stream.peek(2)[:2] == _GZIP_MAGIC:
            stream = io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=stream)), self.chunk_bytes)
        elif name.endswith(".gz") and stream.peek(1):
            raise DataError(f"{name}: not a gzip file, whatever its name says; rename it or fetch it again")
        if stream.peek(2)[:2] in UTF16_MARKS:
            stream = io.BufferedReader(_FromUtf16(stream, name), self.chunk_bytes)
        _check_text(stream.peek(_SNIFFED_BYTES)[:_SNIFFED_BYTES], name)
        offset = 0
        if stream.peek(3)[:3] == b"\xef\xbb\xbf":  # the UTF-8 byte-order mark is not text
            offset = len(stream.read(3))
        if kind == "text":
            yield from self._text(stream, name, offset)
        elif kind == "jsonl":
            yield from self._lines(stream, name)
        elif kind == "json":
            yield from self._rows(_json_rows(stream, name, offset, self.settings), name)
        else:
            yield from self._rows(_table_rows(stream, name, kind, self.settings), name)

    def _text(self, stream: BinaryIO, name: str, offset: int) -> Iterator[Chunk]:
        separator = self.settings.separator
        border = b"\n" if separator is None else separator.encode()
        pending = b""
        continues = False
        while True:
            block = stream.read(self.chunk_bytes)
            data = pending + block
            cut = len(data) if not block else _last_border(data, border)
            if block and separator is None:  # better between paragraphs than inside one
                cut = _last_border(data, b"\n\n") or cut
            if cut == 0 and separator is None and len(data) >= 2 * self.chunk_bytes:
                cut = _character_border(data)
                if data[:cut].endswith(b"\r"):  # half of a line's end, perhaps
                    cut -= 1
            if cut:
                yield Chunk(data[:cut], "text", name, offset, continues=continues)
                offset += cut
                continues = separator is None
            elif len(data) > _LONGEST_DOCUMENT_BYTES:
                raise DataError(
                    f"{name}: no {self.settings.documents!r} border within {len(data) >> 20} MB after byte {offset}; "
                    "choose another --documents (file, line, paragraph or a separator)"
                )
            pending = data[cut:]
            if not block:
                return

    def _lines(self, stream: BinaryIO, name: str) -> Iterator[Chunk]:
        pending, line = b"", 1
        while True:
            block = stream.read(self.chunk_bytes)
            data = pending + block
            cut = data.rfind(b"\n") + 1 if block else len(data)
            if cut:
                yield Chunk(data[:cut], "jsonl", name, line)
                line += data.count(b"\n", 0, cut)
            pending = data[cut:]
            if not block:
                return

    def _rows(self, rows: Iterator[str], name: str) -> Iterator[Chunk]:
        parts: list[bytes] = []
        size = 0
        for row in rows:
            part = row.encode("utf-8", "replace")
            parts.append(part)
            size += len(part)
            if size >= self.chunk_bytes:
                yield Chunk(b"".join(parts), "rows", name, lengths=tuple(map(len, parts)))
                parts, size = [], 0
        if parts:
            yield Chunk(b"".join(parts), "rows", name, lengths=tuple(map(len, parts)))


def _last_border(data: bytes, border: bytes) -> int:
    """The offset after the last ``border``, 0 when there is none; a blank line may have spaces in it."""
    if border != b"\n\n":
        return data.rfind(border) + len(border) if border in data else 0
    second = data.rfind(b"\n")
    while second > 0:
        first = data.rfind(b"\n", 0, second)
        if first < 0:
            break
        if not data[first:second].strip():
            return second + 1
        second = first
    return 0


def _character_border(data: bytes) -> int:
    """The last offset at which a UTF-8 character may begin."""
    cut = len(data)
    while cut > len(data) - 4 and data[cut - 1] & 0xC0 == 0x80:
        cut -= 1
    return cut - 1 if data[cut - 1] >= 0xC0 else cut


def _check_text(head: bytes, name: str) -> None:
    guess = guess_utf16(head)
    if guess:
        raise DataError(f"{name}: is probably {guess.name} text; convert it first: iconv -f {guess.iconv} -t UTF-8")
    controls = sum(head.count(bytes([byte])) for byte in range(32) if byte not in b"\t\n\v\f\r\x1b")
    if b"\0" in head or controls > len(head) // 20:
        raise DataError(f"{name}: looks like a binary file, not text; give .txt, .jsonl, .csv, .tsv or .parquet")


def _grouped(chunks: Iterable[Chunk], chunk_bytes: int) -> Iterator[Chunk]:
    """Small one-chunk files together in one ``rows`` chunk: thousands of small files would be slow one by one."""
    held: list[Chunk] = []
    size = 0

    def flush() -> Iterator[Chunk]:
        nonlocal held, size
        if held:
            lengths, origins = tuple(len(c.data) for c in held), tuple(c.origin for c in held)
            yield Chunk(b"".join(c.data for c in held), "rows", held[0].origin, lengths=lengths, origins=origins)
        held, size = [], 0

    for chunk in chunks:
        if chunk.kind != "text" or chunk.continues or len(chunk.data) >= chunk_bytes // 4:
            yield from flush()
            yield chunk
            continue
        held.append(chunk)
        size += len(chunk.data)
        if size >= chunk_bytes:
            yield from flush()
    yield from flush()


def text_of_field(row: Any, field: str, where: str) -> str:
    """The text under ``field`` of a JSON row; a list of strings is joined by line feeds."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object; each row must be like {{\"{field}\": \"…\"}}")
    if field not in row:
        raise DataError(f"{where}: no field '{field}' (it has {', '.join(map(str, row))}); name one with --field")
    value = row[field]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: field '{field}' is not text but {type(value).__name__}; name another with --field")
    return value


def _json_rows(stream: BinaryIO, name: str, offset: int, settings: ReadSettings) -> Iterator[str]:
    text = decode(stream.read(), name, offset, settings.errors)
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{name}: not valid JSON ({problem}); one object per line belongs in a .jsonl file") from None
    if isinstance(rows, dict):
        rows = [rows]
    if not isinstance(rows, list):
        raise DataError(f"{name}: not a list of JSON objects but {json.dumps(rows)[:20]}; each row must be like "
                        f"{{\"{settings.field}\": \"…\"}}")
    for index, row in enumerate(rows):
        yield text_of_field(row, settings.field, f"{name}, row {index + 1}")


def _table_rows(stream: BinaryIO, name: str, kind: str, settings: ReadSettings) -> Iterator[str]:
    def lines() -> Iterator[str]:
        offset = 0
        for raw in stream:
            yield decode(raw, name, offset, settings.errors)
            offset += len(raw)

    csv.field_size_limit(_LONGEST_DOCUMENT_BYTES)
    table = csv.reader(lines(), delimiter="\t" if kind == "tsv" else ",")
    column: int | None = int(settings.field) if settings.field.isdigit() else None
    try:
        for row in table:
            if column is None:
                if settings.field not in row:
                    raise DataError(f"{name}, line 1: no column '{settings.field}' (it has {', '.join(row[:12])}); "
                                    "name one with --field, or its number (from 0) if there is no header")
                column = row.index(settings.field)
                continue
            if row and column >= len(row):
                raise DataError(f"{name}, line {table.line_num}: {len(row)} columns, so there is no column {column}; "
                                "mend that line")
            if row:
                yield row[column]
    except csv.Error as problem:
        raise DataError(f"{name}, line {table.line_num}: not a valid table ({problem}); mend that line") from None


def _parquet_rows(file: str, name: str, field: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    if file == STANDARD_INPUT:
        raise DataError("standard input: parquet cannot be read from a pipe; give the file's name")
    try:
        table = pyarrow.parquet.ParquetFile(file, memory_map=False)
        if field not in table.schema_arrow.names:
            names = ", ".join(table.schema_arrow.names[:12])
            raise DataError(f"{name}: no column '{field}' (it has {names}); name one with --field")
        for batch in table.iter_batches(batch_size=1024, columns=[field]):
            for value in batch.column(0).to_pylist():
                if value is not None:
                    yield text_of_field({field: value}, field, name)
    except pyarrow.ArrowInvalid as problem:
        raise DataError(f"{name}: not a valid parquet file ({str(problem).splitlines()[0]}); fetch it again") from None


def decode(data: bytes, name: str, offset: int, errors: str) -> str:
    """UTF-8 ``data`` as text; ``DataError`` with file and byte offset when strict and invalid."""
    try:
        return data.decode("utf-8", errors="strict" if errors == "strict" else "replace")
    except UnicodeDecodeError as problem:
        guess = guess_encoding(data, problem.start)
        likely = f"; it is probably {guess.name}" if guess else ""
        raise DataError(
            f"{name}: not valid UTF-8 at byte {offset + problem.start} (0x{data[problem.start]:02x}){likely}; convert "
            f"it (iconv -f {guess.iconv if guess else 'ITS_ENCODING'} -t UTF-8), or go on with --errors replace"
        ) from None
