"""What people should know of data that was prepared: copies, leaks, and splits that are not what they expect."""

from collections.abc import Iterator
from typing import Any

from tickwise.data import splits as split_rules
from tickwise.data.config import PrepareConfig
from tickwise.data.inputs import Input
from tickwise.text.sources import format_of

DEFAULT_CONTEXT = 256  # of tickwise train


def remarks(
    config: PrepareConfig, inputs: list[Input], duplicates: dict[str, Any], infos: dict[str, dict[str, Any]],
    given_splits: bool,
) -> Iterator[str]:
    """One line each. duplicates, infos: what ``dataset.json`` says of duplicates and splits; given_splits: the splits
    were not made here."""
    in_order = duplicates["unit"] == "paragraph"
    yield (f"{duplicates['units']} {duplicates['unit']}s: {duplicates['exact']} exact duplicates, "
           f"{duplicates['near']} near, {duplicates['removed']} removed"
           + (" (one text keeps its order)" if in_order else ""))
    for name, removed in duplicates.get("removed_from", {}).items():
        if removed["paragraphs"]:
            yield (f"{name}: {removed['paragraphs']} paragraphs ({removed['bytes']} bytes) removed, because the text "
                   "before it has them too")
    for name, leaks in duplicates.get("leaks", {}).items():
        if leaks and "removed_from" in duplicates and config.duplicates == "near":
            yield (f"{name}: {leaks} paragraphs of less than {split_rules.LEAST_LEAK_BYTES} bytes are also in train "
                   "and stay")
        elif leaks:
            remedy = "--remove-leaks" if given_splits and not in_order else "--documents paragraph"
            yield f"{name}: {leaks} {duplicates['unit']}s are also in train; {remedy} avoids that"
    asked = {"train": 1.0, "validation": config.validation_fraction, "test": config.test_fraction}
    n_bytes = sum(info["bytes"] for info in infos.values())
    for name, info in infos.items():
        if info["tokens"]:
            short = name != "train" and info["tokens"] <= DEFAULT_CONTEXT
            yield (f"{name}: {info['tokens']} tokens, {info['documents']} documents, {info['bytes']} bytes"
                   + (f" (no more than a context of {DEFAULT_CONTEXT}: its loss will say little)" if short else ""))
        elif asked[name] > 0 and not given_splits:
            yield f"{name}: empty, there is too little text for it"
        if info["tokens"] and name != "train" and not given_splits and not in_order:
            yield from _on_the_share(inputs[0], name, info["bytes"] / n_bytes, asked[name])


def _on_the_share(source: Input, name: str, share: float, asked: float) -> Iterator[str]:
    """Whole documents do not always make the share that was asked for, even by half."""
    if abs(share - asked) <= asked / 2:
        return
    are_texts = source.read.documents == "file" and all((format_of(file) or "text") == "text" for file in source.files)
    remedy = "--documents paragraph (or line) makes smaller ones" if are_texts else "more documents come nearer"
    yield (f"{name}: {100 * share:.1f} % of the text instead of {100 * asked:g} %, because documents are not cut; "
           f"{remedy}")
