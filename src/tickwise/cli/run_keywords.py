"""The keywords of a text, English or Chinese, measured against a corpus of your own or, without one, by TextRank."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.task_flags import answer_texts, is_prompt, refuse_blank
from tickwise.core import console
from tickwise.core.errors import ConfigError

if TYPE_CHECKING:
    from tickwise.tasks.keywords import Background, Keyword


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    text: tyro.conf.Positional[str | None] = None
    """The text; - reads standard input, as does nothing; at a terminal a prompt then asks for texts."""
    input: Path | None = None
    """File that holds the text."""
    each_line: bool = False
    """Every line of the input is a text of its own."""
    background: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Corpus (text file with a document per line, folder of files, .jsonl, .csv …) or the .json file that
    --save-background wrote: what is common there weighs less."""
    documents: str = "line"
    """Where a document of a text file in --background ends: line, paragraph, file, or the string between documents."""
    field: str = "text"
    """Key or column of the text in a --background of rows."""
    save_background: Path | None = None
    """Write the counts of --background to this .json file."""
    n: int = 10
    """Keywords of each text."""


def run(arguments: Arguments) -> int:
    from tickwise.tasks.keywords import keywords

    if arguments.n < 1:
        raise ConfigError(f"--n: must be positive, got {arguments.n}")
    if arguments.text is not None and arguments.input is not None:
        raise ConfigError("give the text or --input, not both")
    refuse_blank(arguments.text)
    if arguments.save_background is not None and not arguments.background:
        raise ConfigError("--save-background: has a meaning with --background only")
    background = _background(arguments)
    if arguments.save_background is not None:
        assert background is not None
        background.save(arguments.save_background)
        console.say(f"wrote {arguments.save_background}: words of {background.n_documents:,} documents")
        if is_prompt(arguments):
            return 0

    def answer(texts: Sequence[str]) -> None:
        found = [keywords(text, arguments.n, background) for text in texts]
        if arguments.json:
            rows = [{"keywords": [keyword.to_json() for keyword in one]} for one in found]
            print(json.dumps(rows[0] if len(rows) == 1 else {"samples": rows}, ensure_ascii=False), flush=True)
            return
        for one in found:
            print(_line(one) if arguments.each_line else _table(one), flush=True)

    if is_prompt(arguments):
        answer_texts(arguments, answer)
    else:
        answer(_texts(arguments))
    return 0


def _table(found: Sequence["Keyword"]) -> str:
    if not found:
        return "no keywords: the text has no content words"
    lines = [f"{'score':>8}  times  keyword"]
    return "\n".join([*lines, *(f"{k.score:>8.3f}  {len(k.places):>5}  {k.text}" for k in found)])


def _line(found: Sequence["Keyword"]) -> str:
    return "; ".join(keyword.text for keyword in found)


def _background(arguments: Arguments) -> "Background | None":
    if not arguments.background:
        return None
    from tickwise.tasks.keywords import Background, corpus_documents

    if len(arguments.background) == 1 and arguments.background[0].endswith(".json"):
        return Background.load(Path(arguments.background[0]))
    return Background.count(corpus_documents(arguments.background, arguments.documents, arguments.field))


def _texts(arguments: Arguments) -> list[str]:
    from tickwise.tasks.keywords import corpus_documents

    if arguments.text is not None and arguments.text != "-":
        return arguments.text.splitlines() if arguments.each_line else [arguments.text]
    source = str(arguments.input) if arguments.input is not None else "-"
    return list(corpus_documents([source], "line" if arguments.each_line else "file", arguments.field))
