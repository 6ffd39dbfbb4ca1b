"""A is to B as C is to what: the words nearest to B - A + C."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro

from tickwise.cli.common_flags import CommonArguments


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    vectors: tyro.conf.Positional[Path]
    """Folder of word vectors, or a file in word2vec's text format."""
    a: tyro.conf.Positional[str]
    """A word, such as man."""
    b: tyro.conf.Positional[str]
    """What belongs to it, such as king."""
    c: tyro.conf.Positional[str]
    """Another word, such as woman."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """Answers, best first."""


def run(arguments: Arguments) -> int:
    from tickwise.interop.word_vectors import load_word_vectors

    answers = load_word_vectors(arguments.vectors).analogy(arguments.a, arguments.b, arguments.c, arguments.k)
    if arguments.json:
        print(json.dumps({"answers": [answer._asdict() for answer in answers]}, ensure_ascii=False))
    else:
        print(f"{arguments.a} : {arguments.b} = {arguments.c} : "
              + ", ".join(f"{answer.word} {answer.cosine:.2f}" for answer in answers))
    return 0
