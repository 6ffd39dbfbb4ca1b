"""The words whose vectors point most nearly the same way as a word's."""

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
    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="WORD")]
    """Words to look around."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    """Neighbours of each word."""


def run(arguments: Arguments) -> int:
    from tickwise.interop.word_vectors import load_word_vectors

    vectors = load_word_vectors(arguments.vectors)
    found = {word: vectors.neighbours(word, arguments.k) for word in arguments.words}
    if arguments.json:
        print(json.dumps({"neighbours": {word: [near._asdict() for near in all_near]
                                         for word, all_near in found.items()}}, ensure_ascii=False))
        return 0
    for word, all_near in found.items():
        print(f"{word}: " + ", ".join(f"{near.word} {near.cosine:.2f}" for near in all_near))
    return 0
