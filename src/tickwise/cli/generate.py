"""Write text with a model: the prompt's continuation streams to stdout, the figures go to stderr."""

import dataclasses
import io
import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TextIO

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import format_seconds, progress, say
from tickwise.core.device import DType
from tickwise.core.errors import ConfigError, DataError
from tickwise.engine.settings import GenerationSettings

if TYPE_CHECKING:
    from tickwise.engine.generation import Answer, Generation
    from tickwise.engine.language_model import LanguageModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class WritingArguments(CommonArguments, GenerationSettings):
    """Flags of every verb that writes text with a model."""

    model: tyro.conf.Positional[Path]
    """Model directory, or run directory (its best or newest model)."""
    prompt: str | None = None
    """Text to continue, or an encoder–decoder's source; - reads standard input."""
    prompt_file: Path | None = None
    """File with the text to continue; - reads standard input. One newline at its end is dropped."""
    stop: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """String that ends the text and is not part of it; may be given several times."""
    stop_token_ids: Annotated[tuple[int, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="stop-token-id")] = ()
    """Id of a token that ends the text and is not part of it; may be given several times."""
    logit_bias: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()  # type: ignore[assignment]
    """TOKEN=NUMBER: added to the logit of the token with this id or text; -100 rules it out; repeatable."""
    json_schema: str | None = None
    """The text is JSON of this schema: JSON text that begins with {, or a file."""
    choice: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """The text is one of the choices; give the flag once for each."""
    grammar: Path | None = None
    """File with a grammar in Lark's notation, which the text follows."""
    draft: Path | None = None
    """Model directory of a smaller model with the same tokenizer, for --speculate draft."""
    use_cache: Annotated[bool, tyro.conf.arg(name="cache")] = True
    """Keep keys and values of earlier tokens. Without it, every token computes the whole text again."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
    dtype: DType = "fp32"
    """Number format of weights and cache."""

    def __post_init__(self) -> None:
        """Leaves the check to ``run``, whose errors print as one line; the flag parser would box them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(WritingArguments):
    prompts: Path | None = None
    """Many texts to continue together: a file with one per line, or .jsonl with the field prompt; - reads lines from
    standard input. Empty lines are skipped. With --json a line of JSON per prompt as soon as it is done, else the texts
    in order."""
    trace: Path | None = None
    """Folder for a trace: every tick's stages with time, FLOPs and bytes (tickwise trace show)."""


class Prompt(NamedTuple):
    """One of many prompts."""

    source: str
    line: int
    """Where it stands in the source, from 1."""
    text: str


def run(arguments: Arguments) -> int:
    settings = settings_of(arguments)
    prompts = None if arguments.prompts is None else prompts_of(arguments)
    prompt = prompt_of(arguments)
    from tickwise.engine.tracing import traced, writing_costs
    from tickwise.profiling.trace_store import check_trace_output

    if arguments.trace is not None:
        check_trace_output(arguments.trace)
    model = load_model(arguments)
    _say_lost_prefixes(model, [prompt] if prompts is None else [one.text for one in prompts])
    with traced(model, arguments.trace, writing_costs(model, settings.use_cache)):
        if prompts is not None:
            write_batch(model, prompts, settings, as_json=arguments.json)
            return 0
        if not arguments.json:
            write(model, prompt, settings)
            return 0
        samples = model.generate(prompt, **dataclasses.asdict(settings))
    shown = {"samples": [_as_json(s) for s in samples]} if isinstance(samples, list) else _as_json(samples)
    print(json.dumps(shown, ensure_ascii=False))
    return 0


def _say_lost_prefixes(model: "LanguageModel", prompts: Sequence[str]) -> None:
    """Say how many prompts do not name a task to a model that was trained on several."""
    from tickwise.models.encoder_decoder import EncoderDecoder

    if isinstance(model.module, EncoderDecoder):
        from tickwise.tasks.multitask import own_prefixes, prefixes_of

        prefixes = prefixes_of(model.tokenizer)
        lost = sum(not own_prefixes(text, prefixes) for text in prompts) if prefixes else 0
        if lost:
            say(f"{lost:,} of {len(prompts):,} prompts begin with none of the prefixes that the model was trained with "
                f"({', '.join(map(repr, prefixes))}): what it writes then means nothing")


def load_model(arguments: WritingArguments) -> "LanguageModel":
    """The model, with its draft model if there is one."""
    from tickwise.engine.language_model import load

    model = load(arguments.model, arguments.device, arguments.dtype)
    if arguments.draft is not None:
        model.draft = load(arguments.draft, arguments.device, arguments.dtype)
    return model


def write(model: "LanguageModel", prompt: str, settings: GenerationSettings) -> None:
    """Print the text for people, and the figures."""
    if settings.n > 1:
        samples = model.generate(prompt, **dataclasses.asdict(settings))
        assert isinstance(samples, list)
        for sample in samples:
            print(f"--- sample {sample.sample + 1} of {settings.n} ---\n{sample.text}")
    else:
        samples = [_stream(model, prompt, settings)]
    greedy = settings.temperature == 0 and settings.beam_width == 1  # then one sample stands for all
    _say_figures(samples[:1] if greedy else samples)


def settings_of(arguments: WritingArguments) -> GenerationSettings:
    """The settings that the flags say; ``ConfigError`` for wrong ones."""
    if arguments.speculate == "draft" and arguments.draft is None:
        raise ConfigError("--speculate draft: name the smaller model with --draft")
    values: dict[str, Any] = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(GenerationSettings)}
    values["logit_bias"] = [_token_and_bias(text) for text in arguments.logit_bias]
    schema = arguments.json_schema
    if schema is not None and not schema.lstrip().startswith("{"):
        values["json_schema"] = Path(schema)
    return GenerationSettings(**values)


def _token_and_bias(text: str) -> tuple[int | str, float]:
    token, equals, number = text.rpartition("=")
    try:
        bias = float(number)
    except ValueError:
        equals = ""
    if not equals or not token:
        raise ConfigError(f"--logit-bias {text}: give TOKEN=NUMBER, such as 17=-100 or ' the'=2.5")
    return int(token) if token.isascii() and token.isdigit() else token, bias


def prompt_of(arguments: WritingArguments) -> str:
    """The prompt from the flag, the file or standard input."""
    if arguments.prompt is not None and arguments.prompt_file is not None:
        raise ConfigError("--prompt and --prompt-file: give only one of them")
    if arguments.prompt_file is None and arguments.prompt != "-":
        prompt = arguments.prompt or ""
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise ConfigError("--prompt: not UTF-8; put the text into a file and use --prompt-file")
        return prompt
    text, _ = _read_text(arguments.prompt_file or Path("-"), "the prompt")
    # Editors and echo end a text with a newline that its author did not mean as part of the prompt.
    return text.removesuffix("\n").removesuffix("\r")


def _read_text(path: Path, what: str) -> tuple[str, str]:
    """The text of a file, or of standard input for ``-``, and what to call it."""
    source = "standard input" if str(path) == "-" else str(path)
    try:
        return (sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()).decode("utf-8"), source
    except OSError as problem:
        raise DataError(f"{source}: cannot read {what}: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise DataError(f"{source}: {what} cannot be read: not UTF-8 at byte {problem.start}; convert it") from None


def prompts_of(arguments: Arguments) -> list[Prompt]:
    """The prompts of the file or standard input; ``DataError`` in one line that says where it is wrong."""
    assert arguments.prompts is not None
    if arguments.prompt is not None or arguments.prompt_file is not None:
        raise ConfigError("--prompts and --prompt or --prompt-file: give only one of them")
    text, source = _read_text(arguments.prompts, "the prompts")
    prompts = []
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        prompt: Any = line.removesuffix("\r")
        if arguments.prompts.suffix == ".jsonl":
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                raise DataError(f"{source}, line {number}: not JSON") from None
            prompt = value.get("prompt") if isinstance(value, dict) else None
            if not isinstance(prompt, str):
                raise DataError(f"{source}, line {number}: give an object with the text of the prompt under \"prompt\"")
        prompts.append(Prompt(source, number, prompt))
    if not prompts:
        raise DataError(f"{source}: no prompt in it; give one per line")
    if n_empty := len(lines) - len(prompts):
        say(f"{source}: {n_empty} empty {'line' if n_empty == 1 else 'lines'} skipped")
    return prompts


def write_batch(model: "LanguageModel", prompts: list[Prompt], settings: GenerationSettings, *, as_json: bool) -> None:
    """Print every prompt's text: as JSON lines in the order in which they end, else in the order of the prompts.

    ``DataError`` at the end when there were prompts that could not be continued; what is wrong with each is said.
    """
    out = sys.stdout  # a live bar on a terminal takes the name over
    done: dict[int, Answer] = {}
    printed = failed = tokens = 0
    started = time.perf_counter()
    bar = nullcontext() if out.isatty() else progress("writing", len(prompts), "prompts")
    with bar as moving:
        for answer in model.generate_batch([prompt.text for prompt in prompts], **dataclasses.asdict(settings)):
            failed += answer.error is not None
            tokens += sum(len(sample.token_ids) for sample in answer.samples)
            if moving is not None:
                moving.advance(1)
            if as_json:
                shown = _answer_as_json(answer, prompts[answer.index])
                print(json.dumps(shown, ensure_ascii=False), file=out, flush=True)
                continue
            done[answer.index] = answer
            while printed in done:
                _print_answer(done.pop(printed), prompts[printed], out)
                printed += 1
    seconds = time.perf_counter() - started
    say(f"{len(prompts)} prompts, {tokens} tokens in {seconds:.2f}s ({tokens / seconds:.0f} tokens/s)")
    if failed:
        raise DataError(f"{failed} of {len(prompts)} prompts could not be continued; see the lines with their numbers")


def _answer_as_json(answer: "Answer", prompt: Prompt) -> dict[str, Any]:
    place = {"index": answer.index, "line": prompt.line}
    if answer.error is not None:
        return {**place, "error": str(answer.error)}
    samples = [_as_json(sample) for sample in answer.samples]
    return {**place, **(samples[0] if len(samples) == 1 else {"samples": samples})}


def _print_answer(answer: "Answer", prompt: Prompt, out: TextIO) -> None:
    if answer.error is not None:
        print(f"{prompt.source}, line {prompt.line}: {answer.error}", file=sys.stderr)
    for sample in answer.samples:
        of = f", sample {sample.sample + 1} of {len(answer.samples)}" if len(answer.samples) > 1 else ""
        start = prompt.text if len(prompt.text) <= 60 else prompt.text[:57] + "..."
        print(f"--- line {prompt.line}{of}: {start!r} ---\n{sample.text}", file=out, flush=True)


def _stream(model: "LanguageModel", prompt: str, settings: GenerationSettings) -> "Generation":
    """Print the text while it is written. What there is to say meanwhile follows on lines of its own."""
    from tickwise.engine.generation import TextPiece, past_context_of

    events = model.events(prompt, settings)
    event = next(events)
    longest = model.module.config.context_length
    if settings.max_tokens > longest and past_context_of(model.module, settings) == "slide":
        say(f"up to {settings.max_tokens:,} tokens, in a context of {longest:,}: a text that fills it slides on "
            "through it (from its last half)")
    last, notes = "", io.StringIO()
    try:
        with redirect_stderr(notes):
            while isinstance(event, TextPiece):
                last = event.text or last
                sys.stdout.write(event.text)
                sys.stdout.flush()
                event = next(events)
    finally:
        if not last.endswith("\n"):
            print(flush=True)
        sys.stderr.write(notes.getvalue())
    return event


def _as_json(generation: "Generation") -> dict[str, Any]:
    shown = dataclasses.asdict(generation)
    del shown["choices"]
    if generation.speculation is None:
        del shown["speculation"]
    if generation.choices:
        shown["logprobs"] = [
            {"token_id": token_id, "logprob": logprob,
             "top": [{"token_id": other, "logprob": value} for other, value in top]}
            for token_id, logprob, top in generation.choices
        ]
    return shown


def _say_figures(samples: list["Generation"]) -> None:
    first = samples[0]
    tokens = sum(len(s.token_ids) for s in samples)
    decode_s = max(s.timings.decode_s for s in samples)
    later = tokens - len(samples)
    rate = "n/a tokens/s"
    if decode_s > 0:
        after = "the first" if len(samples) == 1 else "each sample's first"
        rate = f"{later} after {after}: {later / decode_s:.0f} tokens/s"
    reasons = ", ".join(sorted({s.finish_reason for s in samples}))
    prefill_s = first.timings.prefill_s
    prefill = "n/a" if prefill_s is None else f"{1000 * prefill_s:.0f} ms"
    kept = "" if first.prompt_tokens_kept == first.prompt_tokens else f"{first.prompt_tokens_kept} of "
    say(
        f"{kept}{first.prompt_tokens} prompt tokens in {prefill}, {tokens} tokens in "
        f"{format_seconds(decode_s) if decode_s >= 10 else f'{decode_s:.2f}s'} ({rate}), ended by {reasons}, "
        f"seed {first.seed}{_guesses_in_words(samples)}"
    )


def _guesses_in_words(samples: list["Generation"]) -> str:
    """What became of the guesses, to stand at the end of a line; empty where none were asked for."""
    figures = [sample.speculation for sample in samples if sample.speculation is not None]
    if not figures:
        return ""
    guessed, accepted = sum(f.guessed_tokens for f in figures), sum(f.accepted_tokens for f in figures)
    words = f", {accepted} of {guessed} guessed tokens accepted"
    turned_off = [f.ticks for f in figures if f.turned_off]
    if not turned_off:
        return words
    where = "" if len(figures) == 1 else f" for {len(turned_off)} of {len(figures)} samples"
    ticks = " and ".join(str(n) for n in sorted({min(turned_off), max(turned_off)}))
    after = f"after {ticks} ticks" if len(set(turned_off)) == 1 else f"after between {ticks} ticks"
    return f"{words}; guessing turned off{where} {after}: verifying cost more than it saved"
