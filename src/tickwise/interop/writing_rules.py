"""What other programs' encoder–decoders are made to write: the settings in ``generation_config.json``, else those that
old directories have in ``config.json``, as in transformers."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tickwise.core.config import read_json
from tickwise.core.errors import CheckpointError, ConfigError
from tickwise.models.encoder_decoder import EncoderDecoderConfig
from tickwise.models.writing_rules import WritingRules

GENERATION = "generation_config.json"
# What changes texts, is not computed here by itself, and the value that asks for nothing. Where a verb has a setting of
# its own for something (width of the beam, longest text, sampling), that one holds.
_NOT_FOLLOWED: Mapping[str, Any] = {
    "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "min_length": 0, "min_new_tokens": 0,
    "repetition_penalty": 1, "encoder_repetition_penalty": 1, "length_penalty": 1, "early_stopping": False,
    "diversity_penalty": 0, "begin_suppress_tokens": [], "sequence_bias": {}, "forced_decoder_ids": [],
    "exponential_decay_length_penalty": [],
}


def with_writing_rules(
    folder: Path, values: Mapping[str, Any], config: EncoderDecoderConfig
) -> tuple[EncoderDecoderConfig, list[str]]:
    """The config with the rules for writing of a foreign model directory whose ``config.json`` has ``values``; and, for
    people, the settings that are not followed.

    Raises ``CheckpointError`` in one line for values of other types, and for tokens that the model does not have.
    """
    file = folder / GENERATION
    if file.is_file():
        values = read_json(file, "the settings for writing", CheckpointError)
    where = str(file if file.is_file() else folder / "config.json")
    left = [f"{name} {values[name]}" for name, neutral in _NOT_FOLLOWED.items()
            if values.get(name) is not None and values[name] != neutral]
    end_ids = _ids(values, "eos_token_id", where) or (config.eos_id,)
    words = values.get("bad_words_ids") or []
    if not isinstance(words, list) or not all(isinstance(word, list) for word in words):
        raise CheckpointError(f"{where}: key 'bad_words_ids': expected lists of token ids, got {words!r:.60}")
    banned = [_ids({"bad_words_ids": word}, "bad_words_ids", where) for word in words]
    if n_longer := sum(len(word) > 1 for word in banned):
        left.append(f"bad_words_ids of more than one token ({n_longer:,})")
    single = [word[0] for word in banned if len(word) == 1 and word[0] not in end_ids]
    forced_first = _ids(values, "forced_bos_token_id", where)
    forced_last = _ids(values, "forced_eos_token_id", where)
    if forced_last and not set(forced_last) & set(end_ids):
        left.append(f"forced_eos_token_id {values['forced_eos_token_id']}, which ends no text")
    rules = WritingRules(
        suppressed_ids=tuple(dict.fromkeys([*single, *_ids(values, "suppress_tokens", where)])),
        first_id=forced_first[0] if forced_first else None,
        forces_end=bool(set(forced_last) & set(end_ids)),
        end_ids=tuple(token_id for token_id in end_ids if token_id != config.eos_id),
    )
    start = _ids(values, "decoder_start_token_id", where)
    try:
        return dataclasses.replace(config, writing=rules, start_id=start[0] if start else config.start_id), left
    except ConfigError as problem:
        raise CheckpointError(f"{where}: {problem}") from None


def _ids(values: Mapping[str, Any], key: str, where: str) -> tuple[int, ...]:
    """One token id or several; none where the key is missing or null."""
    given = values.get(key)
    found = [] if given is None else given if isinstance(given, list) else [given]
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in found):
        raise CheckpointError(f"{where}: key '{key}': expected token ids, got {given!r:.60}")
    return tuple(found)
