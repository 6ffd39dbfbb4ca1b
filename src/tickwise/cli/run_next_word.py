"""The words that a text goes on with, and their probabilities; or how often they are right on a text of your own."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tickwise.cli.task_flags import STANDARD_INPUT, ModelArguments, answer_each, is_prompt, refuse_blank
from tickwise.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tickwise.tasks.next_word import NextWords


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(ModelArguments):
    """The model is a language model: n-gram, factorised, recurrent or decoder."""

    test: Path | None = None
    """Text file that the model has not seen: how often its words are those that are predicted."""
    n: int = 5
    """Words shown for each text."""
    most: int = 500
    """Words of --test that are asked for; of more, so many are drawn."""
    seed: int = 0
    """Of what --test draws."""


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
    alone = arguments.text not in (None, STANDARD_INPUT) or is_prompt(arguments)

    def answer(text: str) -> None:
        found = model.predict(text, arguments.n)
        if arguments.json:
            print(json.dumps({"text": text, "words": [word._asdict() for word in found]}, ensure_ascii=False),
                  flush=True)
            return
        if not alone:
            print(text)
        for word in found:
            print(f"{word.probability:.4f}\t{word.word}", flush=True)

    answer_each(arguments, "predicting", answer, "cannot be read")


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
