"""Whether sentences written by a VAE, or by a VAE with a GAN, help a classifier that is trained on few texts.

    python bench/augmentation.py --data TREC.train --test TREC.test --rows 500 --seeds 1 2 3

Of the training file, ``--rows`` texts are kept for training and 500 others for choosing the best model; the VAE sees
nothing but those training texts. For each class, as many sentences as it has texts (times ``--ratio``) are written and
labelled with the class:

- ``vae``: from places drawn around those of the class's own texts;
- ``vae + gan``: from places by a GAN trained on the places of the class's texts;
- ``more steps``: no new text, but as many more passes over the old ones, which tells more data from more steps. (The
  texts once more would tell nothing: a classifier reads each distinct text once.)

Every variant trains the same classifier with the same settings, the others for the same number of epochs over their
texts. A seed draws its own rows and is the same whatever other seeds run.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from tickwise.data.examples import ReadExamples, read_examples
from tickwise.models.gan import LatentGan, LatentGanConfig
from tickwise.models.vae import VaeOptions
from tickwise.tasks.classify import train_classifier
from tickwise.tasks.classify_config import ClassifyConfig
from tickwise.tasks.sentences import TextVae
from tickwise.training.adversarial import LatentGame
from tickwise.training.config import OptimizerOptions
from tickwise.training.vae import VaeTrainConfig, train_vae
from tickwise.training.vae_objective import KlSchedule

Row = tuple[str, str]
N_DEV = 500


def save(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(f"{label}\t{text}\n" for label, text in rows), encoding="utf-8")
    return str(path)


def vae_of(texts: list[str], folder: Path, arguments: argparse.Namespace, seed: int) -> TextVae:
    source = folder / "texts.txt"
    source.write_text("\n".join(texts) + "\n", encoding="utf-8")
    result = train_vae(VaeTrainConfig(
        data=source, tokenizer="word", longest=40, out=folder / "vae", seed=seed, batch_size=32, compile="off",
        max_steps=arguments.vae_steps, word_dropout=0.2, kl=KlSchedule(autoencoder_epochs=5, warmup_epochs=10,
                                                                       free_nats=0.5),
        model=VaeOptions(width=128, hidden=128, encoder_hidden=128, input_dropout=0.2, output_dropout=0.3),
        optimizer=OptimizerOptions(name="adamw", lr=0.003, weight_decay=0.0, clip_norm=5.0)))
    return TextVae.load(result.model, device="cpu")


@torch.no_grad()
def neighbours(model: TextVae, texts: list[str], n: int, seed: int) -> list[str]:
    """Written from draws of the latent distributions of ``texts``, one after the other."""
    posterior = model.places(texts)
    rows = torch.arange(n) % len(texts)
    noise = torch.randn(n, posterior.mean.shape[1], generator=torch.Generator().manual_seed(seed))
    z_BZ = posterior.mean[rows] + noise * (0.5 * posterior.log_var[rows]).exp()
    return model.decode(z_BZ, temperature=0.7, seed=seed)


def from_gan(model: TextVae, texts: list[str], n: int, seed: int, steps: int) -> list[str]:
    torch.manual_seed(seed)
    with torch.no_grad():
        posterior = model.places(texts)
        real = posterior.sample(torch.randn_like(posterior.mean))
    gan = LatentGan(LatentGanConfig(latent=real.shape[1], noise=32, hidden=128, n_layers=2)).initialise(seed)
    game = LatentGame(gan, real, batch_size=min(64, len(texts)), lr=5e-4, critic_steps=3, penalty=10.0)
    for _ in range(steps):
        game.train_generator()
    with torch.no_grad():
        return model.decode(gan(torch.randn(n, 32)), temperature=0.7, seed=seed)


def one(seed: int, rows: list[Row], arguments: argparse.Namespace) -> dict[str, float]:
    """Test accuracy of each variant; draws ``rows`` anew and leaves them as they are."""
    rows = random.Random(seed).sample(rows, len(rows))
    dev, train = rows[:N_DEV], rows[N_DEV : N_DEV + arguments.rows]
    by_class: dict[str, list[str]] = {}
    for label, text in train:
        by_class.setdefault(label, []).append(text)
    by_class = {label: texts for label, texts in by_class.items() if len(texts) > 1}
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = vae_of([text for _, text in train], folder, arguments, seed)
        more: dict[str, list[Row]] = {"none": [], "more steps": [], "vae": [], "vae + gan": []}
        for label, texts in by_class.items():
            n = max(1, int(len(texts) * arguments.ratio))
            more["vae"] += [(label, text) for text in neighbours(model, texts, n, seed) if text]
            more["vae + gan"] += [(label, text) for text in from_gan(model, texts, n, seed, arguments.gan_steps)
                                  if text]
        for variant, extra in more.items():
            out = folder / f"with {variant}"  # the VAE has a folder of its own
            epochs = ClassifyConfig().epochs * (1 + arguments.ratio if variant == "more steps" else 1)
            result = train_classifier(ClassifyConfig(
                train=(save(folder / f"{out.name}.tsv", train + extra),), dev=(save(folder / "dev.tsv", dev),),
                test=(save(folder / "test.tsv", arguments.test_rows),), text_column="1", label_column="0", out=out,
                epochs=epochs, seed=seed, compile="off"))
            assert result.test is not None
            found[variant] = result.test.metrics["acc"].value
            print(f"seed {seed}, {variant}: {found[variant]:.4f}; e.g. {extra[:3]}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--label-until", default=":")
    parser.add_argument("--encoding", default="latin-1")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--ratio", type=float, default=1.0)
    parser.add_argument("--vae-steps", type=int, default=1500)
    parser.add_argument("--gan-steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    read = ReadExamples(label_until=arguments.label_until, encoding=arguments.encoding)
    data, test = read_examples([arguments.data], read), read_examples([arguments.test], read, split="test")
    rows = sorted(set(zip(data.labels, data.texts, strict=True)))
    arguments.test_rows = list(zip(test.labels, test.texts, strict=True))
    runs = [one(seed, rows, arguments) for seed in arguments.seeds]
    summary = {variant: {"mean": statistics.mean(run[variant] for run in runs),
                         "spread": statistics.pstdev(run[variant] for run in runs),
                         "gain": statistics.mean(run[variant] - run["none"] for run in runs)} for variant in runs[0]}
    result = {"rows": arguments.rows, "ratio": arguments.ratio, "runs": runs, "accuracy": summary}
    print(json.dumps(result, indent=2))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
