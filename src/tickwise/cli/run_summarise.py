"""Summarise texts with a model, train one on texts with summaries of your own, or extract without any.

Train:  tickwise run summarise --train texts.jsonl --out DIRECTORY

Use:  tickwise run summarise DIRECTORY "a text"

Without a model:  tickwise run summarise "a text" --method extractive
"""

import contextlib
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.json_rows import JsonRows
from tickwise.cli.pair_flags import PairFlags, figures_of
from tickwise.cli.task_flags import typed_lines
from tickwise.core.console import progress, say
from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.tasks.prefixed_options import SummaryOptions

if TYPE_CHECKING:
    from tickwise.tasks.summarise import Summarised, Summariser

_AT_ONCE = 64
"""Texts that are summarised side by side; their summaries are printed before the next are read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Own(CommonArguments):
    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """[MODEL] TEXT: a model directory, if the summary is to be learned, and the text; - reads standard input, as does
    no text where that is no terminal. At a terminal a prompt asks for texts."""
    method: Literal["extractive", "lead", "copy"] = "extractive"
    """Without a model. extractive: the sentences of highest TextRank; lead: the first ones; copy: the whole text."""
    sentences: int = 3
    """Sentences (of a dialogue: turns) of a summary."""
    input: Path | None = None
    """File that holds the text, or texts as rows of .jsonl, .csv, .tsv or .parquet."""
    each_line: bool = False
    """Every line of the input is a text of its own."""
    field: str = "dialogue"
    """Key or column of the text in rows."""
    summary: str = "summary"
    """Key of the summary in the rows of --test; keys like summary1, summary2 are further references."""
    test: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Texts with summaries to evaluate on: a table (.jsonl, .json, .csv, .tsv, .parquet), or the name of a known data
    set."""
    references: Literal["best", "mean"] = "best"
    """Which of several references counts for ROUGE: the best of each kind, or their mean."""
    train: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Texts with summaries to train a model on: a table, or the name of a known data set."""
    dev: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Texts with summaries by which the best model is chosen; left out, a twentieth of --train (at most 1,000)."""
    start: Path | None = None
    """With --train: encoder–decoder to go on from, such as one of tickwise train text-to-text."""
    options: SummaryOptions = dataclasses.field(default_factory=SummaryOptions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(PairFlags, _Own):
    """The verb's own flags, and those of a training behind them."""


def run(arguments: Arguments) -> int:
    arguments.check_beam()
    if arguments.train:
        ended = arguments.start_ranks()
        return _train(arguments) if ended is None else ended
    for name in ("dev", "start", "out", "trace"):
        if getattr(arguments, name):
            raise ConfigError(f"--{name}: has a meaning with --train only")
    model, text = _model_and_text(arguments.words)
    given = [name for name, value in (("text", text), ("--input", arguments.input), ("--test", arguments.test))
             if value]
    if len(given) > 1:
        raise ConfigError(f"give one of the text, --input and --test, not {' and '.join(given)}")
    if text is not None and not text.strip():
        raise ConfigError("the text is empty")
    if arguments.test:
        rows = _rows_to_score(arguments)
        _evaluate(arguments, rows, _summariser(arguments, model), arguments.method if model is None else str(model))
        return 0
    _answer(arguments, _summariser(arguments, model), text)
    return 0


def _answer(arguments: Arguments, summarise: "Summariser", text: str | None) -> None:
    """Summaries to stdout as soon as they are there: of one text as it is written, else a line each; at a terminal, of
    texts as they are typed. With --json one object, or ``samples``. Of a text that cannot be read the line is blank,
    its JSON has the ``error``, and the others go on; ``DataError`` says at the end how many these were."""
    if text is None and arguments.input is None and sys.stdin.isatty():
        for line in typed_lines():
            (one,) = _summaries(summarise, [line], 1, None)
            if "error" in one:
                say(str(one["error"]))
            else:
                print(json.dumps(one, ensure_ascii=False) if arguments.json else one["summary"], flush=True)
        return
    batches, total = _batches(arguments, text)
    first = next(batches)
    alone = len(first) == 1
    n_done = n_cut = 0
    problems: list[str] = []
    rows = JsonRows()
    with contextlib.ExitStack() as stack:
        advance: Callable[[float], None] | None = None if alone else (lambda amount: None)
        if not alone and (arguments.json or not sys.stdout.isatty()):
            advance = stack.enter_context(progress("summarising", total, "texts")).advance
        try:
            for texts in itertools.chain([first], batches):
                shown = _summaries(summarise, texts, n_done + 1, advance)
                n_done += len(texts)
                n_cut += sum(one.get("cut", False) for one in shown)
                problems += [one["error"] for one in shown if "error" in one]
                if alone and problems:
                    raise DataError(problems[0])
                for one in shown:
                    if arguments.json:
                        rows.add(one)
                    else:
                        print(one["summary"] if alone else " ".join(one["summary"].splitlines()), flush=True)
        finally:
            if arguments.json:
                rows.close()
    if n_cut:
        from tickwise.tasks.text_to_text import say_cut

        say_cut(n_cut, n_done)
    if problems:
        raise DataError(f"{len(problems):,} of {n_done:,} texts have no summary; the first: {problems[0]}")


def _summaries(summarise: "Summariser", texts: list[str], first_number: int,
               advance: Callable[[float], None] | None) -> list[dict[str, Any]]:
    """The summary of each text; of a model's, whether it was cut; and the ``error`` of a text that cannot be read.
    ``advance`` is told of every text that is done, unless there is but one."""
    from tickwise.tasks.summarise_learned import LearnedSummariser

    if isinstance(summarise, LearnedSummariser):
        return [{"summary": one.text, "cut": one.cut} | ({} if one.problem is None else {"error": one.problem})
                for one in summarise.write(texts, first_number=first_number, advance=advance)]
    shown: list[dict[str, Any]] = []
    for number, text in enumerate(texts, start=first_number):
        try:
            shown.append({"summary": summarise([text])[0]})
        except DataError as problem:
            shown.append({"summary": "", "error": f"text {number:,}: {problem}" if advance else str(problem)})
        if advance is not None:
            advance(1)
    return shown


def _model_and_text(words: tuple[str, ...]) -> tuple[Path | None, str | None]:
    """What the words on the command line are: a model directory comes before the text, if there is one."""
    if len(words) > 2:
        raise ConfigError(f"give a model directory and a text, not {len(words)} words: put the text in quotes")
    if words and os.path.isdir(words[0]):
        return Path(words[0]), words[1] if len(words) == 2 else None
    if len(words) == 2:
        raise CheckpointError(f"{words[0]}: no such model directory")
    return None, words[0] if words else None


def _summariser(arguments: Arguments, model: Path | None) -> "Summariser":
    if model is None:
        from tickwise.tasks.summarise import baseline

        return baseline(arguments.method, arguments.sentences)
    from tickwise.tasks.summarise_learned import LearnedSummariser
    from tickwise.tasks.text_to_text import TextToText

    return LearnedSummariser(TextToText.load(model, arguments.device), arguments.beam, arguments.length_penalty,
                             arguments.max_tokens)


def _batches(arguments: Arguments, text: str | None) -> tuple[Iterator[list[str]], int | None]:
    """The texts, some at a time, and how many they are where that is known; ``DataError`` where there is none."""
    from tickwise.tasks.keywords import corpus_documents

    source = str(arguments.input) if arguments.input is not None else "-"
    texts: Iterable[str]
    if text is not None and text != "-":
        texts = text.splitlines() if arguments.each_line else [text]
    else:
        texts = corpus_documents([source], "line" if arguments.each_line else "file", arguments.field)
        if source != "-":
            texts = list(texts)
    running = iter(texts)
    batches = iter(lambda: list(itertools.islice(running, _AT_ONCE)), [])
    first = next(batches, None)
    if first is None:
        raise DataError(f"{source}: no text in it")
    return itertools.chain([first], batches), len(texts) if isinstance(texts, list) else None


def _rows_to_score(arguments: Arguments) -> "list[Summarised]":
    """The texts of --test with their summaries; a ``UserError`` where they cannot be scored."""
    from tickwise.evaluation.overlap import need_overlap
    from tickwise.tasks.summarise import read_summarised

    need_overlap()
    return read_summarised(arguments.test, arguments.field, arguments.summary)


def _evaluate(arguments: Arguments, rows: "list[Summarised]", summarise: "Summariser", name: str,
              shown: bool = True) -> dict[str, Any]:
    """Scores of the summaries: printed, and returned as JSON values. A model leaves out texts that are too long."""
    from tickwise.evaluation.results import results_json, table
    from tickwise.tasks.summarise import evaluate_summaries
    from tickwise.tasks.summarise_learned import LearnedSummariser, evaluate_learned

    n_scored, cut = len(rows), {}
    if isinstance(summarise, LearnedSummariser):
        scores, written = evaluate_learned(summarise, rows, ", ".join(arguments.test), arguments.references)
        n_scored, cut = len(written), {"cut": sum(one.cut for one in written)}
    else:
        scores = evaluate_summaries(summarise, rows, arguments.references)
    figures = results_json({"summarise": scores}, {"summarise": n_scored}, model=name)
    figures |= {"left_out": len(rows) - n_scored} | cut
    if shown:
        print(json.dumps(figures) if arguments.json else table(scores, "texts", n_scored))
    return figures


def _train(arguments: Arguments) -> int:
    from tickwise.tasks.summarise_learned import train_summariser
    from tickwise.training.distributed.ranks import is_leader

    if arguments.words or arguments.input is not None:
        raise ConfigError("--train makes a model: leave out the model directory, the text and --input (a model to go "
                          "on from is named with --start)")
    if arguments.out is None:
        raise ConfigError("--train: say with --out where the model goes")
    rows = _rows_to_score(arguments) if arguments.test else []
    result = train_summariser(
        arguments.train, development=arguments.dev, test=rows, field=arguments.field, summary=arguments.summary,
        options=arguments.options, start=arguments.start, **arguments.training_settings())
    if result.interrupted or not is_leader():
        return 130 if result.interrupted else 0
    figures = figures_of(result)
    if rows:
        figures |= _evaluate(arguments, rows, _summariser(arguments, result.model), str(result.model),
                             shown=not arguments.json)
    if arguments.json:
        print(json.dumps(figures))
    say(f'use it: tickwise run summarise {arguments.out} "a text"')
    return 0
