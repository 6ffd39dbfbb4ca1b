"""One encoder–decoder for many tasks, told apart by what stands before the text: train it, use it, evaluate it.

Train:  tickwise run text-to-text --task "summarise: =a.jsonl" --task "translate English to German: =b.tsv" --out OUT

Use:  tickwise run text-to-text OUT "summarise: a text"

Evaluate:  tickwise run text-to-text OUT --test "summarise: =c.jsonl"
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.pair_flags import PairFlags, figures_of, print_written
from tickwise.cli.task_flags import texts_progress
from tickwise.core import console
from tickwise.core.errors import ConfigError
from tickwise.data.mixture_options import MixtureOptions
from tickwise.tasks.prefixed_options import PrefixedOptions

if TYPE_CHECKING:
    from tickwise.data.pairs import Pairs
    from tickwise.engine.batch_beam import BeamOptions
    from tickwise.tasks.multitask import PrefixedModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Own(CommonArguments):
    model: tyro.conf.Positional[Path | None] = None
    """Model directory, or run directory (its best model); left out with --task."""
    text: tyro.conf.Positional[str | None] = None
    """The text, its prefix before it; - reads standard input, a text per line. Without a text and --input, a prompt
    asks for texts."""
    input: Path | None = None
    """File with a text per line, each with its prefix."""
    task: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """PREFIX=FILE to train on: pairs of a source and a target, as a table or the name of a known data set; the columns
    may follow in brackets: "translate German to English: =multi30k[de,en]". For parallel files give the prefix twice.
    In YAML, a list."""
    dev: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """PREFIX=FILE of pairs by which the best model is chosen; left out, a twentieth of the task (at most 1,000)."""
    test: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """PREFIX=FILE of pairs to evaluate on."""
    start: Path | None = None
    """Encoder–decoder to train further: one of tickwise train text-to-text, or of T5, BART or Marian; its shape and
    tokenizer stay."""
    options: PrefixedOptions = dataclasses.field(default_factory=PrefixedOptions)
    mixture: MixtureOptions = dataclasses.field(default_factory=MixtureOptions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(PairFlags, _Own):
    """The verb's own flags, and those of a training behind them."""


def run(arguments: Arguments) -> int:
    _check(arguments)
    if arguments.task:
        ended = arguments.start_ranks()
        return _train(arguments) if ended is None else ended
    from tickwise.tasks.multitask import PrefixedModel, check_prefixes, parse_tasks, read_tests

    assert arguments.model is not None
    tests = parse_tasks(arguments.test, "--test")
    model = PrefixedModel.load(arguments.model, arguments.device)
    if tests:
        check_prefixes("--test", [test.prefix for test in tests], model.prefixes)
        figures = _evaluate(arguments, model, read_tests(tests))
        if arguments.json:
            print(json.dumps(figures))
        return 0
    options = _search(arguments, model)
    with texts_progress(arguments, "answering") as advance:
        print_written(arguments, lambda texts, number: model.write(
            texts, options, first_number=number, advance=advance), "answer")
    return 0


def _search(arguments: Arguments, model: "PrefixedModel") -> "BeamOptions":
    return model.model.beam_options(arguments.beam, arguments.length_penalty, arguments.max_tokens)


def _check(arguments: Arguments) -> None:
    """``ConfigError`` for flags that contradict each other: the verb trains, evaluates, or reads texts."""
    arguments.check_beam()
    if arguments.task:
        if arguments.model is not None or arguments.text is not None or arguments.input is not None:
            raise ConfigError("--task makes a model: leave out the model directory, the text and --input (a model to "
                              "go on from is named with --start)")
        if arguments.out is None:
            raise ConfigError("--task: say with --out where the model goes")
        return
    if arguments.model is None:
        raise ConfigError('give a model directory, or --task "PREFIX=FILE" --out DIRECTORY to make one')
    for name in ("dev", "out", "start", "trace"):
        if getattr(arguments, name):
            raise ConfigError(f"--{name}: has a meaning with --task only")
    given = [name for name in ("text", "input", "test") if getattr(arguments, name) is not None
             and getattr(arguments, name) != ()]
    if len(given) > 1:
        raise ConfigError(f"give one of the text, --input and --test, not {' and '.join(given)}")
    if arguments.text is not None and not arguments.text.strip():
        raise ConfigError("the text is empty; give one behind its prefix")


def _evaluate(arguments: Arguments, model: "PrefixedModel", tests: dict[str, "Pairs"]) -> dict[str, Any]:
    """Scores of each prefix: printed for people, returned as JSON values. BLEU and chrF, too, of sentences."""
    from tickwise.evaluation import translation
    from tickwise.evaluation.results import results_json, table
    from tickwise.tasks.text_to_text import say_cut

    options, found, counts, left_out, cut = _search(arguments, model), {}, {}, {}, {}
    sentences: dict[str, Any] = {}
    for prefix, pairs in tests.items():
        with console.progress(f"answering '{prefix.strip()}'", len(pairs), "texts") as bar:
            found[prefix], answers = model.evaluate(prefix, pairs, options, advance=bar.advance)
        written = [answer for answer in answers if answer is not None]
        counts[prefix], left_out[prefix] = len(written), len(pairs) - len(written)
        cut[prefix] = sum(answer.cut for answer in written)
        say_cut(cut[prefix], len(written), f"answers to '{prefix.strip()}'")
        if not arguments.json:
            print(f"{prefix.strip()}\n{table(found[prefix], 'texts', counts[prefix])}")
        targets = [target for target, answer in zip(pairs.targets, answers, strict=True) if answer is not None]
        if translation.are_sentences(targets) and translation.has_sacrebleu():
            scores = translation.translation_scores([answer.text for answer in written], [targets],
                                                    lowercase=model.model.lowercase)
            sentences[prefix] = {"bleu": scores.bleu.value, "chrf": scores.chrf.value, "n": scores.n,
                                 "brevity_penalty": scores.brevity_penalty, "signatures": scores.signatures}
            if not arguments.json:
                print(translation.table(scores))
    return results_json(found, counts) | {
        "translation": sentences, "left_out": left_out, "cut": cut, "beam": arguments.beam,
        "length_penalty": arguments.length_penalty}


def _train(arguments: Arguments) -> int:
    from tickwise.evaluation.overlap import rouge_scorer
    from tickwise.tasks.multitask import (
        PrefixedModel,
        check_prefixes,
        parse_tasks,
        prefixes_after,
        read_tasks,
        read_tests,
        train_tasks,
    )
    from tickwise.training.distributed.ranks import is_leader

    assert arguments.out is not None
    tasks, tests = parse_tasks(arguments.task), parse_tasks(arguments.test, "--test")
    known = prefixes_after([task.prefix for task in tasks], arguments.start)
    check_prefixes("--test", [test.prefix for test in tests], known)
    held_out = read_tests(tests, tasks)
    parts = read_tasks(tasks, parse_tasks(arguments.dev, "--dev"), held_out)
    if held_out:
        rouge_scorer()  # says at once what is missing
    result = train_tasks(parts, options=arguments.options, mixture=arguments.mixture, start=arguments.start,
                         **arguments.training_settings())
    if result.interrupted or not is_leader():
        return 130 if result.interrupted else 0
    figures = figures_of(result)
    if held_out:
        figures |= _evaluate(arguments, PrefixedModel.load(result.model, arguments.device), held_out)
    if arguments.json:
        print(json.dumps(figures))
    console.say(f'use it: tickwise run text-to-text {arguments.out} "{tasks[0].prefix}a text"')
    return 0
