"""How near predictions come to measurements: time of a training step and of a decoded token, peak memory.

    python bench/estimate_accuracy.py [--part train|serve|memory] [--threads N] [--rounds 5] [--refresh]

Every configuration is built with random weights and measured in ``--rounds`` rounds that go through all of them in
turn, so that a slow spell of the machine meets all; a figure is the mean of the fastest quarter. None of the
configurations is used in calibration. Peak memory is the growth of the resident set in a fresh process. With one
thread, times are processor times, which other programs on a busy machine do not add to. Prints one line of JSON;
details go to stderr.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tickwise.engine.requests import Request
from tickwise.engine.settings import GenerationSettings
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.machine import use_cores
from tickwise.profiling.overheads import clock
from tickwise.profiling.predict import find_machine
from tickwise.profiling.reference import typical_seconds
from tickwise.training.config import ModelOptions, TrainConfig
from tickwise.training.dial import decoder_from_dial, resolve

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration."""

    architecture: str
    depth: int
    width: int
    vocabulary: int
    batch: int
    context: int
    dtype: str

    def model(self) -> DecoderConfig:
        return decoder_from_dial(self.depth, self.context, self.vocabulary,
                                 ModelOptions(architecture=self.architecture, width=self.width))

    def training(self) -> TrainConfig:
        config = TrainConfig(data=Path(), depth=self.depth, context=self.context, batch_size=self.batch, max_steps=1)
        return resolve(config, self.model(), 1, 1)


TRAINING = [Case(*values) for values in (
    ("qwen3", 2, 128, 256, 1, 64, "fp32"),
    ("qwen3", 4, 128, 256, 12, 64, "bf16"),
    ("llama", 8, 128, 2048, 4, 256, "fp32"),
    ("qwen3", 2, 256, 16_384, 4, 128, "bf16"),
    ("tickwise", 4, 256, 1024, 8, 256, "bf16"),
    ("qwen3", 8, 256, 4096, 2, 512, "fp32"),
    ("gpt2", 6, 384, 8192, 4, 256, "bf16"),
    ("llama", 3, 384, 512, 16, 64, "fp32"),
    ("qwen3", 2, 512, 4096, 8, 128, "fp32"),
    ("qwen3", 4, 512, 256, 4, 512, "bf16"),
    ("qwen3", 8, 512, 16_384, 1, 256, "bf16"),
    ("tickwise", 5, 192, 8192, 8, 256, "bf16"),
    ("qwen3", 6, 256, 256, 16, 128, "fp32"),
    ("gpt2", 4, 512, 1024, 2, 128, "bf16"),
)]

SERVING = [Case(*values) for values in (
    ("qwen3", 2, 128, 256, 1, 64, "fp32"),
    ("qwen3", 4, 128, 4096, 8, 256, "bf16"),
    ("llama", 8, 128, 2048, 4, 512, "fp32"),
    ("qwen3", 2, 256, 16_384, 16, 128, "fp32"),
    ("tickwise", 4, 256, 1024, 1, 256, "bf16"),
    ("qwen3", 8, 256, 4096, 2, 512, "fp32"),
    ("gpt2", 6, 384, 8192, 1, 256, "fp32"),
    ("llama", 3, 384, 512, 16, 64, "bf16"),
    ("qwen3", 2, 512, 4096, 8, 128, "fp32"),
    ("qwen3", 4, 512, 256, 4, 512, "bf16"),
    ("qwen3", 8, 512, 16_384, 1, 512, "fp32"),
    ("tickwise", 5, 192, 8192, 8, 256, "fp32"),
    ("qwen3", 8, 512, 16_384, 16, 256, "bf16"),
    ("gpt2", 4, 512, 1024, 2, 128, "bf16"),
)]


def errors(measured: dict[Case, float], predicted: dict[Case, float]) -> dict[str, Any]:
    """Median and worst of |predicted ÷ measured − 1|, and every ratio."""
    ratios = {case: predicted[case] / measured[case] for case in measured}
    for case, ratio in ratios.items():
        print(f"{ratio:6.3f} = {predicted[case]:.6g} / {measured[case]:.6g}  {dataclasses.astuple(case)}",
              file=sys.stderr)
    wrong = [abs(ratio - 1) for ratio in ratios.values()]
    return {"median_error": round(statistics.median(wrong), 4), "worst_error": round(max(wrong), 4),
            "ratios": [round(ratio, 3) for ratio in ratios.values()]}


def measure(runs: dict[Case, Callable[[], None]], rounds: int) -> dict[Case, float]:
    """Seconds of one call by case, rounds interleaved over the cases."""
    now = clock()
    times: dict[Case, list[float]] = {case: [] for case in runs}
    for run in runs.values():
        run()
        run()
    for _ in range(rounds):
        for case, run in runs.items():
            spent = 0.0
            calls = 0
            while calls < 3 or (spent < 0.15 and calls < 100):
                start = now()
                run()
                times[case].append(now() - start)
                spent += times[case][-1]
                calls += 1
    return {case: typical_seconds(found) for case, found in times.items()}


def training_times(rounds: int, refresh: bool) -> dict[str, Any]:
    from tickwise.training.prediction import predict_step, step_runner, training_corrections

    machine = find_machine("here", refresh)
    if refresh and machine.times is not None:
        training_corrections(machine.times, CPU, refresh=True)
    predicted = {case: predict_step(case.model(), case.training(), case.dtype, machine).seconds for case in TRAINING}
    runs = {case: step_runner(Decoder(case.model()).initialise(seed=1), case.training(), case.dtype)
            for case in TRAINING}
    return errors(measure(runs, rounds), predicted)


def serving_times(rounds: int, refresh: bool) -> dict[str, Any]:
    from tickwise.engine.prediction import TICKS_PER_PROMPT, predict_tick, serving_corrections, tick_runner

    machine = find_machine("here", refresh)
    if refresh and machine.times is not None:
        serving_corrections(machine.times, CPU, refresh=True)
    predicted = {
        case: predict_tick(case.model(), batch=case.batch, context=case.context - TICKS_PER_PROMPT // 2,
                           dtype=case.dtype, machine=machine).seconds / case.batch
        for case in SERVING
    }
    runs = {case: tick_runner(case.model(), case.batch, case.context, case.dtype, CPU) for case in SERVING}
    measured = measure(runs, rounds)
    return errors({case: seconds / case.batch for case, seconds in measured.items()}, predicted)


def peak_memory(cases: list[Case], purpose: str) -> dict[str, Any]:
    from tickwise.engine.memory import estimate_serving_memory
    from tickwise.training.memory import estimate_training_memory

    measured, predicted = {}, {}
    for case in cases:
        words = [sys.executable, __file__, "--child", json.dumps([purpose, *dataclasses.astuple(case)])]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        measured[case] = float(done.stdout)
        if purpose == "train":
            predicted[case] = estimate_training_memory(case.model(), case.training(), 0, case.dtype, CPU).total
        else:
            predicted[case] = estimate_serving_memory(case.model(), batch=case.batch, context=case.context,
                                                      dtype=case.dtype).total
    return errors(measured, predicted)


def grown_memory(purpose: str, case: Case) -> int:
    """Bytes by which the peak of this process's resident set grows beyond what a tiny model needs."""
    import psutil

    tiny = dataclasses.replace(case, depth=1, width=32, batch=1, context=64)
    for one in (tiny, case):
        if one is case:
            before = psutil.Process().memory_info().rss
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        run(purpose, one)
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return peak - before


def run(purpose: str, case: Case) -> None:
    """Three steps, or texts that fill the context."""
    if purpose == "train":
        from tickwise.training.next_token import next_token_loss
        from tickwise.training.prediction import step_runner

        module = Decoder(case.model()).initialise(seed=1)
        step = step_runner(module, case.training(), case.dtype)
        for _ in range(3):
            step()
        with torch.no_grad():  # as a run does at least once, at its end
            rows = max(1, min(64, 8192 // case.context))
            ids_BT = torch.zeros(rows, case.context, dtype=torch.long)
            next_token_loss(module.eval(), ids_BT, ids_BT)
        return
    from tickwise.engine.prediction import random_decoder, text_engine

    engine = text_engine(random_decoder(case.model(), case.dtype, CPU), case.batch)
    for index in range(case.batch):
        prompt = [(7 * index + place) % case.vocabulary for place in range(case.context - 4)]
        engine.submit(Request(prompt=prompt, settings=GenerationSettings(max_tokens=4, temperature=0, ignore_eos=True)))
    engine.run_until_idle()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("train", "serve", "memory"), action="append")
    parser.add_argument("--threads", type=int, help="default: one per core")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--refresh", action="store_true", help="calibrate anew")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads is not None:  # as the environment sets it, so that child processes have it too
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
        torch.set_num_threads(arguments.threads)
    use_cores()
    torch.set_flush_denormal(True)
    if arguments.child is not None:
        purpose, *values = json.loads(arguments.child)
        print(grown_memory(purpose, Case(*values)))
        return 0
    parts = arguments.part or ["train", "serve", "memory"]
    found: dict[str, dict[str, Any]] = {}
    if "train" in parts:
        found["training_step_s"] = training_times(arguments.rounds, arguments.refresh)
    if "serve" in parts:
        found["decoded_token_s"] = serving_times(arguments.rounds, arguments.refresh)
    if "memory" in parts:
        found["training_peak_bytes"] = peak_memory(TRAINING, "train")
        found["serving_peak_bytes"] = peak_memory(SERVING, "serve")
    met = all(part["worst_error"] <= (0.25 if name.endswith("_s") else 0.10) for name, part in found.items())
    met = met and all(part["median_error"] <= 0.10 for part in found.values())
    print(json.dumps({"id": "engine.4", "threads": torch.get_num_threads(), "met": met, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
