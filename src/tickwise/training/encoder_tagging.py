"""Fine-tuning an encoder to tag words: the CRF's loss, entity F1 on the development sentences.

Shape legend: B pieces of sentences, T tokens, W words, K tags.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tickwise.data.encoder_inputs import Marks, mask_words, padded
from tickwise.data.tagged import Span, TaggedSentence, to_tags
from tickwise.data.word_pieces import Piece, WordPieces
from tickwise.models.encoder_heads import EncoderTagger
from tickwise.training.objective import Batch
from tickwise.training.shuffled_passes import ShuffledPasses, batches_by_length
from tickwise.training.tagging_objective import entity_figures, tagged_spans

Found = list[tuple[Span, float | None]]


def collate_pieces(pieces: Sequence[Piece], pad: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids (B, T), their lengths (B), the words' first tokens (B, W) and how many words there are (B)."""
    return (*padded([piece.ids for piece in pieces], pad), *padded([piece.firsts for piece in pieces], 0))


def piece_tags(pieces: Sequence[Piece], sentences: Sequence[TaggedSentence],
               labels: Sequence[str]) -> list[NDArray[np.int64]]:
    """The tags of each piece's words; of an entity that a piece has a part of none."""
    numbers = {label: i for i, label in enumerate(labels)}
    found = []
    for piece in pieces:
        inside = [Span(s.start - piece.start, s.end - piece.start, s.type) for s in sentences[piece.sentence].entities
                  if piece.start <= s.start and s.end <= piece.end]
        found.append(np.array([numbers[tag] for tag in to_tags(piece.end - piece.start, inside)], dtype=np.int64))
    return found


class EncoderTagging(ShuffledPasses):
    """The ``Objective`` of an encoder with a CRF. ``word_dropout`` is the chance that a token is read as the mask."""

    unit = "pieces"

    def __init__(self, training: Sequence[TaggedSentence], validation: Sequence[TaggedSentence], words: WordPieces,
                 labels: Sequence[str], *, batch_size: int, seed: int, word_dropout: float) -> None:
        """Types of ``training`` are among ``labels``; others of ``validation`` count as missed."""
        inside = [{word for span in s.entities for word in range(span.start + 1, span.end)} for s in training]
        self._pieces = words.make([s.tokens for s in training], inside)
        self._tags = piece_tags(self._pieces, training, labels)
        super().__init__(len(self._pieces), batch_size=batch_size, seed=seed, lengths=[len(p) for p in self._pieces])
        self._marks: Marks = words.marks
        self._word_dropout = word_dropout
        self._validation = words.make([s.tokens for s in validation])
        self._gold = [s.entities for s in validation]

    @property
    def n_validation_tokens(self) -> int:
        return sum(map(len, self._validation))

    def _batch(self, chosen: NDArray[np.int64], step: int | None) -> Batch:
        ids_BT, lengths_B, firsts_BW, n_words_B = collate_pieces([self._pieces[i] for i in chosen], self._marks.pad)
        if self._word_dropout and step is not None:
            mask_words(ids_BT, lengths_B, self._marks, self._word_dropout, self._draws(step))
        tags_BW, _ = padded([self._tags[i] for i in chosen], 0)
        return Batch((ids_BT, lengths_B, firsts_BW, n_words_B, tags_BW), int(lengths_B.sum()))

    def split(self, batch: Batch, n: int) -> Sequence[Batch]:
        parts = zip(*(x.chunk(n) for x in batch.inputs), strict=True)
        return [Batch(tuple(part), int(part[1].sum()), weight=float(part[3].sum())) for part in parts]

    def loss(self, module: nn.Module, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Mean nats per word."""
        assert isinstance(module, EncoderTagger)
        ids_BT, lengths_B, firsts_BW, n_words_B, tags_BW = inputs
        return module.loss(module(ids_BT, lengths_B, firsts_BW), tags_BW, n_words_B), ()

    def validate(self, module: nn.Module, device: torch.device, max_tokens: int | None) -> dict[str, float]:
        """``loss`` is 1 − F1 on the whole validation part (``max_tokens`` is for longer ones)."""
        assert isinstance(module, EncoderTagger)
        found = find_entities(module, self._validation, len(self._gold), self._marks, device)
        return entity_figures(self._gold, [[span for span, _ in own] for own in found])


@torch.no_grad()
def find_entities(module: EncoderTagger, pieces: Sequence[Piece], n_sentences: int, marks: Marks, device: torch.device,
                  *, probabilities: bool = False) -> list[Found]:
    """The entities of each sentence that ``pieces`` are of, by the most likely tags that IOBES allows; with
    ``probabilities`` also how likely the model finds just that entity there."""
    found: list[Found] = [[] for _ in range(n_sentences)]
    was_training = module.training
    module.eval()
    order, spans = [], []
    for batch in batches_by_length([len(piece) for piece in pieces]):
        ids_BT, lengths_B, firsts_BW, n_words_B = (
            x.to(device) for x in collate_pieces([pieces[i] for i in batch], marks.pad))
        emissions_BWK = module(ids_BT, lengths_B, firsts_BW)
        tags_BW = module.crf.decode(emissions_BWK, n_words_B)
        for row, index in enumerate(batch):
            n = len(pieces[index].firsts)
            spans += tagged_spans(module.crf, module.config.labels, emissions_BWK[row, :n], tags_BW[row, :n], [(0, n)],
                                  probabilities)
            order.append(index)
    module.train(was_training)
    for index, own in sorted(zip(order, spans, strict=True), key=lambda pair: pair[0]):
        piece = pieces[index]
        found[piece.sentence] += [(Span(span.start + piece.start, span.end + piece.start, span.type), probability)
                                  for span, probability in own]
    return found
