"""What a tick of the engine costs, predicted: the listing of its model part, and reference ticks for all else."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy
import torch

from tickwise.core.console import progress
from tickwise.core.device import flushed_denormals, torch_dtype
from tickwise.core.stages import Stage
from tickwise.engine.costs import MODEL_STAGES, DecoderCosts
from tickwise.engine.engine import Engine
from tickwise.engine.memory import default_dtype
from tickwise.engine.options import EngineOptions
from tickwise.engine.requests import Request
from tickwise.engine.settings import GenerationSettings
from tickwise.engine.work import RowWork, TickWork
from tickwise.models.decoder import Decoder, DecoderConfig
from tickwise.profiling.machine import use_cores
from tickwise.profiling.predict import (
    Correction,
    Machine,
    Observation,
    OperationTimes,
    PredictedStage,
    Prediction,
    coldness,
    extrapolated,
    features,
    fit_correction,
    footprint,
    predict,
)
from tickwise.profiling.program import Instruction
from tickwise.profiling.reference import by_stage, cached_corrections, stage_seconds
from tickwise.tokenizers.train import char_tokenizer

if TYPE_CHECKING:
    from tickwise.tokenizers.tokenizer import Tokenizer

_LISTED_ROWS = 512
"""Ticks of more texts are extrapolated."""
_LISTED_PIECES = 4
"""Of a prompt of more pieces, not all are listed."""
HOST_STAGES = (Stage.SCHEDULE, Stage.EMBED, Stage.SAMPLE, Stage.DETOKENIZE, Stage.HOST)
"""What goes by ticks and rows: all around the model, and the look-up of tokens and positions."""


def predict_tick(model: DecoderConfig, *, batch: int, context: int, dtype: str, machine: Machine) -> Prediction:
    """A tick that decodes one token of ``batch`` texts, the last that their context of ``context`` tokens holds."""
    if batch > _LISTED_ROWS:
        fewer, more = (predict_tick(model, batch=n, context=context, dtype=dtype, machine=machine)
                       for n in (_LISTED_ROWS // 2, _LISTED_ROWS))
        return extrapolated(fewer, more, (batch - _LISTED_ROWS) / (_LISTED_ROWS // 2))
    return _predict(model, _decode_rows(batch, max(0, context - 1)), dtype, machine)


def _decode_rows(batch: int, n_cached: int) -> list[RowWork]:
    """Equally long texts, which the engine reads as one batch."""
    return [RowWork(str(index), 1, n_cached, "decode", together=batch) for index in range(batch)]


def predict_prefill(model: DecoderConfig, *, n_tokens: int, dtype: str, machine: Machine) -> float:
    """Seconds to read a prompt, piece by piece as the engine does, and choose the first token.

    Of many pieces some are listed, ever fewer the more they have before them; what is between two of them grows evenly.
    """
    piece = EngineOptions().tick_tokens
    n_whole, rest = divmod(n_tokens, piece)

    def seconds(n_new: int, n_before: int) -> float:
        return _predict(model, [RowWork("", n_new, n_before, "prefill")], dtype, machine).seconds

    listed = _listed_pieces(n_whole)
    of_listed = []
    with progress("predicting the reading of a prompt", len(listed), "pieces") as bar:
        for index in listed:
            of_listed.append(seconds(piece, index * piece))
            bar.advance(1)
    whole = float(numpy.interp(numpy.arange(n_whole), listed, of_listed).sum()) if listed else 0.0
    return whole + (seconds(rest, n_whole * piece) if rest else 0.0)


def _listed_pieces(n: int) -> list[int]:
    """Of the pieces 0 … n - 1: the first few, then ever fewer, and the last."""
    listed = list(range(min(n, _LISTED_PIECES)))
    while listed and listed[-1] < n - 1:
        listed.append(min(n - 1, listed[-1] * 3 // 2))
    return listed


def _predict(model: DecoderConfig, rows: Sequence[RowWork], dtype: str, machine: Machine) -> Prediction:
    corrections = None if machine.times is None else serving_corrections(machine.times, machine.device)
    instructions = tick_program(model, rows, dtype)
    found = predict(instructions, machine.hardware, times=machine.times, corrections=corrections, serving=True)
    if machine.times is None or corrections is None:
        return found
    host = _host_features(model.vocab_size, len(rows), footprint(instructions), machine.times)
    rows_of = {row.stage: row for row in found.rows if row.stage in HOST_STAGES}
    empty = PredictedStage(stage=Stage.HOST, layer=None, direction="forward", seconds=0.0, flops=0, bytes_read=0,
                           bytes_written=0)
    around = [replace(rows_of.get(stage, empty), stage=stage, seconds=corrections[stage].seconds(host))
              for stage in HOST_STAGES]
    return Prediction(rows=(*(row for row in found.rows if row.stage not in HOST_STAGES), *around), at_best=False)


def tick_program(model: DecoderConfig, rows: Sequence[RowWork], dtype: str) -> list[Instruction]:
    """The model's instructions in one tick."""
    with torch.device("meta"):
        module = Decoder(model).to(torch_dtype(dtype)).requires_grad_(False).eval()
    module.to_empty(device="cpu")  # never touched, so it takes no memory
    listing = DecoderCosts(module, EngineOptions().block_size).listing(TickWork(tuple(rows)))
    return [instruction for instruction in listing.instructions if instruction.stage in MODEL_STAGES]


def _host_features(vocab_size: int, batch: int, touched: int, times: OperationTimes) -> dict[str, float]:
    """Of the choice of tokens and the bookkeeping: per tick, per row, and for looking through the logits."""
    logits = times.of("reduction", "fp32", (4 * batch * vocab_size,), 1)
    return {"runs": 1.0, "cold runs": coldness(touched), "rows": float(batch), "reduction": logits}


# (layers, width, heads, key-value heads, vocabulary, batch, context, number format): of shapes that nobody uses.
_REFERENCES: tuple[tuple[Any, ...], ...] = (
    (1, 96, 3, 3, 300, 1, 40, "fp32"),
    (3, 96, 3, 3, 300, 1, 40, "bf16"),
    (3, 96, 3, 3, 300, 6, 300, "fp32"),
    (2, 448, 7, 7, 3000, 1, 180, "fp32"),
    (6, 448, 7, 7, 3000, 1, 180, "fp32"),
    (2, 448, 7, 7, 10_000, 5, 90, "bf16"),
    (3, 320, 5, 5, 5000, 12, 90, "fp32"),
    (3, 192, 3, 3, 1000, 3, 400, "bf16"),
    (2, 640, 10, 5, 1000, 6, 200, "bf16"),
    (7, 576, 9, 9, 12_000, 1, 300, "fp32"),
    (7, 320, 5, 5, 6000, 3, 420, "bf16"),
    (5, 576, 9, 9, 6000, 14, 200, "bf16"),
    (5, 160, 5, 5, 2500, 10, 200, "fp32"),
)
TICKS_PER_PROMPT = 32


def serving_corrections(times: OperationTimes, device: torch.device, refresh: bool = False) -> dict[str, Correction]:
    """Fitted to reference ticks on this machine (some seconds), or read from the cache."""
    return cached_corrections("serving", lambda: _measure_corrections(times, device), refresh)


def _measure_corrections(times: OperationTimes, device: torch.device) -> Mapping[str, Correction]:
    models = [
        DecoderConfig(
            vocab_size=vocabulary, context_length=context, width=width, n_layers=layers, n_heads=heads,
            n_kv_heads=kv_heads, head_dim=width // heads, hidden=-(-8 * width // 96) * 32, qk_norm=layers != 2,
        )
        for layers, width, heads, kv_heads, vocabulary, _, context, _ in _REFERENCES
    ]  # fmt: skip
    settings = [(model, batch, context, dtype)
                for model, (*_, batch, context, dtype) in zip(models, _REFERENCES, strict=True)]
    measured = stage_seconds([tick_runner(*one, device) for one in settings], "ticks")
    observed: dict[str, list[Observation]] = {name: [] for name in ("serve", *HOST_STAGES)}
    for (model, batch, context, dtype), seconds in zip(settings, measured, strict=True):
        rows = _decode_rows(batch, context - TICKS_PER_PROMPT // 2)
        instructions = tick_program(model, rows, dtype)
        touched, total = footprint(instructions), sum(seconds.values())
        host = _host_features(model.vocab_size, batch, touched, times)
        for stage, members in by_stage([i for i in instructions if i.stage not in HOST_STAGES]).items():
            observed["serve"].append(Observation(features(members, times, touched), seconds[stage], total))
        for stage in HOST_STAGES:
            observed[stage].append(Observation(host, seconds.get(stage, 0.0), total))
    return {name: fit_correction(rows) for name, rows in observed.items()}


def tick_runner(model: DecoderConfig, batch: int, context: int, dtype: str, device: torch.device) -> Callable[[], None]:
    """A callable that runs a tick of an engine per call: one more token for ``batch`` texts that nearly fill the
    context, on random weights."""
    # All prompts fit into one tick, so that all texts are equally long.
    engine = text_engine(random_decoder(model, dtype, device), batch, tick_tokens=max(256, batch * context))

    def tick() -> None:
        if engine.idle:
            submit_texts(engine, model, batch, n_prompt=context - TICKS_PER_PROMPT, n_written=TICKS_PER_PROMPT)
            engine.step()
        engine.step()

    return tick


def run_smallest(dtype: str) -> None:
    """Serve a text with the smallest model."""
    model = DecoderConfig(vocab_size=256, context_length=64, width=32, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=32,
                          hidden=96, qk_norm=True)
    run_texts(model, 1, 64, dtype)


@flushed_denormals()
def run_texts(model: DecoderConfig, batch: int, context: int, dtype: str) -> None:
    """Serve ``batch`` texts that fill the context with a fresh model."""
    use_cores()
    engine = text_engine(random_decoder(model, dtype, torch.device("cpu")), batch)
    submit_texts(engine, model, batch, n_prompt=context - 4, n_written=4)
    engine.run_until_idle()


def submit_texts(engine: Engine, model: DecoderConfig, batch: int, *, n_prompt: int, n_written: int) -> None:
    """Ask for ``n_written`` tokens after each of ``batch`` prompts of ``n_prompt`` tokens."""
    settings = GenerationSettings(max_tokens=n_written, temperature=0.0, ignore_eos=True)
    for index in range(batch):
        prompt = [(7 * index + place) % model.vocab_size for place in range(n_prompt)]
        engine.submit(Request(prompt=prompt, settings=settings))


def random_decoder(model: DecoderConfig, dtype: str, device: torch.device) -> Decoder:
    """A decoder whose weights are all drawn, so that its tokens depend on the text.

    Not by way of the meta device: its first use loads 38 MB of Python modules, which no process that serves has.
    """
    with torch.random.fork_rng(devices=[]), default_dtype(torch_dtype(dtype)), device:
        module = Decoder(model).to(torch_dtype(dtype))
    generator = torch.Generator(device).manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 1.0, generator=generator)
    return module.requires_grad_(False).eval()


def text_engine(module: Decoder, batch: int, tick_tokens: int = EngineOptions.tick_tokens) -> Engine:
    """An engine for ``batch`` texts, with a tokenizer of as many characters as the model has tokens."""
    options = EngineOptions(max_rows=batch, tick_tokens=max(tick_tokens, batch), prefix_cache=False)
    return Engine(module, _letters(module.config.vocab_size), options=options)


@functools.lru_cache(maxsize=1)
def _letters(n: int) -> "Tokenizer":
    first_letter = 0x4E00
    counts = Counter({chr(first_letter + index): 1 for index in range(n)})
    return char_tokenizer(counts, vocab_size=None, end_of_text=False, unknown=False)
