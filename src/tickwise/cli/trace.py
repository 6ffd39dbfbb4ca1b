"""Write text with a model and record every tick: what each stage took, did, and could do on this machine.

The trace is a folder. Look at it with tickwise trace show, sql, diff and export.
"""

import dataclasses
import json
from pathlib import Path

from tickwise.cli import generate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(generate.WritingArguments):
    out: Path
    """Folder for the trace."""
    overwrite: bool = False
    """Replace a trace that is there already."""
    energy: Path | None = None
    """JSON file with coefficients for the model of energy, where the machine has no counter."""


def run(arguments: Arguments) -> int:
    from tickwise.cli.trace_show import print_summaries, trace_as_json
    from tickwise.engine.tracing import traced, writing_costs
    from tickwise.profiling.energy import DEFAULT_COEFFICIENTS, read_coefficients
    from tickwise.profiling.trace_phases import phase_summaries
    from tickwise.profiling.trace_store import check_trace_output, open_trace

    check_trace_output(arguments.out, arguments.overwrite)
    coefficients = DEFAULT_COEFFICIENTS if arguments.energy is None else read_coefficients(arguments.energy)
    settings, prompt = generate.settings_of(arguments), generate.prompt_of(arguments)
    model = generate.load_model(arguments)
    with traced(model, arguments.out, writing_costs(model, settings.use_cache), overwrite=arguments.overwrite,
                coefficients=coefficients):
        if arguments.json or arguments.quiet:
            model.generate(prompt, **dataclasses.asdict(settings))
        else:
            generate.write(model, prompt, settings)
    if arguments.json:
        print(json.dumps(trace_as_json(open_trace(arguments.out))))
    elif not arguments.quiet:
        trace = open_trace(arguments.out)
        print()
        print_summaries(trace, phase_summaries(trace))
    return 0
