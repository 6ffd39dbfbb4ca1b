"""Quality and variety of COCO captions by a maximum-likelihood model, SeqGAN, and a VAE without and with a GAN.

    D=image_coco   # the folder of the data
    tickwise train gan $D/image_coco.txt --config recipes/coco_gan.yaml --out out/coco-gan
    tickwise train vae $D/image_coco.txt --config recipes/coco_vae.yaml --out out/coco-vae
    tickwise train latent-gan $D/image_coco.txt out/coco-vae --config recipes/coco_latent_gan.yaml \
        --out out/coco-vae-gan
    python bench/coco_bleu.py --references $D/test_coco.txt --training $D/image_coco.txt \
        --likelihood out/coco-gan/likelihood --gan out/coco-gan --vae out/coco-vae --vae-gan out/coco-vae-gan

For each model and temperature: mean BLEU-4 of the written captions against all test captions, and mean self-BLEU-4.
A model is better than another where it is as varied at more BLEU. Real training captions stand beside them, as a bound.
"""

import argparse
import json
import random
import re
import sys
from pathlib import Path

import torch

from tickwise.evaluation.generation import References, bleu, distinct, self_bleu
from tickwise.interop.directory import load_model
from tickwise.models.lockstep import ended_lengths, write
from tickwise.models.recurrent import Recurrent
from tickwise.report.generation import Quality, quality_chart
from tickwise.tasks.sentences import TextVae


def words(text: str) -> list[str]:
    """Words and signs apart, as the test file's and the models' spacing differ."""
    return re.findall(r"[\w']+|[^\w\s]", text.lower())


def written(path: Path, n: int, temperature: float, seed: int, longest: int) -> list[str]:
    """``n`` sentences of a recurrent language model."""
    module, tokenizer = load_model(path, device="cpu")
    assert isinstance(module, Recurrent)
    assert tokenizer.eos_id is not None
    generator = torch.Generator().manual_seed(seed)
    ids_BT = write(module, torch.full((n,), tokenizer.eos_id), longest, eos_id=tokenizer.eos_id,
                   temperature=temperature, generator=generator)
    lengths = ended_lengths(ids_BT, tokenizer.eos_id).tolist()
    return [tokenizer.decode([i for i in row[:length] if i != tokenizer.eos_id])
            for row, length in zip(ids_BT.tolist(), lengths, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=Path, required=True)
    parser.add_argument("--training", type=Path, required=True)
    for name in ("likelihood", "gan", "vae", "vae-gan"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    parser.add_argument("--n", type=int, default=1000, help="sentences of each model at each temperature")
    parser.add_argument("--order", type=int, default=4)
    parser.add_argument("--longest", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--svg", type=Path, default=Path("out/coco_bleu.svg"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    n, order = arguments.n, arguments.order
    references = References.of([words(line) for line in arguments.references.read_text().splitlines()], order)

    def judged(texts: list[str], label: str) -> tuple[Quality, dict[str, object]]:
        sentences = [words(text) for text in texts]
        quality = Quality(bleu(sentences, references, order), self_bleu(sentences, order), label)
        row: dict[str, object] = {
            "bleu": quality.bleu, "self_bleu": quality.self_bleu, "distinct_4": distinct(sentences, 4),
            "mean_words": sum(map(len, sentences)) / len(sentences), "unique": len(set(texts)) / len(texts),
            "setting": label, "examples": texts[:3]}
        return quality, row

    curves: dict[str, list[Quality]] = {}
    rows: dict[str, list[dict[str, object]]] = {}

    def add(name: str, texts: list[str], label: str) -> None:
        quality, row = judged(texts, label)
        curves.setdefault(name, []).append(quality)
        rows.setdefault(name, []).append(row)
        print(f"{name:<20} {label:>5}  BLEU-{order} {quality.bleu:.4f}  self-BLEU-{order} {quality.self_bleu:.4f}  "
              f"{row['mean_words']:.1f} words  e.g. {texts[0]}", file=sys.stderr, flush=True)

    real = arguments.training.read_text().splitlines()
    add("training captions", random.Random(arguments.seed).sample(real, n), "real")
    for temperature in arguments.temperatures:
        for name, path in (("maximum likelihood", arguments.likelihood), ("SeqGAN", arguments.gan)):
            if path is not None:
                add(name, written(path, n, temperature, arguments.seed, arguments.longest), f"{temperature:g}")
        for name, path in (("VAE", arguments.vae), ("VAE + GAN", arguments.vae_gan)):
            if path is not None:
                model = TextVae.load(path, device="cpu")
                add(name, model.sample(n, temperature=temperature, seed=arguments.seed), f"{temperature:g}")
    arguments.svg.parent.mkdir(parents=True, exist_ok=True)
    arguments.svg.write_text(quality_chart(curves, order))
    result = {"order": order, "n": n, "models": rows}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2, ensure_ascii=False))
    print(json.dumps({name: [{k: v for k, v in row.items() if k != "examples"} for row in curve]
                      for name, curve in rows.items()}, indent=2))


if __name__ == "__main__":
    main()
