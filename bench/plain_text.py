"""One file of plain text of a language from data sets that are here, to pre-train encoders on.

    python bench/plain_text.py en DATA_DIR english.txt
    python bench/plain_text.py en-passages DATA_DIR passages.txt

No part that anything is tested on is read. ``<|endoftext|>`` stands between documents. Some collections count several
times: the language that a model will be used on is a small part of all text. The passages are only what has several
sentences to a document, for practising to read.
"""

import argparse
import csv
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tickwise.data import catalogue

BETWEEN = "\n<|endoftext|>\n"


def wikipedia(folder: Path) -> Iterator[str]:
    """The articles of WikiText-2's training part."""
    article: list[str] = []
    for line in (folder / "wikitext2" / "train.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith(" = ") and not line.startswith(" = = ") and article:
            yield "\n".join(article)
            article = []
        if line.strip() and not line.startswith(" ="):
            plain = line.strip().replace(" <unk>", "").replace(" @-@ ", "-")
            article.append(plain.replace(" @,@ ", ",").replace(" @.@ ", "."))
    yield "\n".join(article)


def reviews(folder: Path) -> Iterator[str]:
    """The different reviews of SubjQA's training part."""
    with (folder / "subjqa" / "electronics" / "train.csv").open(encoding="utf-8", newline="") as stream:
        for text in dict.fromkeys(row["review"] for row in csv.DictReader(stream)):
            yield text.rstrip().removesuffix("ANSWERNOTFOUND").strip()


def paragraphs(file: Path) -> Iterator[str]:
    """The passages of a file in SQuAD's format."""
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            yield paragraph["context"]


def msra(folder: Path) -> Iterator[str]:
    """The sentences of the news in MSRA's tagged text, twenty to a document."""
    with zipfile.ZipFile(folder / "msra_ner" / "dh_msra.zip") as archive:
        name = next(n for n in archive.namelist() if n.endswith(".txt") and not n.startswith("__"))
        content = archive.read(name).decode("utf-8")
    blocks = content.replace("\r", "").split("\n\n")
    sentences = ["".join(line.split()[0] for line in block.split("\n") if line.strip()) for block in blocks]
    for start in range(0, len(sentences), 20):
        yield "".join(sentences[start : start + 20])


def shopping(folder: Path) -> Iterator[str]:
    """Reviews of goods, books and hotels."""
    with zipfile.ZipFile(folder / "online_shopping_10_cats" / "online_shopping_10_cats.zip") as archive:
        content = archive.read(next(n for n in archive.namelist() if n.endswith(".csv"))).decode("utf-8-sig")
    for row in csv.DictReader(io.StringIO(content)):
        if row["review"]:
            yield row["review"].strip()


def named(name: str, folder: Path) -> Iterator[str]:
    """The training part of a known data set."""
    return catalogue.DATA_SETS[name].documents("train", folder)


def english(folder: Path) -> Iterator[str]:
    for _ in range(4):
        yield from named("sst2", folder)
    for _ in range(2):
        yield from reviews(folder)
    yield from wikipedia(folder)
    for name in ("xdailydialog", "ag_news", "tinystories"):
        yield from named(name, folder)


def chinese(folder: Path) -> Iterator[str]:
    for _ in range(3):
        yield from paragraphs(folder / "cmrc2018" / "cmrc2018_dev.json")
    yield from msra(folder)
    yield from shopping(folder)
    for name in ("xdailydialog_zh", "thucnews_titles"):
        yield from named(name, folder)


def english_passages(folder: Path) -> Iterator[str]:
    yield from reviews(folder)
    yield from wikipedia(folder)


def chinese_passages(folder: Path) -> Iterator[str]:
    yield from paragraphs(folder / "cmrc2018" / "cmrc2018_dev.json")
    yield from msra(folder)


TEXTS = {"en": english, "zh": chinese, "en-passages": english_passages, "zh-passages": chinese_passages}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("language", choices=tuple(TEXTS))
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    n = 0
    with given.out.open("w", encoding="utf-8") as stream:
        for document in TEXTS[given.language](given.data):
            stream.write(document.strip() + BETWEEN)
            n += 1
    print(f"{n:,} documents, {given.out.stat().st_size:,} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
