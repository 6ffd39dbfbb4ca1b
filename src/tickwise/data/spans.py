"""Questions whose answers are spans of a passage: SQuAD's JSON, SubjQA's tables, rows of JSON."""

import ast
import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from tickwise.core.console import say
from tickwise.core.errors import DataError
from tickwise.data import catalogue
from tickwise.data.passages import squad_articles
from tickwise.data.rows import json_lines, open_text
from tickwise.text.sources import format_of

_NO_ANSWER = "ANSWERNOTFOUND"
"""What SubjQA writes at the end of every review, and marks where a review has no answer."""


@dataclass(frozen=True)
class SpanQuestion:
    """A question about a passage. ``answers`` are the places of its answers in it, characters ``start`` up to (not
    including) ``end``; none where the passage has no answer."""

    id: str
    text: str
    passage: str
    answers: tuple[tuple[int, int], ...]
    references: tuple[str, ...]
    """The answers' texts, also those that stand nowhere in the passage just so."""


def read_span_questions(sources: Sequence[str], split: str = "train") -> list[SpanQuestion]:
    """The questions of files (SQuAD's .json; SubjQA's .csv; .jsonl rows with ``question``, ``context`` and ``answers``)
    or of the ``split`` of known data sets, in order.

    SubjQA's rows are people's answers: those of one question about one review make one question, which has no answer
    where none of them found one. An answer that does not stand at its place is looked for in the passage, nearest to it
    first; what is not found is counted and said. Raises ``DataError`` with file and row for what cannot be read.
    """
    questions: list[SpanQuestion] = []
    missing = 0
    for source in sources:
        for file in _files(source, split):
            for row in _rows(file):
                question, n_missing = _located(row)
                questions.append(question)
                missing += n_missing
    name = ", ".join(sources)
    if not questions:
        raise DataError(f"{name}: no questions in it")
    if missing:
        say(f"{name}: {missing:,} answers stand nowhere in their passage; they are not trained on")
    return questions


def fingerprint(questions: Iterable[SpanQuestion]) -> str:
    """xxh3-128 of everything in them, in hexadecimal."""
    digest = xxhash.xxh3_128()
    for q in questions:
        digest.update(json.dumps([q.id, q.text, q.passage, q.answers]).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _files(source: str, split: str) -> list[Path]:
    path = Path(source)
    if path.exists():
        if not path.is_file():
            raise DataError(f"{source}: not a file; give a file of questions with their passages")
        return [path]
    name, _, own_split = source.partition("/")
    entry = catalogue.find(name)
    if entry is None:
        raise DataError(f"{source}: no such file, and no data set of that name (see tickwise data ls)")
    files = entry.local_files(None, own_split or split)
    if files is None:
        raise DataError(f"{source}: the files of its {own_split or split} part are not here; see tickwise data ls")
    return list(files)


@dataclass(frozen=True)
class _Row:
    """A question as a file has it: each answer with the place where the file says that it begins."""

    id: str
    question: str
    passage: str
    answers: tuple[tuple[str, int], ...]


def _rows(file: Path) -> Iterator[_Row]:
    kind = format_of(str(file))
    if kind == "json":
        articles = squad_articles(file)
        if articles is None:
            raise DataError(f"{file}: not in SQuAD's format; it needs data → paragraphs → context, qas")
        for _, passage, questions in articles:
            for question in questions:
                yield _json_row(question | {"context": passage}, f"{file}, question {question.get('id', '?')}")
    elif kind == "csv":
        yield from _subjqa_rows(file)
    else:
        for number, row in enumerate(json_lines([file]), start=1):
            yield _json_row(row, f"{file}, row {number}")


def _json_row(row: Any, where: str) -> _Row:
    """Answers are SQuAD's objects, or the Hub's lists of texts and starts."""
    if not isinstance(row, dict) or not isinstance(row.get("question"), str) or not isinstance(row.get("context"), str):
        raise DataError(f"{where}: needs the texts 'question' and 'context'")
    answers = row.get("answers") or []
    try:
        if isinstance(answers, dict):
            pairs = list(zip(answers["text"], answers["answer_start"], strict=True))
        else:
            pairs = [(answer["text"], answer.get("answer_start", 0)) for answer in answers]
        if not all(isinstance(text, str) for text, _ in pairs):
            raise TypeError("an answer that is no text")
        kept = tuple((text, int(start)) for text, start in pairs if text.strip())
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise DataError(f"{where}: its answers are not SQuAD's ({type(problem).__name__}: {problem}); each needs text "
                        "and answer_start") from None
    return _Row(str(row.get("id", where)), row["question"], row["context"],
                () if row.get("is_impossible") else kept)


def _subjqa_rows(file: Path) -> Iterator[_Row]:
    csv.field_size_limit(1 << 24)
    needed = ("question", "review", "human_ans_spans", "human_ans_indices")
    with open_text(file) as stream:
        try:
            content = stream.read()
        except UnicodeDecodeError:
            raise DataError(f"{file}: not UTF-8; convert it first") from None
        reader = csv.DictReader(io.StringIO(content, newline=""))
        lacking = [name for name in needed if name not in (reader.fieldnames or ())]
        if lacking:
            raise DataError(f"{file}: no column '{lacking[0]}'; a table of questions is SubjQA's, with "
                            f"{', '.join(needed)}; other data belongs in SQuAD's JSON")
        # Each row is one person's answer; the rows of a question and its review are one question.
        rows: dict[tuple[str, str, str], list[tuple[str, int]]] = {}
        for number, row in _table_rows(reader, file):
            question, review, answer = (row[name] or "" for name in needed[:3])
            try:
                start = int(ast.literal_eval(row["human_ans_indices"])[0])
            except (ValueError, SyntaxError, TypeError, IndexError, OverflowError, RecursionError, MemoryError):
                raise DataError(f"{file}, row {number}: human_ans_indices is {row['human_ans_indices']!r}, not two "
                                "numbers") from None
            answers = rows.setdefault((row.get("q_review_id") or "", question, review), [])
            if answer.strip() and _NO_ANSWER not in answer:
                answers.append((answer, start))
        for number, ((id_, question, review), answers) in enumerate(rows.items(), start=1):
            yield _Row(id_ or str(number), question, review.rstrip().removesuffix(_NO_ANSWER), tuple(answers))


def _table_rows(reader: "csv.DictReader[str]", file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their numbers, the header's being 1; ``DataError`` for what is no table."""
    rows = enumerate(reader, start=2)
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error as problem:
            raise DataError(f"{file}, line {reader.line_num}: not a table ({problem}); mend that line") from None


def _located(row: _Row) -> tuple[SpanQuestion, int]:
    """With the answers' true places, and how many have none."""
    places = []
    missing = 0
    for text, start in row.answers:
        stripped = text.strip()
        place = _nearest(row.passage, stripped, start)
        if place is None:
            missing += 1
        elif place not in places:
            places.append(place)
    references = tuple(dict.fromkeys(text for text, _ in row.answers))
    return SpanQuestion(row.id, row.question, row.passage, tuple(places), references), missing


def _nearest(passage: str, text: str, start: int) -> tuple[int, int] | None:
    """Where ``text`` stands in ``passage``, white space aside (some data sets split it into words), nearest to
    ``start``."""
    own = [i for i, character in enumerate(passage) if not character.isspace()]
    squeezed, wanted = "".join(passage[i] for i in own), "".join(text.split())
    found, best = squeezed.find(wanted) if wanted else -1, None
    while found >= 0:
        place = (own[found], own[found + len(wanted) - 1] + 1)
        if best is None or abs(place[0] - start) < abs(best[0] - start):
            best = place
        found = squeezed.find(wanted, found + 1)
    return best
