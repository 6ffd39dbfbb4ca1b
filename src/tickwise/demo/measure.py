"""Where the demo's training step and generated token spend their time, as breakdowns for the report."""

import torch

from tickwise.core.console import format_count
from tickwise.core.stages import Stage
from tickwise.data.prepared import PreparedData
from tickwise.engine.kv_cache import KVCache
from tickwise.engine.language_model import LanguageModel
from tickwise.engine.plain import write_plainly
from tickwise.engine.sampling import TokenChooser
from tickwise.engine.settings import GenerationSettings
from tickwise.models.decoder import Decoder
from tickwise.profiling.ceilings import Ceilings
from tickwise.profiling.program import list_program, list_training_program
from tickwise.profiling.step_profile import StageProfile, profile_decode_token, profile_training_step
from tickwise.report.charts import duration
from tickwise.report.data import Breakdown, TimeRow
from tickwise.training.loop import update
from tickwise.training.next_token import next_token_loss
from tickwise.training.run import Plan, build

_DECODED_TOKENS = 31


def training_step(made: Plan, data: PreparedData, limits: Ceilings, budget_s: float) -> Breakdown:
    """One step of the run's own shape, number format and optimizer, on a fresh model."""
    config = made.config
    assert config.batch_size is not None
    training = build(made, data)
    module = training.module.train()
    assert isinstance(module, Decoder)

    def next_batch() -> tuple[torch.Tensor, torch.Tensor]:
        inputs_BT, targets_BT = training.objective.next_batch().inputs
        return inputs_BT.to(made.device), targets_BT.to(made.device)

    def optimizer_step() -> None:
        update(training, training.weights.collect(first=True), scale=1.0)
        training.weights.clear()

    inputs_BT, targets_BT = next_batch()
    profile = profile_training_step(
        module,
        next_batch=next_batch,
        loss=lambda batch: next_token_loss(module, batch[0], batch[1]),
        optimizer_step=optimizer_step,
        budget_s=budget_s,
        program=list_training_program(module, inputs_BT, targets_BT, call=next_token_loss),
        peak_flops_per_s=limits.peak_flops_per_s(made.dtype),
    )
    return _breakdown(
        "One training step",
        f"{config.batch_size} sequences of {config.context} tokens in {made.dtype}: "
        f"{format_count(config.batch_size * config.context / (profile.wall_ns * 1e-9))} tokens/s. "
        + _middle(profile),
        profile,
        # Muon's products are real work that the counter does not see.
        uncounted=(Stage.OPTIMIZER,),
    )


def decoded_token(model: LanguageModel, prompt: str, limits: Ceilings, budget_s: float) -> Breakdown:
    """One token of a single sample, some way into a text."""
    module, config = model.module, model.config
    settings = GenerationSettings(max_tokens=4 * _DECODED_TOKENS, temperature=0.7, top_p=0.95, ignore_eos=True, seed=1)
    prompt_ids = model.tokenizer.encode(prompt)
    tokens = write_plainly(module, prompt_ids, TokenChooser(settings, prompt_ids, model.tokenizer))
    next(tokens)
    middle = min(len(prompt_ids) + 1 + _DECODED_TOKENS, config.context_length - 1)
    cache = KVCache(config.n_layers, 1, config.n_kv_heads, config.head_dim, middle + 1, model.dtype, model.device)
    cache.advance(middle)
    profile = profile_decode_token(
        module,
        lambda: next(tokens),
        repetitions=_DECODED_TOKENS,
        budget_s=budget_s,
        program=list_program(module, torch.zeros(1, 1, dtype=torch.long, device=model.device), cache=cache),
        peak_flops_per_s=limits.peak_flops_per_s("fp32"),
    )
    return _breakdown(
        "One generated token",
        f"One text, fp32, FLOPs at position {middle}: {1e9 / profile.wall_ns:,.0f} tokens/s. " + _middle(profile),
        profile,
    )


def _middle(profile: StageProfile) -> str:
    n = profile.repetitions
    text = "One repetition" if n == 1 else f"Mean of the middle half of {n} repetitions"
    if profile.plain_wall_ns is not None:
        text += f"; without the timing hooks it takes {duration(profile.plain_wall_ns)}"
    if profile.disturbed:
        text += (". That is far from the time above: other programs used this machine meanwhile, and the shares "
                 "below are those of a busy machine")
    return text + "."


def _breakdown(title: str, text: str, profile: StageProfile, uncounted: tuple[Stage, ...] = ()) -> Breakdown:
    return Breakdown(
        title=title,
        text=text,
        wall_ns=profile.wall_ns,
        flops=profile.flops,
        share_of_peak=profile.share_of_peak,
        rows=tuple(
            TimeRow(
                phase=row.phase,
                stage=row.stage.value,
                duration_ns=row.duration_ns,
                flops=None if row.stage in uncounted else row.flops,
                share_of_peak=row.share_of_peak,
            )
            for row in profile.by_stage()
        ),
    )
