"""Summarise texts with a model, train one on texts with summaries of your own, or extract without any.

Train:  tickwise run summarise --train texts.jsonl --out DIRECTORY

Use:  tickwise run summarise DIRECTORY "a text"

Without a model:  tickwise run summarise "a text" --method extractive
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.pair_flags import PairFlags, figures_of
from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.tasks.prefixed_options import SummaryOptions

if TYPE_CHECKING:
    from tickwise.tasks.summarise import Summarised, Summariser


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Own(CommonArguments):
    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """[MODEL] TEXT: a model directory, if the summary is to be learned, and the text; - or no text reads standard
    input."""
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
    summarise = _summariser(arguments, model)
    texts = _texts(arguments, text)
    shown = _summaries(summarise, texts)
    if arguments.json:
        print(json.dumps(shown[0] if len(shown) == 1 else {"samples": shown}, ensure_ascii=False))
    else:
        for one in shown:
            print(" ".join(one["summary"].splitlines()) if len(texts) > 1 else one["summary"])
    if problems := [one["error"] for one in shown if "error" in one]:
        raise DataError(f"{len(problems):,} of {len(texts):,} texts have no summary; the first: {problems[0]}")
    return 0


def _summaries(summarise: "Summariser", texts: list[str]) -> list[dict[str, Any]]:
    """The summary of each text; of a model's, whether it was cut, which is said, and the ``error`` where the text is
    longer than the model reads. A text that is alone raises it as a ``DataError``."""
    from tickwise.tasks.summarise_learned import LearnedSummariser
    from tickwise.tasks.text_to_text import say_cut

    if not isinstance(summarise, LearnedSummariser):
        return [{"summary": summary} for summary in summarise(texts)]
    written = summarise.write(texts)
    if len(written) == 1 and written[0].problem is not None:
        raise DataError(written[0].problem)
    say_cut(sum(one.cut for one in written), len(written))
    return [{"summary": one.text, "cut": one.cut} | ({} if one.problem is None else {"error": one.problem})
            for one in written]


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


def _texts(arguments: Arguments, text: str | None) -> list[str]:
    from tickwise.tasks.keywords import corpus_documents

    if text is not None and text != "-":
        return text.splitlines() if arguments.each_line else [text]
    source = str(arguments.input) if arguments.input is not None else "-"
    if source == "-" and sys.stdin.isatty():
        raise ConfigError("give a text, --input FILE, or --test FILE")
    texts = list(corpus_documents([source], "line" if arguments.each_line else "file", arguments.field))
    if not texts:
        raise DataError(f"{source}: no text in it")
    return texts


def _rows_to_score(arguments: Arguments) -> "list[Summarised]":
    """The texts of --test with their summaries; a ``UserError`` where they cannot be scored."""
    from tickwise.evaluation.overlap import need_overlap
    from tickwise.tasks.summarise import read_summarised

    need_overlap()
    return read_summarised(arguments.test, arguments.field, arguments.summary)


def _evaluate(arguments: Arguments, rows: "list[Summarised]", summarise: "Summariser", name: str,
              say: bool = True) -> dict[str, Any]:
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
    if say:
        print(json.dumps(figures) if arguments.json else table(scores, "texts", n_scored))
    return figures


def _train(arguments: Arguments) -> int:
    from tickwise.core.console import say
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
                             say=not arguments.json)
    if arguments.json:
        print(json.dumps(figures))
    say(f'use it: tickwise run summarise {arguments.out} "a text"')
    return 0
