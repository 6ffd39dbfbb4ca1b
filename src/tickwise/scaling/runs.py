"""Training runs from a table: sizes, tokens, compute and losses, with what was left out and why."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy

from tickwise.core.console import format_number
from tickwise.core.errors import DataError
from tickwise.scaling.minimise import Floats
from tickwise.scaling.tables import Row, find_column, is_usable, number, read_table

FLOPS_PER_PARAMETER_AND_TOKEN = 6.0
"""Forward and backward (Kaplan et al. 2020, section 2.1)."""

_KNOWN = {
    "parameters": ("parameters", "n_parameters", "params", "model_size", "n"),
    "tokens": ("tokens", "training_tokens", "n_tokens", "d"),
    "flops": ("flops", "training_flop", "training_flops", "training_compute_flop", "compute", "c"),
    "loss": ("loss", "validation_loss", "final_loss", "l"),
    "unique_tokens": ("unique_tokens", "u"),
    "vocab_size": ("vocab_size", "vocabulary_size", "vocabulary"),
}
_FEWEST_PARAMETERS = 1000
_LARGEST_MISMATCH = 30.0
_FEWEST_TOKENS_PER_PARAMETER = 1e-3
"""Of the run in the middle: hundreds of times fewer than any published study of the loss has."""
_LISTED = 3


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns where they are not the usual ones."""

    parameters: str | None = None
    tokens: str | None = None
    flops: str | None = None
    loss: str | None = None
    unique_tokens: str | None = None
    vocab_size: str | None = None


@dataclass(frozen=True)
class Excluded:
    """A row that was left out; ``row`` counts from 1 without the header."""

    row: int
    why: str


@dataclass(frozen=True)
class Runs:
    """n runs that ended well. Losses are in nats per token."""

    parameters: Floats
    tokens: Floats
    flops: Floats
    """6·N·D, also where a table counts otherwise."""
    losses: Floats
    unique_tokens: Floats | None
    """Tokens of the data that a run repeated; ``None`` where the table does not say."""
    excluded: tuple[Excluded, ...]
    vocab_size: int | None = None
    """Of all runs: losses per token of different vocabularies do not compare. ``None`` where the table does not say."""

    def __len__(self) -> int:
        return len(self.losses)

    def take(self, chosen: numpy.ndarray, excluded: tuple[Excluded, ...] = ()) -> "Runs":
        """The chosen runs (indices or mask)."""
        unique = None if self.unique_tokens is None else self.unique_tokens[chosen]
        return Runs(self.parameters[chosen], self.tokens[chosen], self.flops[chosen], self.losses[chosen], unique,
                    (*self.excluded, *excluded), self.vocab_size)


def read_runs(path: Path, columns: Columns | None = None, drop_highest: int = 0) -> Runs:
    """Runs of a table with parameters, a loss, and tokens or FLOPs (each gives the other, by 6·N·D; where the table has
    both, its FLOPs serve to find a wrong unit and for nothing else).

    Runs whose loss is missing, NaN or infinite are excluded and listed, as are those with one of the ``drop_highest``
    highest losses and ties with the lowest of these. ``DataError`` for missing columns, words in place of numbers,
    figures that are not positive, runs that occur twice, parameters in another unit than one, and vocabularies that
    differ.
    """
    rows = read_table(path)
    names = list(rows[0])
    columns = columns or Columns()
    found = {field.name: find_column(names, _KNOWN[field.name], getattr(columns, field.name),
                                     f"--columns.{field.name.replace('_', '-')}", path)
             for field in dataclasses.fields(columns)}
    for needed in ("parameters", "loss"):
        if found[needed] is None:
            raise DataError(f"{path}: no column of {needed} (such as '{_KNOWN[needed][0]}'); it has: "
                            f"{', '.join(names)}; name it with --columns.{needed}")
    if found["tokens"] is None and found["flops"] is None:
        raise DataError(f"{path}: no column of tokens or FLOPs (such as 'tokens' or 'flops'); it has: "
                        f"{', '.join(names)}; name one with --columns.tokens or --columns.flops")
    runs = _collect(rows, found, path)
    _check_units(runs, path, given_both=found["tokens"] is not None and found["flops"] is not None,
                 tokens_from="tokens" if found["tokens"] is not None else "FLOPs")
    # One definition for all approaches, and for the optimum and the plan that follow.
    runs = dataclasses.replace(runs, flops=FLOPS_PER_PARAMETER_AND_TOKEN * runs.parameters * runs.tokens)
    return _without_highest(runs, drop_highest, path)


def _collect(rows: list[Row], found: dict[str, str | None], path: Path) -> Runs:
    kept: list[tuple[float, ...]] = []
    excluded: list[Excluded] = []
    seen: dict[tuple[float, ...], int] = {}
    vocabularies: dict[int, int] = {}
    for index, row in enumerate(rows, start=1):
        values = {kind: _cell(row, column, index, path) for kind, column in found.items() if column is not None}
        loss = values.pop("loss")
        if not is_usable(loss):
            excluded.append(Excluded(index, "no loss" if loss is None else f"loss {loss}"))
            continue
        for kind, value in {"loss": loss, **values}.items():
            if value is None or not (math.isfinite(value) and value > 0):
                shown = "missing" if value is None else f"{value:g}"
                raise DataError(f"{path}, row {index}: {found[kind]} is {shown}; it must be a positive number")
        assert loss is not None
        n, d, c = values["parameters"], values.get("tokens"), values.get("flops")
        assert n is not None
        if d is None:
            assert c is not None
            d = c / (FLOPS_PER_PARAMETER_AND_TOKEN * n)
        if c is None:
            c = FLOPS_PER_PARAMETER_AND_TOKEN * n * d
        key = (n, d, values.get("unique_tokens") or 0.0, loss)
        if key in seen:
            raise DataError(f"{path}, row {index}: the same run and loss as row {seen[key]}; remove one of them")
        seen[key] = index
        if (vocab_size := values.get("vocab_size")) is not None:
            vocabularies.setdefault(round(vocab_size), index)
        kept.append((n, d, c, loss, values.get("unique_tokens") or math.nan))
    if not kept:
        raise DataError(f"{path}: none of its {len(rows)} runs has a loss")
    table = numpy.array(kept)
    if len(kept) > 1 and len(set(table[:, 3])) == 1:
        raise DataError(f"{path}: every run has the same loss, {table[0, 3]:g}; is '{found['loss']}' the right column?")
    if len(vocabularies) > 1:
        sizes = ", ".join(f"{size:,} (row {row})" for size, row in sorted(vocabularies.items())[:_LISTED])
        raise DataError(f"{path}: runs of different vocabularies, {sizes}; their losses per token do not compare, so "
                        "fit each by itself")
    unique = table[:, 4] if found["unique_tokens"] is not None else None
    return Runs(table[:, 0], table[:, 1], table[:, 2], table[:, 3], unique, tuple(excluded),
                next(iter(vocabularies), None))


def _cell(row: Row, column: str, index: int, path: Path) -> float | None:
    try:
        return number(row.get(column))
    except ValueError:
        raise DataError(f"{path}, row {index}: {column} is '{row[column]}'; it must be a number") from None


def _check_units(runs: Runs, path: Path, *, given_both: bool, tokens_from: str) -> None:
    """Parameters or tokens in thousands, millions or billions, told by their size, by each other or by FLOPs that do
    not match."""
    smallest = float(runs.parameters.min())
    if smallest < _FEWEST_PARAMETERS:
        raise DataError(f"{path}: a model of {smallest:g} parameters; are they counted in millions or billions? give "
                        "the number itself")
    per_parameter = float(numpy.median(runs.tokens / runs.parameters))
    if not given_both and per_parameter < _FEWEST_TOKENS_PER_PARAMETER:
        raise DataError(f"{path}: {format_number(per_parameter)} training tokens for each parameter in the run in the "
                        f"middle; are {tokens_from} counted in millions or billions? give the number itself")
    if not given_both:
        return
    ratios = runs.flops / (FLOPS_PER_PARAMETER_AND_TOKEN * runs.parameters * runs.tokens)
    wrong = (ratios > _LARGEST_MISMATCH) | (ratios < 1 / _LARGEST_MISMATCH)
    if wrong.any():
        index = int(numpy.flatnonzero(wrong)[0])
        raise DataError(
            f"{path}: FLOPs are {format_number(ratios[index])} times 6 × parameters × tokens in {int(wrong.sum())} of "
            f"{len(runs)} runs (such as {format_number(runs.parameters[index])} parameters, "
            f"{format_number(runs.tokens[index])} tokens, {format_number(runs.flops[index])} FLOPs); "
            "one of these columns is in another unit")


def _without_highest(runs: Runs, count: int, path: Path) -> Runs:
    if count == 0:
        return runs
    if not 0 < count < len(runs):
        raise DataError(f"--drop-highest {count}: {path} has {len(runs)} runs; give a number from 0 to {len(runs) - 1}")
    limit = numpy.sort(runs.losses)[-count]
    dropped = tuple(Excluded(0, f"loss {format_number(loss, 4)} is one of the {count} highest")
                    for loss in runs.losses[runs.losses >= limit])
    return runs.take(runs.losses < limit, dropped)


def list_excluded(excluded: tuple[Excluded, ...]) -> list[str]:
    """Lines that say what was left out, by reason."""
    reasons: dict[str, list[int]] = {}
    for item in excluded:
        reasons.setdefault(item.why, []).append(item.row)
    lines = []
    for why, rows in reasons.items():
        where = [str(row) for row in rows if row]
        more = f" and {len(where) - _LISTED} more" if len(where) > _LISTED else ""
        lines.append(f"excluded: {why}" + (f" (row {', '.join(where[:_LISTED])}{more})" if where else ""))
    return lines
