"""Make a folder of word vectors from a file in the text format of word2vec or GloVe."""

import dataclasses
import json
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    file: tyro.conf.Positional[Path]
    """File in the text format of word2vec or GloVe."""
    out: Path
    """Folder to make."""
    overwrite: bool = False
    """Replace the word vectors that are there."""


def run(arguments: Arguments) -> int:
    from tickwise.core.console import say
    from tickwise.interop.word_vectors import check_vectors_output, read_vectors_text, save_word_vectors

    check_vectors_output(arguments.out, arguments.overwrite)
    vectors = read_vectors_text(arguments.file)
    save_word_vectors(arguments.out, vectors)
    if arguments.json:
        print(json.dumps({"path": str(arguments.out), "words": len(vectors.words),
                          "width": vectors.module.config.width}))
    else:
        say(f"{len(vectors.words):,} words of {vectors.module.config.width} numbers in {arguments.out}")
    return 0
