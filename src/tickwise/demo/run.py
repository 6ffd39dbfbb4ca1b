"""The demo: gather text, train, write, measure, report."""

import dataclasses
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from tickwise.core import console
from tickwise.core.console import format_bytes, format_count, format_seconds
from tickwise.demo.corpus import write_corpus

if TYPE_CHECKING:
    from tickwise.data.prepared import PreparedData
    from tickwise.engine.language_model import LanguageModel
    from tickwise.profiling.ceilings import Ceilings
    from tickwise.report.data import Breakdown, Figure, ReportData, Sample
    from tickwise.report.metrics import Metric
    from tickwise.training.run import Plan, TrainResult

CORPUS_BYTES = 2_000_000
PROMPTS = ("Return a new ", "The function is called with ")
_SAMPLE_TOKENS = 80
_SEED = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo left behind."""

    report: Path
    timeline: Path
    """The page of the generated tokens."""
    training_timeline: Path
    """The page of some training steps."""
    traces: tuple[Path, ...]
    model: Path
    corpus: Path
    validation_loss: float | None
    interrupted: bool
    samples: tuple["Sample", ...]


def run_demo(out: Path, seconds: float, command: str) -> DemoResult:
    """Train for ``seconds`` on two megabytes of Python's documentation and leave everything in ``out``.

    ``out`` gets ``text.txt``, ``run/`` (a run directory), ``report.html``, and of some training steps and of the
    generated tokens a trace and its timeline page; ``OutputError`` when there is a ``text.txt`` or a trace's folder of
    someone else's. ``command`` is what the report says how to get it again.
    """
    from tickwise.demo.measure import trace_training, training_step, written_token
    from tickwise.engine.language_model import LanguageModel, load
    from tickwise.engine.tracing import traced, writing_costs
    from tickwise.models.decoder import Decoder
    from tickwise.profiling.ceilings import ceilings
    from tickwise.profiling.trace_store import check_trace_output
    from tickwise.report.data import Sample
    from tickwise.report.metrics import read_metrics
    from tickwise.report.page import write_report
    from tickwise.training.config import ModelOptions, TrainConfig
    from tickwise.training.run import open_data, plan, run_plan

    console.say("1/5 gathering text: Python's language reference and the standard library's docstrings")
    corpus = out / "text.txt"
    training_trace, generation_trace = out / "training-trace", out / "generation-trace"
    for path in (training_trace, generation_trace):
        check_trace_output(path, overwrite=True)
    earlier_demo = (out / "run").is_dir() or (out / "report.html").is_file()
    size = write_corpus(corpus, CORPUS_BYTES, replace=earlier_demo)
    console.say(f"    {format_bytes(size)} in {corpus}")

    config = TrainConfig(
        data=corpus, out=out / "run", tokenizer="bpe", vocab_size=2048, depth=4, context=128,
        batch_size=8, model=ModelOptions(width=192, n_heads=6), evaluate_tokens=32_768,
        max_seconds=seconds, compile="off", seed=_SEED, overwrite=True,
    )  # fmt: skip
    data = open_data(config)
    made = plan(config, data)
    console.say("2/5 measuring this machine's ceilings")
    limits = ceilings(device=made.device)

    console.say("3/5 training")
    before = LanguageModel(Decoder(made.model).initialise(_SEED), data.tokenizer)
    untrained = [_write(before, prompt, _SEED + index) for index, prompt in enumerate(PROMPTS)]
    console.say(f"    before: {_one_line(PROMPTS[0], untrained[0])}")
    result = run_plan(made, data)

    console.say("4/5 measuring where the time goes, in tokens that the model writes and in more steps of training")
    model = load(result.model)
    with traced(model, generation_trace, writing_costs(model, use_cache=True), overwrite=True):
        trained = [_write(model, prompt, _SEED + index) for index, prompt in enumerate(PROMPTS)]
    console.say(f"    after:  {_one_line(PROMPTS[0], trained[0])}")
    trace_training(made, data, training_trace, budget_s=min(10.0, seconds / 3))

    console.say("5/5 writing the pages")
    report, timeline = out / "report.html", out / "timeline.html"
    training_timeline = out / "training-timeline.html"
    breakdowns = (
        training_step(training_trace, made, limits.peak_flops_per_s(made.dtype), training_timeline),
        written_token(generation_trace, limits.peak_flops_per_s("fp32"), timeline),
    )
    samples = tuple(Sample(p, b, a) for p, b, a in zip(PROMPTS, untrained, trained, strict=True))
    metrics = read_metrics(result.out / "metrics.jsonl")
    write_report(report, _report(made, data, result, metrics, samples, limits, breakdowns, command))
    return DemoResult(
        report=report, timeline=timeline, training_timeline=training_timeline,
        traces=(training_trace, generation_trace), model=result.model, corpus=corpus,
        validation_loss=result.validation_loss, interrupted=result.interrupted, samples=samples,
    )  # fmt: skip


def _write(model: "LanguageModel", prompt: str, seed: int) -> str:
    from tickwise.engine.generation import Generation

    written = model.generate(prompt, max_tokens=_SAMPLE_TOKENS, temperature=0.7, top_p=0.95, seed=seed,
                             ignore_eos=True)
    assert isinstance(written, Generation)
    return written.text


def _one_line(prompt: str, text: str) -> str:
    shown = " ".join((prompt + text).split())
    return "".join(c if c.isprintable() else "·" for c in shown)[:160]


def _report(
    made: "Plan", data: "PreparedData", result: "TrainResult", metrics: list["Metric"], samples: tuple["Sample", ...],
    limits: "Ceilings", breakdowns: tuple["Breakdown", ...], command: str,
) -> "ReportData":
    import platform

    from tickwise import __version__
    from tickwise.report.data import ReportData

    losses = [m.validation_loss for m in metrics if m.validation_loss is not None]
    fell = f"the validation loss fell from {losses[0]:.2f} (first measured) to {losses[-1]:.2f} nats per token" \
        if len(losses) > 1 else f"the training took {result.step:,} steps"
    notes = ["FLOPs count matrix products and attention, two per multiply-add; elementwise work counts 0.",
             "Share of peak is against the best rate that this machine was measured to sustain.",
             "Bound says what holds a stage back: compute and memory are this machine's ceilings, and overhead is what "
             "comes near neither."]
    if limits.disturbed:
        notes.append("Other programs used the processor while the ceilings were measured: they may be too low, so "
                     "shares of them are n/a. Run tickwise doctor --refresh when the machine is idle.")
    return ReportData(
        title=f"A decoder of {format_count(result.n_parameters)} parameters, trained on Python's own documentation",
        summary=f"In {format_seconds(result.seconds)} on {limits.cores} cores {fell}.",
        figures=_headline(made, result, metrics), metrics=tuple(metrics), samples=samples,
        machine=f"{limits.device_name}, {limits.cores} cores, {format_bytes(limits.memory_bytes)} of memory. "
                f"The best rates that it sustained over tens of milliseconds, measured {limits.date[:10]}.",
        ceilings=_ceilings(limits), breakdowns=breakdowns, command=command,
        versions={"tickwise": __version__, "python": platform.python_version(), "torch": limits.torch_version},
        notes=tuple(notes),
    )  # fmt: skip


def _headline(made: "Plan", result: "TrainResult", metrics: list["Metric"]) -> tuple["Figure", ...]:
    from tickwise.report.data import Figure

    rates = [m.tokens_per_s for m in metrics if m.tokens_per_s is not None]
    loss = result.validation_loss
    return (
        Figure("parameters", format_count(result.n_parameters), "counted", f"{result.n_parameters:,}"),
        Figure("training time", format_seconds(result.seconds), "measured", f"{result.step:,} steps"),
        Figure("tokens read", format_count(result.tokens), "counted", f"{made.dtype} on {made.device}"),
        Figure("validation loss", None if loss is None else f"{loss:.3f}", "measured", "nats per token"),
        Figure("tokens/s", format_count(statistics.median(rates)) if rates else None, "measured", "median"),
    )


def _ceilings(limits: "Ceilings") -> tuple["Figure", ...]:
    from tickwise.report.data import Figure

    def figure(name: str, rate: float) -> Figure:
        unit = "OP/s" if name.startswith("int") else "FLOP/s"
        return Figure(f"{name} products", f"{rate / 1e9:,.0f} G{unit}", "measured")

    return (
        *(figure(name, rate) for name, rate in limits.flops_per_s.items()),
        Figure("memory read", f"{format_bytes(limits.read_bandwidth_bytes_per_s)}/s", "measured"),
    )
