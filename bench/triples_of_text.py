"""Facts that `tickwise run knowledge` takes from real sentences, for a reader to judge.

    python bench/triples_of_text.py DATA_DIR --facts 60 --seed 0
    python bench/triples_of_text.py DATA_DIR --facts 60 --seed 0 --part validation

Sentences of XQuAD's English paragraphs and of WikiText-2's test part, or with --part those of one part of WikiText-2
alone, are drawn at random, the same ones for a seed whatever the rules are; every fact of a drawn sentence is printed
behind it, until so many facts are. A sentence is read within its paragraph, so that a pronoun has what it stands for.
The precision is the share of the facts that their sentence states (for a pronoun: with the sentences before it), and is
the reader's to count; the last line tells from how many sentences the facts come.
"""

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tickwise.data.passages import sentence_spans
from tickwise.text.triples import triples

SHORTEST, LONGEST = 5, 40
"""Words of a sentence that is drawn."""
PARTS = {"validation": "valid.txt", "test": "test.txt"}


def plain(text: str) -> str:
    """WikiText's text without the spaces of its tokens."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r'" ([^"]+) "', r'"\1"', text)
    text = re.sub(r" ([,.;:!?)\]%]|'s\b|n't\b)", r"\1", text)
    return re.sub(r"([(\[$£]) ", r"\1", text)


def paragraphs(data: Path, part: str | None = None) -> Iterator[str]:
    """Paragraphs of running text of a ``part`` of WikiText-2, or of XQuAD and the test part; those with a word that
    WikiText left out are not."""
    articles = [] if part else json.loads((data / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    for article in articles:
        yield from (paragraph["context"] for paragraph in article["paragraphs"])
    for line in (data / "wikitext2" / PARTS[part or "test"]).read_text(encoding="utf-8").splitlines():
        if len(line.split()) > SHORTEST and not line.strip().startswith("=") and "<unk>" not in line:
            yield plain(line.strip())


def drawn(data: Path, seed: int, part: str | None = None) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Sentences in random order, each with its facts."""
    found: list[tuple[str, list[tuple[str, str, str]]]] = []
    for paragraph in paragraphs(data, part):
        sentences = [paragraph[start:end] for start, end in sentence_spans(paragraph)]
        facts = defaultdict(list)
        for fact in triples(sentences):
            facts[fact.number].append(fact[:3])
        found += [(sentence, facts[i]) for i, sentence in enumerate(sentences)
                  if SHORTEST <= len(sentence.split()) <= LONGEST]
    random.Random(seed).shuffle(found)
    yield from found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--facts", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=sorted(PARTS), help="of WikiText-2 (default: XQuAD and the test part)")
    arguments = parser.parse_args()
    n_facts = n_sentences = n_with_facts = 0
    for sentence, facts in drawn(arguments.data, arguments.seed, arguments.part):
        if n_facts >= arguments.facts:
            break
        n_sentences += 1
        n_with_facts += bool(facts)
        if facts:
            print(f"\n{sentence}")
        for fact in facts[: arguments.facts - n_facts]:
            n_facts += 1
            print(f"  {n_facts:3}. {' | '.join(fact)}")
    print(f"\n{n_facts} facts of {n_with_facts} of {n_sentences} sentences, seed {arguments.seed}")


if __name__ == "__main__":
    main()
