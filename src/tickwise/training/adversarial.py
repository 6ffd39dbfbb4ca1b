"""Two loops in which two optimizers alternate: SeqGAN over sentences, and a Wasserstein GAN over latent vectors.
SeqGAN's judge may also be a language model (``training/mediated_game.py``).

Sources: Yu et al. 2017 (SeqGAN: a policy gradient whose rewards come from rollouts judged by a discriminator), by
default with the batch's mean reward at each position as a baseline; Gulrajani et al. 2017 (WGAN-GP).
Shape legend: B sequences, T tokens, R rollouts, Z latent width.
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tickwise.core.config import read_json
from tickwise.core.errors import CheckpointError, ConfigError, NumericsError
from tickwise.core.paths import atomic_directory, write_text_atomic
from tickwise.core.seeds import restore_rng_state, rng_state
from tickwise.core.stages import Stage, mark
from tickwise.interop.directory import checkpoint_paths, read_tensors, write_tensors
from tickwise.models.gan import LatentGan, gradient_penalty
from tickwise.models.lockstep import ended_lengths, roll_out, shifted, write
from tickwise.models.recurrent import Recurrent
from tickwise.training.config import OptimizerOptions
from tickwise.training.optimizers import MasterWeights, Optimizer, total_norm
from tickwise.training.sentence_likelihood import sentence_loss

_STATE, _TENSORS = "training.json", "training.safetensors"
_JUDGED_AT_ONCE = 512
LONG_MEMORY = 0.999
"""Beta2 of what has a row for each word: a shorter memory forgets the last occurrence of rare ones."""


@dataclass(frozen=True, kw_only=True)
class AdversarialOptions:
    """The game between a generator of sentences and a discriminator."""

    judge: Literal["convolutions", "language-model"] = "convolutions"
    """What judges the written sentences: convolutions that tell them from real ones, as in SeqGAN; or a language model
    that learns real and written ones alike, and says of every word what it expects in its place (Lu et al. 2019). The
    latter begins as a copy of the generator, and needs no rollouts."""
    steps: int = 200
    """Updates of the generator."""
    batch_size: int = 64
    rollouts: int = 4
    """Ways in which every beginning of a sentence is ended, to judge its next word."""
    baseline: Literal["mean", "none"] = "mean"
    """What is taken off a word's reward: the mean of the batch at its place, or, as in SeqGAN's paper, nothing. Rewards
    are positive, so with nothing taken off every written word gains probability, which sharpens the distribution."""
    lr: float = 1e-3
    discriminator_lr: float = 5e-3
    discriminator_weight_decay: float | None = None
    """Decoupled; it keeps the discriminator from learning the training sentences by heart. Left out: 0.3, and 0 for a
    language model."""
    discriminator_first: int = 300
    """Updates of the discriminator before the generator's first one."""
    discriminator_steps: int = 5
    """Updates of the discriminator after each of the generator's."""
    likelihood: float = 0.0
    """Weight of maximum likelihood on a batch of real sentences beside each policy gradient; it keeps the variety."""
    clip_norm: float = 5.0
    max_seconds: float | None = None
    """Most wall-clock time of the game, whose maximum likelihood --max-seconds is about."""

    def __post_init__(self) -> None:
        if self.judge not in ("convolutions", "language-model"):
            raise ConfigError(f"--adversarial.judge: convolutions or language-model, got {self.judge!r}")
        for name in ("batch_size", "rollouts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--adversarial.{name.replace('_', '-')}: must be at least 1")
        for name in ("steps", "discriminator_first", "discriminator_steps", "discriminator_weight_decay", "likelihood"):
            if getattr(self, name) is not None and not getattr(self, name) >= 0:
                raise ConfigError(f"--adversarial.{name.replace('_', '-')}: must not be negative")
        for name in ("lr", "discriminator_lr", "clip_norm", "max_seconds"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ConfigError(f"--adversarial.{name.replace('_', '-')}: must be positive")
        if self.judge == "language-model":
            for name in ("rollouts", "baseline"):
                if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                    raise ConfigError(f"--adversarial.{name}: has no effect on --adversarial.judge language-model, "
                                      "which judges every word itself; leave it out")

    @property
    def decay(self) -> float:
        """The discriminator's weight decay."""
        if self.discriminator_weight_decay is not None:
            return self.discriminator_weight_decay
        return 0.0 if self.judge == "language-model" else 0.3


class _Learner:
    """A module with its optimizer: one update from a loss."""

    def __init__(self, name: str, module: nn.Module, lr: float, clip_norm: float, beta1: float, beta2: float,
                 weight_decay: float = 0.0) -> None:
        self.name, self.clip_norm = name, clip_norm
        self.weights = MasterWeights(module, torch.float32)
        options = OptimizerOptions(name="adamw", lr=lr, weight_decay=weight_decay, beta1=beta1, beta2=beta2)
        self.optimizer = Optimizer(module, self.weights, options, torch.float32)

    def update(self, loss: Tensor) -> None:
        """``NumericsError``, and no weight is changed, where the gradient is not finite."""
        self.weights.clear()
        mark(Stage.BACKWARD)
        loss.backward()
        gradients = self.weights.collect(first=True)
        mark(Stage.OPTIMIZER)
        norm = total_norm(gradients).item()
        if not math.isfinite(norm):
            raise NumericsError(f"the gradient of the {self.name} is not finite; lower the learning rates, or go on "
                                "from an earlier checkpoint")
        if norm > self.clip_norm:
            torch._foreach_mul_(gradients, self.clip_norm / norm)
        self.optimizer.step(gradients, 1.0)
        self.weights.clear()


def policy_loss(log_p_BT: Tensor, rewards_BT: Tensor, inside_BT: Tensor, baseline: str = "mean") -> Tensor:
    """Whose gradient raises the probability of words with more reward than the batch has at that position; with the
    baseline "none", of all words by their reward.

    ``log_p_BT`` are the log-probabilities of the words that were written; REINFORCE (Williams 1992).
    """
    inside_BT = inside_BT.to(log_p_BT.dtype)
    if baseline == "mean":
        rewards_BT = rewards_BT - (rewards_BT * inside_BT).sum(0) / inside_BT.sum(0).clamp(min=1)
    advantages_BT = rewards_BT * inside_BT
    return -(advantages_BT.detach() * log_p_BT).sum() / inside_BT.sum()


class SeqGan:
    """The game's state and its two moves; everything random comes from torch's generator.

    ``real`` (N, T) are the real sequences, behind ``eos_id`` nothing but ``eos_id``; without ``eos_id`` all have T
    tokens. ``first_id`` is what a sequence is read after.
    """

    discriminator_memory = 0.99
    """Beta2 of the discriminator's optimizer."""

    def __init__(self, generator: Recurrent, discriminator: nn.Module, real: Tensor, *, first_id: int,
                 eos_id: int | None, options: AdversarialOptions) -> None:
        self.generator, self.discriminator, self.real = generator, discriminator, real
        self.first_id, self.eos_id, self.options = first_id, eos_id, options
        self._generator = _Learner("generator", generator, options.lr, options.clip_norm, 0.9, LONG_MEMORY)
        self._discriminator = _Learner("discriminator", discriminator, options.discriminator_lr, options.clip_norm,
                                       0.9, self.discriminator_memory, options.decay)
        self.step = self.warmed_up = 0
        self.device, self.batch_size = next(generator.parameters()).device, options.batch_size

    # ------------------------------------------------------------------ sequences

    def first(self, n: int) -> Tensor:
        return torch.full((n,), self.first_id, device=self.device)

    def written(self, n: int) -> Tensor:
        """(n, T) sequences of the generator, padded with ``eos_id``."""
        self.generator.eval()
        length = self.real.shape[1]
        ids_BT = write(self.generator, self.first(n), length, eos_id=self.eos_id)
        if ids_BT.shape[1] < length:
            assert self.eos_id is not None
            ids_BT = F.pad(ids_BT, (0, length - ids_BT.shape[1]), value=self.eos_id)
        return ids_BT

    def some_real(self, n: int) -> Tensor:
        mark(Stage.DATA)
        return self.real[torch.randint(len(self.real), (n,))].to(self.device, torch.long)

    def _inside(self, ids_BT: Tensor) -> Tensor:
        if self.eos_id is None:
            return torch.ones_like(ids_BT, dtype=torch.bool)
        return torch.arange(ids_BT.shape[1], device=ids_BT.device) < ended_lengths(ids_BT, self.eos_id)[:, None]

    # ------------------------------------------------------------------ moves

    @property
    def warms_up(self) -> bool:
        """The discriminator still learns before the generator's first update."""
        return self.step == 0 and self.warmed_up < self.options.discriminator_first

    @property
    def place(self) -> str:
        """How far the game is, in words."""
        if self.warms_up or self.step == 0:
            return f"update {self.warmed_up:,} of {self.options.discriminator_first:,} of the discriminator alone"
        return f"step {self.step:,} of the game"

    def move(self) -> dict[str, float]:
        """The next update of the discriminator, while it warms up; then one of the generator with those of the
        discriminator that follow it."""
        if self.warms_up:
            self.warmed_up += 1
            return self.train_discriminator()
        figures = self.train_generator()
        for _ in range(self.options.discriminator_steps):
            figures |= self.train_discriminator()
        return figures

    def train_discriminator(self) -> dict[str, float]:
        """One update on as many real as written sequences."""
        n = self.options.batch_size
        ids = torch.cat((self.some_real(n), self.written(n)))
        self.discriminator.train()
        logits_B = self.discriminator(ids)
        mark(Stage.LOSS)
        is_real_B = torch.arange(2 * n, device=ids.device) < n
        loss = F.binary_cross_entropy_with_logits(logits_B, is_real_B.float())
        self._discriminator.update(loss)
        return {"discriminator_loss": loss.item(),
                "discriminator_accuracy": ((logits_B > 0) == is_real_B).float().mean().item()}

    @torch.no_grad()
    def rewards(self, ids_BT: Tensor) -> Tensor:
        """(B, T): how likely to be real the discriminator finds the sequences that begin with each prefix."""
        self.generator.eval()
        self.discriminator.eval()
        options = self.options
        ends = roll_out(self.generator, self.first(len(ids_BT)), ids_BT, options.rollouts, eos_id=self.eos_id)
        sequences = torch.cat((ends.flatten(0, 2), ids_BT))
        judged = torch.cat([torch.sigmoid(self.discriminator(part)) for part in sequences.split(_JUDGED_AT_ONCE)])
        by_prefix_BT = judged[: -len(ids_BT)].view(*ends.shape[:3]).mean(1).t()
        return torch.cat((by_prefix_BT, judged[-len(ids_BT) :, None]), 1)

    def train_generator(self) -> dict[str, float]:
        """One update by policy gradient."""
        options = self.options
        ids_BT = self.written(options.batch_size)
        rewards_BT, inside_BT = self.rewards(ids_BT), self._inside(ids_BT)
        self.generator.eval()  # the probabilities of the policy that wrote them
        log_p_BT = self.log_probabilities(ids_BT)
        mark(Stage.LOSS)
        loss = policy_loss(log_p_BT, rewards_BT, inside_BT, options.baseline)
        if options.likelihood:
            self.generator.train()
            loss = loss + options.likelihood * self.likelihood_loss(self.some_real(options.batch_size))
        self._generator.update(loss)
        self.step += 1
        return {"reward": rewards_BT[:, -1].mean().item(), "tokens": float(inside_BT.sum())}

    def likelihood_loss(self, ids_BT: Tensor) -> Tensor:
        """Mean cross-entropy (nats) of real sequences."""
        return sentence_loss(self.generator, ids_BT, self._inside(ids_BT), self.first_id)

    def train_likelihood(self) -> float:
        """One update by maximum likelihood, with the same optimizer."""
        self.generator.train()
        loss = self.likelihood_loss(self.some_real(self.options.batch_size))
        self._generator.update(loss)
        return loss.item()

    def set_rate(self, lr: float) -> None:
        """The generator's learning rate from now on."""
        for group in self._generator.optimizer.rest.param_groups:
            group["peak"] = lr

    def log_probabilities(self, ids_BT: Tensor) -> Tensor:
        """(B, T): of each word given those before it."""
        hidden_BTC, _ = self.generator.read(shifted(ids_BT, self.first_id))
        log_p_BTV = torch.log_softmax(self.generator.logits(hidden_BTC).float(), -1)
        return log_p_BTV.gather(2, ids_BT.unsqueeze(2)).squeeze(2)

    # ------------------------------------------------------------------ checkpoints

    def tensors(self) -> dict[str, Tensor]:
        """All that the next move depends on, by name."""
        return _tensors({"generator": self._generator, "discriminator": self._discriminator})

    def state(self) -> dict[str, int]:
        """How far it is."""
        return {"step": self.step, "warmed_up": self.warmed_up}

    def restore(self, tensors: dict[str, Tensor], state: Mapping[str, int]) -> None:
        _restore({"generator": self._generator, "discriminator": self._discriminator}, tensors)
        self.step, self.warmed_up = state["step"], state.get("warmed_up", self.options.discriminator_first)


class LatentGame:
    """WGAN-GP over latent vectors ``real`` (N, Z). Its critic and its generator warm up together."""

    warms_up = False

    def __init__(self, gan: LatentGan, real: Tensor, *, batch_size: int, lr: float, critic_steps: int,
                 penalty: float) -> None:
        self.gan, self.batch_size, self.critic_steps, self.penalty = gan, batch_size, critic_steps, penalty
        gan.mean.copy_(real.mean(0))
        gan.deviation.copy_(real.std(0).clamp(min=1e-6))
        self.real = (real - gan.mean) / gan.deviation
        self._generator = _Learner("generator", gan.generator, lr, float("inf"), 0.0, 0.9)
        self._critic = _Learner("critic", gan.judge, lr, float("inf"), 0.0, 0.9)
        self.step, self.device = 0, real.device

    @property
    def place(self) -> str:
        """How far the game is, in words."""
        return f"step {self.step:,} of the game"

    def move(self) -> dict[str, float]:
        """The critic's updates and one of the generator."""
        return self.train_generator()

    def _noise(self) -> Tensor:
        return torch.randn(self.batch_size, self.gan.config.noise, device=self.real.device)

    def train_critic(self) -> float:
        """One update; returns the estimated Wasserstein distance (of vectors of unit scale)."""
        mark(Stage.DATA)
        real_BZ = self.real[torch.randint(len(self.real), (self.batch_size,))]
        with torch.no_grad():
            written_BZ = self.gan.generate(self._noise())
        distance = self.gan.critic(real_BZ).mean() - self.gan.critic(written_BZ).mean()
        shares_B1 = torch.rand(self.batch_size, 1, device=real_BZ.device)
        self._critic.update(self.penalty * gradient_penalty(self.gan, real_BZ, written_BZ, shares_B1) - distance)
        return distance.item()

    def train_generator(self) -> dict[str, float]:
        """As many critic updates as there are to be, then one of the generator."""
        distance = 0.0
        for _ in range(self.critic_steps):
            distance = self.train_critic()
        self._generator.update(-self.gan.critic(self.gan.generate(self._noise())).mean())
        self.step += 1
        return {"distance": distance}

    def tensors(self) -> dict[str, Tensor]:
        """All that the next move depends on, by name."""
        return _tensors({"generator": self._generator, "critic": self._critic})

    def state(self) -> dict[str, int]:
        """How far it is."""
        return {"step": self.step}

    def restore(self, tensors: dict[str, Tensor], state: Mapping[str, int]) -> None:
        _restore({"generator": self._generator, "critic": self._critic}, tensors)
        self.step = state["step"]


def _tensors(learners: dict[str, _Learner]) -> dict[str, Tensor]:
    found = {f"rng.{name}": state for name, state in rng_state().items()}
    for name, learner in learners.items():
        weights = zip(learner.weights.names, learner.weights.masters, strict=True)
        found |= {f"{name}.{key}": value for key, value in weights}
        found |= {f"{name}.optimizer.{key}": value for key, value in learner.optimizer.state_tensors().items()}
    return found


def _restore(learners: dict[str, _Learner], tensors: dict[str, Tensor]) -> None:
    for name, learner in learners.items():
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        with torch.no_grad():
            for key, value in zip(learner.weights.names, learner.weights.masters, strict=True):
                if key not in own or value.shape != own[key].shape:
                    raise CheckpointError(f"the checkpoint lacks {name}.{key}, or has it in another shape; start a new "
                                          "--out")
                value.copy_(own[key])
        optimizer = {key.removeprefix("optimizer."): value for key, value in own.items()
                     if key.startswith("optimizer.")}
        if optimizer:  # none before its first step
            learner.optimizer.load_state_tensors(optimizer, name)
    restore_rng_state({key.removeprefix("rng."): value.to(torch.uint8) for key, value in tensors.items()
                       if key.startswith("rng.")})


@dataclass(frozen=True)
class Played:
    """How far a saved game had come: seconds, and the newest of each of its figures."""

    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)


def save_game(out: Path, game: SeqGan | LatentGame, settings: dict[str, Any], keep: int = 2,
              played: Played = Played()) -> None:
    """``checkpoints/step-N`` of the game, whole or not at all."""
    with atomic_directory(out / "checkpoints" / f"step-{game.step}") as folder:
        write_tensors(folder / _TENSORS, game.tensors())
        state = game.state() | {**asdict(played), "settings": settings}
        write_text_atomic(folder / _STATE, json.dumps(state, indent=2) + "\n")
    for old in checkpoint_paths(out)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def resume_game(out: Path, game: SeqGan | LatentGame, settings: dict[str, Any]) -> Played | None:
    """Bring ``game`` to its newest checkpoint, if there is one, and return how it got there; ``CheckpointError`` for
    other settings."""
    paths = checkpoint_paths(out)
    if not paths:
        return None
    state = read_json(paths[-1] / _STATE, "the training state", CheckpointError)
    saved = {"judge": "convolutions"} | state.get("settings", {})
    for name, value in json.loads(json.dumps(settings)).items():
        if saved.get(name) != value:
            raise CheckpointError(f"{paths[-1]}: {name} was {saved.get(name)}, this run asks for {value}; give the "
                                  "same, or a new --out")
    game.restore(read_tensors(paths[-1] / _TENSORS), state)
    return Played(float(state.get("seconds", 0.0)), dict(state.get("figures", {})))


def game_settings(options: AdversarialOptions) -> dict[str, Any]:
    """What a resumed game must agree on: all but its length."""
    settings = {name: value for name, value in asdict(options).items() if name not in ("steps", "max_seconds")}
    return settings | {"discriminator_weight_decay": options.decay}
