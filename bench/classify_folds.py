"""A filter on a small data set without an official test part: every text tested once, by a model that never saw it.

    python bench/classify_folds.py --train SMSSpamCollection [--task spam] [--positive spam] [--folds 5] [--seeds 1 2 3]

Repeated texts count once. They lie in ``--folds`` fixed parts by their own hash; for each part ``tickwise run TASK``
trains on the others, choosing passes, temperature and threshold among those, and is tested on it. A single part of a
few thousand messages has so few false alarms that one more or less decides; all parts together are as large as the
data. Prints one line of JSON: the counts of all parts together, for each seed, and the means of the seeds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import xxhash

from tickwise.data.examples import ReadExamples, distinct_texts, read_examples


def tested(task: str, folder: Path, part: int, seed: int, flags: list[str], labels: list[str]) -> list[list[int]]:
    """The confusion counts of one part, rows true, in the order of ``labels``."""
    command = [sys.executable, "-m", "tickwise", "run", task, "--train", str(folder / f"train-{part}.tsv"), "--test",
               str(folder / f"test-{part}.tsv"), "--seed", str(seed), "--out", str(folder / "out"), "--overwrite",
               "--json", "-q", *flags]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert list(result["classes"][f"{task}_test"]) == labels
    return result["confusion"][f"{task}_test"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--task", default="spam")
    parser.add_argument("--positive", default="spam")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--flags", default="", help="for the trainings")
    args = parser.parse_args()
    examples = distinct_texts(read_examples([args.train], ReadExamples()))
    labels = sorted(set(examples.labels))
    positive = labels.index(args.positive)
    parts = [xxhash.xxh64_intdigest(text.encode("utf-8", "surrogatepass")) % args.folds for text in examples.texts]
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part in range(args.folds):
            for name, inside in (("train", False), ("test", True)):
                rows = (f"{label}\t{' '.join(text.split())}\n" for text, label, at in
                        zip(examples.texts, examples.labels, parts, strict=True) if (at == part) == inside)
                (folder / f"{name}-{part}.tsv").write_text("label\ttext\n" + "".join(rows), encoding="utf-8")
        for seed in args.seeds:
            counts = [[0] * len(labels) for _ in labels]
            for part in range(args.folds):
                found = tested(args.task, folder, part, seed, args.flags.split(), labels)
                counts = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(counts, found, strict=True)]
            n, right = sum(map(sum, counts)), sum(row[i] for i, row in enumerate(counts))
            hits, missed = counts[positive][positive], sum(counts[positive]) - counts[positive][positive]
            alarms = sum(row[positive] for row in counts) - hits
            runs.append({"seed": seed, "texts": n, "confusion": counts, "accuracy": right / n,
                         "f1": 2 * hits / (2 * hits + missed + alarms),
                         "false_alarms": alarms / (n - hits - missed)})
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    means = {name: statistics.mean(run[name] for run in runs) for name in ("accuracy", "f1", "false_alarms")}
    print(json.dumps({"labels": labels, **means, "runs": runs}))


if __name__ == "__main__":
    main()
