"""What the tasks of ``tickwise run`` share: the model, where texts come from, and what to train on."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Protocol

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import progress
from tickwise.core.errors import ConfigError, DataError, UserError

TEXTS_AT_ONCE = 256
STANDARD_INPUT = "-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskArguments(CommonArguments):
    """Base of every task's ``Arguments``."""

    model: tyro.conf.Positional[Path | None] = None
    """Model directory, or run directory (its best model); left out with --train."""
    text: tyro.conf.Positional[str | None] = None
    """The text; - reads standard input, a text per line. Without a text and --input, a prompt asks for texts."""
    input: Path | None = None
    """File with a text per line."""
    train: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """File to train on, or name of a known data set; several times for several files."""
    dev: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """File by which the best model is chosen and its probabilities are calibrated; a tenth of --train if left out."""
    test: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """File to evaluate on."""
    out: Path | None = None
    """Run directory of a training."""
    trace: Path | None = None
    """Folder for a trace: every pass of the model over texts, or every training step, stage by stage (tickwise trace
    show)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelArguments(CommonArguments):
    """Of a task that reads texts with a model that is there."""

    model: tyro.conf.Positional[Path]
    """Model or run directory."""
    text: tyro.conf.Positional[str | None] = None
    """The text; - reads standard input, a text per line. Without a text and --input, a prompt asks for texts."""
    input: Path | None = None
    """File with a text per line."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""


def check_task(arguments: TaskArguments) -> None:
    """``ConfigError`` for flags that contradict each other: a task trains, evaluates, or reads texts."""
    if arguments.train:
        if arguments.model is not None or arguments.text is not None or arguments.input is not None:
            raise ConfigError("--train makes a model: leave out the model directory, the text and --input")
        if arguments.out is None:
            raise ConfigError("--train: say with --out where the model goes")
        return
    if arguments.model is None:
        raise ConfigError("give a model directory, or --train FILE --out DIRECTORY to make one")
    for name in ("dev", "out"):
        if getattr(arguments, name):
            raise ConfigError(f"--{name}: has a meaning with --train only")
    given = [name for name in ("text", "input", "test") if getattr(arguments, name)]
    if len(given) > 1:
        raise ConfigError(f"give one of the text, --input and --test, not {' and '.join(given)}")


def refuse_blank(text: str | None) -> None:
    """``ConfigError`` for a text on the command line without anything in it."""
    if text is not None and not text.strip():
        raise ConfigError("the text is empty; give some, or - to read standard input")


class NamesTexts(Protocol):
    """Flags that say where texts come from: one text, a file of them, or nothing."""

    @property
    def text(self) -> str | None: ...

    @property
    def input(self) -> Path | None: ...


def is_prompt(arguments: NamesTexts) -> bool:
    """Whether texts are typed at a terminal. Standard input that was read to its end is none."""
    return arguments.text is None and arguments.input is None and not sys.stdin.closed and sys.stdin.isatty()


def answer_texts(arguments: NamesTexts, answer: Callable[[list[str]], None], what: str = "text") -> None:
    """Hand the texts that the flags name to ``answer``, some hundred at a time; at a terminal one by one as they are
    typed, where one that cannot be answered is said and the prompt stays. A blank line of a file stays a text, so that
    answers and lines keep their numbers. ``what`` names a text to who types it."""
    if arguments.text is not None and arguments.text != STANDARD_INPUT:
        answer([arguments.text])
        return
    if is_prompt(arguments):
        for line in typed_lines(what):
            try:
                answer([line])
            except UserError as problem:
                print(f"tickwise: {problem}", file=sys.stderr)
        return
    batch: list[str] = []
    for line in lines_of(arguments.input):
        batch.append(line)
        if len(batch) == TEXTS_AT_ONCE:
            answer(batch)
            batch = []
    if batch:
        answer(batch)


class NamesTextsAndForm(NamesTexts, Protocol):
    """Flags that also say how answers are printed."""

    @property
    def json(self) -> bool: ...


@contextlib.contextmanager
def texts_progress(
    arguments: NamesTextsAndForm, doing: str, what: str = "texts", *, printed: bool = True
) -> Iterator[Callable[[float], None]]:
    """What moves on a line of progress of the texts, called ``what``, from a file or a pipe, on stderr, by a number.

    There is none for a text that is typed or given, nor where the answers are ``printed`` as lines on the terminal,
    which show how far it is."""
    typed = arguments.text not in (None, STANDARD_INPUT) or is_prompt(arguments)
    if typed or (printed and sys.stdout.isatty() and not arguments.json):
        yield lambda amount: None
        return
    total = None
    if arguments.input is not None and arguments.input.is_file():
        with contextlib.suppress(OSError), arguments.input.open("rb") as stream:  # what reads it says what is wrong
            total = sum(1 for _ in stream)
    with progress(doing, total, what) as bar:
        yield bar.advance


def typed_lines(what: str = "text") -> Iterator[str]:
    """Lines typed at the terminal, until end of file."""
    print(f"a {what} per line; end with Ctrl-D", file=sys.stderr)
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)
            return
        if line.strip():
            yield line.rstrip("\r\n")


def lines_of(path: Path | None) -> Iterator[str]:
    """The lines of a file or of standard input, without their ends."""
    standard_input = path is None or str(path) == STANDARD_INPUT
    name = "standard input" if standard_input else str(path)
    number = 0
    try:
        with sys.stdin.buffer if path is None or standard_input else path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield line.rstrip("\r\n")
    except OSError as problem:
        raise DataError(f"{name}: cannot read it: {problem.strerror or problem}") from None
    except UnicodeDecodeError:
        raise DataError(f"{name}, line {number}: not UTF-8; convert it first") from None
    if number == 0:
        raise DataError(f"{name}: no text in it")


def answer_each(arguments: NamesTextsAndForm, doing: str, answer: Callable[[str], None], undone: str) -> None:
    """Hand the texts that the flags name to ``answer``, one after the other, with a line of progress called ``doing``.

    One of a file that cannot be answered does not stop the others: with --json a row has its ``error``, and a
    ``DataError`` says at the end how many are ``undone``."""
    source = "standard input" if arguments.input is None or str(arguments.input) == STANDARD_INPUT else arguments.input
    one_by_one = arguments.text not in (None, STANDARD_INPUT) or is_prompt(arguments)
    n_done = 0
    problems: list[str] = []

    def each(texts: list[str]) -> None:
        nonlocal n_done
        for text in texts:
            n_done += 1
            try:
                answer(text)
            except DataError as problem:
                if one_by_one:
                    raise
                problems.append(f"{source}, line {n_done}: {problem}")
                if arguments.json:
                    print(json.dumps({"text": text, "error": str(problem)}, ensure_ascii=False), flush=True)
            finally:
                advance(1)

    with texts_progress(arguments, doing) as advance:
        answer_texts(arguments, each)
    if problems:
        raise DataError(f"{len(problems):,} of {n_done:,} texts {undone}; the first: {problems[0]}")
