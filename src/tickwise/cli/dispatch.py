"""From a command line to a verb's ``run``: YAML, flags, and errors as one line with an exit code."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tickwise.cli import VERBS, load_verb, overview, verb_lines
from tickwise.core import console
from tickwise.core.config import closest, from_dict, read_yaml
from tickwise.core.errors import ConfigError, RankError, UserError
from tickwise.core.signals import INTERRUPTED, TERMINATED, TerminatedError


def find_verb(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The verb (one or two words) at the front of ``arguments``, and what follows it."""
    two = " ".join(arguments[:2])
    if two in VERBS:
        return two, list(arguments[2:])
    if arguments[0] in VERBS:
        _check_second_word(arguments)
        return arguments[0], list(arguments[1:])
    children = [verb for verb in VERBS if verb.startswith(arguments[0] + " ")]
    if children:
        given = arguments[1] if len(arguments) > 1 else ""
        if given in ("-h", "--help"):
            return arguments[0], ["--help"]
        options = ", ".join(verb.split(" ", 1)[1] for verb in children)
        raise ConfigError(f"tickwise {arguments[0]}: say which: {options}" + (f" (not '{given}')" if given else ""))
    if arguments[0].startswith("-"):
        raise ConfigError(f"{arguments[0]}: a verb comes first, then its flags; see tickwise --help")
    raise ConfigError(f"no verb '{arguments[0]}'{closest(arguments[0], VERBS)}; see tickwise --help")


def _check_second_word(arguments: Sequence[str]) -> None:
    """``ConfigError`` where what follows a verb is almost another word of it, as in ``trace sho``, and no file."""
    word = arguments[1] if len(arguments) > 1 else ""
    near = difflib.get_close_matches(" ".join(arguments[:2]), [v for v in VERBS if v.startswith(arguments[0] + " ")],
                                     n=1, cutoff=0.8)
    if near and not word.startswith("-") and "." not in word and not os.path.exists(word):
        raise ConfigError(f"no verb '{arguments[0]} {word}'; did you mean '{near[0]}'?")


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

    arguments_type: Any
    arguments_type, _ = load_verb(verb)
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
            return tyro.cli(arguments_type, prog=f"tickwise {verb}", description=_description(arguments_type),
                            default=default, args=list(words))
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ConfigError(_one_line(verb, words, complaint.getvalue())) from None


def _description(arguments_type: type) -> str | None:
    """What a verb does: its module says so, or one of several classes of arguments in a module."""
    if arguments_type.__name__ != "Arguments":
        return arguments_type.__doc__
    return sys.modules[arguments_type.__module__].__doc__


def _one_line(verb: str, words: Sequence[str], boxed: str) -> str:
    """The flag parser's complaint, which it draws as a box of several lines, as one."""
    from tickwise.cli.completion import verb_flags

    known = {name for flag in verb_flags(verb) for name in flag.names}
    for word in words:
        flag = word.split("=", 1)[0].replace("_", "-")
        if flag.startswith("--") and flag not in known:
            return f"tickwise {verb}: no flag {flag}{_near_flag(flag, known)}; see tickwise {verb} --help"
    kept: list[str] = []
    for line in boxed.splitlines()[1:]:
        text = line.strip("│╰╯ ")
        if text.strip("─-"):  # where the terminal has no box drawing, rules are of hyphens
            kept.append(text)
        elif kept:
            break
    message = " ".join(kept).removeprefix("Error parsing Arguments: ").removeprefix("Error parsing ").rstrip(".")
    for pattern, plain in _PLAIN_WORDS:
        message = re.sub(pattern, plain, message)
    return f"tickwise {verb}: {message}; see tickwise {verb} --help"


_PLAIN_WORDS = (  # for what the flag parser says
    (r"invalid literal for int\(\) with base 10: (.*)", r"expected a whole number, got \1"),
    (r"could not convert string to float: (.*)", r"expected a number, got \1"),
    (r"no type matching (?:{None}\|)?INT could be instantiated from \[(.*)\]", r"expected a whole number, got \1"),
    (r"no type matching (?:{None}\|)?FLOAT could be instantiated from \[(.*)\]", r"expected a number, got \1"),
    (r"Missing value for argument '(.*)'\. Expected 1 values", r"\1: give a value after it"),
)


def _near_flag(flag: str, known: Iterable[str]) -> str:
    """A suggestion for a flag that is not known: one that begins or ends with it, or that is spelt almost like it."""
    word = flag.removeprefix("--")
    names = [name.removeprefix("--") for name in known if name.startswith("--")]
    longer = [name for name in names if name.rsplit(".", 1)[-1] == word or (len(word) > 2 and name.startswith(word))]
    near = longer or difflib.get_close_matches(word, names, n=1, cutoff=0.7)
    return f"; did you mean '--{near[0]}'?" if len(near) == 1 else ""


def _completion(words: Sequence[str]) -> int:
    from tickwise.cli.completion import SHELLS, script

    if words and words[0] in ("-h", "--help"):
        print(f"usage: tickwise completion {'|'.join(SHELLS)}\n\n"
              "Print a script that completes verbs, flags and their choices. Load it with:\n"
              '  eval "$(tickwise completion bash)"')
        return 0
    if not words:
        raise ConfigError(f"tickwise completion: say for which shell: {', '.join(SHELLS)}")
    print(script(words[0]))
    return 0


def dispatch(arguments: Sequence[str]) -> int:
    """Run the verb; a user's mistake is one line on stderr and exit code 2."""
    try:
        if arguments[0] == "completion":
            return _completion(arguments[1:])
        verb, words = find_verb(arguments)
        if verb not in VERBS:
            print("\n".join([f"usage: tickwise {verb} VERB [flags]", "", *verb_lines(verb + " ", "tickwise ")]))
            return 0
        parsed = parse(verb, words)
        if getattr(parsed, "quiet", False) or _is_follower():
            console.set_verbosity(console.QUIET)
        elif getattr(parsed, "verbose", False):
            console.set_verbosity(console.VERBOSE)
        return int(load_verb(verb)[1](parsed) or 0)
    except UserError as error:
        line = f"tickwise: {' '.join(str(error).removeprefix('tickwise ').split())}"
        if "TORCHELASTIC_RUN_ID" in os.environ and not isinstance(error, RankError):
            from tickwise.training.distributed.launch import refuse

            refuse(line)
        else:
            print(line, file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as problem:
        from tickwise.core.memory import is_out_of_memory

        if not is_out_of_memory(problem):
            raise
        print("tickwise: out of memory: ask for less at once (--batch-size, --context, --n, --max-tokens) or use a "
              "smaller model", file=sys.stderr)
        return 2
    except TerminatedError:
        if not _is_follower():
            print("tickwise: terminated", file=sys.stderr)
        return TERMINATED
    except KeyboardInterrupt:
        if not _is_follower():
            print("tickwise: interrupted", file=sys.stderr)
        return INTERRUPTED


def _is_follower() -> bool:
    """Whether this is a rank whose first one speaks for all."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"


__all__ = ["dispatch", "find_verb", "overview", "parse"]
