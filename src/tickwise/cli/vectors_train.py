"""Make word vectors from text: skip-gram with negative sampling, GloVe, or the SVD of PPMI."""

import dataclasses
import json
import shlex
import sys
import time
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments, config_of
from tickwise.tokenizers.train import WordStyle
from tickwise.training.word_vectors import WordVectorSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments, WordVectorSettings):
    data: tyro.conf.Positional[Path]
    """Prepared directory, text file or folder, or the name of a known data set."""
    out: Path
    """Folder to make."""
    word_style: WordStyle = "natural"
    """spaces: the text is tokenized already, its tokens separated by spaces (WikiText, Penn Treebank)."""
    overwrite: bool = False
    """Replace the word vectors that are there."""
    trace: Path | None = None
    """Folder for a trace: every update, stage by stage (tickwise trace show)."""

    def __post_init__(self) -> None:
        """Leaves the check to ``run``, whose errors print as one line; the flag parser would box them."""


def run(arguments: Arguments) -> int:
    from tickwise.core.config import to_dict
    from tickwise.core.console import note, say
    from tickwise.data.config import PrepareConfig
    from tickwise.data.prepare import open_or_prepare
    from tickwise.interop.word_vectors import check_vectors_output, save_word_vectors
    from tickwise.profiling.trace_store import check_trace_output
    from tickwise.training.word_vectors import train_word_vectors, word_text

    settings = config_of(WordVectorSettings, arguments)
    check_vectors_output(arguments.out, arguments.overwrite)
    if arguments.trace is not None:
        check_trace_output(arguments.trace)
    data = open_or_prepare(arguments.data, PrepareConfig(
        tokenizer="word", word_style=arguments.word_style, min_frequency=1, validation_fraction=0.0))
    text = word_text(data.split("train").tokens, data.tokenizer, min_count=settings.min_count,
                     lowercase=settings.lowercase)
    say(f"{len(text.words):,} words, {len(text.numbers):,} places")
    started = time.perf_counter()
    vectors = train_word_vectors(text, settings, lambda epoch, loss: note(f"pass {epoch}: loss {loss:.4f}"),
                                 arguments.trace)
    seconds = time.perf_counter() - started
    save_word_vectors(arguments.out, vectors, {
        "command": shlex.join(sys.argv), "settings": to_dict(settings), "seconds": seconds,
        "data": {"source": str(arguments.data), "prepared": str(data.path.resolve()), "fingerprint": data.fingerprint},
    })
    if arguments.json:
        print(json.dumps({"path": str(arguments.out), "words": len(vectors.words),
                          "width": vectors.module.config.width, "seconds": seconds}))
    else:
        say(f"{len(vectors.words):,} words of {vectors.module.config.width} numbers in {seconds:.1f} s, in "
            f"{arguments.out}; look around with: tickwise vectors neighbours {arguments.out} WORD")
    return 0
