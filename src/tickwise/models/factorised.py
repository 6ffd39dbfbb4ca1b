"""The matrix-factorised language model: next-word probabilities from factors of co-occurrence matrices.

Words that were counted at each distance from each other make matrices; their truncated factors give every word a
context vector (what follows it) and an output vector (what precedes it). The history is then matrix products only:
the vectors of the last words and decayed sums of the vectors of many more, times one matrix, times all output vectors,
softmax. Bilinear as the log-bilinear model (Mnih & Hinton 2007), but with factors that are counted, not trained, so
that the rest is convex. The result is interpolated with a Kneser–Ney n-gram model, by how far that one could look back.

Shape legend: B batch, T tokens, H words of history, N positions, L words of the window, K nearest words, D decays,
R rank, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.errors import ConfigError
from tickwise.core.stages import Stage, mark
from tickwise.models.ngram import Ngram, NgramConfig, recent_tokens


@dataclass(frozen=True, kw_only=True)
class FactorisedConfig:
    """Shape of the factors, and the n-gram model beside them."""

    rank: int
    n_positions: int
    """Nearest words, each with a matrix of its own."""
    decays: tuple[float, ...]
    """Of the sums over the window: a word d back weighs decay**d."""
    window: int
    """Words in those sums."""
    ngram: NgramConfig

    def __post_init__(self) -> None:
        for name in ("rank", "n_positions", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}: must be at least 1, got {getattr(self, name)}")
        if not all(0 < decay < 1 for decay in self.decays):
            raise ConfigError(f"model.decays: must be between 0 and 1, got {', '.join(map(str, self.decays))}")

    @property
    def vocab_size(self) -> int:
        return self.ngram.vocab_size

    @property
    def context_length(self) -> int:
        """Tokens that are read at once."""
        return self.ngram.context_length

    @property
    def n_history(self) -> int:
        """Words before the next one that it may depend on."""
        return max(self.window, self.n_positions, self.ngram.n_history)

    @property
    def n_features(self) -> int:
        """Numbers that describe a history."""
        return (self.n_positions + len(self.decays)) * self.rank


class Factorised(nn.Module):
    """Token ids (B, T) → log-probabilities (B, T, V) of the next token at each position.

    Ends of documents stop the n-grams, whose histories never go over one. The factors read on: to them an end is a word
    like others, and what stood before it goes on counting for as long as their window reaches.
    """

    context_vectors: nn.Parameter
    output_vectors: nn.Parameter
    salience: nn.Parameter
    """How much a word counts in the sums."""
    matrix: nn.Parameter
    bias: nn.Parameter
    mixture: nn.Parameter
    """The factors' share in the interpolation, by how many words back the n-gram model found the history."""

    def __init__(self, config: FactorisedConfig) -> None:
        super().__init__()
        self.config = config
        shapes = {
            "context_vectors": (config.vocab_size, config.rank),
            "output_vectors": (config.vocab_size, config.rank),
            "salience": (config.vocab_size,),
            "matrix": (config.n_features, config.rank),
            "bias": (config.vocab_size,),
            "mixture": (config.ngram.order,),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape), requires_grad=False))
        self.ngram = Ngram(config.ngram)

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.logits(self.hidden_states(ids_BT))

    def hidden_states(self, ids_BT: Tensor) -> Tensor:
        """(B, T, H): at each position the last ``n_history`` tokens, the newest last, -1 before the first."""
        return recent_tokens(ids_BT, self.config.n_history)

    def logits(self, recent_H: Tensor) -> Tensor:
        """Log-probabilities (…, V) of the token after (…, H) recent ones, interpolated with the n-gram model's."""
        recent_NH = recent_H.reshape(-1, recent_H.shape[-1])
        factorised_NV = torch.softmax(self.scores(self.features(recent_NH)), dim=-1)
        rows = self.ngram.contexts(recent_NH)
        counted_NV = self.ngram.distribution(rows, len(recent_NH))
        mark(Stage.HEAD)
        share_N1 = self.mixture[self.depths(recent_NH, rows)].unsqueeze(1)
        mixed_NV = torch.lerp(counted_NV, factorised_NV, share_N1)
        return mixed_NV.log().view(*recent_H.shape[:-1], -1)

    def features(self, recent_NH: Tensor) -> Tensor:
        """Context vectors of the K nearest words, and decayed sums of those of the window: (N, (K + D) · R)."""
        mark(Stage.EMBED)
        config = self.config
        window_NL = recent_NH[:, -max(config.window, config.n_positions) :]
        known_NL, safe_NL = (window_NL >= 0).unsqueeze(-1), window_NL.clamp(min=0)
        vectors_NLR = self.context_vectors[safe_NL] * known_NL
        nearest_NF = vectors_NLR[:, -config.n_positions :].flatten(1)
        if not config.decays:
            return nearest_NF
        mark(Stage.FFN)
        salient_NLR = (vectors_NLR * self.salience[safe_NL].unsqueeze(-1))[:, -config.window :]
        sums_NDR = torch.matmul(self._decay_weights(salient_NLR), salient_NLR)
        return torch.cat([nearest_NF, sums_NDR.flatten(1)], dim=1)

    def text_features(self, ids_BT: Tensor, n_new: int) -> Tensor:
        """``features`` of the last ``n_new`` positions of each text, (B · n_new, (K + D) · R), where -1 stands for no
        word: the sums of neighbouring positions come from one product, instead of each from its own window."""
        config = self.config
        reach = max(config.window, config.n_positions)
        ids_BT = F.pad(ids_BT, (reach - 1, 0), value=-1)[:, -(n_new + reach - 1) :]
        length = ids_BT.shape[1]
        safe_BT = ids_BT.clamp(min=0)
        vectors_BTR = self.context_vectors[safe_BT] * (ids_BT >= 0).unsqueeze(-1)
        parts = [vectors_BTR[:, length - n_new - back : length - back] for back in reversed(range(config.n_positions))]
        if config.decays:
            salient_BTR = vectors_BTR * self.salience[safe_BT].unsqueeze(-1)
            newest_N1 = torch.arange(length - n_new, length, device=ids_BT.device).unsqueeze(1)
            # Where in its window a word stands for each of the new positions.
            place_NT = torch.arange(length, device=ids_BT.device) - newest_N1 + config.window - 1
            inside_NT = (place_NT >= 0) & (place_NT < config.window)
            for weights_L in self._decay_weights(salient_BTR):
                weights_NT = torch.where(inside_NT, weights_L[place_NT.clamp(0, config.window - 1)], 0.0)
                parts.append(torch.matmul(weights_NT, salient_BTR))
        return torch.cat(parts, dim=-1).flatten(0, 1)

    def scores(self, features_NF: Tensor) -> Tensor:
        """Unnormalised log-probabilities (N, V) of the factorised part alone."""
        mark(Stage.FFN)
        hidden_NR = features_NF @ self.matrix
        mark(Stage.HEAD)
        return torch.addmm(self.bias, hidden_NR, self.output_vectors.t())

    def depths(self, recent_NH: Tensor, rows: list[Tensor]) -> Tensor:
        """How many words back the n-gram model found the history in its tables, (N,)."""
        depth_N = torch.zeros_like(recent_NH[:, -1])
        for row_N in rows:
            depth_N = depth_N + (row_N >= 0)
        return depth_N

    def _decay_weights(self, like: Tensor) -> Tensor:
        """(D, L), each row as long as 1, the newest word last."""
        back_L = torch.arange(self.config.window - 1, -1, -1, device=like.device, dtype=like.dtype)
        weights_DL = torch.stack([decay**back_L for decay in self.config.decays])
        return weights_DL / weights_DL.square().sum(1, keepdim=True).sqrt()

    def own_log_probabilities(self, ids_T: Tensor, at_once: int = 512) -> Tensor:
        """Natural log-probabilities (T - 1,) of ``ids_T[1:]`` by the factors alone."""
        pieces = []
        for start in range(0, len(ids_T) - 1, at_once):
            stop = min(start + at_once, len(ids_T) - 1)
            seen = ids_T[max(0, start - self.config.n_history) : stop]
            scores_NV = self.scores(self.text_features(seen[None], stop - start))
            pieces.append(-F.cross_entropy(scores_NV, ids_T[start + 1 : stop + 1], reduction="none"))
        return torch.cat(pieces)

    def target_log_probabilities(self, ids_T: Tensor) -> Tensor:
        """Natural log-probabilities (T - 1,) of ``ids_T[1:]``, each given all tokens before it."""
        recent_NH = self.ngram.hidden_states(ids_T[None, :-1])[0]
        rows = self.ngram.contexts(recent_NH)
        counted_N = self.ngram.probability_of(rows, ids_T[1:])
        share_N = self.mixture[self.depths(recent_NH, rows)]
        return torch.lerp(counted_N, self.own_log_probabilities(ids_T).exp(), share_N).log()

    def n_parameters(self) -> int:
        """Stored numbers of the factors and of the n-gram model."""
        return sum(p.numel() for p in self.parameters())
