"""The language models of a comparison: trained on the spot in a folder that can be gone on with, or given."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tickwise.compare.cases import Case
from tickwise.compare.contestants import Change, Labeller, Writer
from tickwise.compare.nano_sort import MODEL_FILE, load_nano_sort
from tickwise.core.config import read_json
from tickwise.core.paths import write_text_atomic
from tickwise.engine.language_model import LanguageModel, load

_BYTES = 256 + 1
_DEV_SHARE = 0.05
_FEWEST_LEFT = 3
_DEPTH, _WIDTH = 2, 128
_UPDATE_TOKENS = 1024
"""Small updates: in a minute their number counts for more than their size."""
SORTED_LETTERS = 6


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a model may train, and with which seed."""

    seconds: float
    seed: int


LOOP: dict[str, Any] = {"compile": "off", "resume": "auto", "checkpoint_seconds": 20.0, "keep_checkpoints": 1,
                        "evaluate_tokens": 16_384}
"""Settings of all trainings: short ones, that may be stopped and gone on with."""
ANSWERS = "\n{}="
"""A line of training text is an input, ``=`` and its answer; a prompt begins a line."""


def trained_writer(training: Sequence[Case], folder: Path, budget: Budget, *, context: int,
                   backwards: bool = False) -> Writer:
    """A decoder over bytes, trained on lines of inputs and answers; ``backwards``: its answers end with their first
    letter, so that a sum's carries come before the digits that they change (Lee et al. 2023, "Teaching arithmetic to
    small transformers")."""
    from tickwise.training.config import ModelOptions, TrainConfig
    from tickwise.training.run import train

    text = folder / "training.txt"
    step = -1 if backwards else 1
    write_text_atomic(text, "".join(f"{case.text}={case.answer[::step]}\n" for case in training))
    train(TrainConfig(
        data=text, out=folder / "run", tokenizer="bpe", vocab_size=_BYTES, context=context, depth=_DEPTH,
        batch_size=max(1, _UPDATE_TOKENS // context), model=ModelOptions(width=_WIDTH, tie_embeddings=True),
        max_seconds=budget.seconds, seed=budget.seed, **LOOP))
    return Writer(load(folder / "run", device="cpu"), "decoder", template=ANSWERS, backwards=backwards,
                  retraining=retraining(folder / "run"))


def trained_labeller(training: Sequence[Case], folder: Path, budget: Budget) -> Labeller:
    """A bidirectional LSTM over words, trained on texts and their labels."""
    from tickwise.tasks.classifier import Classifier
    from tickwise.tasks.classify import train_classifier
    from tickwise.tasks.classify_config import ClassifyConfig, RecurrentOptions

    train, dev = _held_out(training, budget.seed)
    for name, part in (("dev", dev), ("train", train)):
        write_text_atomic(folder / f"{name}.jsonl", "".join(
            json.dumps({"text": case.text, "label": case.answer}) + "\n" for case in part))
    if not (folder / "run" / "done").exists():
        train_classifier(ClassifyConfig(
            train=(str(folder / "train.jsonl"),), dev=(str(folder / "dev.jsonl"),), out=folder / "run",
            architecture="recurrent", recurrent=RecurrentOptions(epochs=50.0), max_seconds=budget.seconds,
            seed=budget.seed, device="cpu", **LOOP))
        write_text_atomic(folder / "run" / "done", "")
    return Labeller(Classifier.load(folder / "run", device="cpu"), "LSTM classifier", retraining(folder / "run"))


def _held_out(training: Sequence[Case], seed: int) -> tuple[list[Case], list[Case]]:
    """Cases to train on, and some to choose the model by, whose labels keep at least two others."""
    cases = list(dict.fromkeys(training))
    random.Random(seed).shuffle(cases)
    left = Counter(case.answer for case in cases)
    train: list[Case] = []
    dev: list[Case] = []
    for case in cases:
        held_out = len(dev) < _DEV_SHARE * len(cases) and left[case.answer] > _FEWEST_LEFT
        left[case.answer] -= held_out
        (dev if held_out else train).append(case)
    return train, dev


def trained_translator(training: Sequence[Case], folder: Path, budget: Budget) -> Writer:
    """A small encoder–decoder on pairs, in lower case."""
    from tickwise.data.pairs import Pairs
    from tickwise.tasks.text_to_text import PairParts, train_text_to_text
    from tickwise.tasks.text_to_text_options import TextToTextOptions

    n_dev = max(1, round(_DEV_SHARE * len(training)))
    parts = [Pairs([case.text for case in some], [case.answer for case in some], "the job's training pairs")
             for some in (training[n_dev:], training[:n_dev])]
    train_text_to_text(
        PairParts(parts[0], parts[1], None), out=folder / "run", lowercase=True, seed=budget.seed,
        max_seconds=budget.seconds, resume=True, device="cpu",
        options=TextToTextOptions(vocab_size=2000, width=128, encoder_layers=2, decoder_layers=2, longest=96))
    return Writer(load(folder / "run", device="cpu"), "encoder–decoder", retraining=retraining(folder / "run"))


def retraining(run: Path) -> Change:
    """What it took to train the model of a run (or model) directory, from its ``run.json``."""
    path = next((p for p in (run / "run.json", run / "model" / "run.json") if p.is_file()), None)
    record: dict[str, Any] = {} if path is None else read_json(path, "the run's record")
    result = record.get("result") or {}
    flops, tokens = record.get("flops_per_token"), result.get("tokens")
    return Change("trained anew on other examples", result.get("seconds", record.get("seconds")),
                  None if flops is None or tokens is None else flops * tokens)


def given_model(path: Path, *, template: str, most_tokens: int) -> Writer | Labeller:
    """Any model directory: one that writes, one that labels, or the published sorting model.

    ``CheckpointError`` for a directory that is missing, damaged, or of another purpose.
    """
    from tickwise.interop.directory import read_config, resolve_model_path
    from tickwise.tasks.classifier import Classifier

    if (path / MODEL_FILE).is_file():
        module, tokenizer = load_nano_sort(path)
        return Writer(LanguageModel(module, tokenizer, path), "gpt-nano-sort", most_tokens=SORTED_LETTERS)
    family, _ = read_config(resolve_model_path(path))
    if family.purpose == "classifier":
        return Labeller(Classifier.load(path, device="cpu"), path.name, retraining(path))
    model = load(path, device="cpu")
    return Writer(model, path.name, template="{}" if model.has_source else template, most_tokens=most_tokens,
                  retraining=retraining(path))
