"""Translate text, train a translator on sentence pairs of your own, or evaluate one.

Train:  tickwise run translate --train x.en --train x.de --out DIRECTORY

Use:  tickwise run translate DIRECTORY "a sentence"

Look inside:  tickwise run translate DIRECTORY "a sentence" --attention out.html

Evaluate:  tickwise run translate DIRECTORY --test y.en --test y.de
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from tickwise.cli.pair_flags import PairFlags, figures_of, print_written
from tickwise.cli.task_flags import TaskArguments, check_task, refuse_blank, texts_progress
from tickwise.core import console
from tickwise.core.errors import ConfigError, DataError
from tickwise.core.paths import check_file_output
from tickwise.tasks.text_to_text_options import TextToTextOptions

if TYPE_CHECKING:
    from tickwise.data.pairs import Pairs, ReadPairs
    from tickwise.engine.batch_beam import BeamOptions
    from tickwise.tasks.text_to_text import TextToText
    from tickwise.tasks.translate import ScoredPart


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Own(TaskArguments):
    train: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Pairs to train on: --train x.en --train x.de (parallel files, or just x with --source en --target de), a table,
    or the name of a known data set."""
    dev: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Pairs, in the same ways, by which the best model is chosen; left out, a twentieth of --train (at most 1,000)."""
    test: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Pairs, in the same ways, to evaluate on."""
    source: str | None = None
    """Language to translate from: a column or key of --train, --dev and --test (by name, or by number from 0), or how
    parallel files end. Left out: the first of two."""
    target: str | None = None
    """Language to translate to; left out: the second of two."""
    hold_out: int = 0
    """Keep so many pairs of --train out of the training to test on; neither side of them occurs in it. They are
    written to OUT/held-out.jsonl."""
    tokenize: Literal["auto", "13a", "intl", "zh", "char", "none"] = "auto"
    """How BLEU splits texts into words: zh for Chinese, 13a for others; auto goes by the references."""
    write: Path | None = None
    """Also write the translations of --test to this file, a line for each row of it (blank for a source that is too
    long, and for a pair with a blank side)."""
    attention: Path | None = None
    """Also show where the translation of the text was written from, as a page (.html) or a picture (.svg, .png): which
    tokens every head of every layer looks at."""
    start: Path | None = None
    """Encoder–decoder to train further: one of tickwise train text-to-text, or of T5, BART or Marian; its shape and
    tokenizer stay."""
    options: TextToTextOptions = dataclasses.field(default_factory=TextToTextOptions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(PairFlags, _Own):
    lowercase: bool = False
    """With --train: read and write everything in lower case, which stays with the model. With --test: score without
    regard to case, as a lower-case model always is."""
    max_tokens: int | None = None
    """Most tokens of a translation, its end counted; left out, three times those of its source and ten more."""
    trace: Path | None = None
    """Folder for a trace: every step of the search, or every training step, stage by stage (tickwise trace show)."""


def run(arguments: Arguments) -> int:
    check_task(arguments)
    _check(arguments)
    if arguments.train:
        ended = arguments.start_ranks()
        return _train(arguments) if ended is None else ended
    from tickwise.tasks.text_to_text import TextToText

    assert arguments.model is not None
    model = TextToText.load(arguments.model, arguments.device)
    if arguments.attention is not None:
        return _look_inside(arguments, model)
    with model.traced_writing(arguments.trace, name=str(arguments.model)):
        if arguments.test:
            return _evaluate(arguments, model)
        _answer(arguments, model)
    return 0


def _check(arguments: Arguments) -> None:
    arguments.check_beam()
    refuse_blank(arguments.text)
    if arguments.start is not None and not arguments.train:
        raise ConfigError("--start: has a meaning with --train only")
    if arguments.hold_out < 0:
        raise ConfigError(f"--hold-out: must not be negative, got {arguments.hold_out}")
    if arguments.hold_out and not arguments.train:
        raise ConfigError("--hold-out: has a meaning with --train only; a training wrote its pairs to held-out.jsonl")
    if arguments.hold_out and arguments.test:
        raise ConfigError("give --hold-out or --test, not both")
    if arguments.write is not None and not arguments.test:
        raise ConfigError("--write: is for the translations of --test; those of texts go to standard output")
    if arguments.write is not None:
        check_file_output(arguments.write)
    if arguments.attention is not None:
        from tickwise.report.attention import check_ending

        if arguments.text in (None, "-") or arguments.train:
            raise ConfigError("--attention: is for one text; give it behind the model directory")
        check_ending(arguments.attention)
        check_file_output(arguments.attention)
    if arguments.trace is not None and not arguments.train:
        from tickwise.profiling.trace_store import check_trace_output

        check_trace_output(arguments.trace)
    if arguments.test:
        from tickwise.evaluation.translation import need_sacrebleu

        need_sacrebleu()


def _look_inside(arguments: Arguments, model: "TextToText") -> int:
    """The translation of one text, and a page of what it was written from."""
    from tickwise.cli.attention import alignment_json, write_maps
    from tickwise.tasks.text_to_text import say_cut

    assert arguments.text is not None
    assert arguments.attention is not None
    with model.traced_writing(arguments.trace, name=str(arguments.model)):
        (written,) = model.write([arguments.text], _search(arguments, model))
    if written.problem is not None:
        raise DataError(written.problem)
    say_cut(int(written.cut), 1)
    translation = written.text
    maps = model.attention(arguments.text, translation)
    write_maps(arguments.attention, maps, model=str(arguments.model), texts=[arguments.text, translation])
    if arguments.json:
        print(json.dumps({"text": arguments.text, "translation": translation, "cut": written.cut,
                          "attention": str(arguments.attention), "alignment": alignment_json(maps)},
                         ensure_ascii=False))
    else:
        print(" ".join(translation.split()))
    return 0


def _reading(arguments: Arguments) -> "ReadPairs":
    from tickwise.data.pairs import ReadPairs

    return ReadPairs(source=arguments.source, target=arguments.target)


def _answer(arguments: Arguments, model: "TextToText") -> None:
    """Translations to stdout, a line per text, with their progress on stderr when the texts come from a file."""
    options = _search(arguments, model)
    with texts_progress(arguments, "translating") as advance:
        print_written(arguments, lambda texts, number: model.write(
            texts, options, first_number=number, advance=advance), "translation")


def _search(arguments: Arguments, model: "TextToText") -> "BeamOptions":
    """How translations are searched: without --max-tokens, of a length that goes by the source's."""
    from tickwise.engine.batch_beam import BeamOptions

    if arguments.max_tokens is None:
        return BeamOptions(width=arguments.beam, length_penalty=arguments.length_penalty)
    return model.beam_options(arguments.beam, arguments.length_penalty, arguments.max_tokens)


def _evaluate(arguments: Arguments, model: "TextToText") -> int:
    from tickwise.data.pairs import read_pairs
    from tickwise.evaluation.translation import table

    scored = _scored(arguments, model, read_pairs(arguments.test, _reading(arguments), split="test"), arguments.write)
    print(json.dumps(_figures(arguments, scored)) if arguments.json else table(scored.scores))
    return 0


def _scored(arguments: Arguments, model: "TextToText", pairs: "Pairs", write: Path | None = None) -> "ScoredPart":
    from tickwise.core.paths import write_text_atomic
    from tickwise.tasks.translate import score_part

    scored = score_part(model, pairs, _search(arguments, model), lowercase=arguments.lowercase,
                        tokenize=arguments.tokenize)
    if write is not None:
        write_text_atomic(write, "".join(f"{line}\n" for line in scored.lines()))
    return scored


def _figures(arguments: Arguments, scored: "ScoredPart") -> dict[str, Any]:
    return scored.to_json() | {"beam": arguments.beam, "length_penalty": arguments.length_penalty}


def _train(arguments: Arguments) -> int:
    from tickwise.cli.attention import write_maps
    from tickwise.data.pairs import read_pairs
    from tickwise.evaluation.translation import need_sacrebleu, table
    from tickwise.tasks.text_to_text import TextToText, own_test, read_parts, train_text_to_text
    from tickwise.tasks.translate import example, some_readable
    from tickwise.training.distributed.ranks import is_leader

    assert arguments.out is not None
    tests = arguments.test or (() if arguments.hold_out else own_test(arguments.train))
    test = read_pairs(tests, _reading(arguments), split="test") if tests else None
    parts = read_parts(arguments.train, arguments.dev, _reading(arguments), arguments.hold_out, test=test)
    test = parts.held_out if test is None else test
    result = train_text_to_text(parts, options=arguments.options, test=test, start=arguments.start,
                                **arguments.training_settings())
    if result.interrupted or not is_leader():
        return 130 if result.interrupted else 0
    figures = figures_of(result)
    model = TextToText.load(result.model, arguments.device)
    try:
        need_sacrebleu()
    except ConfigError as missing:
        console.say(f"not scored: {missing}")
    else:
        for name, part in (("development part", some_readable(model, parts.development)), ("test part", test)):
            if part is None:
                continue
            scored = _scored(arguments, model, part, arguments.write if part is test else None)
            found = _figures(arguments, scored)
            figures = figures | found if part is test else figures | {"development": found}
            if not arguments.json:
                print(f"{name}\n{table(scored.scores)}")
    page = arguments.out / "attention.html"
    page.unlink(missing_ok=True)
    if (shown := example(model, parts.development)) is not None:
        text, translation, maps = shown
        write_maps(page, maps, model=str(arguments.out), texts=[text, translation])
    if arguments.json:
        print(json.dumps(figures))
    console.say(f'use it: tickwise run translate {arguments.out} "a text"')
    return 0
