"""Conversations from files: what users, assistants and instructions said, turn by turn."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tickwise.core.errors import DataError
from tickwise.data import catalogue, rows
from tickwise.tokenizers.chat import ROLES, encode_turns
from tickwise.tokenizers.tokenizer import Tokenizer

Chat = list[dict[str, str]]
_SHAREGPT = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def read_chats(sources: Sequence[str], split: str = "train") -> list[Chat]:
    """The conversations of .jsonl or .json files (also .gz) or of ``split`` of known data sets. A row has

    - ``messages``: a list of ``role`` (system, user, assistant) and ``content``, as OpenAI and Hugging Face have them;
    - ``conversations``: the same with ``from`` and ``value`` (ShareGPT);
    - ``instruction``, ``input`` (which may be empty) and ``output`` (Alpaca);
    - ``turns``: texts that user and assistant say in turn.

    What stands behind the assistant's last turn is left out: nobody answers it.

    ``DataError`` says which row of which file is none of these, or has no turn of the assistant.
    """
    chats: list[Chat] = []
    for source in sources:
        for number, row in enumerate(_rows(source, split), start=1):
            chats.append(_chat(row, f"{source}, row {number:,}"))
    if not chats:
        raise DataError(f"{', '.join(sources)}: no conversation in it")
    return chats


def _rows(source: str, split: str) -> Iterable[Any]:
    path = Path(source)
    if path.exists():
        if not path.is_file():
            raise DataError(f"{path}: not a file; give one with a conversation per row")
        name = path.name.lower().removesuffix(".gz")
        return rows.json_array([path]) if name.endswith(".json") else rows.json_lines([path])
    entry = catalogue.find(source)
    if entry is None:
        raise DataError(f"{source}: no such file, and no data set of that name (see tickwise data ls)")
    return entry.rows(split)


def _chat(row: Any, where: str) -> Chat:
    if not isinstance(row, dict):
        raise DataError(f"{where}: not an object with messages")
    found = _turns(row, where)
    chat = []
    for number, (role, content) in enumerate(found, start=1):
        if role not in ROLES:
            raise DataError(f"{where}, message {number}: role {role!r:.40} is not one of {', '.join(ROLES)}")
        if not isinstance(content, str) or not content.strip():
            raise DataError(f"{where}, message {number}: has no text as its content")
        chat.append({"role": str(role), "content": content.strip()})
    if not any(message["role"] == "assistant" for message in chat):
        raise DataError(f"{where}: no turn of the assistant in it, so there is nothing to learn from it")
    while chat[-1]["role"] != "assistant":
        chat.pop()
    return chat


def _turns(row: dict[str, Any], where: str) -> list[tuple[Any, Any]]:
    """(role, content) of each turn, not yet checked."""
    if isinstance(row.get("messages"), list):
        return [(m.get("role"), m.get("content")) if isinstance(m, dict) else (None, None) for m in row["messages"]]
    if isinstance(row.get("conversations"), list):
        return [(_SHAREGPT.get(str(m.get("from"))), m.get("value")) if isinstance(m, dict) else (None, None)
                for m in row["conversations"]]
    if "instruction" in row and "output" in row:
        asked = [text for text in (row["instruction"], row.get("input")) if isinstance(text, str) and text.strip()]
        return [("user", "\n".join(asked)), ("assistant", row["output"])]
    if isinstance(row.get("turns"), list):
        return [(ROLES[1 + number % 2], turn) for number, turn in enumerate(row["turns"])]
    raise DataError(f"{where}: needs messages, conversations, turns, or instruction and output (it has "
                    f"{', '.join(map(str, row)) or 'nothing'})")


class EncodedChats:
    """Conversations as ids, each with what the assistant wrote of them; those that are too long are cut behind the last
    turn of the assistant that fits, or left out."""

    def __init__(self, chats: Sequence[Chat], tokenizer: Tokenizer, longest: int) -> None:
        self.ids: list[np.ndarray] = []
        self.own: list[np.ndarray] = []
        """True where the assistant wrote the token."""
        self.n_cut = self.n_left_out = 0
        for chat in chats:
            ids, own = encode_turns(tokenizer, chat)
            if len(ids) > longest:
                ids, own = self._cut(ids, own, longest)
            if not any(own):
                self.n_left_out += 1
                continue
            self.ids.append(np.array(ids, dtype=np.int64))
            self.own.append(np.array(own))

    def _cut(self, ids: list[int], own: list[bool], longest: int) -> tuple[list[int], list[bool]]:
        ends = [place for place in range(1, longest + 1) if own[place - 1] and not own[place]]
        if not ends:
            return [], []
        self.n_cut += 1
        return ids[: ends[-1]], own[: ends[-1]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_own(self) -> int:
        """Tokens that the assistant wrote."""
        return sum(int(own.sum()) for own in self.own)
