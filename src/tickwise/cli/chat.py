"""Talk with a model that was fine-tuned on conversations (tickwise adapt MODEL --task chat).

At a terminal: type, and read. /reset forgets the conversation, /save FILE writes it down, /exit or Ctrl-D ends it.
Lines of standard input are turns too.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import say
from tickwise.core.device import DType
from tickwise.core.errors import UserError
from tickwise.core.signals import TerminatedError, termination_interrupts

if TYPE_CHECKING:
    from tickwise.engine.chat import Conversation

_COMMANDS = "/reset, /save FILE, /exit"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    model: tyro.conf.Positional[Path]
    """Model directory, or run directory (its best or newest model)."""
    system: str | None = None
    """Instruction that stays before all turns."""
    max_tokens: int = 256
    """Most tokens of an answer."""
    temperature: float = 0.7
    """Divides the logits. 0 always takes the most likely token."""
    top_p: float = 0.9
    """Keep the smallest set of most likely tokens with at least this probability (Holtzman et al. 2020)."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Above 1, makes tokens of the conversation less likely (Keskar et al. 2019)."""
    stop: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """String that ends an answer and is not part of it; may be given several times."""
    seed: int | None = None
    """Same seed and same turns, same answers."""
    save: Path | None = None
    """Write the conversation to this file at the end, in the format that adapt --task chat reads."""
    trace: Path | None = None
    """Folder for a trace: every tick's stages with time, FLOPs and bytes (tickwise trace show)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
    dtype: DType = "fp32"
    """Number format of weights and cache."""


def run(arguments: Arguments) -> int:
    from tickwise.core.paths import check_file_output
    from tickwise.engine.chat import Conversation
    from tickwise.engine.language_model import load
    from tickwise.engine.settings import GenerationSettings
    from tickwise.engine.tracing import traced, writing_costs
    from tickwise.profiling.trace_store import check_trace_output

    settings = GenerationSettings(**{name: getattr(arguments, name) for name in (
        "max_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "stop", "seed")})
    if arguments.save is not None:
        check_file_output(arguments.save)
    if arguments.trace is not None:
        check_trace_output(arguments.trace)
    model = load(arguments.model, arguments.device, arguments.dtype)
    with termination_interrupts(), traced(model, arguments.trace, writing_costs(model, use_cache=True)):
        talk = Conversation(model, settings, arguments.system)
        try:
            _talk(talk, arguments)
        except (UserError, KeyboardInterrupt):
            if arguments.save is not None and talk.messages:
                _save(talk, arguments.save)
            raise
    if arguments.save is not None:
        _save(talk, arguments.save)
    if arguments.json:
        print(json.dumps({"messages": talk.messages}, ensure_ascii=False))
    return 0


def _talk(talk: "Conversation", arguments: Arguments) -> None:
    """Turn by turn, until somebody or standard input ends it."""
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        say(f"talk; {_COMMANDS} (or Ctrl-D)")
    while True:
        if at_terminal:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line or (at_terminal and line.strip() in ("/exit", "/quit")):
            break
        if not line.strip():
            continue
        try:
            _take(talk, line.rstrip("\r\n"), show=not arguments.json, commands=at_terminal)
        except UserError as problem:
            if not at_terminal:
                raise
            print(f"tickwise: {problem}", file=sys.stderr)
        except KeyboardInterrupt as stop:
            if not at_terminal or isinstance(stop, TerminatedError):
                raise
            print(file=sys.stderr)


def _take(talk: "Conversation", line: str, *, show: bool, commands: bool) -> None:
    """A command, where somebody types, or a turn to answer: the answer streams to stdout. A text that is piped in must
    not write files."""
    word, _, rest = line.strip().partition(" ") if commands else ("", "", "")
    if word == "/reset" and not rest.strip():
        talk.reset()
        say("forgotten; the conversation begins anew")
    elif word == "/save":
        if not rest.strip():
            say("say where to: /save FILE")
        else:
            path = Path(rest.strip())
            if path.exists():
                say(f"{path} is there already; give another file")
            else:
                _save(talk, path)
    elif word.startswith("/") and word[1:].isalpha():
        say(f"no command {word}; there are {_COMMANDS}")
    else:
        for piece in talk.reply(line):
            if show:
                print(piece, end="", flush=True)
        if show:
            print(flush=True)
        if talk.cut is not None:
            say(talk.cut)


def _save(talk: "Conversation", path: Path) -> None:
    """The conversation as a row that can be learned from."""
    from tickwise.core.paths import write_text_atomic

    write_text_atomic(path, json.dumps({"messages": talk.messages}, ensure_ascii=False) + "\n")
    say(f"saved {len(talk.messages)} messages in {path}")
