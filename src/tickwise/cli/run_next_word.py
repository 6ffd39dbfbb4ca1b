"""The words that a text goes on with, and their probabilities; or how often they are right on a text of your own."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.task_flags import STANDARD_INPUT, answer_texts, is_prompt, refuse_blank, texts_progress
from tickwise.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tickwise.tasks.next_word import NextWords


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    model: tyro.conf.Positional[Path]
    """Model or run directory of a language model: n-gram, factorised, recurrent or decoder."""
    text: tyro.conf.Positional[str | None] = None
    """The text; - reads standard input, a text per line. Without a text and --input, a prompt asks for texts."""
    input: Path | None = None
    """File with a text per line."""
    test: Path | None = None
    """Text file that the model has not seen: how often its words are those that are predicted."""
    n: int = 5
    """Words shown for each text."""
    most: int = 500
    """Words of --test that are asked for; of more, so many are drawn."""
    seed: int = 0
    """Of what --test draws."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""


def run(arguments: Arguments) -> int:
    given = [name for name in ("text", "input", "test") if getattr(arguments, name) is not None]
    if len(given) > 1:
        raise ConfigError(f"give one of the text, --input and --test, not {' and '.join(given)}")
    if arguments.n < 1:
        raise ConfigError(f"--n: must be at least 1, got {arguments.n}")
    refuse_blank(arguments.text)
    from tickwise.tasks.next_word import NextWords

    model = NextWords.load(arguments.model, arguments.device)
    if arguments.test is not None:
        _evaluate(model, arguments, arguments.test)
    else:
        _predict(model, arguments)
    return 0


def _predict(model: "NextWords", arguments: Arguments) -> None:
    source = "standard input" if arguments.input is None or str(arguments.input) == STANDARD_INPUT else arguments.input
    one_by_one = arguments.text not in (None, STANDARD_INPUT) or is_prompt(arguments)
    n_done = 0
    problems: list[str] = []

    def answer(texts: list[str]) -> None:
        nonlocal n_done
        for text in texts:
            n_done += 1
            try:
                found = model.predict(text, arguments.n)
            except DataError as problem:
                if one_by_one:
                    raise
                problems.append(f"{source}, line {n_done}: {problem}")
                if arguments.json:
                    print(json.dumps({"text": text, "error": str(problem)}, ensure_ascii=False), flush=True)
                continue
            finally:
                advance(1)
            if arguments.json:
                shown = {"text": text, "words": [word._asdict() for word in found]}
                print(json.dumps(shown, ensure_ascii=False), flush=True)
                continue
            if not one_by_one:
                print(text)
            for word in found:
                print(f"{word.probability:.4f}\t{word.word}", flush=True)

    with texts_progress(arguments, "predicting") as advance:
        answer_texts(arguments, answer)
    if problems:
        raise DataError(f"{len(problems):,} of {n_done:,} texts cannot be read; the first: {problems[0]}")


def _evaluate(model: "NextWords", arguments: Arguments, path: Path) -> None:
    from tickwise.core.console import progress

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as problem:
        raise DataError(f"{path}: cannot read it: {problem.strerror or problem}") from None
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: not UTF-8 at byte {problem.start}; convert it first") from None
    with progress("next words", min(arguments.most, max(1, len(model.places(text)))), "words") as bar:
        try:
            scores = model.evaluate(text, f"{path.resolve().parent.name}/{path.stem}", most=arguments.most,
                                    seed=arguments.seed, on_scored=bar.advance)
        except DataError as problem:
            raise DataError(f"{path}: {problem}") from None
    print(json.dumps(scores.to_json()) if arguments.json else scores)
