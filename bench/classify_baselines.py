"""tickwise's linear bag of n-grams against scikit-learn's TF-IDF + linear SVM: same rows, same split, in turn.

    python -m venv out/peer && out/peer/bin/pip install scikit-learn
    python bench/classify_baselines.py --peer out/peer/bin/python --train dev.tsv --test test.tsv [--seeds 1 2 3]

scikit-learn is not among tickwise's dependencies, so it runs in an environment of its own. Both get the training and
development texts that ``tickwise run topic`` makes of the files. Both choose on the development part (scikit-learn: C
of LinearSVC and one of six TF-IDF settings, of words or of words and, as tickwise's bags are, of characters inside
words; tickwise: the number of passes, and beforehand what ``--flags`` says by default) and are then trained on both
parts. They run in turn, once per seed, on one thread. The test part is looked at for the final models only. Prints one
line of JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

PEER = '''
import json, sys, time
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion
from sklearn.svm import LinearSVC
parts = json.load(open(sys.argv[1]))
def accuracies(train, test, name, values_of_c):
    vectorizer = FeatureUnion([(str(i), TfidfVectorizer(**o)) for i, o in enumerate(settings[name])])
    rows, others = vectorizer.fit_transform(train["texts"]), vectorizer.transform(test["texts"])
    for c in values_of_c:
        guess = LinearSVC(C=c, random_state=int(sys.argv[2])).fit(rows, train["labels"]).predict(others)
        yield sum(a == b for a, b in zip(guess, test["labels"])) / len(guess)
began = time.perf_counter()
words, pairs = {"sublinear_tf": True}, {"sublinear_tf": True, "ngram_range": (1, 2)}
characters = {"sublinear_tf": True, "analyzer": "char_wb", "ngram_range": (2, 5), "min_df": 2}
settings = {"words": [{}], "words, sublinear": [words], "pairs of words": [pairs],
            "pairs of words, min_df 2": [{**pairs, "min_df": 2}], "words and characters": [words, characters],
            "pairs of words and characters": [pairs, characters]}
choices = (0.03, 0.1, 0.3, 1.0, 3.0)
scores = {(name, c): score for name in settings
          for c, score in zip(choices, accuracies(parts["train"], parts["dev"], name, choices))}
name, c = max(scores, key=scores.get)
both = {k: parts["train"][k] + parts["dev"][k] for k in ("texts", "labels")}
chosen = {"tfidf": name, "C": c}
best = {n: max(score for (m, _), score in scores.items() if m == n) for n in settings}
test, = accuracies(both, parts["test"], name, [c])
train_only, = accuracies(parts["train"], parts["test"], name, [c])
print(json.dumps({"accuracy": test, "accuracy_without_dev": train_only, "dev_accuracy": scores[name, c],
                  "dev_accuracy_of_settings": best, "chosen": chosen, "seconds": time.perf_counter() - began}))
'''


def write_parts(args: argparse.Namespace, path: Path) -> dict[str, int]:
    """The rows that ``tickwise run topic`` trains and tests on, as JSON for the peer; how many they are."""
    from tickwise.tasks.classify import open_examples
    from tickwise.tasks.classify_config import ClassifyConfig

    data = open_examples(ClassifyConfig(train=(args.train,), test=(args.test,)))
    parts = {name: {"texts": part.texts, "labels": part.labels} for name, part in
             (("train", data.train), ("dev", data.dev), ("test", data.test)) if part is not None}
    path.write_text(json.dumps(parts), encoding="utf-8")
    return {name: len(part["texts"]) for name, part in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=sys.executable, help="a Python that has scikit-learn")
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--flags", default="--features.min-texts 1 --optimizer.lr 0.02 --epochs 6 --max-bytes 2000000")
    args = parser.parse_args()
    environment = os.environ | THREADS
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as scratch:
        rows = write_parts(args, Path(scratch) / "parts.json")
        for seed in args.seeds:
            began = time.perf_counter()
            command = [sys.executable, "-m", "tickwise", "run", "topic", "--train", args.train, "--test", args.test,
                       "--seed", str(seed), "--out", f"{scratch}/{seed}", "--json", "-q", *args.flags.split()]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            results = json.loads(done.stdout)["results"]
            ours.append({name.removeprefix("topic_"): part["acc,none"] for name, part in results.items()}
                        | {"seconds": time.perf_counter() - began})
            done = subprocess.run([args.peer, "-c", PEER, f"{scratch}/parts.json", str(seed)], env=environment,
                                  capture_output=True, text=True, check=True)
            theirs.append(json.loads(done.stdout))
    means = {"tickwise": statistics.mean(run["test"] for run in ours),
             "scikit_learn": statistics.mean(run["accuracy"] for run in theirs)}
    print(json.dumps({"rows": rows, "accuracy": means, "difference": means["tickwise"] - means["scikit_learn"],
                      "tickwise": ours, "scikit_learn": theirs}))


if __name__ == "__main__":
    main()
