"""What training or serving a model will take, before it runs: memory, time, energy, cost; here or elsewhere."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from tickwise.cli.common_flags import CommonArguments
from tickwise.cli.estimate_figures import cost_of, figures, number_format
from tickwise.core.console import format_bytes, progress
from tickwise.core.errors import ConfigError, MemoryLimitError

if TYPE_CHECKING:
    from tickwise.models.decoder import DecoderConfig
    from tickwise.profiling.predict import Machine
    from tickwise.training.compilation_memory import CompilationMemory
    from tickwise.training.config import TrainConfig

_MOST = 1 << 24
_DEEPEST = 1024
_FEW_LAYERS = 2, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    model: tyro.conf.Positional[Path | None] = None
    """Model or run directory of a decoder, a config.json (model_type llama, qwen3, gpt2 or tickwise-decoder; weights
    need not be there), or a recipe for tickwise train (.yaml). Left out, --depth, --width and --vocab-size plan a
    model."""
    purpose: Annotated[Literal["train", "serve"], tyro.conf.arg(name="for")] = "serve"
    """A training step, or a tick that decodes one token of every text."""
    batch: int | None = None
    """Sequences in an update, or texts served at once (training: what the recipe says; serving: 1)."""
    context: int | None = None
    """Tokens in a window, or in each served text when the tick runs (what the model has)."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the computation; auto is what train and generate would take."""
    hardware: str = "here"
    """here (measured), a JSON file (what doctor --json prints, here or elsewhere, is one), or a data sheet: a100, h100,
    rtx4090."""
    fit: Literal["batch", "context", "model"] | None = None
    """Find the largest batch, context or depth that fits into the memory."""
    price_per_hour: float | None = None
    """Of the machine, in any currency; gives the cost."""
    price_per_kwh: float | None = None
    """Of electricity, in the same currency; its cost comes on top."""
    depth: int | None = None
    """Layers of a planned model."""
    width: int | None = None
    """Features of its residual stream (64 per layer of depth)."""
    vocab_size: int | None = None
    """Its vocabulary."""
    architecture: Literal["qwen3", "llama", "gpt2", "tickwise"] | None = None
    """Its architecture (qwen3)."""
    ranks: int = 1
    """For training: processes that share a step; memory and time are of each, and what it sends is told."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How they share the model (see tickwise train --parallel.strategy)."""
    refresh: bool = False
    """Calibrate this machine anew instead of using what was measured before."""


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is to be estimated. ``planned``: its shape may still change."""

    model: "DecoderConfig"
    training: "TrainConfig"
    planned: bool


def run(arguments: Arguments) -> int:
    from tickwise.cli.estimate_show import print_tables

    found = estimate(arguments)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        print_tables(found)
    return 0


def estimate(arguments: Arguments, settings: "TrainConfig | None" = None) -> dict[str, Any]:
    """The estimate, JSON-ready; what is not known is ``None``. ``settings``: those of a planned model's training that
    have no flag."""
    from tickwise.profiling.predict import find_machine

    check(arguments)
    plan = _plan(arguments, settings)  # before anything is measured: mistakes should show at once
    machine = find_machine(arguments.hardware, arguments.refresh)
    dtype = number_format(arguments, machine)
    machine.hardware.peak_flops_per_s(dtype)
    machine.hardware.bandwidth_bytes_per_s()
    if arguments.fit is not None:
        arguments, plan = _fitting(arguments, plan, machine, dtype)
    return (_training if arguments.purpose == "train" else _serving)(arguments, plan, machine, dtype)


def update(arguments: Arguments, settings: "TrainConfig", machine: "Machine") -> dict[str, Any]:
    """Time, energy and cost of one update of a planned model in this process, without the memory that it takes."""
    from tickwise.training.prediction import predict_step

    plan = _plan(arguments, settings)
    dtype, config = number_format(arguments, machine), plan.training
    assert config.batch_size is not None
    prediction = predict_step(plan.model, config, dtype, machine)
    return figures(prediction, machine, dtype, config.batch_size * config.context, arguments)


def check(arguments: Arguments) -> None:
    """``ConfigError`` for flags out of range, or that contradict each other."""
    from tickwise.data.config import check_vocab_size

    for name in ("batch", "context", "depth", "width", "vocab_size", "price_per_hour", "price_per_kwh"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{name.replace('_', '-')}: must be positive, got {value}")
    for name, most in (("batch", _MOST), ("context", _MOST), ("depth", _DEEPEST), ("width", _MOST),
                       ("vocab_size", _MOST)):
        value = getattr(arguments, name)
        if value is not None and value > most:
            raise ConfigError(f"--{name.replace('_', '-')}: estimate looks no further than {most:,}, got {value:,}")
    check_vocab_size(arguments.vocab_size)
    if arguments.ranks < 1:
        raise ConfigError(f"--ranks: must be positive, got {arguments.ranks}")
    if arguments.ranks > 1 and arguments.purpose != "train":
        raise ConfigError("--ranks: several share a training step; give --for train")
    if arguments.ranks > 1 and arguments.fit == "batch":
        raise ConfigError("--fit batch looks for one process's batch; leave out --ranks")
    if arguments.fit in ("batch", "context") and getattr(arguments, arguments.fit) is not None:
        raise ConfigError(f"--fit {arguments.fit} looks for --{arguments.fit}; give only one of them")


def _plan(arguments: Arguments, settings: "TrainConfig | None" = None) -> _Plan:
    """The model and how it would be trained, from a directory, a config.json, a recipe or the flags."""
    from tickwise.core.config import from_dict, read_json, read_yaml
    from tickwise.interop.directory import read_config, resolve_model_path
    from tickwise.interop.tensor_names import decoder_config
    from tickwise.models.families import DECODER
    from tickwise.training.config import TrainConfig

    path = arguments.model
    shape_flags = [f"--{name.replace('_', '-')}" for name in ("depth", "width", "vocab_size", "architecture")
                   if getattr(arguments, name) is not None]
    config = settings or TrainConfig(data=Path())
    if path is not None and path.suffix in (".yaml", ".yml"):
        config = from_dict(TrainConfig, {"data": ".", **read_yaml(path)}, where=str(path))
        if config.vocab_size is None and arguments.vocab_size is None:
            raise ConfigError(f"{path}: the vocabulary is not known before the data is; give --vocab-size")
    elif path is not None:
        if shape_flags:
            raise ConfigError(f"{shape_flags[0]}: {path} has its shape already; leave the flag or the model out")
        if path.is_file() and path.suffix != ".json":
            raise ConfigError(f"{path}: give a model or run directory, a config.json or a recipe (.yaml); of a model "
                              "that is still to be trained, give --depth and --vocab-size")
        if path.suffix == ".json":
            model = decoder_config(read_json(path, "the model's config"), str(path))
        else:
            family, model = read_config(resolve_model_path(path))
            if family is not DECODER:
                raise ConfigError(f"{path}: estimate takes decoders; this is of the {family.name} family")
        config = dataclasses.replace(config, context=min(arguments.context or model.context_length,
                                                         model.context_length), depth=model.n_layers)
        if arguments.context is not None and arguments.context > model.context_length:
            raise ConfigError(f"--context {arguments.context}: the model has positions for {model.context_length} "
                              "tokens")
        return _Plan(model, _resolved(arguments, config, model), planned=False)
    changes: dict[str, Any] = {name: getattr(arguments, name) for name in ("depth", "context", "vocab_size")
                               if getattr(arguments, name) is not None}
    options = {name: getattr(arguments, name) for name in ("width", "architecture")
               if getattr(arguments, name) is not None}
    config = dataclasses.replace(config, **changes, model=dataclasses.replace(config.model, **options))
    if config.vocab_size is None:
        raise ConfigError("--vocab-size: give the planned model's vocabulary (or a model directory, config or recipe)")
    model = _decoder(config)
    return _Plan(model, _resolved(arguments, config, model), planned=True)


def _decoder(config: "TrainConfig") -> "DecoderConfig":
    from tickwise.training.dial import decoder_from_dial

    assert config.vocab_size is not None
    return decoder_from_dial(config.depth, config.context, config.vocab_size, config.model)


def _resolved(arguments: Arguments, config: "TrainConfig", model: "DecoderConfig") -> "TrainConfig":
    from tickwise.training.dial import resolve

    if arguments.batch is not None:
        config = dataclasses.replace(config, batch_size=arguments.batch)
    limited = config.max_steps is not None or config.max_tokens is not None or config.max_seconds is not None
    resolved = resolve(config, model, n_parameters=1, n_train_tokens=1)
    return resolved if limited else dataclasses.replace(resolved, max_tokens=None)


def _compilation(arguments: Arguments, plan: _Plan, machine: "Machine", dtype: str,
                 step_seconds: float | None = None) -> "CompilationMemory | None":
    """``None`` where it is not told: of serving, of other machines, of several ranks. A step's time is predicted where
    it matters and is not given."""
    from tickwise.training.compilation_memory import compilation_memory
    from tickwise.training.prediction import predict_step

    if arguments.purpose != "train" or not machine.is_here or arguments.ranks > 1:
        return None
    config, n_layers = plan.training, plan.model.n_layers
    found = compilation_memory(config, n_layers, dtype, machine.device, step_seconds)
    if found.tried is None and step_seconds is None and (config.max_steps, config.max_tokens) != (None, None):
        seconds = predict_step(plan.model, config, dtype, machine).seconds
        return compilation_memory(config, n_layers, dtype, machine.device, seconds)
    return found


def _memory(arguments: Arguments, plan: _Plan, machine: "Machine", dtype: str,
            compilation: "CompilationMemory | None") -> dict[str, int | None]:
    """Bytes by term; ``total`` is the sum of those that are known.

    On this machine's CPU it is the peak of the resident memory of the whole process, with what Python and PyTorch take
    (measured); elsewhere that comes on top, as does what an allocator that is not here leaves unused.
    """
    from tickwise.engine.memory import estimate_serving_memory
    from tickwise.training.distributed.traffic import engine_bytes, rank_memory
    from tickwise.training.memory import estimate_training_memory

    is_our_cpu = machine.is_here and machine.device.type == "cpu"
    terms: dict[str, int | None]
    if arguments.purpose == "train":
        if arguments.ranks > 1:
            train = rank_memory(plan.model, plan.training, dtype, machine.device, arguments.ranks, arguments.strategy,
                                on_cpu=is_our_cpu)
        else:
            train = estimate_training_memory(plan.model, plan.training, 0, dtype, machine.device, on_cpu=is_our_cpu)
        terms = {"weights": train.weights, "gradients": train.gradients, "optimizer": train.optimizer,
                 "activations": train.activations, "kv_cache": 0, "fragmentation": train.fragmentation}
    else:
        serve = estimate_serving_memory(plan.model, batch=arguments.batch or 1, context=plan.training.context,
                                        dtype=dtype, on_cpu=is_our_cpu)
        terms = {"weights": serve.weights, "activations": serve.activations, "kv_cache": serve.kv_cache,
                 "fragmentation": serve.fragmentation}
    if is_our_cpu:
        engine = engine_bytes(arguments.strategy) if arguments.ranks > 1 else 0
        terms["process"] = process_term(arguments.purpose, dtype) + engine
    else:
        terms |= {"fragmentation": None, "process": None}
    if compilation is not None:
        terms |= compilation.term
    return terms | {"total": sum(size for size in terms.values() if size is not None)}


def process_term(purpose: Literal["train", "serve"], dtype: str) -> int:
    """Bytes of a process besides its model, on this machine's CPU: measured once, then kept."""
    from tickwise.profiling.reference import process_bytes

    if purpose == "train":
        return process_bytes(f"trained-{dtype}", f"tickwise.cli.estimate_process:train_smallest('{dtype}')")
    return process_bytes(f"engine-{dtype}", f"tickwise.engine.prediction:run_smallest('{dtype}')")


def _total(arguments: Arguments, plan: _Plan, machine: "Machine", dtype: str) -> int:
    compilation = _compilation(arguments, plan, machine, dtype)
    return _memory(arguments, plan, machine, dtype, compilation)["total"] or 0


def _fitting(arguments: Arguments, plan: _Plan, machine: "Machine", dtype: str) -> tuple[Arguments, _Plan]:
    """What is asked, with the largest batch, context or depth that fits."""
    from tickwise.profiling.largest import largest_fitting, largest_near

    limit = machine.memory_bytes
    if limit is None:
        raise ConfigError(f"hardware {machine.hardware.name}: no figure memory_bytes; --fit needs it")
    if arguments.fit == "model" and not plan.planned:
        raise ConfigError(f"--fit model: {arguments.model} has its depth already; leave it out and give --vocab-size")
    most = _MOST
    if arguments.fit == "context" and not plan.planned:
        most = plan.model.context_length
    if arguments.fit == "model":
        most = _DEEPEST

    def variant(number: int) -> tuple[Arguments, _Plan]:
        change: dict[str, Any] = {"depth" if arguments.fit == "model" else str(arguments.fit): number}
        asked = dataclasses.replace(arguments, **change)
        return asked, _plan(asked)

    with progress(f"the largest {arguments.fit}", None, "sizes") as bar:

        def total(number: int) -> int:
            bar.note(f"({number:,} …)")
            size = _total(*variant(number), machine, dtype)
            bar.advance(1)
            return size

        if arguments.fit == "model":
            guess = largest_fitting(lambda depth: _total_by_few_layers(*variant(depth), machine, dtype), limit, most)
            found = largest_near(lambda depth: total(depth) <= limit, max(1, guess), most)
        else:
            found = largest_fitting(total, limit, most)
    if found == 0:
        need = total(1)
        raise MemoryLimitError(f"--fit {arguments.fit}: not even 1 fits: it needs {format_bytes(need)} of "
                               f"{format_bytes(limit)}")
    if not arguments.json:
        why = ""
        if found == most:
            own = arguments.fit == "context" and not plan.planned
            bound = "the model's own limit" if own else "estimate looks no further"
            why = f" ({bound}, not memory)"
        print(f"largest {'depth' if arguments.fit == 'model' else arguments.fit}: {found:,}{why}")
    return variant(found)


def _total_by_few_layers(arguments: Arguments, plan: _Plan, machine: "Machine", dtype: str) -> int:
    """About the model's ``total``, from two models as wide with few of its layers: each further one adds the same."""
    fewer, more = _FEW_LAYERS
    if plan.model.n_layers <= more:
        return _total(arguments, plan, machine, dtype)
    less, all_of_it = (
        _total(arguments, dataclasses.replace(plan, model=dataclasses.replace(plan.model, n_layers=n),
                                              training=dataclasses.replace(plan.training, depth=n)), machine, dtype)
        for n in _FEW_LAYERS
    )
    return all_of_it + (plan.model.n_layers - more) * (all_of_it - less) // (more - fewer)


def _training(arguments: Arguments, plan: _Plan, machine: "Machine", dtype: str) -> dict[str, Any]:
    from tickwise.training.distributed.ranks import check_split
    from tickwise.training.prediction import predict_step

    config = plan.training
    assert config.batch_size is not None
    tokens = config.batch_size * config.context
    check_split(config, arguments.ranks, "--batch")
    own = dataclasses.replace(config, batch_size=config.batch_size // arguments.ranks)
    prediction = predict_step(plan.model, own, dtype, machine)
    compilation = _compilation(arguments, plan, machine, dtype, prediction.seconds)
    found = _common(arguments, plan, machine, dtype, compilation)
    found |= {"batch": config.batch_size, "context": config.context}
    found |= figures(prediction, machine, dtype, tokens, arguments)
    if compilation is not None:
        found["compilation"] = dataclasses.asdict(compilation) | {"note": compilation.sentence}
    if arguments.ranks > 1:
        from tickwise.training.distributed.traffic import step_traffic

        for name in ("energy_j", "cost", "cost_per_million_tokens"):  # all ranks together
            found[name] = None if found[name] is None else arguments.ranks * found[name]
        sent = step_traffic(plan.model, config, dtype, arguments.ranks, arguments.strategy,
                            on_gpus=machine.hardware.gpu)
        found |= {"ranks": arguments.ranks, "strategy": arguments.strategy,
                  "communication_bytes": sent | {"total": sum(sent.values())}}
    steps = config.max_steps
    if config.max_tokens is not None:
        steps = min(steps or config.max_tokens, -(-config.max_tokens // tokens))
    if steps is not None:
        seconds = steps * prediction.seconds
        if config.max_seconds is not None:
            seconds = min(seconds, config.max_seconds)
        joules = None if found["energy_j"] is None else found["energy_j"] * seconds / prediction.seconds
        found["run"] = {"steps": steps, "seconds": seconds, "energy_j": joules,
                        "cost": cost_of(arguments.ranks * seconds, joules, arguments)}
    return found


def _serving(arguments: Arguments, plan: _Plan, machine: "Machine", dtype: str) -> dict[str, Any]:
    from tickwise.engine.prediction import predict_prefill, predict_tick

    batch, context = arguments.batch or 1, plan.training.context
    found = _common(arguments, plan, machine, dtype) | {"batch": batch, "context": context}
    prediction = predict_tick(plan.model, batch=batch, context=context, dtype=dtype, machine=machine)
    found |= figures(prediction, machine, dtype, batch, arguments)
    found["prefill_s"] = predict_prefill(plan.model, n_tokens=max(1, context - 1), dtype=dtype, machine=machine)
    return found


def _common(arguments: Arguments, plan: _Plan, machine: "Machine", dtype: str,
            compilation: "CompilationMemory | None" = None) -> dict[str, Any]:
    hardware = machine.hardware
    return {
        "for": arguments.purpose, "hardware": hardware.name, "hardware_source": hardware.source,
        "hardware_kind": hardware.kind, "dtype": dtype, "model": dataclasses.asdict(plan.model), "kind": "modelled",
        "memory_bytes": _memory(arguments, plan, machine, dtype, compilation),
        "memory_available_bytes": machine.memory_bytes,
    }
