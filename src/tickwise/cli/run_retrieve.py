"""Find passages of your documents, and answer questions from them."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.task_flags import answer_texts
from tickwise.core.errors import ConfigError

if TYPE_CHECKING:
    from tickwise.tasks.answer_documents import DocumentAnswer, Reader
    from tickwise.tasks.passage_index import Hit, PassageIndex


@dataclasses.dataclass(frozen=True, kw_only=True)
class _DocumentArguments(CommonArguments):
    text: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="QUESTION")] = None
    """The question; - reads standard input, a question per line. Without one and --input, a prompt asks for it."""
    input: Path | None = None
    """File with a question per line."""
    documents: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """File or folder to look in: text, Markdown, .jsonl, .csv, .parquet, SQuAD's .json; may be given several times."""
    field: str = "text"
    """Key or column of the text in documents of rows."""
    index: Path | None = None
    """Folder of an index: made from --documents if they are given, else used as it is."""
    overwrite: bool = False
    """Make the index anew."""
    embedder: Path | None = None
    """What finds passages by meaning besides their words: word vectors (folder, or file in word2vec's format), or the
    model directory of an encoder (tickwise adapt --task embed)."""
    embedding_weight: float | None = None
    """Share of the embeddings in a passage's score, from 0 to 1 (0.1, or what the index was calibrated with)."""
    threshold: float | None = None
    """Lowest score that counts as found."""
    test: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Questions to evaluate on, with their paragraphs and answers: SQuAD's .json, or .jsonl."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieve(_DocumentArguments):
    """Find the passages of your documents that a question is about: by their words (BM25) and, with an embedder, by
    their meaning."""

    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 5
    """Passages for each question."""
    calibrate: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Questions with their paragraphs, by which the threshold of "not found" is chosen and kept in the index, together
    with --embedding-weight."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask(_DocumentArguments):
    """Answer questions from your documents: what answers, its passage and score, or "not found"."""

    reader: Path | None = None
    """Model directory of a reader (tickwise adapt --task answer), which answers with a span of the passage; without one
    the sentence that covers most of the question answers."""
    rule: Literal["squad", "cmrc"] = "squad"
    """Whose exact match and F1 --test computes; cmrc for Chinese."""


def run(arguments: Retrieve | Ask) -> int:
    _check(arguments)
    index = _index(arguments)
    if isinstance(arguments, Retrieve) and arguments.calibrate:
        _calibrate(arguments, index)
    elif arguments.test:
        _evaluate(arguments, index)
    elif _has_questions(arguments):
        _answer(arguments, index)
    return 0


def _check(arguments: Retrieve | Ask) -> None:
    if not arguments.documents and arguments.index is None:
        raise ConfigError("a question needs documents to look in: give --documents FILE, or --index DIRECTORY")
    if arguments.embedder is not None and not arguments.documents:
        raise ConfigError("--embedder: is fixed when an index is made; give --documents too")
    if arguments.overwrite and (arguments.index is None or not arguments.documents):
        raise ConfigError("--overwrite: has a meaning with --documents and --index only")
    given = [name for name in ("text", "input", "test", "calibrate") if getattr(arguments, name, None)]
    if len(given) > 1:
        raise ConfigError(f"give one of the question, --input, --test and --calibrate, not {' and '.join(given)}")
    if arguments.text is not None and not arguments.text.strip():
        raise ConfigError("the question is empty")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise ConfigError(f"--threshold {arguments.threshold:g}: scores are from 0 to 1")
    if isinstance(arguments, Retrieve):
        if arguments.k < 1:
            raise ConfigError(f"--k {arguments.k}: must be at least 1")
        if arguments.calibrate and arguments.index is None:
            raise ConfigError("--calibrate: keeps the threshold in an index; say with --index in which")


def _has_questions(arguments: Retrieve | Ask) -> bool:
    """Making an index is a purpose of its own where nobody can be asked for a question."""
    asked = arguments.text is not None or arguments.input is not None
    return asked or sys.stdin.isatty() or arguments.index is None or not arguments.documents


def _index(arguments: Retrieve | Ask) -> "PassageIndex":
    from tickwise.core.console import say
    from tickwise.data.passages import read_passages
    from tickwise.tasks.passage_index import PassageIndex, build_index

    if not arguments.documents:
        assert arguments.index is not None
        return PassageIndex.open(arguments.index)
    index = build_index(read_passages(arguments.documents, arguments.field), arguments.index,
                        embedder=arguments.embedder, about={"documents": list(arguments.documents)},
                        overwrite=arguments.overwrite)
    where = "" if arguments.index is None else f", in {arguments.index}"
    say(f"{index.n_passages:,} passages, {index.header['terms']:,} terms{where}")
    return index


def _answer(arguments: Retrieve | Ask, index: "PassageIndex") -> None:
    from tickwise.tasks.answer_documents import DocumentAnswers
    from tickwise.tasks.retrieve import threshold_of

    threshold = arguments.threshold
    if threshold is None:
        threshold = threshold_of(index, arguments.embedding_weight)
    answers = DocumentAnswers(index, _reader(arguments), threshold, arguments.embedding_weight)
    rows: list[dict[str, object]] = []

    def tell(questions: list[str]) -> None:
        if isinstance(arguments, Retrieve):
            found = index.search(questions, arguments.k, embedding_weight=arguments.embedding_weight)
            for question, hits in zip(questions, found, strict=True):
                rows.append({"question": question, "found": bool(hits) and hits[0].score >= threshold,
                             "threshold": threshold, "passages": [hit.to_json() for hit in hits]})
                if not arguments.json:
                    print(_ranking(question, hits, threshold), flush=True)
            return
        for answer in answers.answer(questions):
            rows.append(answer.to_json() | {"threshold": threshold})
            if not arguments.json:
                print(_told(answer, threshold), flush=True)

    answer_texts(arguments, tell)
    if arguments.json:
        print(json.dumps(rows[0] if len(rows) == 1 else {"samples": rows}, ensure_ascii=False))


def _reader(arguments: Retrieve | Ask) -> "Reader | None":
    if isinstance(arguments, Retrieve) or arguments.reader is None:
        return None
    from tickwise.tasks.answer import Reader

    return Reader.load(arguments.reader)


def _ranking(question: str, hits: "Sequence[Hit]", threshold: float) -> str:
    if not hits:
        return _nothing(question)
    lines = []
    if hits[0].score < threshold:
        lines.append(f"not found: the best score is below {threshold:.2f}; the nearest passages:")
    for hit in hits:
        cosine = "" if hit.cosine is None else f", BM25 {hit.bm25:.2f}, cosine {hit.cosine:.2f}"
        lines.append(f"{hit.score:.2f}  {_where(hit)}{cosine}\n      {_shortened(hit.passage.text)}")
    return "\n".join(lines)


def _nothing(question: str) -> str:
    if not question.strip():
        return "not found: the question is empty"
    return "not found: no passage shares a word with the question"


def _told(answer: "DocumentAnswer", threshold: float) -> str:
    if answer.hit is None:
        return _nothing(answer.question)
    if not answer.found and answer.hit.score >= threshold:
        return f"not found: no answer in the nearest passage, {_where(answer.hit)}, score {answer.hit.score:.2f}"
    if not answer.found:
        return (f"not found: the nearest passage, {_where(answer.hit)}, has a score of {answer.hit.score:.2f}, below "
                f"{threshold:.2f}")
    return f"{' '.join(answer.text.split())}\n      {answer.hit.score:.2f}  {_where(answer.hit)}"


def _where(hit: "Hit") -> str:
    passage = hit.passage
    return f"{passage.source}, {passage.place}" + (f" ({passage.title})" if passage.title else "")


def _shortened(text: str, longest: int = 300) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else flat[:longest].rsplit(" ", 1)[0] + " …"


def _evaluate(arguments: Retrieve | Ask, index: "PassageIndex") -> None:
    from tickwise.data.passages import read_questions
    from tickwise.evaluation.results import results_json, table
    from tickwise.tasks.answer_documents import DocumentAnswers, evaluate_answers
    from tickwise.tasks.retrieve import evaluate_retrieval

    questions = read_questions(arguments.test)
    if isinstance(arguments, Retrieve):
        task, further = "retrieve", {}
        scores = evaluate_retrieval(index, questions, embedding_weight=arguments.embedding_weight)
    else:
        task = "ask"
        answers = DocumentAnswers(index, _reader(arguments), arguments.threshold, arguments.embedding_weight)
        report = evaluate_answers(answers, questions, arguments.rule)
        scores = {"exact_match": report.scores.exact_match, "f1": report.scores.f1}
        further = {"answered": report.answered, "contains_reference": report.contains}
    if arguments.json:
        model = getattr(arguments, "reader", None) or arguments.index or ", ".join(arguments.documents)
        print(json.dumps(results_json({task: scores}, {task: len(questions)}, model=str(model)) | further))
        return
    print(table(scores, "questions", len(questions)))
    if further:
        print(f"answered {100 * further['answered']:.2f} %; a reference is in the answer of "
              f"{100 * further['contains_reference']:.2f} %")


def _calibrate(arguments: Retrieve, index: "PassageIndex") -> None:
    from tickwise.data.passages import read_questions
    from tickwise.tasks.retrieve import choose_threshold, keep_threshold

    assert arguments.index is not None
    chosen = choose_threshold(index, read_questions(arguments.calibrate), arguments.embedding_weight)
    keep_threshold(arguments.index, chosen)
    if arguments.json:
        print(json.dumps({"threshold": dataclasses.asdict(chosen)}))
        return
    print(f"threshold {chosen.value:.3f}, kept in {arguments.index}; on these {chosen.questions:,} questions\n"
          f"  {100 * chosen.found:.1f} % are answered, {100 * chosen.right:.1f} % of them with the right passage\n"
          f"  {100 * chosen.refused:.1f} % are refused when their passage is taken away")
