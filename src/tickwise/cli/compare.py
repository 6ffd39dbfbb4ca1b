"""The same jobs by a language model and by a classical program: accuracy, operations, time, energy, memory, change."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    jobs: tuple[str, ...] = ()
    """Of add, sort, lookup, extract, next, spam, sentiment, translate, passages (all whose data are there)."""
    data_dir: Path | None = None
    """Folder with tinystories, sms_spam, sst2, multi30k and xquad, for the jobs on real texts."""
    model: tuple[str, ...] = ()
    """JOB=DIRECTORY: a model for a job, instead of one that is trained on the spot; also the folder of the published
    gpt-nano-sort for sort."""
    out: Path = Path("out/compare")
    """Folder for report.html, compare.json, and a folder for each job with its model and traces. What was stopped goes
    on there."""
    seconds: float = 60.0
    """Training time of each model, and again at most as much for the change that is asked of it."""
    cases: int = 300
    """Inputs of each kind that accuracy is measured on."""
    timed: int = 20
    """Of the plain ones, how many are answered one by one against the clock and under the ledger."""
    seed: int = 1


def run(arguments: Arguments) -> int:
    from tickwise.compare.evidence import fewest_timed
    from tickwise.compare.page import comparison_page
    from tickwise.compare.run import compare
    from tickwise.core.console import say
    from tickwise.core.paths import write_text_atomic

    comparison = _comparison(arguments)
    if comparison.n_timed < fewest_timed():
        say(f"{comparison.n_timed} timed inputs are too few to show a difference between times, which takes "
            f"{fewest_timed()} for one test and more for several; --timed is 20 where it is left out")
    found = compare(comparison)
    command = shlex.join(["tickwise", *sys.argv[1:]])
    write_text_atomic(arguments.out / "compare.json",
                      json.dumps({"command": command, **found}, indent=1, ensure_ascii=False) + "\n")
    write_text_atomic(arguments.out / "report.html", comparison_page(found, command))
    if arguments.json:
        print(json.dumps({**found, "out": str(arguments.out)}, indent=2, ensure_ascii=False))
    else:
        _print(found)
        say(f"wrote {arguments.out}/report.html and compare.json")
    return 0


def _comparison(arguments: Arguments) -> Any:
    from tickwise.compare.jobs import JOBS
    from tickwise.compare.run import Comparison, check
    from tickwise.compare.setting import Setting

    for name, least in (("seconds", 0), ("cases", 0), ("timed", 0)):
        if not least < getattr(arguments, name) < float("inf"):
            raise ConfigError(f"--{name}: must be positive, got {getattr(arguments, name):g}")
    models = {}
    for given in arguments.model:
        job, separator, path = given.partition("=")
        if not separator or not path:
            raise ConfigError(f"--model {given}: give JOB=DIRECTORY")
        models[job] = Path(path)
    if arguments.data_dir is not None and not arguments.data_dir.is_dir():
        raise ConfigError(f"--data-dir {arguments.data_dir}: no such folder")
    comparison = Comparison(
        out=arguments.out, jobs=arguments.jobs or tuple(JOBS), models=models, seconds=arguments.seconds,
        n_timed=min(arguments.timed, arguments.cases),
        setting=Setting(n=arguments.cases, seed=arguments.seed, data_dir=arguments.data_dir))
    check(comparison)
    return comparison


def _print(found: dict[str, Any]) -> None:
    for job in found["jobs"].values():
        print(f"\n{job['title']}: {job['about']}")
        for one in job["contestants"]:
            scores = ", ".join(f"{kind} {100 * value['value']:.1f} %" for kind, value in one["accuracy"].items())
            print(f"  {one['name']} ({one['kind']}): {scores}")
        for sentence in job["conclusion"]["sentences"]:
            print(f"  - {sentence}")
    for name, why in found["skipped"].items():
        print(f"\n{name} was left out: {why}")
