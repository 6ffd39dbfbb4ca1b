"""What pre-training is worth: a fine-tuned encoder against the same encoder with fresh weights, on few labelled texts.

    python bench/pretraining_gain.py ENCODER --train FILE --test FILE --rows 500 --seeds 1 2 3

For each seed ``--rows`` texts of --train are drawn; no other label is used. A fifth of them is the development part,
the same for both models. Each model gets the learning rate and the number of passes with which its cross-entropy there
was lowest, of the same grid for both; then it is trained anew on all rows, for the passes that were best, and looks at
the test part once.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy

from tickwise.core import console
from tickwise.data.examples import Examples, ReadExamples, distinct_texts, read_examples, split_examples, without_texts
from tickwise.tasks.classify import ClassifyResult, train_classifier
from tickwise.tasks.classify_config import ClassifyConfig
from tickwise.tasks.fine_tune_options import FineTuneOptions

DEV_SHARE = 0.2
PARTS = ("train", "dev")


def draw(given: argparse.Namespace, folder: Path, seed: int) -> None:
    """Write the rows of one seed into ``folder``: a file to train on and one to choose by."""
    texts = distinct_texts(read_examples((given.train,), ReadExamples()))
    texts = without_texts(texts, [read_examples((given.test,), ReadExamples(), split="test")])
    rows = numpy.random.default_rng(seed).choice(len(texts), given.rows, replace=False)
    parts = split_examples(texts.take(numpy.sort(rows).tolist()), DEV_SHARE, f"dev {seed}")
    for name, part in zip(PARTS, parts, strict=True):
        write(part, folder / f"{name}.jsonl")


def write(part: Examples, file: Path) -> None:
    rows = zip(part.texts, part.labels, strict=True)
    file.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))


def run(given: argparse.Namespace, folder: Path, seed: int, fresh: bool, lr: float, epochs: float,
        final: bool) -> ClassifyResult:
    """One fine-tuning on the rows in ``folder``; the ``final`` one is trained anew on all rows and tested."""
    name = f"{'fresh' if fresh else 'pretrained'}-{lr:g}-{epochs:g}{'-final' if final else ''}"
    return train_classifier(ClassifyConfig(
        architecture="encoder", encoder=given.encoder, train=(str(folder / "train.jsonl"),),
        dev=(str(folder / "dev.jsonl"),), test=(given.test,) if final else (), refit=final, out=folder / name,
        seed=seed, dtype="fp32", evaluate_every=max(1, given.rows // given.batch), device=given.device,
        tuning=FineTuneOptions(fresh=fresh, lr=lr, epochs=epochs, batch_size=given.batch,
                               layer_decay=1.0 if fresh else given.layer_decay),
    ), "classify")


def one_seed(given: argparse.Namespace, folder: Path, seed: int, fresh: bool) -> dict[str, object]:
    """Choose settings by the development part, and test with them."""
    tried: dict[tuple[float, float], float] = {}
    for lr, epochs in itertools.product(given.rates, given.epochs):
        loss = run(given, folder, seed, fresh, lr, epochs, False).trained.validation_loss
        assert loss is not None
        tried[lr, epochs] = loss
    lr, epochs = min(tried, key=lambda pair: tried[pair])
    result = run(given, folder, seed, fresh, lr, epochs, True)
    assert result.test is not None
    return {"lr": lr, "epochs": epochs, "dev_losses": {f"{a:g}, {b:g}": value for (a, b), value in tried.items()},
            "test": 100 * result.test.metrics["acc"].value}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("encoder", type=Path)
    made.add_argument("--train", required=True)
    made.add_argument("--test", required=True)
    made.add_argument("--rows", type=int, default=500)
    made.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    made.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3, 3e-3])
    made.add_argument("--epochs", type=float, nargs="+", default=[8, 16, 32])
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--layer-decay", type=float, default=0.9, help="of the pre-trained model; fresh layers are equal")
    made.add_argument("--device", default="auto")
    made.add_argument("--out", type=Path)
    return made


def main() -> int:
    given = parser().parse_args()
    console.set_verbosity(console.QUIET)
    shown: dict[str, list[dict[str, object]]] = {"pre-trained": [], "fresh weights": []}
    for seed in given.seeds:
        with tempfile.TemporaryDirectory() as temporary:
            draw(given, Path(temporary), seed)
            for name, found in shown.items():
                found.append(one_seed(given, Path(temporary), seed, name == "fresh weights"))
                print(f"{name}, seed {seed}: {json.dumps(found[-1])}", file=sys.stderr, flush=True)
    test = {name: [float(str(found["test"])) for found in own] for name, own in shown.items()}
    gains = [a - b for a, b in zip(test["pre-trained"], test["fresh weights"], strict=True)]
    answer = {"gain_points": statistics.mean(gains), "gains": gains, "rows": given.rows,
              "means": {name: statistics.mean(values) for name, values in test.items()}, **shown}
    print(json.dumps(answer, indent=2))
    if given.out is not None:
        given.out.write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
