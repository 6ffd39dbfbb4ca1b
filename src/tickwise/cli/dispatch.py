"""From a command line to a verb's ``run``: YAML, flags, and errors as one line with an exit code."""

import contextlib
import dataclasses
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tickwise.cli import VERBS, overview
from tickwise.core import console
from tickwise.core.config import closest, from_dict, read_yaml
from tickwise.core.errors import ConfigError, UserError

INTERRUPTED = 130


def find_verb(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The verb (one or two words) at the front of ``arguments``, and what follows it."""
    two = " ".join(arguments[:2])
    if two in VERBS:
        return two, list(arguments[2:])
    if arguments[0] in VERBS:
        return arguments[0], list(arguments[1:])
    children = [verb for verb in VERBS if verb.startswith(arguments[0] + " ")]
    if children:
        given = arguments[1] if len(arguments) > 1 else ""
        if given in ("-h", "--help"):
            return arguments[0], ["--help"]
        options = ", ".join(verb.split(" ", 1)[1] for verb in children)
        raise ConfigError(f"tickwise {arguments[0]}: say which: {options}" + (f" (not '{given}')" if given else ""))
    raise ConfigError(f"tickwise: no verb '{arguments[0]}'{closest(arguments[0], VERBS)}; see tickwise --help")


def _config_path(arguments: Sequence[str]) -> Path | None:
    for index, word in enumerate(arguments):
        if word == "--config":
            if index + 1 == len(arguments):
                raise ConfigError("--config: give the YAML file after it")
            return Path(arguments[index + 1])
        if word.startswith("--config="):
            return Path(word.split("=", 1)[1])
    return None


def parse(verb: str, words: Sequence[str]) -> Any:
    """The verb's frozen ``Arguments`` from its defaults, the YAML file and the flags, in rising priority."""
    import tyro

    module = importlib.import_module(f"tickwise.cli.{VERBS[verb][0]}")
    arguments_type = module.Arguments
    path = _config_path(words)
    default: Any = None
    if path is not None:
        settings = read_yaml(path)
        required = {
            f.name: tyro.MISSING
            for f in dataclasses.fields(arguments_type)
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        default = from_dict(arguments_type, settings, where=str(path), default=arguments_type(**required))
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(arguments_type, prog=f"tickwise {verb}", description=module.__doc__, default=default,
                            args=list(words))
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError(_one_line(verb, words, complaint.getvalue())) from None


def _one_line(verb: str, words: Sequence[str], boxed: str) -> str:
    """The flag parser's complaint, which it draws as a box of several lines, as one."""
    from tickwise.cli.completion import verb_flags

    known = {name for flag in verb_flags(verb) for name in flag.names}
    for word in words:
        flag = word.split("=", 1)[0].replace("_", "-")
        if flag.startswith("--") and flag not in known:
            return f"tickwise {verb}: no flag {flag}{closest(flag, known)}; see tickwise {verb} --help"
    kept: list[str] = []
    for line in boxed.splitlines()[1:]:
        text = line.strip("│╰╯─ ").strip()
        if not text and kept:
            break
        kept.append(text)
    message = " ".join(kept).removeprefix("Error parsing Arguments: ").removeprefix("Error parsing ")
    return f"tickwise {verb}: {message}; see tickwise {verb} --help"


def _completion(words: Sequence[str]) -> int:
    shell = words[0] if words else ""
    if shell not in ("bash", "zsh", "tcsh"):
        raise ConfigError(f"tickwise completion: no shell '{shell}'; use bash, zsh or tcsh")
    from tickwise.cli.completion import script

    print(script(shell))
    return 0


def dispatch(arguments: Sequence[str]) -> int:
    """Run the verb; a user's mistake is one line on stderr and exit code 2."""
    try:
        if arguments[0] == "completion":
            return _completion(arguments[1:])
        verb, words = find_verb(arguments)
        if verb not in VERBS:
            children = {name: line for name, (_, line) in VERBS.items() if name.startswith(verb + " ")}
            lines = [f"  tickwise {name:<14} {line}" for name, line in children.items()]
            print("\n".join([f"usage: tickwise {verb} VERB [flags]", "", *lines]))
            return 0
        parsed = parse(verb, words)
        if getattr(parsed, "quiet", False):
            console.set_verbosity(console.QUIET)
        elif getattr(parsed, "verbose", False):
            console.set_verbosity(console.VERBOSE)
        result = importlib.import_module(f"tickwise.cli.{VERBS[verb][0]}").run(parsed)
        sys.stdout.flush()
        return int(result or 0)
    except UserError as error:
        print(f"tickwise: {' '.join(str(error).removeprefix('tickwise ').split())}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as problem:
        from tickwise.core.memory import is_out_of_memory

        if not is_out_of_memory(problem):
            raise
        print("tickwise: out of memory: ask for less at once (--batch-size, --context, --n, --max-tokens) or use a "
              "smaller model", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("tickwise: interrupted", file=sys.stderr)
        return INTERRUPTED


__all__ = ["dispatch", "find_verb", "overview", "parse"]
