"""Write word vectors in the text format of word2vec."""

import dataclasses
import json
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.errors import OutputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    vectors: tyro.conf.Positional[Path]
    """Folder of word vectors."""
    out: Path
    """File to write."""
    overwrite: bool = False
    """Replace the file."""


def run(arguments: Arguments) -> int:
    from tickwise.core.console import say
    from tickwise.interop.word_vectors import load_word_vectors, write_vectors_text

    out = arguments.out
    if out.is_dir() or (out.exists() and not arguments.overwrite):
        raise OutputError(f"{out}: exists already; replace it with --overwrite, or give another --out")
    vectors = load_word_vectors(arguments.vectors)
    write_vectors_text(out, vectors)
    if arguments.json:
        print(json.dumps({"path": str(out), "words": len(vectors.words), "width": vectors.module.config.width}))
    else:
        say(f"{len(vectors.words):,} words written to {out}")
    return 0
