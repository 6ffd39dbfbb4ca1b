"""Words for the places that a text leaves open with [MASK], from an encoder that was pre-trained on masked words."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path

import torch

from tickwise.core.errors import CheckpointError, ConfigError, DataError
from tickwise.data.encoder_inputs import TextIds, padded
from tickwise.interop.directory import load_module, resolve_model_path
from tickwise.models.encoder import Encoder
from tickwise.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class Filling:
    """A word for a masked place, its probability, and the text with it: as it was given, but for that place."""

    word: str
    probability: float
    text: str


class MaskFiller:
    """Names the words that a text's masks stand for.

    >>> MaskFiller.load("out/encoder").fill("the [MASK] sleeps in the barn")[0][0].word    # doctest: +SKIP
    """

    def __init__(self, module: Encoder, tokenizer: Tokenizer) -> None:
        self.module = module.eval()
        self.texts = TextIds(tokenizer, module.config.context_length)
        self.mask: str = tokenizer.backend.id_to_token(self.texts.marks.mask) or ""
        marks = set(vars(self.texts.marks).values())
        pieces = [tokenizer.backend.id_to_token(i) or "" for i in range(module.config.vocab_size)]
        inside = {i for i, piece in enumerate(pieces) if piece.startswith("##") and len(piece) > 2}  # WordPiece's
        words = [tokenizer.decode([i]).strip() for i in range(module.config.vocab_size)]
        self._tokens = torch.tensor([i for i, word in enumerate(words) if i not in marks | inside and _is_shown(word)])
        # Tokens with a space before them and without one are the same word.
        self._words = list(dict.fromkeys(words[i] for i in self._tokens.tolist()))
        numbers = {word: number for number, word in enumerate(self._words)}
        self._word_of = torch.tensor([numbers[words[i]] for i in self._tokens.tolist()])

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> "MaskFiller":
        """``CheckpointError`` for a model without a head for masked words."""
        folder = resolve_model_path(Path(path))
        module = load_module(folder, device=device)
        if not isinstance(module, Encoder) or module.masked_head is None:
            raise CheckpointError(f"{folder}: has no head for masked words; make one with tickwise train encoder")
        return cls(module, Tokenizer.load(folder))

    @torch.no_grad()
    def fill(self, text: str, n: int = 5) -> list[list[Filling]]:
        """For each mask in ``text`` the ``n`` likeliest words, each alone (the other masks stay). Marks, and tokens
        that are no characters to be shown, are no words. ``DataError`` for a text without a mask, or with one behind
        what the model reads."""
        if n < 1:
            raise ConfigError(f"--n: must be at least 1, got {n}")
        pieces = text.split(self.mask)
        if len(pieces) == 1:
            hint = "exactly so, " if self.mask.casefold() in text.casefold() else ""
            raise DataError(f"the text has no {self.mask}; write it {hint}in place of a word")
        ids_BT, _ = padded(self.texts.encode([text]), self.texts.marks.pad)
        places = (ids_BT[0] == self.texts.marks.mask).nonzero()[:, 0].tolist()
        if len(places) < len(pieces) - 1:
            raise DataError(f"the text is too long: the model reads {self.texts.longest:,} tokens, and its last "
                            f"{self.mask} stands behind them; cut the text")
        device = next(self.module.parameters()).device
        logits_NV = self.module.mlm_logits(self.module(ids_BT.to(device))[0, places]).float().cpu()
        shares_NV = logits_NV[:, self._tokens].softmax(-1)
        shares_NW = torch.zeros(len(places), len(self._words)).index_add_(1, self._word_of, shares_NV)
        found = []
        for number, row_W in enumerate(shares_NW, start=1):
            before, behind = self.mask.join(pieces[:number]), self.mask.join(pieces[number:])
            best = row_W.topk(min(n, int((row_W > 0).sum())))
            words = [self._words[i] for i in best.indices.tolist()]
            found.append([Filling(word, probability, f"{before}{word}{behind}")
                          for word, probability in zip(words, best.values.tolist(), strict=True)])
        return found


def _is_shown(word: str) -> bool:
    """Whether a word can be written: it has a character, and none is a control character or a part of one."""
    kinds = {unicodedata.category(character) for character in word}
    return "\ufffd" not in word and kinds.isdisjoint({"Cc", "Cn", "Cs"}) and not kinds <= {"Cf"}
