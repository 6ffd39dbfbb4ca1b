"""What pre-training is worth: a fine-tuned encoder against the same encoder with fresh weights, on few labelled texts.

    python bench/pretraining_gain.py ENCODER --train FILE --dev FILE --test FILE --rows 500 --seeds 1 2 3

Both get the same texts, and each the learning rate and the number of passes that are best for it on the development
part (with the first seed). Rows and fresh weights are drawn by the seed. The test part is looked at once for each seed
and model, with the chosen settings.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path

from tickwise.core import console
from tickwise.tasks.classify import ClassifyResult, train_classifier
from tickwise.tasks.classify_config import ClassifyConfig
from tickwise.tasks.fine_tune_options import FineTuneOptions


def run(given: argparse.Namespace, folder: Path, seed: int, fresh: bool, lr: float, epochs: float,
        test: bool) -> ClassifyResult:
    """One fine-tuning."""
    name = f"{'fresh' if fresh else 'pretrained'}-{lr:g}-{epochs:g}-{seed}{'-test' if test else ''}"
    return train_classifier(ClassifyConfig(
        architecture="encoder", encoder=given.encoder, train=(given.train,), dev=(given.dev,),
        test=(given.test,) if test else (), train_rows=given.rows, out=folder / name, seed=seed, dtype="fp32",
        evaluate_every=max(1, round(2 * given.rows / given.batch)), device=given.device,
        tuning=FineTuneOptions(fresh=fresh, lr=lr, epochs=epochs, batch_size=given.batch,
                               layer_decay=1.0 if fresh else given.layer_decay),
    ), "classify")


def accuracy(result: ClassifyResult, part: str) -> float:
    """In percent."""
    found = result.dev if part == "dev" else result.test
    assert found is not None
    return 100 * found.metrics["acc"].value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", type=Path)
    for name in ("train", "dev", "test"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3])
    parser.add_argument("--epochs", type=float, nargs="+", default=[8])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--layer-decay", type=float, default=0.9)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    console.set_verbosity(console.QUIET)
    shown: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for fresh in (False, True):
            tried = {(lr, epochs): accuracy(run(given, folder, given.seeds[0], fresh, lr, epochs, False), "dev")
                     for lr, epochs in itertools.product(given.rates, given.epochs)}
            lr, epochs = max(tried, key=lambda pair: tried[pair])
            results = [run(given, folder, seed, fresh, lr, epochs, True) for seed in given.seeds]
            test = [accuracy(result, "test") for result in results]
            name = "fresh weights" if fresh else "pre-trained"
            shown[name] = {
                "lr": lr, "epochs": epochs, "dev_tried": {f"{a:g}, {b:g}": v for (a, b), v in tried.items()},
                "dev": [accuracy(result, "dev") for result in results], "test": test, "mean": statistics.mean(test),
                "seconds": [result.trained.seconds for result in results],
            }
            print(f"{name}: {json.dumps(shown[name])}", file=sys.stderr, flush=True)
    gains = [a - b for a, b in zip(shown["pre-trained"]["test"], shown["fresh weights"]["test"],  # type: ignore[call-overload]
                                   strict=True)]
    answer = {"gain_points": statistics.mean(gains), "gains": gains, "rows": given.rows, **shown}
    print(json.dumps(answer, indent=2))
    if given.out is not None:
        given.out.write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
