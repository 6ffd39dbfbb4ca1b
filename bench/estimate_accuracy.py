# ruff: noqa: E402 (the allocator is set up before PyTorch is imported)
"""How near predictions come to measurements: time of a training step and of a decode tick, peak memory.

    python bench/estimate_accuracy.py [--part train|serve|memory] [--threads N] [--rounds 5]

Calibration never sees the configurations below: it measures single operations and runs reference models of its own
(``_REFERENCES`` in ``training/prediction.py`` and ``engine/prediction.py``), which must differ. The configurations were
drawn up after the last change to the model of time. Of memory, this much was changed after some of them had been seen:
the mean of several simulated heaps instead of one, the whole process instead of what it grows by, what stands for the
process (one that prepares no text), and no small blocks in a validation and in serving.

Every configuration is built with random weights. A round calibrates, predicts, and measures all configurations, so that
a slow spell of the machine meets calibration and measurement alike; of ``--rounds`` rounds each configuration's median
ratio counts. A time is the mean of the fastest quarter. With one thread, times are processor times, which other
programs on a busy machine do not add to.

Peak memory is the peak of the resident set (VmHWM, what ``/usr/bin/time -v`` prints) of a fresh process: of ``python -m
tickwise train`` from prepared data for thirty steps with a validation, or of one that serves texts that fill their
contexts. Predicted is the ``total`` of ``tickwise estimate``: what a process with the smallest model takes, measured
once (Python, torch and their code), and the model's terms. ``ratio_beyond_process`` compares the model's terms alone
with what is above that process: the harder test, on which no bar is set.

Prints progress on stderr and one line of JSON on stdout, with every configuration's prediction, measurement and ratio.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tickwise.core import allocator

allocator.tune()  # as the command line does, before PyTorch is there

import torch

from tickwise.cli.estimate import process_term
from tickwise.data.config import PrepareConfig
from tickwise.data.prepare import prepare
from tickwise.engine.memory import estimate_serving_memory
from tickwise.engine.prediction import _REFERENCES as SERVING_REFERENCES
from tickwise.engine.prediction import (
    TICKS_PER_PROMPT,
    predict_tick,
    run_texts,
    serving_corrections,
    tick_runner,
)
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.ceilings import ceilings
from tickwise.profiling.machine import use_cores
from tickwise.profiling.overheads import clock
from tickwise.profiling.predict import find_machine
from tickwise.profiling.reference import _BUDGET_S, _ROUNDS, typical_seconds
from tickwise.training.config import ModelOptions, TrainConfig
from tickwise.training.dial import decoder_from_dial, resolve
from tickwise.training.memory import estimate_training_memory
from tickwise.training.prediction import _REFERENCES as TRAINING_REFERENCES
from tickwise.training.prediction import predict_step, step_runner, training_corrections

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration."""

    architecture: str
    depth: int
    width: int
    kv_heads: int | None
    """``None``: as many as there are heads."""
    vocabulary: int
    batch: int
    context: int
    dtype: str

    def model(self) -> DecoderConfig:
        options = ModelOptions(architecture=self.architecture, width=self.width, n_kv_heads=self.kv_heads)
        return decoder_from_dial(self.depth, self.context, self.vocabulary, options)

    def training(self) -> TrainConfig:
        config = TrainConfig(data=Path(), depth=self.depth, context=self.context, batch_size=self.batch, max_steps=1)
        return resolve(config, self.model(), 1, 1)


# (architecture, depth, width, key-value heads, vocabulary), then (batch, context, number format) to train and to serve.
CONFIGURATIONS: tuple[tuple[Any, ...], ...] = (
    ("qwen3", 3, 160, None, 512, (4, 96, "fp32"), (2, 96, "fp32")),
    ("gpt2", 3, 224, None, 1500, (6, 128, "bf16"), (6, 160, "bf16")),
    ("llama", 6, 256, 2, 3000, (4, 192, "fp32"), (4, 384, "fp32")),
    ("qwen3", 4, 320, 1, 8000, (4, 256, "bf16"), (1, 700, "bf16")),
    ("gpt2", 8, 192, None, 6000, (2, 384, "fp32"), (10, 128, "fp32")),
    ("qwen3", 5, 384, 3, 2048, (8, 128, "bf16"), (3, 900, "bf16")),
    ("tickwise", 3, 512, None, 12_000, (2, 256, "bf16"), (2, 320, "bf16")),
    ("llama", 10, 256, None, 1000, (3, 320, "bf16"), (12, 200, "bf16")),
    ("qwen3", 1, 640, None, 20_000, (2, 128, "bf16"), (1, 100, "fp32")),
    ("qwen3", 12, 128, 2, 4096, (4, 128, "fp32"), (5, 240, "fp32")),
    ("gpt2", 4, 448, None, 10_000, (3, 192, "bf16"), (1, 256, "bf16")),
    ("llama", 2, 704, None, 300, (6, 96, "fp32"), (8, 160, "fp32")),
    ("tickwise", 7, 320, None, 3000, (8, 64, "bf16"), (1, 400, "fp32")),
    ("qwen3", 6, 576, 3, 16_000, (1, 512, "bf16"), (14, 256, "bf16")),
)
TRAINING = [Case(*model, *training) for *model, training, _ in CONFIGURATIONS]
SERVING = [Case(*model, *serving) for *model, _, serving in CONFIGURATIONS]

TIME_BARS = {"median_error": 0.10, "worst_error": 0.25}
MEMORY_BARS = {"worst_error": 0.10}


def _shapes(references: Sequence[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    """(depth, width, batch, context, number format) of the calibration's models."""
    numbers = [[value for value in one if not isinstance(value, str)] for one in references]
    return {(n[0], n[1], n[-2], n[-1], one[-1]) for n, one in zip(numbers, references, strict=True)}


def check_unseen() -> None:
    for cases, references in ((TRAINING, TRAINING_REFERENCES), (SERVING, SERVING_REFERENCES)):
        seen = {(c.depth, c.width, c.batch, c.context, c.dtype) for c in cases} & _shapes(references)
        assert not seen, f"calibration runs {seen}"


def progress(text: str) -> None:
    print(f"{time.perf_counter() - STARTED:6.0f} s  {text}", file=sys.stderr, flush=True)


STARTED = time.perf_counter()


def compared(name: str, measured: dict[Case, float], predicted: dict[Case, float],
             bars: dict[str, float]) -> dict[str, Any]:
    """Median and worst of |predicted ÷ measured − 1|, and every configuration."""
    rows = [dataclasses.asdict(case) | {"predicted": predicted[case], "measured": measured[case],
                                        "ratio": round(predicted[case] / measured[case], 4)} for case in measured]
    wrong = [abs(predicted[case] / measured[case] - 1) for case in measured]
    found: dict[str, Any] = {"median_error": round(statistics.median(wrong), 4), "worst_error": round(max(wrong), 4)}
    for row, case in zip(rows, measured, strict=True):
        progress(f"{name}: {row['ratio']:.3f} = {predicted[case]:.5g} / {measured[case]:.5g}  "
                 f"{dataclasses.astuple(case)}")
    progress(f"{name}: {found}")
    return found | {"met": all(found[key] <= bar for key, bar in bars.items()), "configurations": rows}


def measured_seconds(runs: dict[Case, Callable[[], None]]) -> dict[Case, float]:
    """Seconds of one call by case, as calibration measures its own: in rounds that go through all of them."""
    now = clock()
    times: dict[Case, list[float]] = {case: [] for case in runs}
    for _ in range(_ROUNDS):
        for case, run in runs.items():
            first = len(times[case])
            while len(times[case]) < first + 2 or sum(times[case][first:]) < _BUDGET_S:
                start = now()
                run()
                times[case].append(now() - start)
    return {case: typical_seconds(found) for case, found in times.items()}


def paired(name: str, runs: dict[Case, Callable[[], None]], predict: Callable[[], dict[Case, float]],
           rounds: int) -> dict[str, Any]:
    """Calibrate, predict and measure, again and again: the round with each case's median ratio is the case's."""
    for run in runs.values():
        run()
        run()
    found: dict[Case, list[tuple[float, float]]] = {case: [] for case in runs}
    for number in range(rounds):
        progress(f"{name}: round {number + 1} of {rounds}")
        predicted, measured = predict(), measured_seconds(runs)
        for case, pairs in found.items():
            pairs.append((predicted[case], measured[case]))
    middle = {case: sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2] for case, pairs in found.items()}
    return compared(name, {case: pair[1] for case, pair in middle.items()},
                    {case: pair[0] for case, pair in middle.items()}, TIME_BARS)


def training_times(rounds: int) -> dict[str, Any]:
    machine = find_machine("here", True)
    assert machine.times is not None
    times = machine.times

    def predict() -> dict[Case, float]:
        training_corrections(times, CPU, refresh=True)
        return {case: predict_step(case.model(), case.training(), case.dtype, machine).seconds for case in TRAINING}

    runs = {case: step_runner(Decoder(case.model()).initialise(seed=1), case.training(), case.dtype)
            for case in TRAINING}
    return paired("seconds of a training step", runs, predict, rounds)


def serving_times(rounds: int) -> dict[str, Any]:
    machine = find_machine("here", False)
    assert machine.times is not None
    times = machine.times

    def predict() -> dict[Case, float]:
        serving_corrections(times, CPU, refresh=True)
        return {case: predict_tick(case.model(), batch=case.batch, context=case.context - TICKS_PER_PROMPT // 2,
                                   dtype=case.dtype, machine=machine).seconds for case in SERVING}

    def one_token(case: Case) -> Callable[[], None]:
        return tick_runner(case.model(), case.batch, case.context, case.dtype, CPU)

    return paired("seconds of a tick", {case: one_token(case) for case in SERVING}, predict, rounds)


def peak_memory(cases: list[Case], purpose: str) -> dict[str, Any]:
    measured: dict[Case, float] = {}
    predicted: dict[Case, float] = {}
    beyond: dict[Case, float] = {}
    for case in cases:
        if purpose == "train":
            measured[case] = trained_peak(case)
        else:
            words = [sys.executable, __file__, "--child", json.dumps(dataclasses.astuple(case))]
            measured[case] = float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        if purpose == "train":
            model = estimate_training_memory(case.model(), case.training(), 0, case.dtype, CPU).total
        else:
            model = estimate_serving_memory(case.model(), batch=case.batch, context=case.context,
                                            dtype=case.dtype).total
        process = process_term("train" if purpose == "train" else "serve", case.dtype)
        predicted[case] = process + model
        beyond[case] = round(model / (measured[case] - process), 3)
        progress(f"peak bytes ({purpose}): {predicted[case] / measured[case]:.3f}, beyond the process itself "
                 f"{beyond[case]:.3f}  {dataclasses.astuple(case)}")
    found = compared(f"peak bytes ({purpose})", measured, predicted, MEMORY_BARS)
    for row, case in zip(found["configurations"], cases, strict=True):
        row["ratio_beyond_process"] = beyond[case]
    return found | {"median_error_beyond_process": round(statistics.median(abs(r - 1) for r in beyond.values()), 4)}


_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def trained_peak(case: Case) -> int:
    """The peak of the resident set of ``tickwise train``, in bytes."""
    with TemporaryDirectory() as folder:
        data, out = Path(folder) / "data", Path(folder) / "run"
        write_data(data, case.vocabulary, 100_000)  # a whole validation batch
        words = [sys.executable, "-m", "tickwise", "train", data, "--depth", case.depth, "--model.width", case.width,
                 "--model.architecture", case.architecture, "--context", case.context, "--batch-size", case.batch,
                 "--dtype", case.dtype, "--compile", "off", "--max-steps", 30, "--out", out, "--quiet"]
        if case.kv_heads is not None:
            words += ["--model.n-kv-heads", case.kv_heads]
        while True:
            before = ceilings(device=CPU, quick=True).date
            # From a small process: a child's peak begins with what its parent held when it was made.
            done = subprocess.run([sys.executable, "-S", "-c", _PEAK, *map(str, words)], check=True,
                                  stdout=subprocess.PIPE, text=True)
            if ceilings(device=CPU, quick=True).date == before:
                return int(done.stdout) * 1024
            progress("the process measured the machine, which takes 256 MB once: again")
            words.append("--overwrite")


def write_data(folder: Path, vocabulary: int, n_tokens: int) -> None:
    """Prepared data of about that many tokens, whose tokenizer has a character for every entry."""
    generator = torch.Generator().manual_seed(1)
    letters = [chr(0x4E00 + index) for index in range(vocabulary)]
    drawn = torch.randint(vocabulary, (n_tokens,), generator=generator).tolist()
    source = folder.with_suffix(".txt")
    source.write_text("".join([*letters, *(letters[index] for index in drawn)]), encoding="utf-8")
    prepare(PrepareConfig(sources=(str(source),), out=folder, tokenizer="char", min_frequency=1))


def served_peak(case: Case) -> int:
    """The peak of this process's resident set, in bytes, when it has served the configuration's texts."""
    run_texts(case.model(), case.batch, case.context, case.dtype)
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("train", "serve", "memory"), action="append")
    parser.add_argument("--threads", type=int, help="default: one per core")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads is not None:  # as the environment sets it, so that child processes have it too
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
        torch.set_num_threads(arguments.threads)
    use_cores()
    torch.set_flush_denormal(True)
    if arguments.child is not None:
        print(served_peak(Case(*json.loads(arguments.child))))
        return 0
    check_unseen()
    parts = arguments.part or ["train", "serve", "memory"]
    found: dict[str, dict[str, Any]] = {}
    if "train" in parts:
        found["training_step_s"] = training_times(arguments.rounds)
    if "serve" in parts:
        found["decode_tick_s"] = serving_times(arguments.rounds)
    if "memory" in parts:
        found["training_peak_bytes"] = peak_memory(TRAINING, "train")
        found["serving_peak_bytes"] = peak_memory(SERVING, "serve")
    print(json.dumps({"id": "engine.4, engine.5", "threads": torch.get_num_threads(),
                      "seconds": round(time.perf_counter() - STARTED), **found}))
    return 0 if all(part["met"] for part in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
