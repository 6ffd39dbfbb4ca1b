"""One file of plain text of a language from data sets that are here, to pre-train encoders on.

    python bench/plain_text.py en DATA_DIR english.txt
    python bench/plain_text.py en-passages DATA_DIR passages.txt
    python bench/plain_text.py en-opinions DATA_DIR opinions.txt
    python bench/plain_text.py en-sentences DATA_DIR sentences.txt

No part that anything is tested on is read, and no document (of MSRA no sentence) that stands in such a part too, white
space and case aside; of collections without a published test part, the texts that ``--test-share 0.2`` holds back are
left out. How many those are is said. ``<|endoftext|>`` stands between documents. Some collections count several times:
the language that a model will be used on is a small part of all text. The passages are only what has several sentences
to a document, for practising to read. The opinions are to go on with (``tickwise train encoder --start``) before a
model learns from few labelled ones. The sentences are for a model of single sentences: each a document of its own, none
twice, written as people write and not as corpora are tokenized.
"""

import argparse
import csv
import io
import json
import random
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tickwise.data import catalogue
from tickwise.data.examples import Examples, split_examples, without_texts
from tickwise.data.passages import sentence_spans

BETWEEN = "\n<|endoftext|>\n"


TEST_SHARE = 0.2
"""Of collections without a published test part (``tickwise run sentiment --test-share 0.2``)."""


def examples(texts: Iterable[str], name: str) -> Examples:
    """Texts that all have the same class."""
    kept = tuple(texts)
    return Examples(kept, ("",) * len(kept), name)


def without_test_share(texts: Iterable[str], name: str) -> Iterator[str]:
    """``texts`` less those that a test on a share of them holds back."""
    return iter(split_examples(examples(texts, name), TEST_SHARE, "test")[0].texts)


def tested_on(folder: Path) -> Examples:
    """The texts of published development and test parts that could stand in what is read here as well."""
    found: list[str] = []
    for name, parts in (("sst2", "validation test"), ("ag_news", "test"), ("thucnews_titles", "test"),
                        ("xdailydialog", "validation test"), ("xdailydialog_zh", "validation test")):
        for part in parts.split():
            found += named(name, folder, part)
    found += reviews(folder, "test")
    for part in ("valid", "test"):
        found += wikipedia(folder, part)
    for row in catalogue.DATA_SETS["blimp"].rows("test", folder):
        found += [row["sentence_good"], row["sentence_bad"]]
    found += paragraphs(folder / "cmrc2018" / "cmrc2018_trial.json")
    return examples(found, "tested on")


def wikipedia(folder: Path, part: str = "train") -> Iterator[str]:
    """The articles of a part of WikiText-2."""
    article: list[str] = []
    for line in (folder / "wikitext2" / f"{part}.txt").read_text(encoding="utf-8").split("\n"):
        if line.startswith(" = ") and not line.startswith(" = = ") and article:
            yield "\n".join(article)
            article = []
        if line.strip() and not line.startswith(" ="):
            plain = line.strip().replace(" <unk>", "").replace(" @-@ ", "-")
            article.append(plain.replace(" @,@ ", ",").replace(" @.@ ", "."))
    yield "\n".join(article)


def reviews(folder: Path, part: str = "train") -> Iterator[str]:
    """The different reviews of a part of SubjQA."""
    with (folder / "subjqa" / "electronics" / f"{part}.csv").open(encoding="utf-8", newline="") as stream:
        for text in dict.fromkeys(row["review"] for row in csv.DictReader(stream)):
            yield text.rstrip().removesuffix("ANSWERNOTFOUND").strip()


def paragraphs(file: Path) -> Iterator[str]:
    """The passages of a file in SQuAD's format."""
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            yield paragraph["context"]


def msra(folder: Path) -> Iterator[str]:
    """The sentences of the news in MSRA's tagged text, twenty to a document, less those of its test share."""
    with zipfile.ZipFile(folder / "msra_ner" / "dh_msra.zip") as archive:
        name = next(n for n in archive.namelist() if n.endswith(".txt") and not n.startswith("__"))
        content = archive.read(name).decode("utf-8")
    blocks = content.replace("\r", "").split("\n\n")
    texts = ("".join(line.split()[0] for line in block.split("\n") if line.strip()) for block in blocks)
    sentences = list(without_test_share(texts, "MSRA"))
    for start in range(0, len(sentences), 20):
        yield "".join(sentences[start : start + 20])


def shopping(folder: Path) -> Iterator[str]:
    """Reviews of goods, books and hotels, less those of the test share."""
    with zipfile.ZipFile(folder / "online_shopping_10_cats" / "online_shopping_10_cats.zip") as archive:
        content = archive.read(next(n for n in archive.namelist() if n.endswith(".csv"))).decode("utf-8-sig")
    rows = csv.DictReader(io.StringIO(content))
    yield from without_test_share((row["review"].strip() for row in rows if row["review"]), "online shopping")


def named(name: str, folder: Path, part: str = "train") -> Iterator[str]:
    """A part of a known data set."""
    return catalogue.DATA_SETS[name].documents(part, folder)


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


def english_opinions(folder: Path) -> Iterator[str]:
    """Sentences of film reviews, four to a document, ten times in new orders; and reviews of goods."""
    order = random.Random(0)
    tested = {document.strip() for document in tested_on(folder).texts}
    sentences = [text for text in named("sst2", folder) if text.strip() not in tested]
    for _ in range(10):
        order.shuffle(sentences)
        for start in range(0, len(sentences), 4):
            yield "\n".join(sentences[start : start + 4])
    yield from (review.lower() for review in reviews(folder))


SPACES = [(re.compile(pattern, re.IGNORECASE), mended) for pattern, mended in (
    ("[\u2018\u2019`]| ?#39;", "'"),
    ("[\u201c\u201d]|''|&?quot;", '"'),
    (r"(\w) ?(n't\b|n 't\b)", r"\1n't"),
    (r"(\w) ?' ?(s|t|re|ve|ll|d|m)\b", lambda found: f"{found[1]}'{found[2].lower()}"),
    (r'" ([^"]*?) "', r'"\1"'),
    (r"\s+([,.;:!?%)\]])", r"\1"),
    (r"([(\[])\s+", r"\1"),
    (r"#Person\d#: ?|__eou__", " "),
    (r"\s+", " "),
)]
"""What tokenizing did to text, and how it is undone: spaces about marks, endings apart from their words."""


def as_written(text: str) -> str:
    """``text`` without the spaces that tokenizing put into it, with a capital first."""
    for pattern, mended in SPACES:
        text = pattern.sub(mended, text)
    text = text.strip()
    return text[:1].upper() + text[1:]


def english_sentences(folder: Path) -> Iterator[str]:
    """The different whole sentences of all English text that has capitals, shuffled."""
    texts = [as_written(text) for text in (*wikipedia(folder), *reviews(folder))]
    for name in ("xdailydialog", "ag_news", "tinystories", "dialogsum", "image_coco", "gsm8k", "alpaca_demo"):
        texts += [as_written(text) for document in named(name, folder) for text in document.split("\n")]
    for name in ("multi30k", "cmn_eng"):
        texts += [as_written(row["en"]) for row in catalogue.DATA_SETS[name].rows("train", folder)]
    found = (text[start:end].strip() for text in texts for start, end in sentence_spans(text))
    different = list(dict.fromkeys(text for text in found if re.match(r'"?[A-Z].* .*\w[.!?]"?$', text)))
    random.Random(0).shuffle(different)
    return iter(different)


TEXTS = {"en": english, "en-opinions": english_opinions, "en-passages": english_passages,
         "en-sentences": english_sentences, "zh": chinese, "zh-passages": chinese_passages}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("language", choices=tuple(TEXTS))
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    documents = without_texts(examples(TEXTS[given.language](given.data), given.out.name), [tested_on(given.data)])
    with given.out.open("w", encoding="utf-8") as stream:
        for document in documents.texts:
            stream.write(document.strip() + BETWEEN)
    print(f"{len(documents):,} documents, {given.out.stat().st_size:,} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
