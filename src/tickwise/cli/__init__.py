"""The command line: parse, call, print. Each verb is one module with ``Arguments`` and ``run(arguments)``;
"module:Class" names another class of arguments than ``Arguments``.

``--help`` is answered from the table below without importing any verb.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from tickwise.cli.run import TASKS

VERBS: dict[str, tuple[str, str]] = {
    "doctor": ("doctor", "what this machine has, its measured ceilings, what will be used and why"),
    "data prepare": ("data_prepare", "clean, split, tokenize and pack text for training"),
    "data check": ("data_check", "counts, samples as the model sees them, duplicates found"),
    "data ls": ("data_ls", "named public data sets and where to find them"),
    "train": ("train", "train a model from text or prepared data"),
    "train recurrent": ("train_recurrent", "train a recurrent language model: RNN, LSTM or GRU"),
    "train encoder": ("train_encoder", "pre-train an encoder (BERT-style) on text: masked words or replaced tokens"),
    "train text-to-text": ("train_text_to_text", "pre-train an encoder–decoder on text: hidden spans (T5)"),
    "adapt": ("adapt", "fine-tune an encoder (classes, answers in passages, vectors) or a decoder (chat)"),
    "train ngram": ("train_ngram", "count a modified Kneser–Ney n-gram model"),
    "train factorised": ("train_factorised", "a language model from factors of co-occurrence matrices"),
    "train vae": ("train_vae", "train a text VAE from sentences"),
    "train gan": ("train_gan", "train a generator of sentences against a discriminator (SeqGAN)"),
    "train latent-gan": ("train_latent_gan", "train a GAN in the latent space of a text VAE"),
    "generate": ("generate", "write text with a model"),
    "chat": ("chat", "talk with a model that was fine-tuned on conversations"),
    **{f"run {task}": entry for task, entry in TASKS.items()},
    "vectors train": ("vectors_train", "word vectors from text: skip-gram, GloVe, or the SVD of PPMI"),
    "vectors neighbours": ("vectors_neighbours", "the words nearest to a word"),
    "vectors analogy": ("vectors_analogy", "a is to b as c is to what"),
    "vectors export": ("vectors_export", "word vectors in the text format of word2vec"),
    "vectors import": ("vectors_import", "word vectors from the text format of word2vec or GloVe"),
    "disasm": ("disasm", "the program listing of one tick: operations, shapes, FLOPs, bytes"),
    "attention": ("attention", "what every head of a model looks at on a text, as a page or a picture"),
    "trace": ("trace", "write text and record what every tick cost, stage by stage"),
    "trace show": ("trace_show", "a trace as tables: stages, what bounds them, what would make them faster"),
    "trace sql": ("trace_sql", "ask a trace in SQL"),
    "trace diff": ("trace_diff", "what changed between two traces, and which stage pays"),
    "trace export": ("trace_export", "a trace for Perfetto, as CSV, or as one HTML page"),
    "estimate": ("estimate", "memory, time, energy and cost before anything runs, here or elsewhere"),
    "scale sweep": ("scale_sweep", "train a grid of models and budgets; one table of their losses"),
    "scale fit": ("scale_fit", "scaling laws of training runs: coefficients, intervals, pictures"),
    "scale plan": ("scale_plan", "the best model for a budget by a fitted law, and the command to train it"),
    "scale history": ("scale_history", "growth and doubling times of training and of chips; forecasts"),
    "evaluate": ("evaluate", "loss, perplexity and bits per byte with confidence intervals"),
    "compare": ("compare", "the same jobs by a language model and by a classical program"),
    "demo": ("demo", "train, generate and report in about two minutes, offline"),
}


def verb_lines(prefix: str = "", before: str = "") -> list[str]:
    """A line for each verb that begins with ``prefix``, in columns; ``before`` stands before the verb."""
    shown = {verb: line for verb, (_, line) in VERBS.items() if verb.startswith(prefix)}
    width = max(map(len, shown))
    return [f"  {before}{verb:<{width}}  {line}" for verb, line in shown.items()]


def overview() -> str:
    """The text of ``tickwise --help``."""
    lines = [
        "usage: tickwise VERB [MODEL] [flags]",
        "",
        "Train and run language models, and know what every token costs.",
        "",
        "verbs:",
        *verb_lines(),
        "",
        "  tickwise VERB --help      the flags of one verb",
        "  tickwise --version        the version",
        "  tickwise completion bash  a completion script for bash, zsh or tcsh",
        "",
        "common flags: --config FILE.yaml (flags win), --json (JSON alone on stdout), -q, -v",
        "exit codes: 0 done, 1 a fault of tickwise, 2 a user's mistake (one line says which), 130 interrupted,",
        "            143 terminated (130 where a training or a task that learns saved and stopped on SIGTERM)",
    ]
    return "\n".join(lines)


def load_verb(verb: str) -> tuple[type, Callable[[Any], int]]:
    """The class of the verb's arguments, and what runs it."""
    module_name, _, class_name = VERBS[verb][0].partition(":")
    module = importlib.import_module(f"tickwise.cli.{module_name}")
    return getattr(module, class_name or "Arguments"), module.run


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    try:
        try:
            return _answer(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()  # not only as Python ends, where nothing catches what a pipe says that is closed (head)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _answer(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        from tickwise import __version__

        print(f"tickwise {__version__}")
        return 0
    from tickwise.cli.dispatch import dispatch
    from tickwise.core import allocator

    allocator.tune()
    return dispatch(arguments)
