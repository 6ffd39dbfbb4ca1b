"""Vectors of texts, the texts that are likest to one, and words for masked places."""

import dataclasses
import json
import sys
from pathlib import Path

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.task_flags import answer_texts
from tickwise.core.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ModelArguments(CommonArguments):
    model: tyro.conf.Positional[Path]
    """Model or run directory."""
    text: tyro.conf.Positional[str | None] = None
    """The text; - reads standard input, a text per line. Without a text and --input, a prompt asks for texts."""
    input: Path | None = None
    """File with a text per line."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embed(_ModelArguments):
    """Vectors of length 1 of texts (zeros of a blank line): a line of numbers per text, or with --out a NumPy file."""

    out: Path | None = None
    """File (.npy) for the vectors, float32, a row per text."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Similar(_ModelArguments):
    """The texts of a file that are likest to a text, by the cosine of their vectors."""

    among: Path | None = None
    """File to search in, a text per line."""
    n: int = 5
    """Texts shown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FillMask(_ModelArguments):
    """Words for the places that a text leaves open with [MASK]."""

    n: int = 5
    """Words shown for each place."""


def run(arguments: Embed | Similar | FillMask) -> int:
    if arguments.text is not None and arguments.input is not None:
        raise ConfigError("give the text or --input, not both")
    if arguments.text is not None and not arguments.text.strip():
        raise ConfigError("the text is empty")
    if isinstance(arguments, Embed):
        _embed(arguments)
    elif isinstance(arguments, Similar):
        _similar(arguments)
    else:
        _fill(arguments)
    return 0


def _embed(arguments: Embed) -> None:
    import numpy

    from tickwise.core.paths import atomic_file
    from tickwise.tasks.embed import Embedder

    embedder = Embedder.load(arguments.model, arguments.device)
    parts = []

    def answer(texts: list[str]) -> None:
        vectors = embedder.embed(texts)
        if arguments.out is not None:
            parts.append(vectors)
            return
        for text, vector in zip(texts, vectors, strict=True):
            if arguments.json:
                print(json.dumps({"text": text, "vector": vector.tolist()}, ensure_ascii=False), flush=True)
            else:
                print(" ".join(f"{number:.5f}" for number in vector), flush=True)

    answer_texts(arguments, answer)
    if arguments.out is not None and not parts:
        raise DataError("no text was given; nothing was written")
    if arguments.out is not None:
        with atomic_file(arguments.out) as temporary, temporary.open("wb") as stream:
            numpy.save(stream, numpy.concatenate(parts))
        print(f"wrote {sum(map(len, parts)):,} vectors of {embedder.width:,} numbers to {arguments.out}",
              file=sys.stderr)


def _similar(arguments: Similar) -> None:
    if arguments.among is None:
        raise ConfigError("--among: give a file of texts to search in")
    from tickwise.data.rows import numbered_lines
    from tickwise.tasks.embed import Embedder, SimilarTexts

    lines = [line for _, _, line in numbered_lines([arguments.among])]
    texts = SimilarTexts(Embedder.load(arguments.model, arguments.device), [line for line in lines if line.strip()])

    def answer(queries: list[str]) -> None:
        for query, found in zip(queries, texts.find(queries, arguments.n), strict=True):
            found = found if query.strip() else []
            if arguments.json:
                shown = {"text": query, "similar": [dataclasses.asdict(near) for near in found]}
                print(json.dumps(shown, ensure_ascii=False), flush=True)
                continue
            if len(queries) > 1:
                print(query)
            for near in found:
                print(f"{near.cosine:.4f}\t{near.text}", flush=True)

    answer_texts(arguments, answer)


def _fill(arguments: FillMask) -> None:
    from tickwise.tasks.fill_mask import MaskFiller

    filler = MaskFiller.load(arguments.model, arguments.device)
    source = "standard input" if arguments.input is None or str(arguments.input) == "-" else str(arguments.input)
    one_by_one = arguments.input is None and arguments.text != "-" and (arguments.text or sys.stdin.isatty())
    n_done = 0
    problems: list[str] = []

    def answer(texts: list[str]) -> None:
        nonlocal n_done
        for text in texts:
            n_done += 1
            try:
                places = filler.fill(text, arguments.n)
            except DataError as problem:
                if one_by_one:
                    raise
                problems.append(f"{source}, line {n_done}: {problem}")
                if arguments.json:
                    print(json.dumps({"text": text, "error": str(problem)}, ensure_ascii=False), flush=True)
                continue
            if arguments.json:
                shown = {"text": text, "places": [[dataclasses.asdict(f) for f in found] for found in places]}
                print(json.dumps(shown, ensure_ascii=False), flush=True)
                continue
            for found in places:
                for filling in found:
                    print(f"{filling.probability:.4f}\t{filling.word}\t{filling.text}", flush=True)

    answer_texts(arguments, answer)
    if problems:
        raise DataError(f"{len(problems):,} of {n_done:,} texts were not filled; the first: {problems[0]}")
