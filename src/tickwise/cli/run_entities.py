"""Find named entities in text, train a tagger on your own tagged file, or evaluate one."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tickwise.cli.task_flags import TaskArguments, answer_texts, check_task, refuse_blank
from tickwise.core import console
from tickwise.core.errors import ConfigError
from tickwise.core.paths import check_file_output
from tickwise.tasks.tag_options import TagOptions
from tickwise.training.config import EarlyStopping

if TYPE_CHECKING:
    from tickwise.tasks.tag import Entity, EntityTagger


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(TaskArguments, EarlyStopping):
    options: TagOptions = dataclasses.field(default_factory=TagOptions)
    tokenized: bool = False
    """The text is split into words already, by white space as the training data has them, and each line is a sentence;
    else it is split as the training data was."""
    against: Path | None = None
    """Another tagger, to be compared with this one on --test by a paired bootstrap over its sentences."""
    html: Path | None = None
    """Also write an HTML page: the texts with their entities in colour, or the scores on --test."""
    max_seconds: float | None = None
    """End training after this time."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""
    overwrite: bool = False
    """Replace a run that is already in --out."""
    seed: int = 1
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""


def run(arguments: Arguments) -> int:
    check_task(arguments)
    refuse_blank(arguments.text)
    if arguments.train or arguments.test:
        if arguments.tokenized:
            raise ConfigError("--tokenized: is for texts; leave out --train and --test")
        if arguments.html is not None and not _tests(arguments):
            raise ConfigError("--html: of a training, a page shows the scores on --test; give a file for it")
    if arguments.html is not None:
        check_file_output(arguments.html)
    if arguments.patience is not None and not arguments.train:
        raise ConfigError("--patience: has a meaning with --train only")
    if arguments.against is not None and (arguments.train or not arguments.test):
        raise ConfigError("--against: models that are there are compared on tagged sentences; give --test FILE")
    if arguments.train:
        return _train(arguments)
    from tickwise.profiling.calls import traced_calls
    from tickwise.tasks.tag import EntityTagger

    assert arguments.model is not None
    tagger = EntityTagger.load(arguments.model, arguments.device)
    with traced_calls(tagger.module, arguments.trace, model=str(arguments.model)):
        if arguments.test:
            _evaluate(tagger, arguments, {})
        else:
            _answer(arguments, tagger)
    return 0


def _answer(arguments: Arguments, tagger: "EntityTagger") -> None:
    answers: list[tuple[str, list[Entity]]] = []
    colour = sys.stdout.isatty()

    def answer(texts: list[str]) -> None:
        from tickwise.report.entities import terminal_text

        for text, entities in zip(texts, tagger.tag(texts, tokenized=arguments.tokenized), strict=True):
            if arguments.json or arguments.html is not None:
                answers.append((text, entities))
            if not arguments.json:
                print(terminal_text(text, entities, tagger.types, colour), flush=True)

    answer_texts(arguments, answer)
    if arguments.html is not None:
        from tickwise.core.paths import write_text_atomic
        from tickwise.report.entities import entity_page

        page = entity_page([text for text, _ in answers], [found for _, found in answers], tagger.types, "Entities")
        write_text_atomic(arguments.html, page)
        console.say(f"wrote {arguments.html}")
    if arguments.json:
        rows = [{"text": text, "entities": [entity.to_json() for entity in found]} for text, found in answers]
        print(json.dumps(rows[0] if len(rows) == 1 else {"samples": rows}, ensure_ascii=False))


def _train(arguments: Arguments) -> int:
    from tickwise.tasks.tag import EntityTagger, train_tagger

    assert arguments.out is not None
    result = train_tagger(
        arguments.train, arguments.dev, out=arguments.out, options=arguments.options, seed=arguments.seed,
        max_seconds=arguments.max_seconds, patience=arguments.patience, resume=arguments.resume,
        overwrite=arguments.overwrite, device=arguments.device, trace=arguments.trace,
    )
    if result.interrupted:
        return 130
    figures = {"model": str(result.model), "parameters": result.n_parameters, "seconds": result.seconds,
               "development_f1": result.validation.get("f1")}
    tests = _tests(arguments)
    if tests:
        tagger = EntityTagger.load(result.model, arguments.device)
        _evaluate(tagger, dataclasses.replace(arguments, test=tests, model=result.model), figures)
    elif arguments.json:
        print(json.dumps(figures))
    return 0


def _tests(arguments: Arguments) -> tuple[str, ...]:
    """What to evaluate on: --test, else the known data sets in --train that have a test part."""
    from tickwise.tasks.tag import data_set

    return arguments.test or tuple(
        name for name in arguments.train if (entry := data_set(name)) is not None and "test" in entry.files)


def _evaluate(tagger: "EntityTagger", arguments: Arguments, figures: dict[str, Any]) -> None:
    from tickwise.evaluation.entities import compare_entities, comparison_lines, table
    from tickwise.tasks.tag import EntityTagger, read_sentences, scored

    # Before anything is measured: a model that cannot be read is said at once.
    other = None if arguments.against is None else EntityTagger.load(arguments.against, arguments.device)
    sentences = read_sentences(arguments.test, "test", arguments.options)
    sure = tagger.tag_surely(sentences)
    scores = scored(sentences, sure)
    figures = figures | scores.to_json(model=str(arguments.model))
    if arguments.html is not None:
        from tickwise.tasks.tag_report import write_score_page

        write_score_page(arguments.html, scores, "tickwise run entities")
        console.say(f"wrote {arguments.html}")
    if other is None:
        print(json.dumps(figures) if arguments.json else table(scores))
        return
    gold, found = [s.entities for s in sentences], [[span for span, _ in row] for row in sure]
    comparison = compare_entities(gold, found, other.tag_sentences(sentences))
    names = str(arguments.model), str(arguments.against)
    if arguments.json:
        shown = {"model": names[0], "against": names[1]} | comparison.to_json()
        print(json.dumps(figures | {"comparison": shown}))
    else:
        print(f"{table(scores)}\n\n{comparison_lines(comparison, *names)}")
