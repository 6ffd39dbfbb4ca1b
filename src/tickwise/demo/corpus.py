"""The text that every Python installation carries: the language reference and the standard library's docstrings."""

import ast
import hashlib
import importlib
import inspect
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from tickwise.core.errors import DataError, OutputError
from tickwise.core.paths import write_text_atomic

# Tests are not documentation, and what pip installed differs from one machine to the next.
_SKIPPED_FOLDERS = {"test", "tests", "idlelib", "site-packages", "dist-packages", "__pycache__", "lib2to3",
                    "pydoc_data", "ensurepip", "turtledemo", "idle_test", "encodings"}  # fmt: skip
_SHORTEST_DOCSTRING = 80
_LONGEST_SOURCE_BYTES = 1_000_000
_SEPARATOR = "\n\n\n"


def reference_topics() -> Iterator[tuple[str, str]]:
    """(name, text) of the language reference's topics; nothing where the distribution left them out."""
    try:
        module = importlib.import_module("pydoc_data.topics")
    except ImportError:
        return
    for name in sorted(module.topics):
        yield f"topic {name}", module.topics[name].strip()


def _documented(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(heading, docstring) of a module's public classes and functions, as ``help()`` would show them."""
    stack: list[tuple[str, ast.stmt]] = [("", node) for node in reversed(tree.body)]
    while stack:
        prefix, node = stack.pop()
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_"):
            continue
        name = f"{prefix}{node.name}"
        text = ast.get_docstring(node)
        if isinstance(node, ast.ClassDef):
            heading = f"class {name}"
            stack.extend((f"{name}.", child) for child in reversed(node.body))
        else:
            heading = f"{name}({ast.unparse(node.args)})"
        if text and len(text) >= _SHORTEST_DOCSTRING:
            yield heading, text


def _module_text(path: Path, name: str) -> str | None:
    """A module's docstrings as one text, ``None`` when it has none. The module is parsed, never imported."""
    try:
        if path.stat().st_size > _LONGEST_SOURCE_BYTES:
            return None
        source = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (OSError, ValueError, SyntaxError, RecursionError):
        return None
    parts = []
    text = ast.get_docstring(tree)
    if text:
        parts.append(f"{name}\n{'=' * len(name)}\n\n{text}")
    for heading, text in _documented(tree):
        body = "\n".join(f"    {line}".rstrip() for line in text.splitlines())
        parts.append(f"{heading}\n{body}")
    return "\n\n".join(parts) if parts else None


def standard_library_docstrings(folder: Path | None = None) -> Iterator[tuple[str, str]]:
    """(name, text) per module below ``folder`` (the standard library), in alphabetical order."""
    root = folder if folder is not None else Path(sysconfig.get_paths()["stdlib"])
    modules = []
    for where, folders, files in os.walk(root):
        # Pruned here, because what pip installed can be a hundred times the standard library.
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS and not name.startswith("config-")]
        modules += [Path(where, name) for name in files if name.endswith(".py")]
    for path in sorted(modules):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1].startswith(("_", "test")) and parts[-1] != "__init__":
            continue
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = _module_text(path, name)
        if text is not None:
            yield f"module {name}", text


def clean(text: str) -> str:
    """No trailing blanks, tabs or runs of blank lines, and no character that is not meant to be read."""
    lines = [line.rstrip() for line in inspect.cleandoc(text.expandtabs(4)).splitlines()]
    kept = "".join(c for c in "\n".join(lines) if c == "\n" or c.isprintable())
    while "\n\n\n" in kept:
        kept = kept.replace("\n\n\n", "\n\n")
    return kept.strip()


def gather(limit_bytes: int, folder: Path | None = None) -> str:
    """At most ``limit_bytes`` of clean text, the same on every machine with the same Python.

    Documents stand in an order that is fixed but mixed, so that every part of the text is of one kind, and a
    document that stands there twice counts once. ``DataError`` when there is no text at all.
    """
    documents: dict[str, str] = {}
    for name, text in (*reference_topics(), *standard_library_docstrings(folder)):
        cleaned = clean(text)
        if cleaned:
            documents.setdefault(cleaned, name)
    ordered = sorted(documents, key=lambda text: hashlib.sha256(documents[text].encode()).digest())
    kept: list[str] = []
    size = 0
    for text in ordered:
        size += len(text.encode()) + len(_SEPARATOR)
        if size > limit_bytes:
            break
        kept.append(text)
    if not kept:
        raise DataError(f"{folder or 'this Python'}: has no documentation to learn from; "
                        "train on a text of your own with tickwise train FILE")
    return _SEPARATOR.join(kept) + "\n"


def write_corpus(path: Path, limit_bytes: int, *, replace: bool = True) -> int:
    """Write the text to ``path``; returns its size in bytes.

    Without ``replace``, ``OutputError`` when another text is there.
    """
    text = gather(limit_bytes)
    if not replace and path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):
        raise OutputError(f"{path}: is there already and not from a demo; choose another --out")
    write_text_atomic(path, text)
    return len(text.encode())
