"""Prepare 1 GB of text: MB/s and the highest resident memory summed over all processes.

The text is made here, since no real one of that size is at hand: paragraphs of 2 to 8 sentences that are drawn at
random from real text (WikiText-2, TinyStories, Tang poems and Chinese news titles in --data-dir if they are there,
else the documentation strings of Python's standard library), so that every paragraph is new although its sentences
are not. In one word of a hundred two letters are changed at random, which gives the long tail of rare words that a
real text of this size has (and recombination has not); numbers get random digits. Of the paragraphs 3 % are exact
copies of an earlier one and 3 % copies with one word changed. Cleaning and both kinds of duplicate removal are on;
a document is a paragraph. It is measured as the command line is used, with start-up, tokenizer training and fsync:

    tickwise data prepare TEXT --documents paragraph --tokenizer bpe --vocab-size 8192 --out DIR

Processor seconds are given too, since other work on the machine's cores makes the wall time longer; with two cores
to itself the command cannot take less than half of them. Prints one JSON line. The text (about 1 GB) and the output
go to a temporary folder that is removed afterwards.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SAMPLE_INTERVAL_S = 0.05
# A paragraph is copied from among this many recent ones; copies of older ones would need them all in memory.
RECENT = 20_000


def real_sentences(data_dir: Path) -> tuple[list[str], list[str]]:
    """(sentences with spaces between words, Chinese lines)."""
    texts = [data_dir / "wikitext2" / "train.txt", data_dir / "tinystories" / "tinystories_sample.txt"]
    sentences: list[str] = []
    for file in texts:
        if file.is_file():
            sentences += re.split(r"(?<=[.!?])\s+", file.read_text(encoding="utf-8"))
    if not sentences:
        import importlib
        import pydoc

        for name in sorted(sys.stdlib_module_names):
            if not name.startswith("_") and name not in ("antigravity", "this", "idlelib"):
                try:
                    text = pydoc.plain(pydoc.render_doc(importlib.import_module(name)))
                except Exception:  # modules of other platforms
                    continue
                sentences += re.split(r"(?<=[.!?])\s+|\n", text)
    chinese: list[str] = []
    titles = data_dir / "thucnews_titles" / "train_40k.txt"
    if titles.is_file():
        chinese += [line.split("\t")[0] for line in titles.read_text(encoding="utf-8").splitlines()]
    for file in sorted((data_dir / "tang_poems").glob("*.json")):
        chinese += ["".join(poem["paragraphs"]) for poem in json.loads(file.read_text(encoding="utf-8"))]
    clean = [" ".join(sentence.split()) for sentence in sentences]
    return [sentence for sentence in clean if 20 < len(sentence) < 600], [line for line in chinese if len(line) > 5]


def varied(text: str, rng: random.Random) -> str:
    """``text`` with about one word of a hundred misspelt and its digits replaced."""
    words = text.split(" ")
    for _ in range(int(len(words) / 100 + rng.random())):
        at = rng.randrange(len(words))
        word = words[at]
        if len(word) > 3:
            i, j = rng.randrange(len(word)), rng.randrange(len(word))
            words[at] = word[:i] + rng.choice(LETTERS) + word[i + 1 : j] + rng.choice(LETTERS) + word[j + 1 :]
        elif word.isdigit():
            words[at] = str(rng.randrange(10_000))
    return " ".join(words)


def write_text(file: Path, n_bytes: int, data_dir: Path, seed: int = 0) -> dict[str, int]:
    """Write at least ``n_bytes`` of paragraphs; how many, and how many of them are copies."""
    rng = random.Random(seed)
    spaced, chinese = real_sentences(data_dir)
    recent: list[str] = []
    counts = {"paragraphs": 0, "exact_copies": 0, "near_copies": 0}
    written = 0
    with file.open("w", encoding="utf-8") as out:
        while written < n_bytes:
            draw = rng.random()
            if draw < 0.06 and recent:
                paragraph = rng.choice(recent)
                counts["exact_copies" if draw < 0.03 else "near_copies"] += 1
                if draw >= 0.03:
                    words = paragraph.split(" ")
                    words[rng.randrange(len(words))] = "replaced"
                    paragraph = " ".join(words)
            elif draw > 0.95 and chinese:
                paragraph = "，".join(rng.choices(chinese, k=rng.randint(4, 16)))
            else:
                paragraph = varied(" ".join(rng.choices(spaced, k=rng.randint(2, 8))), rng)
            if len(recent) < RECENT:
                recent.append(paragraph)
            else:
                recent[rng.randrange(RECENT)] = paragraph
            written += out.write(paragraph + "\n\n") if paragraph.isascii() else len((paragraph + "\n\n").encode())
            if not paragraph.isascii():
                out.write(paragraph + "\n\n")
            counts["paragraphs"] += 1
    return counts


def cpu_seconds() -> float:
    """Processor time of all finished children and their children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(arguments: list[str]) -> tuple[float, float, int, dict[str, Any]]:
    """Run ``tickwise data prepare``: (seconds, processor seconds, highest sum of resident bytes, its JSON)."""
    start, cpu_start = time.monotonic(), cpu_seconds()
    command = [sys.executable, "-m", "tickwise", "data", "prepare", *arguments, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watched = psutil.Process(process.pid)
    highest = 0
    while process.poll() is None:
        total = 0
        try:
            for one in [watched, *watched.children(recursive=True)]:
                total += one.memory_info().rss
        except psutil.NoSuchProcess:
            pass
        highest = max(highest, total)
        time.sleep(SAMPLE_INTERVAL_S)
    seconds = time.monotonic() - start
    assert process.stdout is not None
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return seconds, cpu_seconds() - cpu_start, highest, json.loads(process.stdout.read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tokenizers", nargs="+", default=["char", "bpe"])
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--keep-text", action="store_true", help="leave the text there for the next run")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="tickwise-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "text.txt"
    value: dict[str, Any] = {}
    try:
        if not text.is_file():
            value["made"] = write_text(text, options.bytes, options.data_dir)
        value["input_bytes"] = text.stat().st_size
        for kind in options.tokenizers:
            vocabulary = ["--vocab-size", "8192"] if kind == "bpe" else []
            seconds, cpu, highest, result = measure(
                [str(text), "--documents", "paragraph", "--tokenizer", kind, *vocabulary, "--out", str(folder / kind)]
            )
            shutil.rmtree(folder / kind)
            value[kind] = {
                "megabytes_per_s": round(value["input_bytes"] / 1e6 / seconds, 1),
                "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu, 1),
                "load_average": round(os.getloadavg()[0], 1),
                "peak_rss_bytes": highest,
                "tokens": sum(split["tokens"] for split in result["splits"].values()),
                "duplicates": result["duplicates"],
            }
            print(json.dumps({kind: value[kind]}), file=sys.stderr)
    finally:
        if not options.keep_text:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"id": "foundation.6", "value": value}))


if __name__ == "__main__":
    main()
