"""The program listing of one tick: every operation with its stage, layer, shapes, FLOPs and bytes; totals by stage.

Nothing is computed and no weights are read: the model runs on tensors without data.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import format_bytes, format_count, format_number
from tickwise.core.device import DType
from tickwise.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from tickwise.engine.work import TickWork
    from tickwise.profiling.program import Cost, Instruction, Program

_CONTEXT = 1024
_Phase = Literal["prefill", "decode", "train"]
_MOST = 1 << 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    model: tyro.conf.Positional[Path]
    """Model or run directory, or a config.json: tickwise's own, or of any architecture of transformers."""
    phase: Literal["auto", "prefill", "decode", "train"] = "auto"
    """Read --context tokens; read the last of them, with the others in the cache; or go forward and backward over
    them. An encoder–decoder has sources of --context tokens too.
    Auto: decode, or prefill for models that answer in one pass."""
    batch: int = 1
    """Texts in the tick."""
    context: int | None = None
    """Tokens in view of each text, the new ones included, as in traces and estimate. Default: as many as the model
    takes, at most 1024."""
    by: Literal["op", "stage", "layer"] = "op"
    """One line per operation, per stage, or per layer and stage; in JSON instructions, by_stage alone, or by_layer."""
    views: bool = False
    """Also list views, which read and write nothing."""
    dtype: DType = "fp32"
    """Number format of weights, activations and cache."""
    library: Literal["auto", "tickwise", "transformers"] = "auto"
    """Whose code to list; auto takes tickwise's where it computes that config, else transformers'."""


def run(arguments: Arguments) -> int:
    from tickwise.interop.architectures import model_from_config

    for name in ("batch", "context"):
        value = getattr(arguments, name)
        if value is not None and not 1 <= value <= _MOST:
            raise ConfigError(f"--{name}: must be from 1 to {_MOST:,}, got {value:,}")
    module = model_from_config(arguments.model, dtype=arguments.dtype, library=arguments.library)
    if arguments.phase == "auto":
        arguments = dataclasses.replace(arguments, phase="prefill" if hasattr(module, "example_inputs") else "decode")
    context = _context(module, arguments)
    assert arguments.phase != "auto"
    program = _program(module, arguments.phase, arguments.batch, context)
    shown = [i for i in program.instructions if arguments.views or i.bytes_read or i.bytes_written]
    if arguments.json:
        print(json.dumps(_as_json(module, arguments, context, program, shown)))
    else:
        print("\n".join(_lines(module, arguments, context, program, shown)))
    return 0


def _context(module: "nn.Module", arguments: Arguments) -> int:
    """How many tokens: what was asked for, or what the model takes."""
    from tickwise.models.decoder import Decoder
    from tickwise.models.encoder import Encoder
    from tickwise.models.encoder_decoder import EncoderDecoder
    from tickwise.models.factorised import Factorised
    from tickwise.models.ngram import Ngram
    from tickwise.models.recurrent import Recurrent
    from tickwise.profiling.ticks import longest_text

    if isinstance(module, Decoder | Ngram | Factorised | Recurrent | Encoder):
        longest: int | None = module.config.context_length
    elif isinstance(module, EncoderDecoder):
        longest = min(module.config.source_length, module.config.context_length)
    else:
        longest = None if hasattr(module, "example_inputs") else longest_text(module)
    if arguments.context is None:
        return max(1, min(_CONTEXT, longest)) if longest is not None else _CONTEXT
    if longest is not None and arguments.context > longest:
        raise ConfigError(f"--context: the model takes {longest:,} tokens, not {arguments.context:,}")
    return arguments.context


def _program(module: "nn.Module", phase: _Phase, batch: int, context: int) -> "Program":
    from tickwise.models.decoder import Decoder
    from tickwise.models.encoder import Encoder
    from tickwise.models.encoder_decoder import EncoderDecoder
    from tickwise.models.factorised import Factorised
    from tickwise.models.ngram import Ngram
    from tickwise.models.recurrent import Recurrent
    from tickwise.profiling.program import list_program

    if isinstance(module, Ngram | Factorised) and phase == "train":
        raise ConfigError("--phase train: this model is counted, not trained step by step; give prefill or decode")
    examples: Any = getattr(module, "example_inputs", None)
    if examples is not None:  # a model that answers in one pass
        if phase != "prefill":
            raise ConfigError(f"--phase {phase}: a {type(module).__name__} answers in one pass; give --phase prefill")
        if isinstance(module, Encoder) and type(module).forward is Encoder.forward:  # which gives states, of no head
            return list_program(module, *examples(batch, context), call=lambda m, ids: m.token_answers(m(ids)))
        return list_program(module, *examples(batch, context))
    if isinstance(module, EncoderDecoder):
        from tickwise.engine.encoder_decoder_listing import list_encoder_decoder_tick

        return list_encoder_decoder_tick(module, phase, batch, context)
    if not isinstance(module, Decoder | Recurrent | Ngram | Factorised):
        from tickwise.profiling.ticks import list_transformers_tick

        return list_transformers_tick(module, phase, batch, context)
    if phase == "train":
        import torch

        from tickwise.profiling.program import list_training_program
        from tickwise.training.next_token import next_token_loss

        assert not isinstance(module, Ngram | Factorised)

        def loss(module: Decoder | Recurrent, ids_BT: torch.Tensor) -> torch.Tensor:
            if isinstance(module, Decoder):
                return next_token_loss(module, ids_BT, ids_BT)
            return module.loss(module.read(ids_BT)[0].flatten(0, 1), ids_BT.flatten())

        return list_training_program(module.train(), torch.zeros(batch, context, dtype=torch.long), call=loss)
    from tickwise.engine.serving import costs_for

    return costs_for(module).listing(_tick(phase, batch, context))


def _tick(phase: Literal["prefill", "decode"], batch: int, context: int) -> "TickWork":
    from tickwise.engine.work import RowWork, TickWork

    n_new, n_cached = (context, 0) if phase == "prefill" else (1, context - 1)
    return TickWork(tuple(RowWork(str(index), n_new, n_cached, phase) for index in range(batch)))


def _as_json(
    module: "nn.Module", arguments: Arguments, context: int, program: "Program", shown: "list[Instruction]"
) -> dict[str, Any]:
    from tickwise.profiling.program import instruction_json

    more = {
        "op": lambda: {"instructions": [instruction_json(i) for i in shown]},
        "layer": lambda: {"by_layer": [{"layer": layer, "stage": str(stage), **_figures(cost)}
                                       for (layer, stage), cost in _layers(program)]},
        "stage": dict[str, Any],
    }[arguments.by]()
    return {
        "model": str(arguments.model),
        "architecture": type(module).__name__,
        "library": "tickwise" if type(module).__module__.startswith("tickwise.") else "transformers",
        "phase": arguments.phase,
        "batch": arguments.batch,
        "context": context,
        "dtype": arguments.dtype,
        "kind": program.kind,
        **more,
        "by_stage": [{"stage": stage, **_figures(cost)} for stage, cost in _stages(program)],
        "totals": _figures(program.total),
    }


def _figures(cost: "Cost") -> dict[str, int]:
    return {"flops": cost.flops, "bytes_read": cost.bytes_read, "bytes_written": cost.bytes_written}


def _stored(module: "nn.Module") -> str:
    """How many numbers the model is made of, and of these the codes of a quantised one."""
    from tickwise.models.bag import Bag

    if not isinstance(module, Bag):
        return f"{format_count(sum(p.numel() for p in module.parameters()))} parameters"
    codes = f", {format_count(module.n_codes)} of them codes of a byte" if module.n_codes else ""
    return f"{format_count(module.n_parameters())} parameters{codes}"


def _lines(
    module: "nn.Module", arguments: Arguments, context: int, program: "Program", shown: "list[Instruction]"
) -> Iterable[str]:
    work = {"prefill": f"reads {context:,} tokens",
            "decode": f"reads 1 token, {context - 1:,} in the cache: {context:,} in view",
            "train": f"forward and backward over {context:,} tokens, without the optimizer"}[arguments.phase]
    texts = "1 text" if arguments.batch == 1 else f"{arguments.batch:,} texts"
    yield f"{type(module).__name__}, {_stored(module)}, {arguments.dtype}; {arguments.phase}: {texts}, each {work}"
    yield ("counted: FLOPs of matrix products, convolutions and attention (elementwise work counts 0); "
           "bytes are tensor sizes")
    yield ""
    figures = f"{'FLOPs':>8}  {'read':>9}  {'written':>9}  {'FLOP/byte':>9}"
    if arguments.by == "op":
        names = [_operation(i) for i in shown]
        width = max(map(len, names), default=0)
        yield f"{'stage':<15}  {'layer':>5}  {'operation':<{width}}  {figures}  shapes"
        for i, name in zip(shown, names, strict=True):
            layer = "" if i.layer is None else i.layer
            yield f"{i.stage:<15}  {layer:>5}  {name:<{width}}  {_row(i.cost)}  {_shapes(i)}"
        yield ""
    elif arguments.by == "layer":
        yield f"{'layer':>5}  {'stage':<15}  {figures}"
        for (number, name), cost in _layers(program):
            yield f"{'' if number is None else number:>5}  {name:<15}  {_row(cost)}"
        yield ""
    yield f"{'stage':<15}  {figures}  {'of FLOPs':>8}  {'of bytes':>8}"
    total = program.total
    for stage, cost in [*_stages(program), ("total", total)]:
        share = f"{_share(cost.flops, total.flops):>8}"
        moved = _share(cost.bytes_read + cost.bytes_written, total.bytes_read + total.bytes_written)
        yield f"{stage:<15}  {_row(cost)}  {share}  {moved:>8}"


def _stages(program: "Program") -> "list[tuple[str, Cost]]":
    """Those that do more than make views."""
    return [(str(stage), cost) for stage, cost in program.by_stage().items() if cost.intensity is not None]


def _layers(program: "Program") -> "Iterable[tuple[tuple[int | None, str], Cost]]":
    return program.grouped(lambda i: (i.layer, i.stage)).items()


def _operation(instruction: "Instruction") -> str:
    name = instruction.op.removeprefix("aten.")
    return name if instruction.direction == "forward" or name.endswith("backward") else f"{name} (backward)"


def _row(cost: "Cost") -> str:
    intensity = "n/a" if cost.intensity is None else format_number(cost.intensity)
    return (f"{format_count(cost.flops):>8}  {format_bytes(cost.bytes_read):>9}  {format_bytes(cost.bytes_written):>9}"
            f"  {intensity:>9}")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "n/a"


def _shapes(instruction: "Instruction") -> str:
    """``2×24×32 · 32×80 → 2×24×80``."""

    def joined(shapes: tuple[tuple[int, ...], ...]) -> str:
        words = ["×".join(map(str, shape)) or "1" for shape in shapes[:4]]
        return " · ".join(words) + (f" · … {len(shapes)} in all" if len(shapes) > 4 else "")

    return f"{joined(instruction.shapes)} → {joined(instruction.outputs)}"
