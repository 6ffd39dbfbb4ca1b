"""One trial of a sweep, in a process of its own: ``python -m tickwise.scaling.sweep_trial FOLDER``.

``FOLDER/trial.json`` says what to train; the run directory is ``FOLDER/run``; ``FOLDER/result.json`` appears when the
trial is over, whole or not at all. A trial that was killed goes on from its last checkpoint.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from tickwise.core.config import from_dict, read_json
from tickwise.core.errors import NumericsError, UserError
from tickwise.core.paths import write_text_atomic

TRIAL_FILE, RESULT_FILE, RUN_FOLDER = "trial.json", "result.json", "run"
INTERRUPTED, MISTAKE = 130, 2


def run_trial(folder: Path) -> int:
    """Train and write the result; the exit code. Numbers that stop being finite are a result (status ``diverged``);
    other mistakes are told on stderr and leave none."""
    from tickwise.training.config import TrainConfig
    from tickwise.training.run import train

    spec = read_json(folder / TRIAL_FILE, "the trial")
    config = from_dict(TrainConfig, spec["config"] | {"out": str(folder / RUN_FOLDER), "resume": "auto"},
                       where=str(folder / TRIAL_FILE))
    started = time.time()
    try:
        result = train(config)
    except NumericsError as problem:
        _write(folder, {"status": "diverged", "why": str(problem), "loss": None, "seconds": time.time() - started})
        return 0
    except UserError as problem:
        print(" ".join(str(problem).split()), file=sys.stderr)
        return MISTAKE
    if result.interrupted:
        return INTERRUPTED
    record = read_json(config.out / "run.json", "the run's record")
    loss = result.validation_loss
    assert loss is not None
    assert math.isfinite(loss)
    flops = record["flops_per_token"]
    _write(folder, {
        "status": "done", "why": None, "loss": loss, "tokens": result.tokens, "steps": result.step,
        "seconds": result.seconds, "flops_counted": None if flops is None else flops * result.tokens,
        "dtype": record["dtype"], "threads": record["threads"], "started": started,
    })
    return 0


def _write(folder: Path, result: dict[str, Any]) -> None:
    write_text_atomic(folder / RESULT_FILE, json.dumps(result, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    from tickwise.core import allocator, console

    allocator.tune()
    console.set_verbosity(console.QUIET)
    sys.exit(run_trial(Path(sys.argv[1])))
