"""Passages of the user's documents, with where they stand, and questions about them.

Text and Markdown files are cut between paragraphs: short neighbours are joined, long ones cut between sentences. A row
of the other formats (.jsonl, .json, .csv, .tsv, .parquet) or a paragraph of a file in SQuAD's format is a passage
unless it is much too long. Sizes are in words, each Han character being one.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tickwise.core.errors import DataError
from tickwise.data.rows import json_lines, open_text
from tickwise.text.codepoints import count_words
from tickwise.text.documents import chunk_documents, paragraphs
from tickwise.text.sources import ChunkReader, ReadSettings, find_files, format_of
from tickwise.text.words import split_sentences, split_words, unwrapped

_SHORTEST, _LONGEST, _LONGEST_ROW = 40, 300, 1000


@dataclass(frozen=True)
class Passage:
    """A piece of a document. ``place`` says where it begins: "line 12", "row 3", "paragraph 2". ``lines``: the number
    of each of its lines in a text file."""

    text: str
    source: str
    place: str
    title: str = ""
    lines: tuple[int, ...] = ()

    def place_of(self, offset: int) -> str:
        """Where the character ``offset`` stands."""
        return f"line {self.lines[self.text.count(chr(10), 0, offset)]}" if self.lines else self.place


@dataclass(frozen=True)
class Question:
    """A question, the paragraph that it is about ("" if unknown), and its answers in it (none: it has no answer)."""

    text: str
    context: str
    answers: tuple[str, ...]
    id: str = ""


def read_passages(sources: Sequence[str], field: str = "text") -> Iterator[Passage]:
    """The passages of files and folders (``-`` is standard input), in order.

    Raises ``DataError`` with file and place for what cannot be read.
    """
    for file in find_files(sources):
        if format_of(file) == "json" and (squad := squad_articles(Path(file))) is not None:
            for number, (title, context, _) in enumerate(squad, start=1):
                yield from _pieces(context, file, f"paragraph {number}", title)
            continue
        yield from _of_file(file, field)


def _of_file(file: str, field: str) -> Iterator[Passage]:
    name = "standard input" if file == "-" else file
    settings = ReadSettings(documents="file", field=field)
    line, number = 1, 0
    packing = _Packing(name)
    for chunk in ChunkReader([file], settings):
        texts = chunk_documents(chunk, settings).texts
        if chunk.kind == "text":
            for text in texts:
                yield from packing.add(text, line)
            line += chunk.data.count(b"\n")
        else:
            for text in texts:
                number += 1
                yield from _pieces(text, name, f"row {number}")
    yield from packing.end()


class _Packing:
    """Paragraphs of a text file on their way to passages: headings become titles, short paragraphs wait for more."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._markdown = format_of(name) == "text" and ".md" in Path(name).suffixes
        self._title = ""
        self._waiting: list[str] = []
        self._lines: list[int] = []
        self._n_words = 0

    def add(self, text: str, first_line: int) -> Iterator[Passage]:
        seen, line = 0, first_line
        for offset, paragraph in paragraphs(text):
            line += text.count("\n", seen, offset)
            seen, first = offset, line
            heading = self._heading(paragraph)
            if heading is not None:
                yield from self.end()
                self._title, rest = heading
                if not rest:
                    continue
                paragraph, first = rest, line + 1
            n_words = count_words(paragraph)[0]
            if self._n_words and self._n_words + n_words > _LONGEST:
                yield from self.end()
            first += paragraph.count("\n", 0, len(paragraph) - len(paragraph.lstrip()))
            self._waiting.append(paragraph.strip())
            self._lines += range(first, first + self._waiting[-1].count("\n") + 1)
            self._n_words += n_words
            if self._n_words >= _SHORTEST:
                yield from self.end()

    def _heading(self, paragraph: str) -> tuple[str, str] | None:
        """The title and what follows it in the same paragraph, where a Markdown heading begins it."""
        if not self._markdown or not paragraph.startswith("#"):
            return None
        first, _, rest = paragraph.partition("\n")
        return first.strip("# \t"), rest

    def end(self) -> Iterator[Passage]:
        """What waits, as one passage or, where it is too long, several."""
        if self._waiting:
            yield from _pieces("\n".join(self._waiting), self._name, "line", self._title, self._lines)
        self._waiting, self._lines, self._n_words = [], [], 0


def _pieces(text: str, source: str, place: str, title: str = "", lines: Sequence[int] = ()) -> Iterator[Passage]:
    """``text`` as one passage, or cut between sentences where it is too long. ``lines``: the numbers of its lines."""
    longest = _LONGEST if lines else _LONGEST_ROW

    def passage(start: int, end: int) -> Passage:
        start += len(text[start:end]) - len(text[start:end].lstrip())
        piece, before = text[start:end].rstrip(), text.count("\n", 0, start)
        own = tuple(lines[before : before + piece.count("\n") + 1])
        return Passage(piece, source, f"{place} {own[0]}" if own else place, title, own)

    if not text.strip():
        return
    if count_words(text)[0] <= longest:
        yield passage(0, len(text))
        return
    start = end = n_words = 0
    for sentence_start, sentence_end in sentence_spans(text):
        n = count_words(text[sentence_start:sentence_end])[0]
        if n_words and n_words + n > longest:
            yield passage(start, end)
            start, n_words = sentence_start, 0
        end, n_words = sentence_end, n_words + n
    yield passage(start, end)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of the sentences of ``text``, none longer than 300 words or characters between spaces. They end
    with their line, but for those of a paragraph that was wrapped at 40 to 120 columns."""
    text = unwrapped(text)
    return [(places[0].start, places[-1].end)
            for places in split_sentences(text, split_words(text), longest=300)]


def squad_articles(path: Path) -> list[tuple[str, str, list[dict[str, Any]]]] | None:
    """(title, context, questions as in the file) of each paragraph of a file in SQuAD's format; None for other JSON.

    Raises ``DataError`` for a file that is no JSON or damaged.
    """
    with open_text(path) as stream:
        try:
            content = json.load(stream)
        except (ValueError, RecursionError) as problem:
            raise DataError(f"{path}: not valid JSON ({problem}); one object per line belongs in a .jsonl file") \
                from None
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        return None
    found = []
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                context, asked = paragraph["context"], list(paragraph.get("qas") or [])
                if not isinstance(context, str) or not all(isinstance(question, dict) for question in asked):
                    raise TypeError("a context that is no text, or questions that are no objects")
                found.append((str(article.get("title") or ""), context, asked))
    except (KeyError, TypeError, AttributeError) as problem:
        raise DataError(f"{path}: not in SQuAD's format ({type(problem).__name__}: {problem}); it needs "
                        'data → paragraphs → context, qas') from None
    if not found:
        raise DataError(f"{path}: no paragraphs in it")
    return found


def read_questions(sources: Sequence[str]) -> list[Question]:
    """Questions of files in SQuAD's format, or of ``.jsonl`` rows with ``question`` and, if known, ``context`` and
    ``answers`` (one text or several, or SQuAD's objects)."""
    questions: list[Question] = []
    for source in sources:
        path = Path(source)
        squad = squad_articles(path) if format_of(source) == "json" else None
        rows = [{**question, "context": context} for _, context, own in squad or () for question in own]
        for number, row in enumerate(rows if squad is not None else json_lines([path]), start=1):
            questions.append(_question(row, f"{source}, question {number}"))
    if not questions:
        raise DataError(f"{', '.join(sources)}: no questions in it")
    return questions


def _question(row: Any, where: str) -> Question:
    text = row.get("question") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{where}: no text 'question' in it")
    context = row.get("context")
    if context is not None and not isinstance(context, str):
        raise DataError(f"{where}: its context is no text; leave it out where it is not known")
    answers = row.get("answers")
    if isinstance(answers, dict):
        answers = answers.get("text")
    if answers is None or isinstance(answers, str):
        answers = [] if answers is None else [answers]
    if not isinstance(answers, list):
        raise DataError(f"{where}: its answers are no texts")
    texts = [answer.get("text") if isinstance(answer, dict) else answer for answer in answers]
    kept = tuple(answer for answer in texts if isinstance(answer, str))
    if len(kept) != len(texts):
        raise DataError(f"{where}: its answers are no texts")
    return Question(text, context or "", kept, str(row.get("id", "")))
