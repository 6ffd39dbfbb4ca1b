"""Train, generate and report in about two minutes, offline, on text that Python itself brings along."""

import dataclasses
import json
from pathlib import Path

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.errors import ConfigError
from tickwise.core.signals import INTERRUPTED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    out: Path = Path("out/demo")
    """Folder for the text, the run, the traces and the pages; an earlier demo there is replaced."""
    seconds: float = 65.0
    """Wall-clock time of the training loop."""


def run(arguments: Arguments) -> int:
    if not 1 <= arguments.seconds <= 3600:
        raise ConfigError(f"--seconds: must be from 1 to 3600, got {arguments.seconds:g}")
    from tickwise.core.console import say
    from tickwise.demo.run import run_demo

    result = run_demo(
        arguments.out, arguments.seconds, f"tickwise demo --out {arguments.out} --seconds {arguments.seconds:g}"
    )
    pages = (result.report, result.timeline, result.training_timeline)
    say(f"next, train on a text of your own:\n"
        f"    tickwise train YOUR_TEXT.txt --out out/mine\n"
        f"or write with this model:\n"
        f"    tickwise generate {result.model} --prompt \"Return a list of \"\n"
        f"what came of the demo, every token that it wrote, and some steps of the training, as pages for a browser:"
        + ("".join(f"\n{page}" for page in pages) if arguments.json else ""))
    if arguments.json:
        print(json.dumps({
            "report": str(result.report), "timeline": str(result.timeline),
            "training_timeline": str(result.training_timeline),
            "traces": [str(path) for path in result.traces], "model": str(result.model), "text": str(result.corpus),
            "validation_loss": result.validation_loss,
            "samples": [dataclasses.asdict(sample) for sample in result.samples],
        }, ensure_ascii=False))  # fmt: skip
    else:
        print(*pages, sep="\n")
    return INTERRUPTED if result.interrupted else 0
