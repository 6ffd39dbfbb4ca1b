"""Fine-tune a model: an encoder for classes of texts, entities, answers in passages or vectors of texts; a decoder to
talk."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.launch_flags import LaunchFlags, start
from tickwise.cli.pair_flags import RunFlags
from tickwise.core.console import say
from tickwise.core.errors import ConfigError
from tickwise.core.paths import write_text_atomic
from tickwise.tasks.answer_options import AnswerOptions
from tickwise.tasks.fine_tune_options import FineTuneOptions
from tickwise.tasks.tag_options import TagReading

if TYPE_CHECKING:
    from tickwise.tasks.answer import AnswerEvaluation
    from tickwise.training.run import TrainResult

_ONLY_FOR = {"text_column": "classify", "label_column": "classify", "train_rows": "classify", "options": "tag",
             "answer": "answer", "context": "chat"}
"""Flags that one task alone has a use for."""
_NO_TEST = {"chat": "the development part shows how well answers are predicted"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Own(CommonArguments):
    model: tyro.conf.Positional[Path]
    """Model or run directory of an encoder (tickwise train encoder, or one in BERT's format); for chat, of a decoder
    (tickwise train, or one in the format of Llama, Qwen or GPT-2)."""
    task: Literal["classify", "tag", "answer", "embed", "chat"]
    """classify: labelled texts; tag: entities in CoNLL columns; answer: questions with passages, in SQuAD's JSON or
    SubjQA's tables; embed: lines with two like texts and a tab between them, or with one text each; chat:
    conversations, .jsonl with messages of role and content (or ShareGPT's, or Alpaca's fields), of which the
    assistant's turns are learned."""
    train: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """File to train on, or name of a known data set; several times for several files."""
    dev: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """File by which the best model is chosen; a tenth of --train if left out."""
    test: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """File to evaluate on, at the end; for embed also pairs with how alike people find them (tickwise run similar
    --test)."""
    out: Path | None = None
    """Run directory."""
    text_column: str | None = None
    """Of labelled texts: name or number (from 0) of the text's column or key."""
    label_column: str | None = None
    """Of labelled texts: name or number (from 0) of the label's column or key."""
    train_rows: int | None = None
    """Take so many labelled texts of --train, drawn by --seed, the development part's included."""
    context: int | None = None
    """Of conversations: tokens that the model will read at most; left out, as many as it reads now."""
    tuning: FineTuneOptions = dataclasses.field(default_factory=FineTuneOptions)
    options: TagReading = dataclasses.field(default_factory=TagReading)
    answer: AnswerOptions = dataclasses.field(default_factory=AnswerOptions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(RunFlags, LaunchFlags, _Own):
    """The verb's own flags, and those of a training behind them."""


def run(arguments: Arguments) -> int:
    if not arguments.train:
        raise ConfigError("--train: give a file to fine-tune on")
    if arguments.out is None:
        raise ConfigError("--out: say where the model goes")
    _check_task_flags(arguments)
    launch = arguments.launch()
    if launch is not None:
        return start(launch, "--resume")
    return {"classify": _classify, "tag": _tag, "answer": _answer, "embed": _embed,
            "chat": _chat}[arguments.task](arguments)


def _check_task_flags(arguments: Arguments) -> None:
    """``ConfigError`` for flags that the task has no use for."""
    usual = Arguments(model=arguments.model, task=arguments.task)
    for name, task in _ONLY_FOR.items():
        if arguments.task != task and getattr(arguments, name) != getattr(usual, name):
            raise ConfigError(f"--{name.replace('_', '-')}: has a meaning with --task {task} only")
    if arguments.task == "chat" and arguments.tuning.word_dropout != usual.tuning.word_dropout:
        raise ConfigError("--tuning.word-dropout: is for encoders, which know masked tokens; a decoder has "
                          "--tuning.dropout")
    if arguments.test and arguments.task in _NO_TEST:
        raise ConfigError(f"--test: is for the other tasks; {_NO_TEST[arguments.task]}")


def _shared(arguments: Arguments) -> dict[str, Any]:
    """What the configs of all tasks take from the flags."""
    return arguments.run_settings() | {
        "out": arguments.out, "train": arguments.train, "dev": arguments.dev, "test": arguments.test,
        "encoder": arguments.model, "tuning": arguments.tuning, "resume": "auto" if arguments.resume else "never"}


def _classify(arguments: Arguments) -> int:
    from tickwise.cli.run_classify import report_training
    from tickwise.tasks.classify_config import AdaptClassifyConfig

    config = AdaptClassifyConfig(
        architecture="encoder", text_column=arguments.text_column, label_column=arguments.label_column,
        train_rows=arguments.train_rows, **_shared(arguments),
    )
    return report_training(config, "classify", as_json=arguments.json)


def _answer(arguments: Arguments) -> int:
    from tickwise.tasks.answer import AnswerConfig, train_reader

    result = train_reader(AnswerConfig(answer=arguments.answer, **_shared(arguments)))
    if result.trained.interrupted:
        return 130
    _report(arguments, result.trained, result.dev, result.test, answer_table)
    say(f"use it: tickwise run answer {arguments.out} \"a question\" --passage FILE")
    return 0


def _tag(arguments: Arguments) -> int:
    from tickwise.evaluation.entities import table
    from tickwise.tasks.encoder_tagger import TagAdaptConfig, train_encoder_tagger

    result = train_encoder_tagger(TagAdaptConfig(options=arguments.options, **_shared(arguments)))
    if result.trained.interrupted:
        return 130
    _report(arguments, result.trained, result.dev, result.test, table)
    say(f"use it: tickwise run entities {arguments.out} \"a text\"")
    return 0


def _report(arguments: Arguments, trained: "TrainResult", dev: Any, test: Any,
            table: Callable[[Any], str]) -> None:
    """Keep the figures of the development and the test part in the run directory, and print them; of several ranks the
    leading one does."""
    from tickwise.training.distributed.ranks import is_leader

    if not is_leader():
        return
    shown: dict[str, Any] = {
        "model": str(trained.model), "parameters": trained.n_parameters, "seconds": trained.seconds,
        "development": dev.to_json() if dev else None, "test": test.to_json() if test else None,
    }
    assert arguments.out is not None
    write_text_atomic(arguments.out / "evaluation.json", json.dumps(shown, indent=2) + "\n")
    if arguments.json:
        print(json.dumps(shown))
        return
    for name, part in (("development part", dev), ("test part", test)):
        if part is not None:
            print(f"\n{name}\n{table(part)}")


def _embed(arguments: Arguments) -> int:
    from tickwise.data.judged_pairs import read_judged_pairs
    from tickwise.tasks.embed import EmbedConfig, Embedder, train_embedder
    from tickwise.tasks.embed_scores import score_pairs
    from tickwise.training.distributed.ranks import is_leader

    shared = _shared(arguments)
    del shared["test"]
    test = read_judged_pairs(arguments.test) if arguments.test else None
    trained = train_embedder(EmbedConfig(**shared), list(zip(test.left, test.right, strict=True)) if test else ())
    use = f"tickwise run similar {arguments.out} \"a text\" --among FILE"
    if test is None or trained.interrupted or not is_leader():
        return _finish(arguments, trained, use)
    scores = score_pairs(Embedder.load(trained.model, arguments.device), test)
    shown = _trained_figures(trained) | {"test": scores.to_json(str(trained.model))}
    assert arguments.out is not None
    write_text_atomic(arguments.out / "evaluation.json", json.dumps(shown, indent=2) + "\n")
    if arguments.json:
        print(json.dumps(shown))
        return 0
    print(f"\ntest part\n{scores.table()}")
    return _finish(arguments, trained, use)


def _chat(arguments: Arguments) -> int:
    from tickwise.tasks.chat import ChatConfig, train_chat

    shared = {"model" if name == "encoder" else name: value for name, value in _shared(arguments).items()
              if name != "test"}
    return _finish(arguments, train_chat(ChatConfig(context=arguments.context, **shared)),
                   f"tickwise chat {arguments.out}")


def _finish(arguments: Arguments, trained: "TrainResult", use: str) -> int:
    """Print the figures of the development part, or what to do next; the exit code."""
    from tickwise.training.distributed.ranks import is_leader

    if arguments.json and is_leader():
        print(json.dumps(_trained_figures(trained)))
    elif not arguments.json and not trained.interrupted:
        say(f"use it: {use}")
    return 130 if trained.interrupted else 0


def _trained_figures(trained: "TrainResult") -> dict[str, Any]:
    return {"model": str(trained.model), "parameters": trained.n_parameters, "seconds": trained.seconds,
            "development": trained.validation}


def answer_table(evaluation: "AnswerEvaluation") -> str:
    """The evaluation for people."""
    lines = [f"{'questions (' + evaluation.rule + ' rules)':<40} {'exact match':>11} {'F1':>7}   95 % interval of F1"]
    rows = [("with an answer", evaluation.answerable),
            *((f"  by shared words: {name}", scores) for name, scores in evaluation.baselines.items()),
            *([("all, or none", evaluation.overall)] if evaluation.overall is not None else [])]
    for name, scores in rows:
        between = scores.f1.interval
        shown = f"{between.low:.4f} to {between.high:.4f}" if between else "n/a"
        lines.append(f"{name + f' ({scores.n:,})':<40} {scores.exact_match.value:>11.4f} {scores.f1.value:>7.4f}   "
                     f"{shown}")
    return "\n".join(lines)
