"""What a listing consists of: instructions, their costs, and sums over them."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from tickwise.core.stages import Stage

ATTENTION = "scaled_dot_product_attention"

Direction = Literal["forward", "backward"]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """Work of one or more instructions."""

    flops: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.flops + other.flops, self.bytes_read + other.bytes_read, self.bytes_written + other.bytes_written
        )

    @property
    def intensity(self) -> float | None:
        """FLOPs per byte; ``None`` where nothing is read or written."""
        moved = self.bytes_read + self.bytes_written
        return self.flops / moved if moved else None


@dataclasses.dataclass(frozen=True, slots=True)
class Instruction:
    """One operation. A view reads and writes nothing."""

    stage: Stage
    layer: int | None
    op: str
    """``aten.mm``; fused attention as ``scaled_dot_product_attention``."""
    shapes: tuple[Shape, ...]
    """Of the tensors that go in."""
    outputs: tuple[Shape, ...]
    dtype: str
    """Number format of the first result: ``float32``, ``bfloat16`` …"""
    flops: int
    bytes_read: int
    bytes_written: int
    direction: Direction
    module: str
    """Dotted path of the innermost submodule ('' for the root)."""

    @property
    def cost(self) -> Cost:
        return Cost(self.flops, self.bytes_read, self.bytes_written)


def instruction_json(instruction: Instruction) -> dict[str, Any]:
    """As ``disasm --json`` and the timeline page have it."""
    values = dataclasses.asdict(instruction)
    return values | {name: [list(shape) for shape in values[name]] for name in ("shapes", "outputs")}


def total_cost(instructions: Iterable[Instruction]) -> Cost:
    """Sums over the instructions."""
    flops = read = written = 0
    for instruction in instructions:
        flops += instruction.flops
        read += instruction.bytes_read
        written += instruction.bytes_written
    return Cost(flops, read, written)


@dataclasses.dataclass(frozen=True)
class Program:
    """Instructions in the order in which they run; totals are sums over them."""

    instructions: tuple[Instruction, ...]
    kind: str = "counted"

    @property
    def total(self) -> Cost:
        return total_cost(self.instructions)

    @property
    def flops(self) -> int:
        return self.total.flops

    @property
    def bytes_read(self) -> int:
        return self.total.bytes_read

    @property
    def bytes_written(self) -> int:
        return self.total.bytes_written

    def by_stage(self) -> dict[Stage, Cost]:
        """All layers of a stage together, in order of first appearance."""
        return self.grouped(lambda instruction: instruction.stage)

    def by_layer(self) -> dict[int | None, Cost]:
        """All stages of a layer together; ``None``: what is not part of a layer."""
        return self.grouped(lambda instruction: instruction.layer)

    def by_op(self) -> dict[str, Cost]:
        """All instructions of an operation together."""
        return self.grouped(lambda instruction: instruction.op)

    def grouped(self, key: Callable[[Instruction], Any]) -> dict[Any, Cost]:
        """Sums over the instructions with the same key, in order of first appearance."""
        groups: dict[Any, list[Instruction]] = {}
        for instruction in self.instructions:
            groups.setdefault(key(instruction), []).append(instruction)
        return {name: total_cost(members) for name, members in groups.items()}


def joined(programs: Sequence[Program]) -> Program:
    """The programs one after the other."""
    return Program(tuple(instruction for program in programs for instruction in program.instructions))


def stage_costs(program: Program, *, backward_as_stage: bool = False) -> dict[tuple[Stage, int | None], Cost]:
    """Cost of every (stage, layer), in order of first appearance.

    A backward instruction belongs to the stage of its forward one, or, with ``backward_as_stage``, to
    ``(Stage.BACKWARD, None)``, as in a ledger of a training loop, which marks the backward pass as one stage.
    """

    def place(instruction: Instruction) -> tuple[Stage, int | None]:
        if backward_as_stage and instruction.direction == "backward":
            return Stage.BACKWARD, None
        return instruction.stage, instruction.layer

    return program.grouped(place)
