"""Marks that one writer may use and another may not: special tokens are a template's, and text in a message.

A twin of the tokenizer knows each mark by a private character instead of its name. In the twin, a name that the wrong
hand writes is text like all other: whole, put together from two messages, or what Unicode's normal forms and small
letters make of it. Everything else, such as marks that take the spaces beside them, is as in the tokenizer itself.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping

import tokenizers
from tickwise.core.errors import CheckpointError
from tickwise.tokenizers.tokenizer import Tokenizer, token_name

_FIRST, _LAST = 0xF0000, 0xFFFFC
"""Characters for private use, each of which stands for a mark."""
_GUARD = "\U000ffffd"
"""Stands before the name of a mark that is text."""
_RESERVED = re.compile(f"([{chr(_FIRST)}-{_GUARD}])")


class Marks:
    """A tokenizer's marks: its special tokens, and those of its other added tokens that ``is_mark`` names."""

    def __init__(self, tokenizer: Tokenizer, is_mark: Callable[[str], bool]) -> None:
        """``CheckpointError`` for a tokenizer of which no twin can be made."""
        added = tokenizer.backend.get_added_tokens_decoder()
        self._ids = {token.content: number for number, token in added.items()
                     if token.special or is_mark(token.content)}
        if len(self._ids) > _LAST - _FIRST:
            raise CheckpointError(f"the tokenizer has {len(self._ids):,} special tokens, too many for a chat")
        self._private = {name: chr(_FIRST + place) for place, name in enumerate(self._ids)}
        self._twin = _twin(tokenizer, self._private)
        # What no longer stands in the model's own vocabulary has another id in the twin.
        self._own_ids = {self._twin.backend.token_to_id(self._private.get(token.content, token.content)): number
                         for number, token in added.items()}
        alone = self._twin.encode_by(self._twin.backend, list(self._private.values()))
        for name, ids in zip(self._private, alone, strict=True):
            if self._ids[name] not in [self._own_ids.get(number, number) for number in ids]:
                raise CheckpointError(f"the tokenizer cannot tell its mark {name!r} from what people write; its "
                                      "normalizer takes away characters for private use")
        self._all = _Names(self._ids)
        self._special = _Names([token.content for token in added.values() if token.special])

    def as_text(self, text: str, *, special_only: bool = False) -> str:
        """``text`` in which nothing is a mark when ``encode`` reads it, alone or among others; with ``special_only``,
        nothing is a special token. Characters that stand for marks become U+FFFD."""
        return (self._special if special_only else self._all).guarded(_RESERVED.sub("\ufffd", text))

    def encode(self, text: str) -> list[int]:
        """The ids of ``text`` with its marks. ``DataError`` as the tokenizer's."""
        text = self._all.unguarded.sub(lambda mark: self._private[mark[0]], text).replace(_GUARD, "")
        if self._twin.kind != "char":
            (ids,) = self._twin.encode_by(self._twin.backend, [text])
            return [self._own_ids.get(number, number) for number in ids]
        of_private = {character: self._ids[name] for name, character in self._private.items()}
        return [number for piece in _RESERVED.split(text) for number in (
            [of_private[piece]] if piece in of_private else self._twin.encode_characters(piece).tolist())]

    def first(self, text: str) -> int | None:
        """The id of the mark that ``text`` begins with, if it does."""
        found = self._all.unguarded.match(text)
        return None if found is None else self._ids[found[0]]


class _Names:
    """The names of marks: where they are in a text."""

    def __init__(self, names: Iterable[str]) -> None:
        longest_first = sorted(filter(None, names), key=len, reverse=True)
        one = "|".join(map(re.escape, longest_first)) or "(?!)"
        first = "".join(sorted({re.escape(name[0]) for name in longest_first})) or "x"
        self.unguarded = re.compile(f"(?<!{_GUARD})(?:{one})")
        """A mark; the longest one where several begin."""
        self._begins = re.compile(f"(?=[{first}])(?={one})")
        self._parts = {name[:end] for name in longest_first for end in range(1, len(name))}
        self._longest = max(map(len, longest_first), default=0)

    def guarded(self, text: str) -> str:
        """A guard before every mark, and before what could be the beginning of one at the end."""
        end = len(text.rstrip())  # a template may take spaces away
        begins = {end - length for length in range(1, min(self._longest, end + 1))
                  if text[end - length : end] in self._parts}
        begins.update(found.start() for found in self._begins.finditer(text))
        pieces = [text[start:stop] for start, stop in itertools.pairwise([0, *sorted(begins), len(text)])]
        return _GUARD.join(pieces)


def _twin(tokenizer: Tokenizer, private: Mapping[str, str]) -> Tokenizer:
    """The tokenizer with other names for the tokens in ``private``."""
    data = json.loads(tokenizer.backend.to_str())
    model = data["model"]
    for token in data["added_tokens"]:
        token["content"] = private.get(token["content"], token["content"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {private.get(name, name): number for name, number in model["vocab"].items()}
    else:  # pieces with their scores
        model["vocab"] = [[private.get(name, name), score] for name, score in model["vocab"]]
    if model.get("unk_token") in private:
        model["unk_token"] = private[model["unk_token"]]
    if "merges" in model:  # no pieces make a mark
        model["merges"] = [pair for pair in model["merges"]
                           if (pair.replace(" ", "", 1) if isinstance(pair, str) else "".join(pair)) not in private]
    data["post_processor"] = data["truncation"] = data["padding"] = None
    try:
        backend = tokenizers.Tokenizer.from_str(json.dumps(data))
    except Exception as problem:  # the library raises bare Exception
        raise CheckpointError(f"the tokenizer cannot tell marks from what people write: {problem}") from None
    unknown = token_name(tokenizer.config.get("unk_token"))
    return Tokenizer(backend, tokenizer.kind, {
        "tickwise_segmentation": tokenizer.config.get("tickwise_segmentation"),
        "unk_token": None if unknown is None else private.get(unknown, unknown)})
