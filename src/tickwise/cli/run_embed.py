"""Vectors of texts, the texts that are likest to one, and words for masked places."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tickwise.cli.task_flags import (
    STANDARD_INPUT,
    TEXTS_AT_ONCE,
    ModelArguments,
    answer_each,
    answer_texts,
    is_prompt,
    lines_of,
    refuse_blank,
    texts_progress,
)
from tickwise.core.console import say
from tickwise.core.errors import ConfigError, DataError
from tickwise.core.paths import check_file_output

if TYPE_CHECKING:
    from tickwise.tasks.embed import Embedder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embed(ModelArguments):
    """Vectors of length 1 of texts (zeros of a blank line): a line of numbers per text, or with --out a NumPy file."""

    out: Path | None = None
    """File (.npy) for the vectors, float32, a row per text."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Similar(ModelArguments):
    """The texts of a file that are likest to a text, by the cosine of their vectors.

    Search:  tickwise run similar DIRECTORY "a text" --among FILE
    Each text of a file with the others:  tickwise run similar DIRECTORY --input FILE --picture map.html
    Evaluate:  tickwise run similar DIRECTORY --test FILE
    """

    among: Path | None = None
    """File to search in, a text per line; left out, the texts of --input are compared with each other."""
    n: int = 5
    """Texts shown."""
    picture: Path | None = None
    """Also draw the cosines of the texts with those of --among, or with each other, as a heat map: a page (.html) or a
    picture (.svg, .png)."""
    test: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Pairs to evaluate on, as a table (tab-separated, .csv, .jsonl, .parquet): two texts and how alike people find
    them, of which the correlation with the cosines is given; or two texts that belong together, of which the one is
    sought among all by the other."""
    columns: str | None = None
    """Of --test: names of the columns of the two texts and of the number, with commas between them; left out, usual
    names (sentence1, sentence2, score), or two texts and a number before or behind them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FillMask(ModelArguments):
    """Words for the places that a text leaves open with [MASK]."""

    n: int = 5
    """Words shown for each place."""


def run(arguments: Embed | Similar | FillMask) -> int:
    if arguments.text is not None and arguments.input is not None:
        raise ConfigError("give the text or --input, not both")
    refuse_blank(arguments.text)
    if isinstance(arguments, Embed):
        _embed(arguments)
        return 0
    if arguments.n < 1:
        raise ConfigError(f"--n: must be at least 1, got {arguments.n}")
    if isinstance(arguments, Similar):
        _check_similar(arguments)
        if arguments.test:
            _evaluate(arguments)
        else:
            _similar(arguments)
    else:
        _fill(arguments)
    return 0


def _embed(arguments: Embed) -> None:
    if arguments.out is not None:
        if arguments.out.suffix.lower() != ".npy":
            raise ConfigError(f"--out {arguments.out}: vectors are written as a NumPy file; give a name that ends in "
                              ".npy")
        check_file_output(arguments.out)
    import numpy
    from numpy.typing import NDArray

    from tickwise.core.paths import atomic_file
    from tickwise.tasks.embed import Embedder

    embedder = Embedder.load(arguments.model, arguments.device)
    parts: list[NDArray[numpy.float32]] = []

    def answer(texts: list[str]) -> None:
        vectors = embedder.embed(texts)
        advance(len(texts))
        if arguments.out is not None:
            parts.append(vectors)
            return
        for text, vector in zip(texts, vectors, strict=True):
            if arguments.json:
                print(json.dumps({"text": text, "vector": vector.tolist()}, ensure_ascii=False), flush=True)
            else:
                print(" ".join(f"{number:.5f}" for number in vector), flush=True)

    with texts_progress(arguments, "embedding", printed=arguments.out is None) as advance:
        answer_texts(arguments, answer)
    if arguments.out is None:
        return
    if not parts:
        raise DataError("no text was given; nothing was written")
    with atomic_file(arguments.out) as temporary, temporary.open("wb") as stream:
        numpy.save(stream, numpy.concatenate(parts))
    n = sum(map(len, parts))
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), "texts": n, "width": embedder.width}))
    say(f"wrote {n:,} {'vector' if n == 1 else 'vectors'} of {embedder.width:,} numbers to {arguments.out}")


def _check_similar(arguments: Similar) -> None:
    """``ConfigError`` for flags that contradict each other: the verb searches, or evaluates."""
    if arguments.columns is not None and not arguments.test:
        raise ConfigError("--columns: has a meaning with --test only")
    if arguments.test:
        for name in ("text", "input", "among", "picture"):
            if getattr(arguments, name) is not None:
                raise ConfigError(f"--test: evaluates; leave out {'the text' if name == 'text' else f'--{name}'}")
        return
    alone = arguments.text not in (None, STANDARD_INPUT)
    if arguments.among is None and (alone or is_prompt(arguments)):
        raise ConfigError("--among: give a file of texts to search in")
    if arguments.picture is not None:
        from tickwise.report.similarity import check_picture

        if is_prompt(arguments):
            raise ConfigError("--picture: is of texts that are given; name their file with --input")
        check_picture(arguments.picture)
        check_file_output(arguments.picture)


def _evaluate(arguments: Similar) -> None:
    from tickwise.data.judged_pairs import read_judged_pairs
    from tickwise.tasks.embed import Embedder
    from tickwise.tasks.embed_scores import score_pairs

    names = [name.strip() for name in (arguments.columns or "").split(",") if name.strip()]
    pairs = read_judged_pairs(arguments.test, names)
    scores = score_pairs(Embedder.load(arguments.model, arguments.device), pairs)
    print(json.dumps(scores.to_json(str(arguments.model))) if arguments.json else scores.table())


def _similar(arguments: Similar) -> None:
    from tickwise.data.rows import numbered_lines
    from tickwise.tasks.embed import Embedder, SimilarTexts

    asked: list[str] | None = None
    if arguments.among is None or arguments.picture is not None:
        alone = arguments.text not in (None, STANDARD_INPUT)
        asked = [arguments.text or ""] if alone else list(lines_of(arguments.input))
    among = asked or []
    if arguments.among is not None:
        among = [line for _, _, line in numbered_lines([arguments.among])]
    if arguments.picture is not None:
        from tickwise.report.similarity import check_size

        check_size(*(sum(bool(text.strip()) for text in side) for side in (asked or [], among)))
    embedder = Embedder.load(arguments.model, arguments.device)
    texts = SimilarTexts(embedder, among)
    one = arguments.text not in (None, STANDARD_INPUT) or is_prompt(arguments)

    def answer(queries: list[str]) -> None:
        for query, found in zip(queries, texts.find(queries, arguments.n, others=arguments.among is None), strict=True):
            found = found if query.strip() else []
            if arguments.json:
                shown = {"text": query, "similar": [dataclasses.asdict(near) for near in found]}
                print(json.dumps(shown, ensure_ascii=False), flush=True)
                continue
            if not one:
                print(query, flush=True)
            for near in found:
                print(f"{near.cosine:.4f}\t{near.text}", flush=True)
        advance(len(queries))

    with texts_progress(arguments, "searching") as advance:
        if asked is None:
            answer_texts(arguments, answer)
        for start in range(0, len(asked or []), TEXTS_AT_ONCE):
            answer((asked or [])[start : start + TEXTS_AT_ONCE])
    if arguments.picture is not None:
        _draw(arguments.picture, embedder, str(arguments.model), asked or [], among)


def _draw(path: Path, embedder: "Embedder", model: str, asked: list[str], among: list[str]) -> None:
    """The heat map of the texts with those among which they were sought; blank ones are left out."""
    from tickwise.report.similarity import SimilarityMap, write_similarity

    rows, columns = ([text for text in side if text.strip()] for side in (asked, among))
    if not rows:
        raise DataError("no text was given; there is nothing to draw")
    cosines = (embedder.embed(rows) @ embedder.embed(columns).T).clip(-1, 1)
    write_similarity(path, SimilarityMap(model, rows, columns, cosines, shlex.join(["tickwise", *sys.argv[1:]])))
    say(f"picture: {path}")


def _fill(arguments: FillMask) -> None:
    from tickwise.tasks.fill_mask import MaskFiller

    filler = MaskFiller.load(arguments.model, arguments.device)

    def answer(text: str) -> None:
        places = filler.fill(text, arguments.n)
        if arguments.json:
            shown = {"text": text, "places": [[dataclasses.asdict(f) for f in found] for found in places]}
            print(json.dumps(shown, ensure_ascii=False), flush=True)
            return
        for found in places:
            for filling in found:
                print(f"{filling.probability:.4f}\t{filling.word}\t{filling.text}", flush=True)

    answer_each(arguments, "filling", answer, "were not filled")
