"""Make a tokenizer from text."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import tokenizers
from tickwise.core.console import format_count
from tickwise.core.errors import ConfigError, DataError
from tickwise.text.segment import HAN_PATTERN, SEPARATOR, has_chinese, segment_chinese
from tickwise.tokenizers.tokenizer import END_OF_TEXT, UNKNOWN, Tokenizer
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

WordStyle = Literal["natural", "spaces"]
DEFAULT_BPE_VOCABULARY = 8192
LINE_END = "<eos>"
# The pattern of ``pre_tokenizers.ByteLevel`` (Radford et al. 2019).
_GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SMALLEST_BPE = 256 + 1  # every byte, and the end-of-text token
# A merge walks through each word that has it: a word without end, as of a text without spaces, makes that quadratic.
_LONGEST_WORD = 512
_NO_SPACE = re.compile(rf"\S{{{_LONGEST_WORD}}}")
_LONG_WORDS = re.compile("|".join(rf"{kind}{{{_LONGEST_WORD}}}" for kind in (r"[^\W\d_]", r"\d", r"[\W_]")))


def train_tokenizer(
    kind: str,
    texts: Iterator[str],
    *,
    vocab_size: int | None = None,
    min_frequency: int = 2,
    end_of_text: bool = True,
    unknown: bool = False,
    word_style: WordStyle = "natural",
    lowercase: bool = False,
    prefix_space: bool = False,
    whole: Sequence[str] = (),
) -> Tokenizer:
    """Train a ``char``, ``word`` or ``bpe`` tokenizer on ``texts``.

    vocab_size: the most entries the vocabulary may have, special tokens included; by default 8192 for
        ``bpe`` and no limit for the others.
    min_frequency: a word (``word``) or merge (``bpe``) that occurs less often is left out. Not for ``char``.
    end_of_text: have an end-of-document token ``<|endoftext|>``. Without it ``eos_id`` is None.
    unknown: give a ``char`` vocabulary an ``<unk>`` (``word`` always has one, ``bpe`` never needs one).
    word_style: ``natural`` keeps spaces and punctuation so that known words decode to the exact text;
        ``spaces`` is for text whose tokens are already separated by spaces, with ``<eos>`` for each line end
        (the convention of WikiText and Penn Treebank counts).
    lowercase: a ``bpe`` tokenizer reads every text in lower case.
    prefix_space: a ``bpe`` tokenizer puts a space before every text, so that a word has the same tokens at its start
        as elsewhere; decoded texts then begin with one.
    whole: strings that a ``bpe`` tokenizer takes for a word each, whatever characters they are made of
        (``#Person1#``), so that frequent ones become tokens.

    Raises ``DataError`` for text without a single character, ``ConfigError`` for impossible settings.
    """
    if kind == "char":
        return _train_char(texts, vocab_size, end_of_text, unknown)
    if kind == "word":
        return _train_word(texts, vocab_size, min_frequency, end_of_text, word_style)
    if kind == "bpe":
        return _train_bpe(texts, vocab_size or DEFAULT_BPE_VOCABULARY, min_frequency, end_of_text, lowercase,
                          prefix_space, whole)
    raise ConfigError(f"--tokenizer {kind}: not one of char, word, bpe")


def char_tokenizer(counts: Counter[str], *, vocab_size: int | None, end_of_text: bool, unknown: bool) -> Tokenizer:
    """A ``char`` tokenizer from how often each character occurs; ids in code-point order, special tokens last."""
    if not counts:
        raise DataError("there is no text to make a vocabulary from; check the input")
    n_special = int(end_of_text) + int(unknown)
    characters = sorted(counts)
    if vocab_size is not None and len(characters) + n_special > vocab_size:
        unknown, n_special = True, int(end_of_text) + 1
        if vocab_size <= n_special:
            raise ConfigError(f"--vocab-size {vocab_size}: too small, the special tokens alone take {n_special}")
        frequent = sorted(characters, key=lambda c: (-counts[c], c))[: vocab_size - n_special]
        characters = sorted(frequent)
    vocabulary = {character: index for index, character in enumerate(characters)}
    config: dict[str, Any] = {}
    if unknown:
        vocabulary[UNKNOWN] = len(vocabulary)
        config["unk_token"] = UNKNOWN
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    if end_of_text:
        backend.add_special_tokens([END_OF_TEXT])
        config["eos_token"] = END_OF_TEXT
    return Tokenizer(backend, "char", config)


def _train_char(texts: Iterable[str], vocab_size: int | None, end_of_text: bool, unknown: bool) -> Tokenizer:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return char_tokenizer(counts, vocab_size=vocab_size, end_of_text=end_of_text, unknown=unknown)


def _train_word(
    texts: Iterable[str], vocab_size: int | None, min_frequency: int, end_of_text: bool, style: WordStyle
) -> Tokenizer:
    backend = tokenizers.Tokenizer(models.WordLevel({UNKNOWN: 0}, unk_token=UNKNOWN))
    config: dict[str, Any] = {"unk_token": UNKNOWN, "tickwise_word_style": style}
    special = [UNKNOWN]
    seen_chinese = False
    if style == "spaces":
        # A line end becomes a word of its own; documents are then separated by it too.
        backend.normalizer = normalizers.Replace("\n", f" {LINE_END} ")
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        backend.decoder = decoders.Sequence([
            decoders.WordPiece(prefix="\x1e", cleanup=False), decoders.Replace(f" {LINE_END}", "\n"), decoders.Fuse()
        ])
        special.append(LINE_END)
        config["eos_token"] = LINE_END
    elif style == "natural":
        # A word carries the space before it, so decoding is joining. Han runs come with separators.
        pieces = rf"{HAN_PATTERN}+| ?(?:(?!{HAN_PATTERN})[\p{{L}}\p{{M}}\p{{N}}_])+| ?[^\s\p{{L}}\p{{M}}\p{{N}}_]|\s"
        backend.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(SEPARATOR, "removed"), pre_tokenizers.Split(Regex(pieces), "isolated")
        ])
        backend.decoder = decoders.Fuse()
    else:
        raise ConfigError(f"word style {style!r}: not one of natural, spaces")

    def segmented() -> Iterator[str]:
        nonlocal seen_chinese
        for text in texts:
            if style == "natural" and has_chinese(text):
                seen_chinese = True
                text = segment_chinese(text)
            yield text

    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab_size or 2**31 - 1, min_frequency=min_frequency, show_progress=False,
        special_tokens=[UNKNOWN],
    )
    backend.train_from_iterator(segmented(), trainer)
    vocabulary = backend.get_vocab(with_added_tokens=False)
    if len(vocabulary) <= 1:
        raise DataError(f"no word occurs {min_frequency} times; give more text, or make the data with tickwise data "
                        "prepare --min-frequency 1")
    # The trainer marks <unk> as special and counts one written in the text again; here it is an ordinary word
    # that stands for rare ones and is shown. Most frequent words get the smallest ids.
    by_frequency = sorted((word for word in vocabulary if word != UNKNOWN), key=vocabulary.__getitem__)
    vocabulary = {word: index for index, word in enumerate([UNKNOWN, *by_frequency])}
    rebuilt = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    rebuilt.normalizer, rebuilt.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    rebuilt.decoder = backend.decoder
    if style == "natural" and end_of_text:
        rebuilt.add_special_tokens([END_OF_TEXT])
        config["eos_token"] = END_OF_TEXT
    if seen_chinese:
        config["tickwise_segmentation"] = "rjieba word mode; put U+001F between the words of each run of Han characters"
    return Tokenizer(rebuilt, "word", config)


def _train_bpe(texts: Iterable[str], vocab_size: int, min_frequency: int, end_of_text: bool, lowercase: bool,
               prefix_space: bool, whole: Sequence[str]) -> Tokenizer:
    if vocab_size < _SMALLEST_BPE:
        raise ConfigError(
            f"--vocab-size {format_count(vocab_size)}: byte-level bpe needs at least {_SMALLEST_BPE} (every byte, and "
            "the end of a document); use --tokenizer char for fewer"
        )
    backend = tokenizers.Tokenizer(models.BPE())
    normalisers: list[normalizers.Normalizer] = [normalizers.Lowercase()] if lowercase else []
    if whole:
        # Words are found before bytes are shown as characters; the space goes before the whole text, not each word.
        normalisers += [normalizers.Prepend(" ")] if prefix_space else []
        words = "|".join(re.escape(word.lower() if lowercase else word) for word in whole)
        split = pre_tokenizers.Split(Regex(f" ?(?:{words})|{_GPT2_WORDS}"), "isolated")
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=True)
    if normalisers:
        backend.normalizer = normalisers[0] if len(normalisers) == 1 else normalizers.Sequence(normalisers)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=min_frequency, show_progress=False,
        special_tokens=[END_OF_TEXT] if end_of_text else [],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    backend.train_from_iterator(_short_words(texts), trainer)
    return Tokenizer(backend, "bpe", {"eos_token": END_OF_TEXT} if end_of_text else {})


def _short_words(texts: Iterable[str]) -> Iterator[str]:
    """``texts``, cut where a word would be longer than any real one; others stay as they are."""
    for text in texts:
        end = 0
        if _NO_SPACE.search(text):
            for word in _LONG_WORDS.finditer(text):
                yield text[end : word.end()]
                end = word.end()
        if end < len(text):
            yield text[end:]
