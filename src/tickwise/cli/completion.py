"""Shell completion: verbs, flags and their choices, read from the verbs' ``Arguments``.

The script is static, so that a press of the Tab key starts no Python.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from tickwise.cli import VERBS, load_verb
from tickwise.core.errors import ConfigError

SHELLS = ("bash", "zsh", "tcsh")


@dataclasses.dataclass(frozen=True)
class Flag:
    """One setting: its spellings, and the words that may follow it (none for free values)."""

    names: tuple[str, ...]
    choices: tuple[str, ...] = ()


def script(shell: str) -> str:
    """The completion script for ``bash``, ``zsh`` or ``tcsh``; ``ConfigError`` for another shell."""
    if shell not in SHELLS:
        raise ConfigError(f"tickwise completion: no shell '{shell}'; use {', '.join(SHELLS)}")
    return {"bash": _bash, "zsh": _zsh, "tcsh": _tcsh}[shell]({verb: verb_flags(verb) for verb in VERBS})


def verb_flags(verb: str) -> tuple[Flag, ...]:
    """Every flag that ``verb`` takes."""
    arguments, _ = load_verb(verb)
    return (*_flags(arguments, ""), Flag(("--help", "-h")))


def _flags(arguments: type, prefix: str) -> Iterator[Flag]:
    hints = typing.get_type_hints(arguments, include_extras=True)
    for field in dataclasses.fields(arguments):
        annotation, extras = hints[field.name], list[Any]()
        if typing.get_origin(annotation) is typing.Annotated:
            annotation, *extras = typing.get_args(annotation)
        if any(str(extra) == "Positional" for extra in extras):
            continue
        given = next((extra.name for extra in extras if getattr(extra, "name", None)), None)
        name = prefix + (given or field.name).replace("_", "-")
        if dataclasses.is_dataclass(annotation):
            assert isinstance(annotation, type)
            yield from _flags(annotation, f"{name}.")
            continue
        aliases = next((extra.aliases for extra in extras if getattr(extra, "aliases", None)), ())
        names: tuple[str, ...] = (f"--{name}", *aliases)
        if annotation is bool:
            head, dot, last = name.rpartition(".")
            names += (f"--{head}{dot}no-{last}",)
        yield Flag(names, tuple(_choices(annotation)))


def _choices(annotation: Any) -> Iterator[str]:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        yield from map(str, typing.get_args(annotation))
    elif origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(annotation) if option is not types.NoneType]
        if options == [bool]:
            yield from ("True", "False")
        elif len(options) == 1:
            yield from _choices(options[0])


def _first_words() -> str:
    return " ".join([*dict.fromkeys(verb.split()[0] for verb in VERBS), "completion", "--help", "--version"])


def _second_words() -> dict[str, str]:
    """What follows a first word that is not a verb by itself."""
    groups: dict[str, list[str]] = {"completion": list(SHELLS)}
    for verb in VERBS:
        first, _, second = verb.partition(" ")
        if second:
            groups.setdefault(first, []).append(second)
    return {first: " ".join(words) for first, words in groups.items()}


def _names(flags: tuple[Flag, ...]) -> str:
    return " ".join(name for flag in flags for name in flag.names if name.startswith("--"))


def _bash(verbs: dict[str, tuple[Flag, ...]]) -> str:
    groups = _second_words()
    lines = [
        "# bash completion for tickwise. Load it with: eval \"$(tickwise completion bash)\"",
        "_tickwise() {",
        '  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"',
        '  local verb="${COMP_WORDS[1]}" words=""',
        "  COMPREPLY=()",
        "  # --flag=value arrives as three words.",
        '  if [[ $current == "=" ]]; then current=""',
        '  elif [[ $previous == "=" ]]; then previous="${COMP_WORDS[COMP_CWORD-2]}"; fi',
        "  if ((COMP_CWORD == 1)); then",
        f'    COMPREPLY=($(compgen -W "{_first_words()}" -- "$current")); return',
        "  fi",
        '  case "$verb" in',
    ]
    for first, seconds in groups.items():
        lines += [
            f"    {first})",
            f'      if ((COMP_CWORD == 2)); then COMPREPLY=($(compgen -W "{seconds}" -- "$current")); return; fi',
            '      verb="$verb ${COMP_WORDS[2]}" ;;',
        ]
    lines += ["  esac", '  case "$verb $previous" in']
    for verb, flags in verbs.items():
        for flag in flags:
            if flag.choices:
                pattern = "|".join(f'"{verb} {name}"' for name in flag.names)
                lines.append(f'    {pattern}) words="{" ".join(flag.choices)}" ;;')
    lines += [
        "  esac",
        '  if [[ -n $words ]]; then COMPREPLY=($(compgen -W "$words" -- "$current")); return; fi',
        "  # Anything but a flag is a file or a folder, which -o default completes.",
        "  [[ $current == -* ]] || return",
        '  case "$verb" in',
    ]
    lines += [f'    "{verb}") words="{_names(flags)}" ;;' for verb, flags in verbs.items()]
    lines += [
        "  esac",
        '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "}",
        "complete -o default -F _tickwise tickwise",
    ]
    return "\n".join(lines)


def _zsh(verbs: dict[str, tuple[Flag, ...]]) -> str:
    lines = [
        "#compdef tickwise",
        "# zsh completion for tickwise. Load it with: eval \"$(tickwise completion zsh)\"",
        "_tickwise() {",
        '  local verb="${words[2]}" previous="${words[CURRENT-1]}" current="${words[CURRENT]}"',
        f"  if (( CURRENT == 2 )); then compadd -- {_first_words()}; return; fi",
        '  case "$verb" in',
    ]
    for first, seconds in _second_words().items():
        lines += [
            f"    {first})",
            f"      if (( CURRENT == 3 )); then compadd -- {seconds}; return; fi",
            '      verb="$verb ${words[3]}" ;;',
        ]
    lines += ["  esac", '  case "$verb $previous" in']
    for verb, flags in verbs.items():
        for flag in flags:
            if flag.choices:
                pattern = "|".join(f'"{verb} {name}"' for name in flag.names)
                lines.append(f"    {pattern}) compadd -- {' '.join(flag.choices)}; return ;;")
    lines += ["  esac", '  if [[ "$current" != -* ]]; then _files; return; fi', '  case "$verb" in']
    lines += [f'    "{verb}") compadd -- {_names(flags)} ;;' for verb, flags in verbs.items()]
    lines += ["  esac", "}", "compdef _tickwise tickwise"]
    return "\n".join(lines)


def _tcsh(verbs: dict[str, tuple[Flag, ...]]) -> str:
    """tcsh completes by pattern and cannot tell verbs apart: every verb offers the flags of all."""
    every = list(dict.fromkeys(name[2:] for flags in verbs.values() for name in _names(flags).split()))
    rules = [f"'n/{flag.names[0]}/({' '.join(flag.choices)})/'"
             for flag in dict.fromkeys(flag for flags in verbs.values() for flag in flags) if flag.choices]
    rules += [f"'n/{first}/({seconds})/'" for first, seconds in _second_words().items()]
    rules += [f"'c/--/({' '.join(every)})/'", f"'p/1/({_first_words()})/'", "'p/*/f/'"]
    return "\n".join([
        "# tcsh completion for tickwise. Load it with: tickwise completion tcsh > ~/.tickwise.csh, then source it",
        "complete tickwise \\",
        " \\\n".join(f"  {rule}" for rule in rules),
    ])
