"""The best model for a budget of FLOPs, hours, money or energy by a fitted law, and the command that trains it."""

import dataclasses
import functools
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from tickwise.cli.common_flags import CommonArguments
from tickwise.core.console import format_count, format_energy, format_number, format_seconds, progress
from tickwise.core.errors import ConfigError

if TYPE_CHECKING:
    from tickwise.cli import estimate
    from tickwise.profiling.predict import Machine
    from tickwise.scaling.plan import Recipe
    from tickwise.scaling.study import FittedLaw
    from tickwise.training.config import TrainConfig

_WIDTH_STEP = 64
_WIDEST = 128
_CLOSEST_SIZES = 1.03
_FAR_BEYOND = 30.0
_VOCAB_SIZE = 4096
_FEW_LAYERS = 2, 4
_ROUNDS = 10
"""In which cost and batch settle; two recipes may each lead to the other."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(CommonArguments):
    law: Path
    """fit.json that tickwise scale fit wrote."""
    flops: float | None = None
    """Budget of training compute, 6 FLOPs for each parameter and token."""
    hours: float | None = None
    """Budget of time on --hardware."""
    budget_usd: float | None = None
    """Budget of money at --price-per-hour or --price-per-kwh, or both."""
    joules: float | None = None
    """Budget of energy on --hardware."""
    inference_tokens: float = 0.0
    """Tokens that the model will read and write in its life. The budget pays for them too, at a third of the price of a
    training token, which makes a smaller model best."""
    hardware: str = "here"
    """here (measured), a JSON file, or a data sheet: a100, h100, rtx4090."""
    vocab_size: int | None = None
    """Vocabulary of the model: that of the law's runs, if it is known, else 4096."""
    context: int = 256
    """Tokens in a window."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the computation."""
    price_per_hour: float | None = None
    """Of the machine, in dollars."""
    price_per_kwh: float | None = None
    """Of electricity, in dollars; its cost comes on top."""
    data: str = "DATA"
    """What the command to run shall train on."""


@dataclasses.dataclass(frozen=True)
class _Model:
    parameters: int
    depth: int
    width: int


_Step = Callable[[_Model, str, int], dict[str, Any]]
"""What an update of a model takes, by an optimizer, of so many micro-batches."""
_UNITS = {"flops": "FLOP", "hours": "hours", "budget_usd": "dollars", "joules": "joules"}
_BUDGETS = {"flops": "--flops", "hours": "--hours", "budget_usd": "--budget-usd", "joules": "--joules"}


def run(arguments: Arguments) -> int:
    found = plan(arguments)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    for line in found["notes"]:
        print(f"note: {line}", file=sys.stderr)
    return 0


def plan(arguments: Arguments) -> dict[str, Any]:
    """The plan, JSON-ready; what is not known is ``None``."""
    from tickwise.cli import estimate
    from tickwise.cli.estimate_figures import number_format
    from tickwise.profiling.predict import find_machine
    from tickwise.scaling.plan import (
        INFERENCE_SHARE,
        best_model,
        expected_loss,
        optimal_size_interval,
        tokens_within,
        training_flops,
    )
    from tickwise.scaling.study import read_law

    kind, budget = _check(arguments)
    law = read_law(arguments.law)
    given = arguments.vocab_size
    arguments = dataclasses.replace(arguments, vocab_size=given or law.vocab_size or _VOCAB_SIZE)
    machine = find_machine(arguments.hardware)
    dtype = cast(Literal["fp32", "bf16"], number_format(_asked(arguments), machine))
    arguments = dataclasses.replace(arguments, dtype=dtype)
    step = functools.partial(_step, functools.cache(functools.partial(_update, arguments, machine)))
    models = _ladder(arguments)
    with progress("sizes", None, "estimates") as bar:

        def cost(index: int) -> float:
            bar.advance(1)
            return _cost_per_token(arguments, kind, budget, models[index], functools.partial(_by_few_layers, step))

        chosen = best_model(law, [model.parameters for model in models], cost, budget, arguments.inference_tokens)
    if chosen is None:
        raise ConfigError(_too_small(arguments, kind, models[0], cost(0), is_smallest=True))
    model = models[chosen]
    per_token = _cost_per_token(arguments, kind, budget, model, step)
    tokens = tokens_within(budget, per_token, arguments.inference_tokens)
    flops = training_flops(model.parameters, tokens)
    used = training_flops(model.parameters, INFERENCE_SHARE * arguments.inference_tokens)
    free_size, free_interval = optimal_size_interval(law, flops + used, arguments.inference_tokens)
    batch = _batch_tokens(arguments)
    if tokens < batch or (chosen == 0 and free_size < model.parameters / 2 and not arguments.inference_tokens):
        raise ConfigError(_too_small(arguments, kind, model, per_token, is_smallest=chosen == 0, optimum=free_size))
    recipe, accumulate = _recipe(arguments, model, flops, tokens)
    expected = expected_loss(law, model.parameters, tokens)
    found = estimate.estimate(_asked(arguments), _settings(arguments, model, recipe.optimizer, min(accumulate, 2)))
    amounts, steps = step(model, recipe.optimizer, accumulate), tokens / (accumulate * batch)
    return {
        "budget": {kind: budget}, "inference_tokens": arguments.inference_tokens or None, "kind": "modelled",
        "parameters": model.parameters, "depth": model.depth, "width": model.width, "tokens": round(tokens),
        "flops": flops, "tokens_per_parameter": tokens / model.parameters,
        "optimum_by_the_law": {"parameters": free_size, "interval_95": free_interval},
        "batch_tokens": round(recipe.batch_tokens), "batch_size": round(recipe.batch_tokens / arguments.context),
        "accumulate": accumulate, "learning_rate": recipe.lr, "recipe_source": recipe.source,
        "steps": round(tokens / recipe.batch_tokens),
        "loss": {"value": expected.loss, "interval_95": expected.interval},
        "hardware": found["hardware"], "hardware_source": found["hardware_source"], "dtype": found["dtype"],
        "time_s": steps * amounts["hours"] * 3600, "time_is": found["time_is"],
        "energy_j": None if amounts["joules"] is None else steps * amounts["joules"],
        "energy_source": found["energy_source"],
        "cost_usd": None if amounts["budget_usd"] is None else steps * amounts["budget_usd"],
        "memory_bytes": found["memory_bytes"]["total"], "memory_available_bytes": found["memory_available_bytes"],
        "command": _command(arguments, model, recipe, accumulate, round(tokens), found["dtype"]),
        "notes": _notes(law, model, flops, found, _vocabulary(arguments)),
    }


def _check(arguments: Arguments) -> tuple[str, float]:
    """Which budget was given, and how much. ``ConfigError`` for it or any other flag before time goes into anything."""
    from tickwise.cli import estimate
    from tickwise.profiling.hardware import named_hardware

    given = {name: getattr(arguments, name) for name in _BUDGETS if getattr(arguments, name) is not None}
    if len(given) != 1:
        raise ConfigError(f"give one budget: {', '.join(_BUDGETS.values())}" + (
            f" (not {' and '.join(_BUDGETS[name] for name in given)})" if given else ""))
    kind, budget = next(iter(given.items()))
    if not 0 < budget < float("inf"):
        raise ConfigError(f"{_BUDGETS[kind]}: must be positive, got {budget:g}")
    if not 0 <= arguments.inference_tokens < float("inf"):
        raise ConfigError(f"--inference-tokens: must not be negative, got {arguments.inference_tokens:g}")
    if kind == "budget_usd" and arguments.price_per_hour is None and arguments.price_per_kwh is None:
        raise ConfigError("--budget-usd: give --price-per-hour of the machine, --price-per-kwh, or both")
    estimate.check(_asked(arguments))
    if arguments.hardware != "here":
        named_hardware(arguments.hardware)
    return kind, float(budget)


def _vocabulary(arguments: Arguments) -> int:
    assert arguments.vocab_size is not None
    return arguments.vocab_size


def _ladder(arguments: Arguments) -> list[_Model]:
    """Decoders by rising size, from one to two layers for each 64 features, at least 3 % apart."""
    found: list[_Model] = []
    for step in range(1, _WIDEST + 1):
        width = _WIDTH_STEP * step
        one, two = _one_and_two_layers(arguments, width)
        found += [_Model(one + (depth - 1) * (two - one), depth, width) for depth in range(step, 2 * step + 1)]
    found.sort(key=lambda model: model.parameters)
    apart = [found[0]]
    for model in found[1:]:
        if model.parameters > _CLOSEST_SIZES * apart[-1].parameters:
            apart.append(model)
    return apart


def _one_and_two_layers(arguments: Arguments, width: int) -> tuple[int, int]:
    """Parameters of a model with one layer, and with two."""
    import torch

    from tickwise.models.decoder import Decoder
    from tickwise.training.config import ModelOptions
    from tickwise.training.dial import decoder_from_dial

    with torch.device("meta"):
        module = Decoder(decoder_from_dial(2, arguments.context, _vocabulary(arguments), ModelOptions(width=width)))
    two = module.n_parameters()
    return two - sum(p.numel() for p in module.layers[1].parameters()), two


def _step(update: _Step, model: _Model, optimizer: str, accumulate: int) -> dict[str, Any]:
    """``update`` of so many micro-batches of the dial's size: forward and backward each, and the weights once."""
    found = update(model, optimizer, min(accumulate, 2))
    if accumulate > 2:  # each micro-batch beyond the second costs what the second one did
        found = _grown(update(model, optimizer, 1), found, accumulate - 2)
    return found


def _by_few_layers(step: _Step, model: _Model, optimizer: str, accumulate: int) -> dict[str, Any]:
    """The same as ``step``, from two models as wide with few of its layers: each further one adds the same. On a
    calibrated machine about the same: there a product of stacked matrices, as Muon has them, takes another time for
    each number of them (24 layers of 768 features, one micro-batch: 3 % less)."""
    fewer, more = _FEW_LAYERS
    if model.depth <= more:
        return step(model, optimizer, accumulate)
    less, found = (step(dataclasses.replace(model, depth=depth), optimizer, accumulate) for depth in _FEW_LAYERS)
    return _grown(less, found, (model.depth - more) / (more - fewer))


def _grown(less: dict[str, Any], more: dict[str, Any], steps: float) -> dict[str, Any]:
    """``more``, and so often what it has above ``less``."""
    return more | {name: None if more[name] is None else more[name] + steps * (more[name] - less[name])
                   for name in ("hours", "joules", "budget_usd")}


def _asked(arguments: Arguments) -> "estimate.Arguments":
    """What ``tickwise estimate`` is asked."""
    from tickwise.cli import estimate

    return estimate.Arguments(
        purpose="train", dtype=arguments.dtype, hardware=arguments.hardware, context=arguments.context,
        vocab_size=arguments.vocab_size, price_per_hour=arguments.price_per_hour, price_per_kwh=arguments.price_per_kwh)


def _update(arguments: Arguments, machine: "Machine", model: _Model, optimizer: str, accumulate: int) -> dict[str, Any]:
    """What one update of so many of the dial's batches takes in the budgets' units (``hours``, ``joules``,
    ``budget_usd``), by ``tickwise estimate``, on which hardware, and where its energy is from."""
    from tickwise.cli import estimate

    found = estimate.update(_asked(arguments), _settings(arguments, model, optimizer, accumulate), machine)
    return {"hours": found["time_s"]["total"] / 3600, "joules": found["energy_j"], "budget_usd": found["cost"],
            "hardware": machine.hardware.name, "energy_source": found["energy_source"]}


def _settings(arguments: Arguments, model: _Model, optimizer: str, accumulate: int) -> "TrainConfig":
    config = _resolved(arguments, model)
    assert config.batch_size is not None
    return dataclasses.replace(config, vocab_size=_vocabulary(arguments), accumulate=accumulate,
                               batch_size=accumulate * config.batch_size, max_tokens=None,
                               optimizer=dataclasses.replace(config.optimizer, name=cast(Any, optimizer)))


def _resolved(arguments: Arguments, model: _Model) -> "TrainConfig":
    """The run as the dial sets it up."""
    from tickwise.training.config import ModelOptions, TrainConfig
    from tickwise.training.dial import decoder_from_dial, resolve

    options = ModelOptions(width=model.width)
    config = TrainConfig(data=Path(), depth=model.depth, context=arguments.context, model=options)
    decoder = decoder_from_dial(model.depth, arguments.context, _vocabulary(arguments), options)
    return resolve(config, decoder, n_parameters=1, n_train_tokens=1)


def _batch_tokens(arguments: Arguments) -> int:
    """Of the batch that the dial takes, for which steps are estimated."""
    config = _resolved(arguments, _Model(0, 1, _WIDTH_STEP))
    assert config.batch_size is not None
    return config.batch_size * arguments.context


def _cost_per_token(arguments: Arguments, kind: str, budget: float, model: _Model,
                    step: _Step) -> float:
    """Of one training token, in the budget's unit. It falls with the micro-batches that share an update; how many do
    follows from the tokens that the budget pays for, and these from the cost."""
    from tickwise.scaling.plan import tokens_within, training_flops

    if kind == "flops":
        return training_flops(model.parameters, 1)
    cost, tried = 0.0, None
    recipe, accumulate = _recipe(arguments, model, 0.0, 0.0)
    for _ in range(_ROUNDS):
        if (recipe.optimizer, accumulate) == tried:
            break
        found, tried = step(model, recipe.optimizer, accumulate), (recipe.optimizer, accumulate)
        if found[kind] is None:
            raise ConfigError(f"{_BUDGETS[kind]}: the energy of {found['hardware']} is not known "
                              f"({found['energy_source']}); budget by --hours, or give power_w in a file for "
                              "--hardware")
        cost = float(found[kind]) / (accumulate * _batch_tokens(arguments))
        tokens = max(0.0, tokens_within(budget, cost, arguments.inference_tokens))
        recipe, accumulate = _recipe(arguments, model, training_flops(model.parameters, tokens), tokens)
    return cost


def _recipe(arguments: Arguments, model: _Model, flops: float, tokens: float) -> "tuple[Recipe, int]":
    """Batch and learning rate, and the micro-batches that the batch is split into."""
    from tickwise.scaling.plan import Recipe, published_recipe

    config, micro = _resolved(arguments, model), _batch_tokens(arguments)
    published = published_recipe(flops)
    if published is None:
        assert config.optimizer.lr is not None
        return Recipe(micro, config.optimizer.lr, "the dial of tickwise train", config.optimizer.name), 1
    accumulate = max(1, round(min(published.batch_tokens, tokens) / micro))
    return dataclasses.replace(published, batch_tokens=float(accumulate * micro)), accumulate


def _command(arguments: Arguments, model: _Model, recipe: "Recipe", accumulate: int, tokens: int, dtype: str) -> str:
    batch = round(recipe.batch_tokens / arguments.context)
    words = ["tickwise train", shlex.quote(arguments.data), f"--depth {model.depth} --model.width {model.width}",
             f"--context {arguments.context} --vocab-size {arguments.vocab_size} --batch-size {batch}"]
    if accumulate > 1:
        words.append(f"--accumulate {accumulate}")
    words.append(f"--optimizer.name {recipe.optimizer} --optimizer.lr {recipe.lr:.3g}")
    return " ".join([*words, f"--max-tokens {tokens} --dtype {dtype}"])


def _too_small(arguments: Arguments, kind: str, model: _Model, per_token: float, *, is_smallest: bool,
               optimum: float | None = None) -> str:
    """The line for a budget that does not train ``model``, at this cost of a token, for one step."""
    flag, amount = _BUDGETS[kind], getattr(arguments, kind)
    which = "below the smallest model" if is_smallest else "too little to train the best size"
    what = f"{flag} {amount:g}: {which} of {model.parameters:,} parameters (vocabulary {_vocabulary(arguments):,})"
    if arguments.inference_tokens:
        return f"{what}: its {arguments.inference_tokens:g} --inference-tokens and one step of training cost more"
    if is_smallest and optimum is not None and optimum < model.parameters:
        return f"{what}: the best size would be {optimum:,.0f} parameters; give more, or a smaller --vocab-size"
    need = f"{format_number(per_token * _batch_tokens(arguments))} {_UNITS[kind]}"
    return f"{what}: one step of it takes {need}; give more"


def _notes(law: "FittedLaw", model: _Model, flops: float, found: dict[str, Any], vocab_size: int) -> list[str]:
    lines = []
    if law.vocab_size is None:
        lines.append(f"the law does not say the vocabulary of its runs; its losses per token hold for a vocabulary of "
                     f"{vocab_size:,} only if theirs was the same (column vocab_size for tickwise scale fit)")
    elif law.vocab_size != vocab_size:
        lines.append(f"the law's runs have a vocabulary of {law.vocab_size:,}, this model {vocab_size:,}: tokens are "
                     "other ones, and the expected loss does not hold")
    if flops > law.largest_flops:
        times = flops / law.largest_flops
        far = "; an extrapolation this far may be badly off" if times > _FAR_BEYOND else ""
        lines.append(f"{format_number(times)} times the compute of the largest fitted run "
                     f"({format_number(law.largest_flops)} FLOP){far}")
    if not law.smallest_parameters <= model.parameters <= law.largest_parameters:
        lines.append(f"{format_count(model.parameters)} parameters are outside the fitted sizes, "
                     f"{format_count(law.smallest_parameters)} to {format_count(law.largest_parameters)}")
    available = found["memory_available_bytes"]
    if available is not None and found["memory_bytes"]["total"] > available:
        lines.append(f"needs {found['memory_bytes']['total']:,} bytes of memory, {found['hardware']} has {available:,}")
    return lines


def _print(found: dict[str, Any]) -> None:
    def interval(values: list[float] | None, shown: Any = lambda value: format_number(value, 4)) -> str:
        return "" if values is None else f" (95 %: {shown(values[0])} to {shown(values[1])})"

    optimum, loss = found["optimum_by_the_law"], found["loss"]
    energy, cost = found["energy_j"], found["cost_usd"]
    used = " and use" if found["inference_tokens"] else ""
    print(f"model: {format_count(found['parameters'])} parameters, depth {found['depth']}, width {found['width']}; the "
          f"law's optimum for this compute{used}: {format_count(optimum['parameters'])}"
          + interval(optimum["interval_95"], format_count))
    print(f"tokens: {format_count(found['tokens'])}, {format_number(found['tokens_per_parameter'])} for each "
          f"parameter; {format_number(found['flops'])} FLOP")
    print(f"batch: {found['batch_tokens']:,} tokens, {found['steps']:,} steps; learning rate "
          f"{found['learning_rate']:.3g} ({found['recipe_source']})")
    print(f"expected loss: {format_number(loss['value'], 4)} nats per token{interval(loss['interval_95'])}")
    print(f"time: {format_seconds(found['time_s'])} on {found['hardware']}, {found['dtype']}, {found['time_is']}; "
          "energy: " + ("n/a" if energy is None else format_energy(energy)) + f" ({found['energy_source']})"
          + ("" if cost is None else f"; cost ${format_number(cost, 4)}"))
    print(f"run: {found['command']}")
