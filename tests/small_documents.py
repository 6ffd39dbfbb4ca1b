"""Documents of random sentences, and the texts of prepared data."""

import random

from tickwise.data.prepared import PreparedData

WORDS = [f"{a}{b}" for a in ("ka", "mi", "to", "re", "su", "ne") for b in ("lan", "der", "shu", "po", "xi", "gra", "")]


def sentence(rng: random.Random, length: int = 60) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(length))


def distinct_paragraphs(n: int, seed: int = 11) -> list[str]:
    rng = random.Random(seed)
    return [sentence(rng, 30) for _ in range(n)]


def texts_of(data: PreparedData, name: str) -> list[str]:
    split = data.split(name)
    ends = [*split.document_starts[1:].tolist(), len(split)]
    return [
        data.tokenizer.decode(split.tokens[int(start) : int(end)].tolist())
        for start, end in zip(split.document_starts, ends, strict=True)
    ]
