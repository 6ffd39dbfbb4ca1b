"""Answer questions with spans of a passage, or evaluate a reader; tickwise adapt --task answer makes one."""

import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tickwise.cli.answer_pages import AnswerPage, check_page
from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.task_flags import STANDARD_INPUT, answer_texts
from tickwise.core.console import progress
from tickwise.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tickwise.tasks.answer import Answer, Reader

_AT_ONCE = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    model: tyro.conf.Positional[Path]
    """Model or run directory of a reader (tickwise adapt ENCODER --task answer)."""
    question: tyro.conf.Positional[str | None] = None
    """The question about --passage; - reads standard input, a question per line. Without one, and without --input and
    --test, a prompt asks for questions."""
    passage: Path | None = None
    """Text file to answer from; - reads standard input."""
    input: Path | None = None
    """File of questions with their passages: SQuAD's JSON, SubjQA's table, or rows of JSON; a line is printed for each.
    """
    test: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """File of questions to evaluate on."""
    baselines: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """File of questions, best those that the reader was trained on: --test then also shows what programs reach that
    answer by shared words, the length of whose window is fitted on these questions. Nothing else is."""
    html: Path | None = None
    """Also write a page: each passage with the answer marked, its tokens shaded by how likely an answer begins or ends
    there."""
    must_answer: bool = False
    """Give the best span even where "no answer here" is likelier."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""


def run(arguments: Arguments) -> int:
    given = [name for name in ("question", "input", "test") if getattr(arguments, name)]
    if len(given) > 1:
        raise ConfigError(f"give one of the question, --input and --test, not {' and '.join(given)}")
    if arguments.input is None and not arguments.test and arguments.passage is None:
        raise ConfigError("--passage: give the text file to answer from")
    if arguments.passage is not None and (arguments.input is not None or arguments.test):
        raise ConfigError("--passage: the questions of --input and --test bring their own")
    if str(arguments.passage) == STANDARD_INPUT and arguments.question in (None, STANDARD_INPUT):
        raise ConfigError("--passage -: standard input has the passage; give the question as an argument")
    if arguments.baselines and not arguments.test:
        raise ConfigError("--baselines: are compared with the reader on labelled questions; give --test FILE")
    check_page(arguments.html, bool(arguments.test))
    if arguments.question is not None and not arguments.question.strip():
        raise ConfigError("the question is empty")
    from tickwise.tasks.answer import Reader

    reader = Reader.load(arguments.model, device=arguments.device)
    if arguments.test:
        _evaluate(reader, arguments)
    elif arguments.input is not None:
        _answer_file(reader, arguments)
    else:
        _answer_passage(reader, arguments)
    return 0


def _evaluate(reader: "Reader", arguments: Arguments) -> None:
    from tickwise.cli.adapt import answer_table
    from tickwise.data.spans import read_span_questions

    training = read_span_questions(arguments.baselines) if arguments.baselines else []
    result = reader.evaluate(read_span_questions(arguments.test, "test"), training)
    print(json.dumps(result.to_json()) if arguments.json else answer_table(result))


def _answer_file(reader: "Reader", arguments: Arguments) -> None:
    from tickwise.data.spans import read_span_questions
    from tickwise.tasks.answer_places import shown_answer

    questions = read_span_questions([str(arguments.input)])
    page = AnswerPage(arguments.html)
    with progress("answer", len(questions), "questions") as bar:
        for start in range(0, len(questions), _AT_ONCE):
            part = questions[start : start + _AT_ONCE]
            answers = reader.answer_all([(q.text, q.passage) for q in part], must_answer=arguments.must_answer)
            for question, answer in zip(part, answers, strict=True):
                if arguments.json:
                    shown = {"id": question.id, "question": question.text} | answer.to_json()
                    print(json.dumps(shown, ensure_ascii=False), flush=True)
                else:
                    print(" ".join(answer.text.split()), flush=True)
                page.add(functools.partial(shown_answer, reader, question.text, question.passage, answer, question.id))
            bar.advance(len(part))
    page.write("tickwise run answer")


@dataclasses.dataclass(frozen=True)
class _Questions:
    """Where questions about --passage come from: the command line, else who types or pipes them."""

    text: str | None
    input: None = None


def _answer_passage(reader: "Reader", arguments: Arguments) -> None:
    from tickwise.tasks.answer_places import shown_answer

    assert arguments.passage is not None
    from_input = str(arguments.passage) == STANDARD_INPUT
    passage = _read(None if from_input else arguments.passage)
    page = AnswerPage(arguments.html)

    def tell(questions: list[str]) -> None:
        for question in filter(str.strip, questions):
            answer = reader.answer(question.strip(), passage, must_answer=arguments.must_answer)
            _show(answer, arguments)
            page.add(functools.partial(shown_answer, reader, question.strip(), passage, answer,
                                       str(arguments.passage)))

    answer_texts(_Questions(arguments.question), tell, "question")
    page.write("tickwise run answer")


def _show(answer: "Answer", arguments: Arguments) -> None:
    if arguments.json:
        print(json.dumps(answer.to_json(), ensure_ascii=False), flush=True)
    elif answer.text:
        print(f"{answer.text}\t{answer.probability:.3f}\tcharacters {answer.start} to {answer.end}", flush=True)
    else:
        print(f"no answer found\t{answer.probability:.3f}", flush=True)


def _read(path: Path | None) -> str:
    name = "standard input" if path is None else str(path)
    try:
        data = sys.stdin.buffer.read() if path is None else path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as problem:
        raise DataError(f"{name}: cannot read it: {problem.strerror or problem}") from None
    except UnicodeDecodeError:
        raise DataError(f"{name}: not UTF-8; convert it first") from None
    if not text or text.isspace():
        raise DataError(f"{name}: no text in it to answer from")
    return text
