"""Classical programs that look up what was counted: passages by their words, the next word by n-grams. Both run in this
process and do nothing but their look-ups."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy

from tickwise.compare.cases import UNKNOWN
from tickwise.compare.programs import Tally, deep_size
from tickwise.tasks.passage_index import K1, B
from tickwise.text.search_terms import search_terms

if TYPE_CHECKING:
    from tickwise.models.ngram import Ngram
    from tickwise.tokenizers.tokenizer import Tokenizer

_FLOAT_BYTES = 8


class PassageSearch:
    """The passage that answers a question: an inverted index with the weights of ``tasks.passage_index`` (BM25)."""

    name = "index of passages (BM25)"

    def __init__(self, passages: Mapping[str, str]) -> None:
        """``passages``: texts by their names."""
        self.names = tuple(passages)
        counts = [Counter(search_terms(f"\n{text}")) for text in passages.values()]
        mean = sum(own.total() for own in counts) / len(counts)
        n_with = Counter(term for own in counts for term in own)
        self.postings: dict[str, list[tuple[int, float]]] = {term: [] for term in n_with}
        for number, own in enumerate(counts):
            for term, n in own.items():
                idf = math.log(1 + (len(counts) - n_with[term] + 0.5) / (n_with[term] + 0.5))
                weight = idf * n * (K1 + 1) / (n + K1 * (1 - B + B * own.total() / mean))
                self.postings[term].append((number, weight))

    def answer(self, text: str, tally: Tally | None = None) -> str:
        scores: dict[int, float] = {}
        terms = Counter(search_terms(text))
        for term, n in terms.items():
            for number, weight in self.postings.get(term, ()):
                scores[number] = scores.get(number, 0.0) + n * weight
        answer = self.names[max(scores, key=lambda number: (scores[number], -number))] if scores else UNKNOWN
        if tally is not None:
            n_added = sum(len(self.postings.get(term, ())) for term in terms)
            tally.add("characters examined", len(text), len(text))
            tally.add("hash probes", len(terms) + 2 * n_added, sum(map(len, terms)))
            tally.add("additions", n_added, 2 * n_added * _FLOAT_BYTES)
            tally.add("comparisons", len(scores), len(scores) * _FLOAT_BYTES)
            tally.bytes_written += len(answer)
        return answer

    def memory_bytes(self) -> int:
        return deep_size([self.names, self.postings])


class NextWord:
    """The likeliest next token by a counted model (``models.ngram``), from its sorted tables."""

    def __init__(self, module: "Ngram", tokenizer: "Tokenizer") -> None:
        self.name = f"{module.config.order}-gram (Kneser–Ney)"
        self._tokenizer, self._config = tokenizer, module.config
        self._unigram = module.unigram.detach().numpy()
        self._tables = [(table.context_keys.numpy(), table.keys.numpy(), table.probabilities.detach().numpy(),
                         table.backoff.detach().numpy()) for table in module.tables]

    def answer(self, text: str, tally: Tally | None = None) -> str:
        ids = self._tokenizer.encode(text)
        n_vocab, row = self._config.vocab_size, 0
        p_V = self._unigram.copy()
        for order, (contexts, keys, probabilities, backoff) in enumerate(self._tables, start=2):
            if len(ids) < order - 1:
                break
            wanted = row * n_vocab + ids[1 - order]
            row = int(contexts.searchsorted(wanted))
            if row == len(contexts) or contexts[row] != wanted:
                _count_search(tally, len(contexts), 1)
                break
            start, stop = keys.searchsorted((row * n_vocab, (row + 1) * n_vocab))
            p_V *= backoff[row]
            p_V[keys[start:stop] % n_vocab] += probabilities[start:stop]
            if tally is not None:
                _count_search(tally, len(contexts), 1)
                _count_search(tally, len(keys), 2)
                tally.add("multiplications and additions", n_vocab + int(stop - start),
                          4 * n_vocab + 12 * int(stop - start))
            if ids[1 - order] == self._config.boundary:
                break
        answer = self._tokenizer.decode([int(p_V.argmax())]).strip()
        if tally is not None:
            tally.add("characters examined", len(text), len(text))
            tally.add("comparisons", n_vocab, 4 * n_vocab)
            tally.bytes_written += len(answer)
        return answer

    def memory_bytes(self) -> int:
        arrays: Sequence[numpy.ndarray] = [self._unigram, *(array for table in self._tables for array in table)]
        return sum(array.nbytes for array in arrays)


def _count_search(tally: Tally | None, n_keys: int, times: int) -> None:
    if tally is not None and n_keys:
        steps = times * n_keys.bit_length()
        tally.add("comparisons", steps, 8 * steps)
