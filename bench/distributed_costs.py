"""What two ranks hold and send against what ``tickwise estimate --ranks`` says beforehand, with DDP and with FSDP2.

Prints one JSON object: for each strategy and rank the peak of the resident memory after three steps, after a validation
(the modelled peak is for both) and after the model was saved, beside the modelled peak; and the bytes that the rank's
sockets sent in a step (TCP's own count of payload), beside the modelled bytes. CPU ranks on gloo, Linux.

    python bench/distributed_costs.py --out out/distributed-costs
"""

import argparse
import contextlib
import json
import os
import random
import socket
import struct
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

RANKS, STEPS = 2, 3
_BYTES_SENT_AT = 200
"""Of ``tcpi_bytes_sent`` in Linux's ``struct tcp_info``."""


def bytes_sent() -> int:
    """By all TCP connections of this process since they were made."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:
            if connection.type == socket.SOCK_STREAM and connection.family in (socket.AF_INET, socket.AF_INET6):
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                total += struct.unpack_from("Q", info, _BYTES_SENT_AT)[0]
    return total


def peak_bytes() -> int:
    """Of this process's resident memory so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def measure(text: Path, out: Path, strategy: str) -> None:
    """One rank: three updates, a validation, then the model is saved; writes what it measured."""
    from tickwise.core import allocator

    allocator.tune()  # as the command line does, before anything else
    from tickwise.cli.estimate import process_term
    from tickwise.core.device import flushed_denormals
    from tickwise.training.checkpoint import save_best_model
    from tickwise.training.config import ModelOptions, OptimizerOptions, ParallelOptions, TrainConfig
    from tickwise.training.distributed.join import join_ranks, spread
    from tickwise.training.distributed.traffic import engine_bytes, rank_memory, step_traffic
    from tickwise.training.loop import gradient, update, validation_figures
    from tickwise.training.run import build, open_data, plan

    config = TrainConfig(data=text, out=out, tokenizer="char", depth=6, context=128, batch_size=8, max_steps=STEPS,
                         model=ModelOptions(width=384, n_heads=6), device="cpu", dtype="fp32",
                         optimizer=OptimizerOptions(name="adamw"),
                         parallel=ParallelOptions(strategy=strategy))  # type: ignore[arg-type]
    data = open_data(config)
    made = plan(config, data)
    modelled = rank_memory(made.model, made.config, made.dtype, made.device, RANKS, config.parallel.strategy)
    traffic = step_traffic(made.model, made.config, made.dtype, RANKS, config.parallel.strategy, made.device)
    training = build(made, data)
    training.parallel = join_ranks(training, None)
    spread(training, None)
    sent = []
    with flushed_denormals():
        for _ in range(STEPS):
            before = bytes_sent()
            _, gradients, _ = gradient(training)
            update(training, gradients, 1.0)
            del gradients
            training.counters.step += 1
            training.parallel.mean(0.0)  # nobody is ahead
            sent.append(bytes_sent() - before)
    in_steps = peak_bytes()
    validation_figures(training)
    in_run = peak_bytes()
    save_best_model(training)
    process = process_term("train", made.dtype) + engine_bytes(config.parallel.strategy)
    found = {"memory": {"modelled": modelled.total + process, "measured": in_run, "measured in steps": in_steps,
                        "measured with saving": peak_bytes(), "terms": asdict(modelled) | {"process": process}},
             "bytes_sent_in_a_step": {"modelled": sum(traffic.values()), "measured": sorted(sent)[STEPS // 2]},
             "parameters": made.n_parameters}
    for figures in (found["memory"], found["bytes_sent_in_a_step"]):
        assert isinstance(figures, dict)
        figures["modelled over measured"] = round(figures["modelled"] / figures["measured"], 4)
    (out / f"{strategy}-{training.parallel.rank}.json").write_text(json.dumps(found))
    training.parallel.leave()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("out/distributed-costs"))
    parser.add_argument("--measure", choices=["ddp", "fsdp"])
    arguments = parser.parse_args()
    out, text = arguments.out, arguments.out / "text.txt"
    if arguments.measure:
        measure(text, out, arguments.measure)
        return
    out.mkdir(parents=True, exist_ok=True)
    chooser = random.Random(7)
    words = ["the", "cat", "dog", "sees", "hears", "follows", "a", "bird"]
    text.write_text(" ".join(chooser.choice(words) for _ in range(20_000)) + "\n", encoding="utf-8")
    found = {}
    for strategy in ("ddp", "fsdp"):
        # Measured once, and before the ranks share the cores.
        subprocess.run([sys.executable, "-c", "from tickwise.core.allocator import tune; tune(); from "
                        "tickwise.cli.estimate import process_term; from tickwise.training.distributed.traffic import "
                        f"engine_bytes; process_term('train', 'fp32'); engine_bytes('{strategy}')"], check=True)
        subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(RANKS), "--rdzv-backend",
                        "c10d", "--rdzv-endpoint", "localhost:0", str(Path(__file__)), "--out", str(out), "--measure",
                        strategy], check=True)
        found[strategy] = [json.loads((out / f"{strategy}-{rank}.json").read_text()) for rank in range(RANKS)]
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
