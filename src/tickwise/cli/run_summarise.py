"""Summarise texts: by a method that needs no model, and how good the summaries are."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    text: tyro.conf.Positional[str | None] = None
    """The text; - or nothing reads standard input."""
    method: Literal["extractive", "lead", "copy"] = "extractive"
    """extractive: the sentences of highest TextRank; lead: the first ones; copy: the whole text."""
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
    """Texts with summaries to evaluate on: .jsonl, or the name of a known data set."""
    references: Literal["best", "mean"] = "best"
    """Which of several references counts for ROUGE: the best of each kind, or their mean."""


def run(arguments: Arguments) -> int:
    from tickwise.tasks.summarise import baseline

    given = [name for name in ("text", "input", "test") if getattr(arguments, name)]
    if len(given) > 1:
        raise ConfigError(f"give one of the text, --input and --test, not {' and '.join(given)}")
    if arguments.text is not None and not arguments.text.strip():
        raise ConfigError("the text is empty")
    summarise = baseline(arguments.method, arguments.sentences)
    if arguments.test:
        return _evaluate(arguments)
    texts = _texts(arguments)
    summaries = summarise(texts)
    if arguments.json:
        rows = [{"summary": summary} for summary in summaries]
        print(json.dumps(rows[0] if len(rows) == 1 else {"samples": rows}, ensure_ascii=False))
        return 0
    for summary in summaries:
        print(" ".join(summary.splitlines()) if len(texts) > 1 else summary)
    return 0


def _texts(arguments: Arguments) -> list[str]:
    from tickwise.core.errors import DataError
    from tickwise.tasks.keywords import corpus_documents

    if arguments.text is not None and arguments.text != "-":
        return arguments.text.splitlines() if arguments.each_line else [arguments.text]
    source = str(arguments.input) if arguments.input is not None else "-"
    if source == "-" and sys.stdin.isatty():
        raise ConfigError("give a text, --input FILE, or --test FILE")
    texts = list(corpus_documents([source], "line" if arguments.each_line else "file", arguments.field))
    if not texts:
        raise DataError(f"{source}: no text in it")
    return texts


def _evaluate(arguments: Arguments) -> int:
    from tickwise.evaluation.results import results_json, table
    from tickwise.tasks.summarise import baseline, evaluate_summaries, read_summarised

    rows = read_summarised(arguments.test, arguments.field, arguments.summary)
    scores = evaluate_summaries(baseline(arguments.method, arguments.sentences), rows, arguments.references)
    if arguments.json:
        print(json.dumps(results_json({"summarise": scores}, {"summarise": len(rows)}, model=arguments.method)))
    else:
        print(table(scores, "texts", len(rows)))
    return 0
