"""The one tokenizer type that everything else uses: a ``tokenizers.Tokenizer`` with a kind and a fingerprint.

On disk it is the Hugging Face pair ``tokenizer.json`` + ``tokenizer_config.json``, so that
``transformers.PreTrainedTokenizerFast.from_pretrained(directory)`` opens it and gives the same ids.
"""

import codecs
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import tokenizers.models
import xxhash

import tokenizers
from tickwise.core.config import read_json
from tickwise.core.errors import CheckpointError, DataError
from tickwise.core.paths import write_text_atomic
from tickwise.text.clean import clean
from tickwise.text.segment import segment_chinese

Kind = Literal["char", "word", "bpe", "other"]
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
_TEMPLATE_FILE = "chat_template.jinja"
_GENERATION_FILE = "generation_config.json"
END_IDS = "tickwise_end_ids"
"""The key under which a tokenizer's config keeps ids that end an answer besides the end-of-text token."""
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""How vocabularies of pieces spell a byte of what they have no piece for."""
END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<unk>"
# What other tools call the end-of-document token, for a tokenizer.json that comes without a config.
_END_TOKENS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
_BEGIN_TOKENS = ("<|begin_of_text|>", "<s>", "<bos>", "[CLS]")


class Tokenizer:
    """Text to token ids and back.

    ``kind`` is ``char``, ``word``, ``bpe`` (byte-level) or ``other`` (any other Hugging Face tokenizer).
    ``vocab_size`` is the number of rows an embedding needs: the largest id + 1.
    """

    def __init__(self, backend: tokenizers.Tokenizer, kind: Kind, config: dict[str, Any] | None = None) -> None:
        self.backend = backend
        self.kind = kind
        self.config: dict[str, Any] = dict(config or {})
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(vocabulary.values(), default=-1) + 1
        self.eos_id: int | None = _special_id(self.config, "eos_token", vocabulary)
        self.bos_id: int | None = _special_id(self.config, "bos_token", vocabulary)
        self.unk_id: int | None = _special_id(self.config, "unk_token", vocabulary)
        self.end_ids: tuple[int, ...] = tuple(
            number for number in self.config.get(END_IDS) or () if 0 <= number < self.vocab_size)
        """Ids that end a text besides ``eos_id``."""
        self._special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
        self.segments_chinese = bool(self.config.get("tickwise_segmentation"))

    @property
    def endings(self) -> frozenset[int]:
        """All ids that end a text."""
        return frozenset((*self.end_ids, *(() if self.eos_id is None else (self.eos_id,))))

    # ---------------------------------------------------------------- text to ids

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``. Special tokens written in the text (``<|endoftext|>``) become their ids,
        as in every Hugging Face tokenizer; none is added at either end.

        Raises ``DataError`` for a character that a ``char`` vocabulary without ``<unk>`` does not have.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """``encode`` for many texts, in their order."""
        if self.kind == "char" and not any(token in text for text in texts for token in self._special):
            return [self.encode_characters(text).tolist() for text in texts]
        return self.encode_by(self.backend, texts)

    def encode_plain(self, texts: list[str]) -> list[list[int]]:
        """The ids of texts of which nothing is meant as a mark: names of special tokens that are written in them
        (``</s>``) are text like everything else. Raises ``DataError`` as ``encode`` does."""
        if not any(token in text for text in texts for token in self._special):
            return self.encode_batch(texts)
        if self.kind == "char":
            return [self.encode_characters(text).tolist() for text in texts]
        return self.encode_by(self._without_marks, texts)

    def encode_sources(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts as an encoder–decoder reads them, without the end mark that is put behind every source: of
        the clean text without blanks around it, in which nothing is meant as a mark, between the marks that the
        tokenizer's post-processor adds. Of a blank text there are none. Raises ``DataError`` as ``encode`` does."""
        texts = [clean(text).text.strip() for text in texts]
        return [self.between_marks(ids) if ids else [] for ids in self._plain_pieces(texts)]

    def _plain_pieces(self, texts: list[str]) -> list[list[int]]:
        """``encode_plain`` of vocabularies of pieces too, which may know a mark as one of them: it is left out."""
        return [[i for i in ids if i == self.unk_id or not self.is_special(i)]
                if any(token in text for token in self._special) else ids
                for text, ids in zip(texts, self.encode_plain(texts), strict=True)]

    def between_marks(self, ids: Sequence[int]) -> list[int]:
        """``ids`` of a text between the marks that the post-processor puts around one, without an end mark at its end.

        Raises ``DataError`` where an end mark stands elsewhere."""
        before, behind = self._marks_around
        return [*before, *ids, *behind]

    @functools.cached_property
    def _marks_around(self) -> tuple[list[int], list[int]]:
        if not self.backend.num_special_tokens_to_add(False):
            return [], []
        for probe in ("a", *self.backend.get_vocab(False)):  # whatever gives a token that is none of the marks
            encoding = self.backend.encode(probe)
            is_mark = encoding.special_tokens_mask
            if 0 in is_mark:
                first, last = is_mark.index(0), len(is_mark) - is_mark[::-1].index(0)
                before, behind = encoding.ids[:first], encoding.ids[last:]
                break
        else:
            return [], []
        if behind and behind[-1] == self.eos_id:
            behind = behind[:-1]
        if self.eos_id in (*before, *behind):
            raise DataError("the tokenizer puts an end mark elsewhere than at the end of a text, which no model here "
                            "reads; change the post_processor in its tokenizer.json")
        return before, behind

    @functools.cached_property
    def _without_marks(self) -> tokenizers.Tokenizer:
        twin = tokenizers.Tokenizer.from_str(self.backend.to_str())
        twin.encode_special_tokens = True
        return twin

    def encode_by(self, backend: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
        """The ids that ``backend``, this tokenizer's or a variant of it, gives; ``DataError`` when it fails."""
        if self.segments_chinese:
            texts = [segment_chinese(text) for text in texts]
        try:
            encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as problem:  # the library raises bare Exception
            raise DataError(f"cannot tokenize: {problem}") from None
        return [encoding.ids for encoding in encodings]

    def encode_characters(self, text: str) -> npt.NDArray[np.int64]:
        """Ids of a ``char`` tokenizer by one table look-up per character, shape (len(text),)."""
        table = self._character_table
        code_points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        ids: npt.NDArray[np.int64] = table[np.minimum(code_points, len(table) - 1)]
        if ids.size and ids.min() < 0:
            at = int(np.argmin(ids >= 0))
            raise DataError(
                f"character {text[at]!r} (U+{ord(text[at]):04X}) at position {at} is not in the vocabulary of this "
                "char tokenizer; leave it out, or use --tokenizer bpe, or train with --unknown"
            )
        return ids

    def first_unknown_character(self, text: str) -> int | None:
        """Where the first character stands that a ``char`` vocabulary without ``<unk>`` does not have; ``None`` when
        every character has an id, as with any other tokenizer. Special tokens in the text are known."""
        if self.kind != "char" or self.unk_id is not None:
            return None
        table = self._character_table
        code_points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        known = table[np.minimum(code_points, len(table) - 1)] >= 0
        for token in self._special:
            start = text.find(token)
            while start >= 0:
                known[start : start + len(token)] = True
                start = text.find(token, start + len(token))
        return None if known.all() else int(np.argmin(known))

    @functools.cached_property
    def _character_table(self) -> npt.NDArray[np.int64]:
        """Code point to id; the last entry stands for every larger code point."""
        entries = {ord(token): i for token, i in self.backend.get_vocab(False).items() if len(token) == 1}
        missing = -1 if self.unk_id is None else self.unk_id
        table = np.full(max(entries, default=0) + 2, missing, dtype=np.int64)
        for code_point, token_id in entries.items():
            table[code_point] = token_id
        return table

    # ---------------------------------------------------------------- ids to text

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ``ids``; special tokens give no text unless ``skip_special`` is off.

        Bytes that are not UTF-8 (a character cut in the middle) give U+FFFD. ``DataError`` for an id that
        the vocabulary does not have.
        """
        self.check_ids(ids)
        return self.backend.decode(list(ids), skip_special_tokens=skip_special)

    def check_ids(self, ids: Sequence[int]) -> None:
        """``DataError`` if an id is outside the vocabulary."""
        if len(ids) and not (min(ids) >= 0 and max(ids) < self.vocab_size):
            wrong = next(i for i in ids if not 0 <= i < self.vocab_size)
            raise DataError(f"token id {wrong} is outside the vocabulary (0 to {self.vocab_size - 1}); "
                            "use the tokenizer that made these ids")

    def stream_decoder(self, before: Sequence[int] = ()) -> "StreamDecoder":
        """A decoder that is fed one id at a time; the text goes on from that of the ids ``before``."""
        return StreamDecoder(self, before)

    @property
    def is_byte_level(self) -> bool:
        """Whether every token is a run of bytes (GPT-2's byte alphabet)."""
        decoder = self.backend.decoder
        return decoder is not None and type(decoder).__name__ == "ByteLevel"

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token of a byte-level tokenizer; of a special token its name in UTF-8."""
        token = self.backend.id_to_token(token_id)
        if token is None:
            return b""
        alphabet = byte_of_symbol()
        if token in self._special or any(symbol not in alphabet for symbol in token):
            return token.encode()
        return bytes(alphabet[symbol] for symbol in token)

    def spelled_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text, as UTF-8, with the blank before it where it begins a word; it may be no whole
        character. Of a special token its name."""
        name = self.backend.id_to_token(token_id)
        if name is None:
            return b""
        if self.is_byte_level:
            return self.token_bytes(token_id)
        if self.config.get("tickwise_word_style") == "spaces":
            spelled = f" {name}"
        elif self.kind != "other":
            spelled = name
        elif byte := _BYTE.fullmatch(name):
            return bytes([int(byte[1], 16)])
        elif self._continuing is not None:
            goes_on = self._continuing and name.startswith(self._continuing)
            spelled = name[len(self._continuing) :] if goes_on else f" {name}"
        else:
            spelled = name.replace("▁", " ")
        return spelled.encode("utf-8", "surrogatepass")

    @functools.cached_property
    def _continuing(self) -> str | None:
        """What a token that goes on with a word begins with, where all others begin one, as in vocabularies of
        WordPiece; nothing where every token is a word, and None where blanks are written into the tokens."""
        model = self.backend.model
        if isinstance(model, tokenizers.models.WordPiece):
            return str(model.continuing_subword_prefix)
        return "" if isinstance(model, tokenizers.models.WordLevel) else None

    def strange_share(self, ids: Sequence[int]) -> float:
        """The share of tokens that stand for no whole character: the unknown token, and single bytes of characters
        that the vocabulary does not have, as most are of a script that the tokenizer never saw."""
        return sum(i in self._strange for i in ids) / len(ids) if ids else 0.0

    @functools.cached_property
    def _strange(self) -> frozenset[int]:
        found = set() if self.unk_id is None else {self.unk_id}
        for i in range(self.vocab_size):
            if self.is_byte_level:
                try:
                    self.token_bytes(i).decode()
                except UnicodeDecodeError:
                    found.add(i)
            elif _BYTE.fullmatch(self.backend.id_to_token(i) or ""):
                found.add(i)
        return frozenset(found)

    def is_special(self, token_id: int) -> bool:
        """Whether the id stands for a mark such as the end of a document, not for text."""
        return self.backend.id_to_token(token_id) in self._special

    # ---------------------------------------------------------------- files

    @property
    def fingerprint(self) -> str:
        """xxh3-128 of the tokenizer.json text, in hexadecimal."""
        return xxhash.xxh3_128_hexdigest(self.backend.to_str(pretty=False).encode())

    def save(self, directory: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json`` into ``directory``, each atomically."""
        write_text_atomic(directory / TOKENIZER_FILE, self.backend.to_str(pretty=True))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **self.config,
            "tickwise_kind": self.kind,
        }
        write_text_atomic(directory / CONFIG_FILE, json.dumps(config, ensure_ascii=False, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """From a directory or a ``tokenizer.json`` of any Hugging Face tokenizer. No text is cut or padded
        because the file asks for it, as in transformers.

        Raises ``CheckpointError`` in one line when it is missing or corrupt.
        """
        path = Path(path)
        file = path / TOKENIZER_FILE if path.is_dir() else path
        if not file.is_file():
            raise CheckpointError(f"{file}: no tokenizer there; give a folder with tokenizer.json")
        config_file = file.with_name(CONFIG_FILE)
        config = read_json(config_file, "the tokenizer config", CheckpointError) if config_file.is_file() else {}
        try:
            backend = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except Exception as problem:  # the library raises bare Exception
            reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
            raise CheckpointError(f"{file}: not a readable tokenizer ({reason}); copy it again") from None
        backend.no_truncation()
        backend.no_padding()
        template = file.with_name(_TEMPLATE_FILE)
        if template.is_file():  # where newer versions of transformers keep it
            config["chat_template"] = _read_text(template, "the chat template")
        if END_IDS not in config and (ends := _end_ids(file.with_name(_GENERATION_FILE))):
            config[END_IDS] = ends
        names = {token.content for token in backend.get_added_tokens_decoder().values()}
        for key, candidates in (("eos_token", _END_TOKENS), ("bos_token", _BEGIN_TOKENS)):
            found = next((name for name in candidates if name in names), None)
            if key not in config and not config.get("tickwise_kind") and found is not None:
                config[key] = found
        kind = config.get("tickwise_kind")
        if kind not in ("char", "word", "bpe", "other"):
            byte_level = type(backend.model).__name__ == "BPE" and type(backend.decoder).__name__ == "ByteLevel"
            kind = "bpe" if byte_level else "other"
        return cls(backend, cast(Kind, kind), config)


def token_name(value: object) -> str | None:
    """The name of a special token as a config has it."""
    if isinstance(value, dict):  # older configs store an AddedToken
        value = value.get("content")
    return value if isinstance(value, str) else None


def _special_id(config: dict[str, Any], key: str, vocabulary: dict[str, int]) -> int | None:
    name = token_name(config.get(key))
    return None if name is None else vocabulary.get(name)


def _read_text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise CheckpointError(f"{path}: cannot read {what} ({problem}); copy it again") from None


def _end_ids(path: Path) -> list[int]:
    """The ids that end a text by the model's own settings for writing, if it brings any."""
    if not path.is_file():
        return []
    given = read_json(path, "the settings for writing", CheckpointError).get("eos_token_id")
    found = given if isinstance(given, list) else [given]
    return [number for number in found if isinstance(number, int) and not isinstance(number, bool)]


@functools.cache
def symbol_of_byte() -> tuple[str, ...]:
    """GPT-2's printable symbol of each byte (Radford et al. 2019, ``bytes_to_unicode`` of the published code)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = {byte: chr(byte) for byte in printable}
    for count, byte in enumerate(byte for byte in range(256) if byte not in symbols):
        symbols[byte] = chr(256 + count)
    return tuple(symbols[byte] for byte in range(256))


@functools.cache
def byte_of_symbol() -> dict[str, int]:
    """The inverse of ``symbol_of_byte``."""
    return {symbol: byte for byte, symbol in enumerate(symbol_of_byte())}


_LONGEST_CHARACTER_BYTES = 4


class StreamDecoder:
    """Text of a growing sequence of ids: the pieces that ``push`` and ``flush`` return join to its ``decode``, or to
    what it adds to the text of the ids ``before``.

    Byte-level tokenizers go through an incremental UTF-8 decoder. For the others the text of a token can
    depend on its neighbours, so a window of the last ids is decoded again and only what is new is given out.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace") if tokenizer.is_byte_level else None
        self._window = [] if self._utf8 is not None else self._last_character(before)
        self._given = len(self._window)  # ids at the front of the window whose text was given out

    def _last_character(self, before: Sequence[int]) -> list[int]:
        """The last ids that stand for text, as many as a character may take."""
        tokenizer, ids = self._tokenizer, list[int]()
        for token_id in reversed(before[-2 * _LONGEST_CHARACTER_BYTES :]):
            if tokenizer.is_special(token_id) or token_id in (tokenizer.eos_id, tokenizer.bos_id):
                continue
            ids.insert(0, token_id)
            if len(ids) == _LONGEST_CHARACTER_BYTES or not tokenizer.decode(ids).startswith("�"):
                break
        return ids

    def push(self, token_id: int) -> str:
        """The text that is certain now; an incomplete character is held back."""
        tokenizer = self._tokenizer
        tokenizer.check_ids([token_id])
        if tokenizer.is_special(token_id):
            return ""
        if self._utf8 is not None:
            return self._utf8.decode(tokenizer.token_bytes(token_id))
        self._window.append(token_id)
        before = tokenizer.decode(self._window[: self._given])
        now = tokenizer.decode(self._window)
        if now.endswith("�") or not now.startswith(before):
            return ""
        # Decoding needs one given token of context (it decides on a leading space), not the whole history.
        self._window, self._given = self._window[self._given :], len(self._window) - self._given
        return now[len(before) :]

    def flush(self) -> str:
        """What was held back, with U+FFFD for bytes that never became a character."""
        if self._utf8 is not None:
            return self._utf8.decode(b"", final=True)
        before = self._tokenizer.decode(self._window[: self._given])
        now = self._tokenizer.decode(self._window)
        self._window, self._given = [], 0
        return now[len(before) :]
