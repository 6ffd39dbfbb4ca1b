"""Find passages of your documents, and answer questions from them."""

import dataclasses
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from tickwise.cli.answer_pages import AnswerPage, check_page
from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.json_rows import JsonRows
from tickwise.cli.task_flags import answer_texts, texts_progress
from tickwise.core.errors import ConfigError

if TYPE_CHECKING:
    from tickwise.report.answers import ShownAnswer
    from tickwise.tasks.answer import Reader
    from tickwise.tasks.answer_documents import DocumentAnswer, DocumentAnswers
    from tickwise.tasks.passage_index import Hit, PassageIndex
    from tickwise.tasks.retrieve import Shares


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
    calibrate: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Questions with their paragraphs, by which the threshold of "not found" is chosen and kept in the index, together
    with the weights that it was chosen with."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps: where the embedder and the reader compute."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieve(_DocumentArguments):
    """Find the passages of your documents that a question is about: by their words (BM25) and, with an embedder, by
    their meaning."""

    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 5
    """Passages for each question."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask(_DocumentArguments):
    """Answer questions from your documents: what answers, its passage and score, or "not found"."""

    reader: Path | None = None
    """Model directory of a reader (tickwise adapt --task answer), which answers with a span of a passage; without one
    the sentence that covers most of the question answers."""
    passages: int | None = None
    """Passages that are read for an answer, the best of the search (5, or what the index was calibrated with)."""
    reader_weight: float | None = None
    """Share of what speaks for the answer in its passage (of a reader, the odds that there is one) in an answer's
    score, from 0 to 1 (0.1, or what the index was calibrated with); the rest is the passage's score in the search."""
    html: Path | None = None
    """Also write a page: the passages with the answer marked, their tokens shaded by how likely an answer begins or
    ends there."""
    rule: Literal["squad", "cmrc"] = "squad"
    """Whose exact match and F1 --test computes; cmrc for Chinese."""


def run(arguments: Retrieve | Ask) -> int:
    _check(arguments)
    reader = _reader(arguments)
    index = _index(arguments)
    if arguments.calibrate:
        _calibrate(arguments, index, reader)
    elif arguments.test:
        _evaluate(arguments, index, reader)
    elif _has_questions(arguments):
        if isinstance(arguments, Retrieve):
            _retrieve(arguments, index)
        else:
            _answer(arguments, index, reader)
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
    if arguments.calibrate and arguments.index is None:
        raise ConfigError("--calibrate: keeps the threshold in an index; say with --index in which")
    if arguments.calibrate and arguments.threshold is not None:
        raise ConfigError("--threshold: --calibrate chooses it; leave it out")
    if isinstance(arguments, Retrieve):
        if arguments.k < 1:
            raise ConfigError(f"--k {arguments.k}: must be at least 1")
    else:
        from tickwise.tasks.answer_documents import check_reading

        check_reading(arguments.passages, arguments.reader_weight)
        check_page(arguments.html, bool(arguments.test or arguments.calibrate))


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
        return PassageIndex.open(arguments.index, arguments.device)
    index = build_index(read_passages(arguments.documents, arguments.field), arguments.index,
                        embedder=arguments.embedder, about={"documents": list(arguments.documents)},
                        overwrite=arguments.overwrite, device=arguments.device)
    where = "" if arguments.index is None else f", in {arguments.index}"
    say(f"{index.n_passages:,} passages, {index.header['terms']:,} terms{where}")
    return index


def _retrieve(arguments: Retrieve, index: "PassageIndex") -> None:
    from tickwise.tasks.retrieve import threshold_of

    threshold = arguments.threshold
    if threshold is None:
        threshold = threshold_of(index, arguments.embedding_weight)

    def tell(questions: list[str]) -> None:
        found = index.search(questions, arguments.k, embedding_weight=arguments.embedding_weight)
        for question, hits in zip(questions, found, strict=True):
            if arguments.json:
                rows.add({"question": question, "found": bool(hits) and hits[0].score >= threshold,
                          "threshold": threshold, "passages": [hit.to_json() for hit in hits]})
            else:
                print(_ranking(question, hits, threshold), flush=True)
            advance(1)

    with JsonRows() as rows, texts_progress(arguments, "retrieve", "questions") as advance:
        answer_texts(arguments, tell, "question")


def _answer(arguments: Ask, index: "PassageIndex", reader: "Reader | None") -> None:
    answers = _answers(arguments, index, reader, arguments.threshold)
    page = AnswerPage(arguments.html)

    def tell(questions: list[str]) -> None:
        for answer in answers.each(questions):
            if arguments.json:
                rows.add(answer.to_json() | {"threshold": answers.threshold})
            else:
                print(_told(answer, answers.threshold), flush=True)
            page.add(functools.partial(_shown, reader, answer, answers.threshold))
            advance(1)

    with JsonRows() as rows, texts_progress(arguments, "answer", "questions") as advance:
        answer_texts(arguments, tell, "question")
    page.write("tickwise run ask")


def _shown(reader: "Reader | None", answer: "DocumentAnswer", threshold: float) -> "ShownAnswer":
    from tickwise.tasks.answer_places import shown_document_answer  # needs torch, which sentences do without

    return shown_document_answer(reader, answer, threshold)


def _reader(arguments: Retrieve | Ask) -> "Reader | None":
    if isinstance(arguments, Retrieve) or arguments.reader is None:
        return None
    from tickwise.tasks.answer import Reader

    return Reader.load(arguments.reader, arguments.device)


def _answers(arguments: Ask, index: "PassageIndex", reader: "Reader | None",
             threshold: float | None) -> "DocumentAnswers":
    from tickwise.tasks.answer_documents import SENTENCES, DocumentAnswers
    from tickwise.tasks.embedders import embedder_fingerprint

    kept_as = SENTENCES if arguments.reader is None else embedder_fingerprint(arguments.reader)
    return DocumentAnswers(index, reader, threshold, arguments.embedding_weight, passages=arguments.passages,
                           reader_weight=arguments.reader_weight, kept_as=kept_as)


def _ranking(question: str, hits: "Sequence[Hit]", threshold: float) -> str:
    if not hits:
        return _nothing(question)
    lines = []
    if hits[0].score < threshold:
        lines.append(f"not found: the best score is below {threshold:.2f}; the nearest passages:")
    for hit in hits:
        cosine = "" if hit.cosine is None else f", BM25 {hit.bm25:.2f}, cosine {hit.cosine:.2f}"
        lines.append(f"{hit.score:.2f}  {hit.where}{cosine}\n      {_shortened(hit.passage.text)}")
    return "\n".join(lines)


def _nothing(question: str) -> str:
    if not question.strip():
        return "not found: the question is empty"
    return "not found: no passage shares a word with the question"


def _told(answer: "DocumentAnswer", threshold: float) -> str:
    hit = answer.hit
    if hit is None:
        return _nothing(answer.question)
    scores = f"retrieval {hit.score:.2f}"
    if answer.span is not None and answer.span.probability is not None:
        scores += f", reader {answer.span.probability:.2f}"
    if answer.found and answer.score is not None:
        return f"{' '.join(answer.text.split())}\n      {answer.score:.2f}  {hit.where}, {scores}"
    if answer.unread is not None:
        return (f"not found: no answer can have a score of {threshold:.2f}; in the nearest passage, {hit.where}, at "
                f"most {answer.unread:.2f} ({scores}); nothing was read")
    if answer.score is None:
        return f"not found: no answer in the passages that were read, the nearest being {hit.where}, {scores}"
    return (f"not found: what comes nearest, in {hit.where}, has a score of {answer.score:.2f}, below {threshold:.2f} "
            f"({scores})")


def _shortened(text: str, longest: int = 300) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else flat[:longest].rsplit(" ", 1)[0] + " …"


def _evaluate(arguments: Retrieve | Ask, index: "PassageIndex", reader: "Reader | None") -> None:
    from tickwise.data.passages import read_questions
    from tickwise.evaluation.results import results_json, table
    from tickwise.tasks.answer_documents import evaluate_answers
    from tickwise.tasks.retrieve import evaluate_retrieval

    questions = read_questions(arguments.test)
    if isinstance(arguments, Retrieve):
        task, further = "retrieve", {}
        scores = evaluate_retrieval(index, questions, embedding_weight=arguments.embedding_weight)
    else:
        task = "ask"
        answers = _answers(arguments, index, reader, arguments.threshold)
        report = evaluate_answers(answers, questions, arguments.rule)
        scores = {"exact_match": report.scores.exact_match, "f1": report.scores.f1}
        further = {"answered": report.answered, "contains_reference": report.contains}
    if arguments.json:
        model = getattr(arguments, "reader", None) or arguments.index or ", ".join(arguments.documents)
        asked = "ranking" if task == "retrieve" else "extraction"
        print(json.dumps(results_json({task: scores}, {task: len(questions)}, model=str(model),
                                      output_type=asked) | further))
        return
    print(table(scores, "questions", len(questions)))
    if further:
        print(f"answered {100 * further['answered']:.2f} %; a reference is in the answer of "
              f"{100 * further['contains_reference']:.2f} %")


def _calibrate(arguments: Retrieve | Ask, index: "PassageIndex", reader: "Reader | None") -> None:
    from tickwise.data.passages import read_questions
    from tickwise.tasks.retrieve import choose_threshold, keep_threshold

    assert arguments.index is not None
    questions = read_questions(arguments.calibrate)
    if isinstance(arguments, Retrieve):
        chosen = choose_threshold(index, questions, arguments.embedding_weight)
        keep_threshold(arguments.index, chosen)
    else:
        answers = _answers(arguments, index, reader, 0.0)
        chosen = answers.choose_threshold(questions)
        answers.keep_threshold(arguments.index, chosen)
    if arguments.json:
        print(json.dumps({"threshold": dataclasses.asdict(chosen)}))
        return
    print(f"threshold {chosen.value:.3f}, kept in {arguments.index}; on these {chosen.questions:,} questions, on which "
          f"it was chosen:\n{_told_shares(chosen)}")
    if chosen.held_out is None:
        print("too few paragraphs to tell what it does on questions that it was not chosen on")
    else:
        print(f"with thresholds that were chosen on the questions of other paragraphs:\n"
              f"{_told_shares(chosen.held_out)}")


def _told_shares(found: "Shares") -> str:
    return (f"  {100 * found.found:.1f} % are answered, {100 * found.right:.1f} % of them with the right passage\n"
            f"  {100 * found.refused:.1f} % are refused when their passage is taken away")
