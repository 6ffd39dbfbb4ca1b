"""A fine-tuned encoder as a classifier of texts."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tickwise.core.errors import CheckpointError
from tickwise.data.encoder_inputs import TextIds
from tickwise.interop.directory import save_model
from tickwise.models.encoder_heads import EncoderClassifier
from tickwise.tasks.classifier import Classifier, Word, card, lead
from tickwise.text.segment import has_chinese
from tickwise.text.words import split_characters, split_words
from tickwise.tokenizers.places import placed_ids
from tickwise.tokenizers.tokenizer import Tokenizer
from tickwise.training.encoder_classification import encoded_outputs


class EncodedClassifier(Classifier):
    """A classifier that an encoder is at the bottom of."""

    module: EncoderClassifier

    def __init__(self, module: EncoderClassifier, tokenizer: Tokenizer, path: Path | None = None) -> None:
        if tokenizer.vocab_size > module.config.vocab_size:
            raise CheckpointError(f"{path}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model "
                                  f"{module.config.vocab_size:,}; they do not belong together")
        super().__init__(module, path)
        self.texts = TextIds(tokenizer, module.config.context_length)

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        n_before = self.texts.n_cut
        encoded = self.texts.encode(texts)
        self._tell_of_cuts(self.texts.n_cut - n_before, len(texts),
                           f"the encoder's {self.texts.longest:,} tokens: their end is not read")
        logits = encoded_outputs(self.module, encoded, self.texts.marks, self.device)
        return logits.reshape(len(texts), len(self.labels)).numpy().astype(np.float64)

    def cuts(self, text: str) -> bool:
        if len(text.encode("utf-8", "surrogatepass")) < self.texts.longest - 1:  # no token without a byte
            return False
        n_before = self.texts.n_cut
        self.texts.encode([text])
        return self.texts.n_cut > n_before

    def effects(self, text: str, target: int) -> tuple[Word, ...]:
        """A token's effect counts for the word that it is part of."""
        ids = torch.from_numpy(self.texts.encode([text])[0])[None].to(self.device)
        embedded_BTC = self.module.embed(ids).detach().requires_grad_()
        with torch.enable_grad():
            logits_BK = self.module.classify(embedded_BTC, None)
            gradient, = torch.autograd.grad(lead(logits_BK[0], target), embedded_BTC)
        effect = (gradient * embedded_BTC).sum(-1)[0, 1:-1].detach().cpu().double().tolist()
        words = split_characters(text) if has_chinese(text) else split_words(text)
        scores = [0.0] * len(words)
        number = 0
        for (start, _), score in zip(placed_ids(self.texts.tokenizer, [text])[0].places, effect, strict=False):
            while number < len(words) and words[number].end <= start:
                number += 1
            if number < len(words):
                scores[number] += score
        return tuple(Word(word.start, word.end, score) for word, score in zip(words, scores, strict=True))

    def save(self, folder: Path, run: dict[str, Any] | None = None) -> None:
        config = self.module.config
        what = f"An encoder of {config.n_layers} layers of width {config.width}, fine-tuned"
        save_model(folder, self.module, self.texts.tokenizer, run=run, card=card(self.labels, what))

    def with_config(self, **changes: Any) -> "EncodedClassifier":
        module = EncoderClassifier(dataclasses.replace(self.module.config, **changes))
        module.load_state_dict(self.module.state_dict(), assign=True)
        return EncodedClassifier(module.requires_grad_(False), self.texts.tokenizer, None)
