"""Tagged text: sentences with entities, from CoNLL columns or JSON lines, in any of the common tagging schemes.

A tagging scheme writes an entity as one tag per token, a prefix and a type (``B-PER``), and everything else as ``O``:

| scheme | an entity of one token | of three tokens | note |
|---|---|---|---|
| iob1 | I | I I I | B only where an entity follows another one of its type (Ramshaw & Marcus 1995, CoNLL-2003) |
| bio | B | B I I | also called IOB2 |
| iobes | S | B I E | |
| bmes | S | B M E | the same with M, usual for Chinese |
| bilou | U | B I L | the same with U and L |
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from tickwise.core.errors import DataError
from tickwise.core.tags import may_follow, split_tag
from tickwise.text.sources import STANDARD_INPUT, decode

Scheme = Literal["iob1", "bio", "iobes", "bmes", "bilou"]
ReadScheme = Literal["auto", "lenient", "iob1", "bio", "iobes", "bmes", "bilou"]
DOCUMENT_START = "-DOCSTART-"
_LETTERS: dict[str, str] = {"iob1": "BI", "bio": "BI", "iobes": "BIES", "bmes": "BMES", "bilou": "BILU"}
_BEGINS, _ENDS = ("O", "B", "S", "U"), ("E", "S", "L", "U")
_TO_IOBES = {"bmes": {"M": "I"}, "bilou": {"L": "E", "U": "S"}}
_FROM_IOBES = {"bmes": {"I": "M"}, "bilou": {"E": "L", "S": "U"}}


class Span(NamedTuple):
    """An entity: tokens ``start`` up to (not including) ``end`` of its sentence, and its type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class TaggedSentence:
    """Tokens and their entities in order. ``line`` is where it starts in its file (from 1), ``document`` counts the
    documents of the file (from 0)."""

    tokens: tuple[str, ...]
    entities: tuple[Span, ...]
    line: int = 1
    document: int = 0


def chunks(tags: Sequence[str]) -> list[Span]:
    """The entities that conlleval (and seqeval) finds in ``tags``, whatever scheme they are in and follow or not.

    An entity begins at B or S (or U), and at any other prefix where the one before it ended or had another type; it
    ends before O, B, S (U) or another type, and after E (L) or S (U). Source: conlleval.pl, startOfChunk, endOfChunk.
    """
    spans: list[Span] = []
    start, kind, open_ = 0, "", False
    for index, tag in enumerate([*tags, "O"]):
        prefix, type_ = split_tag(tag)
        if open_ and (prefix in _BEGINS or type_ != kind):
            spans.append(Span(start, index, kind))
            open_ = False
        if not open_ and prefix != "O":
            start, kind, open_ = index, type_, True
        if open_ and prefix in _ENDS:
            spans.append(Span(start, index + 1, kind))
            open_ = False
    return spans


def to_tags(n_tokens: int, entities: Sequence[Span], scheme: Scheme = "iobes") -> list[str]:
    """One tag per token for entities that do not overlap."""
    tags = ["O"] * n_tokens
    letters = _FROM_IOBES.get(scheme, {})
    for start, end, kind in entities:
        inside = "BIES" if scheme not in ("iob1", "bio") else "BIIB"
        if scheme == "iob1":
            follows = start > 0 and tags[start - 1] != "O" and split_tag(tags[start - 1])[1] == kind
            inside = "BIII" if follows else "IIII"
            if follows and end - start == 1:
                inside = "BIIB"
        begin, middle, last, single = (letters.get(letter, letter) for letter in inside)
        if end - start == 1:
            tags[start] = f"{single}-{kind}"
            continue
        tags[start:end] = [f"{begin}-{kind}", *[f"{middle}-{kind}"] * (end - start - 2), f"{last}-{kind}"]
    return tags


def detect_scheme(sentences: Sequence[Sequence[str]]) -> Scheme:
    """The scheme that ``sentences`` (their tags) are in: what their prefixes say, or, where that makes mistakes of
    some, the scheme that the fewest break."""
    first = _scheme_of_prefixes(sentences)
    broken = {first: sum(_mistake(tags, first) is not None for tags in sentences)}
    if broken[first]:
        others: tuple[Scheme, ...] = ("bio", "iobes", "iob1", "bmes", "bilou")
        for scheme in others:
            broken[scheme] = sum(_mistake(tags, scheme) is not None for tags in sentences)
    return min(broken, key=lambda scheme: broken[scheme])


def _scheme_of_prefixes(sentences: Sequence[Sequence[str]]) -> Scheme:
    """The scheme that the prefixes belong to.

    With B and I alone it is bio when at least as many entities begin with B (where the token before is no entity of
    their type, and iob1 has no B) as with I.
    """
    prefixes = {tag[0] for tags in sentences for tag in tags if tag}
    if "M" in prefixes:
        return "bmes"
    if prefixes & {"L", "U"}:
        return "bilou"
    if prefixes & {"E", "S"}:
        return "iobes"
    begins = {"B": 0, "I": 0}
    for tags in sentences:
        before = "O"
        for tag in tags:
            if tag[0] in begins and split_tag(before)[1] != split_tag(tag)[1]:
                begins[tag[0]] += 1
            before = tag
    return "bio" if begins["B"] and begins["B"] >= begins["I"] else "iob1"


def _mistake(tags: Sequence[str], scheme: Scheme) -> tuple[int, str] | None:
    """The first token whose tag does not follow ``scheme``, and why; None when all do."""
    letters = _LETTERS[scheme]
    for index, tag in enumerate(tags):
        prefix, kind = split_tag(tag)
        if tag != "O" and (len(prefix) != 1 or prefix not in letters or not kind):
            return index, f"the tag {tag!r} is none of {scheme}'s (O, or {', '.join(letters)} with a type: B-PER)"
    to_iobes = _TO_IOBES.get(scheme, {})
    before = "O"
    for index, tag in enumerate(tags):
        prefix, kind = split_tag(tag)
        previous, previous_kind = split_tag(before)
        if scheme in ("iob1", "bio"):
            goes_on = prefix == "I" and previous in ("B", "I") and previous_kind == kind
            if scheme == "bio" and prefix == "I" and not goes_on:
                return index, f"{tag} follows {before if index else 'the start of a sentence'}; in bio an entity " \
                              f"begins with B-{kind}"
            if scheme == "iob1" and prefix == "B" and previous_kind != kind:
                return index, f"{tag} follows {before if index else 'the start of a sentence'}; iob1 has B only " \
                              f"right after another {kind}"
        else:
            canonical = [_iobes(one, to_iobes) for one in (before, tag)]
            if not may_follow(canonical[0] if index else None, canonical[1]):
                return index, f"{tag} follows {before if index else 'the start of a sentence'}, which {scheme} " \
                              "does not allow"
        before = tag
    if tags and scheme not in ("iob1", "bio") and not may_follow(_iobes(tags[-1], to_iobes), None):
        return len(tags) - 1, f"{tags[-1]} ends a sentence, and {scheme} ends an entity with " \
                              f"{letters[2]}-{split_tag(tags[-1])[1]}"
    return None


def _iobes(tag: str, letters: dict[str, str]) -> str:
    prefix, kind = split_tag(tag)
    return f"{letters.get(prefix, prefix)}-{kind}" if kind else tag


@dataclass(frozen=True)
class _Raw:
    """A sentence as it stands in the file: its tokens, tags and line numbers."""

    tokens: list[str]
    tags: list[str]
    lines: list[int]
    document: int


def read_tagged(path: Path | str, *, scheme: ReadScheme = "auto", token_column: int = 0, tag_column: int = -1,
                errors: Literal["strict", "replace"] = "strict") -> list[TaggedSentence]:
    """The sentences of a file (``-`` is standard input) in CoNLL columns or, when it ends in ``.jsonl``, one
    ``{"tokens": [...], "tags": [...]}`` a line.

    CoNLL columns: one token a line, columns separated by tabs or ASCII spaces, a blank line after each sentence, lines
    of ``-DOCSTART-`` between documents. Columns count from 0, from the end when negative. ``lenient`` reads what
    follows no scheme as conlleval does. ``DataError`` with the line number for what cannot be read.
    """
    name = "standard input" if str(path) == STANDARD_INPUT else str(path)
    text = _read_text(path, name, errors)
    if str(path).endswith((".jsonl", ".ndjson")):
        raws = list(_json_sentences(text, name))
    else:
        raws = list(_column_sentences(text, name, token_column, tag_column))
    if not raws:
        raise DataError(f"{name}: no sentences; it needs one token and its tag a line, and a blank line between "
                        "sentences")
    return _with_entities(raws, scheme, name)


def _with_entities(raws: Sequence[_Raw], scheme: ReadScheme, name: str) -> list[TaggedSentence]:
    known: Scheme | None = None
    if scheme == "auto":
        known = detect_scheme([raw.tags for raw in raws])
    elif scheme != "lenient":
        assert scheme in get_args(Scheme)
        known = scheme
    sentences = []
    for raw in raws:
        mistake = _mistake(raw.tags, known) if known is not None else None
        if mistake is not None:
            index, why = mistake
            guessed = " (the scheme that most of the file is in)" if scheme == "auto" else ""
            raise DataError(f"{name}, line {raw.lines[index]}: {why}{guessed}; mend that line, or read the file as "
                            "conlleval does with --options.scheme lenient")
        sentences.append(TaggedSentence(tuple(raw.tokens), tuple(chunks(raw.tags)), raw.lines[0], raw.document))
    return sentences


def _read_text(path: Path | str, name: str, errors: str) -> str:
    import gzip
    import sys

    try:
        if str(path) == STANDARD_INPUT:
            data = sys.stdin.buffer.read()
        else:
            data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except (OSError, EOFError) as problem:
        raise DataError(f"{name}: cannot read it: {getattr(problem, 'strerror', None) or problem}") from None
    if not data.strip():
        raise DataError(f"{name}: empty; give a file with one token and its tag a line")
    return decode(data, name, 0, errors).removeprefix("\ufeff")


def _column_sentences(text: str, name: str, token_column: int, tag_column: int) -> Iterator[_Raw]:
    raw = _Raw([], [], [], 0)
    n_columns: int | None = None
    document, n_in_document = 0, 0
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        cells = _cells(line)
        if not cells or cells[0] == DOCUMENT_START:
            if raw.tokens:
                yield raw
                n_in_document += 1
            if n_in_document and cells and cells[0] == DOCUMENT_START:
                document, n_in_document = document + 1, 0
            raw = _Raw([], [], [], document)
            continue
        if n_columns is None:
            n_columns = len(cells)
            for which, column in (("token", token_column), ("tag", tag_column)):
                if not -n_columns <= column < n_columns:
                    raise DataError(f"{name}, line {number}: {n_columns} columns, so there is no column {column} for "
                                    f"the {which}; give --options.{which}-column (from 0, or from the end: -1)")
            if n_columns < 2:
                raise DataError(f"{name}, line {number}: one column; each line needs a token and its tag")
        if len(cells) != n_columns:
            raise DataError(f"{name}, line {number}: {len(cells)} columns, the lines before have {n_columns}; mend "
                            "that line")
        token, tag = cells[token_column], cells[tag_column]
        if not token or not tag:
            raise DataError(f"{name}, line {number}: an empty {'token' if not token else 'tag'}; mend that line")
        raw.tokens.append(token)
        raw.tags.append(tag)
        raw.lines.append(number)
    if raw.tokens:
        yield raw


def _cells(line: str) -> list[str]:
    """The columns of a line, none of a blank one. Spaces of other kinds (U+00A0, U+3000) are tokens like others."""
    if not line.strip():
        return []
    line = line.rstrip("\n")
    if "\t" in line:
        return [cell.strip(" ") for cell in line.split("\t")]
    return [cell for cell in line.split(" ") if cell]


def _json_sentences(text: str, name: str) -> Iterator[_Raw]:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as problem:
            raise DataError(f"{where}: not valid JSON ({problem})") from None
        if not isinstance(row, dict) or not all(_strings(row.get(key)) for key in ("tokens", "tags")):
            raise DataError(f'{where}: each row must be like {{"tokens": ["Ada", "sings"], "tags": ["B-PER", "O"]}}')
        tokens, tags = row["tokens"], row["tags"]
        if len(tokens) != len(tags):
            raise DataError(f"{where}: {len(tokens)} tokens and {len(tags)} tags; each token needs one")
        if tokens:
            yield _Raw(tokens, tags, [number] * len(tokens), 0)


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one for one in value)


def entity_types(sentences: Sequence[TaggedSentence]) -> tuple[str, ...]:
    """The types of all entities, sorted."""
    return tuple(sorted({span.type for sentence in sentences for span in sentence.entities}))


def iobes_labels(types: Sequence[str]) -> tuple[str, ...]:
    """``O`` and the four tags of each type."""
    return ("O", *(f"{prefix}-{kind}" for kind in types for prefix in "BIES"))


def count_matches(gold: Sequence[Span], predicted: Sequence[Span]) -> tuple[int, int, int]:
    """Of one sentence: entities that are right (place and type), predicted, and there."""
    return len(set(gold) & set(predicted)), len(set(predicted)), len(set(gold))
