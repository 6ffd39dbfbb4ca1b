"""Recurrent layers: Elman's RNN, LSTM and GRU, in one or both directions, with the state as an argument.

Shape legend: B sequences, T steps, C input features, H features of one direction, G = gates · H. Inside, time comes
first, so that a step's rows lie side by side.

What a step takes from its input is one product over all steps, and so are the gradients of the weights: only the
product of the state with ``from_state`` happens step by step. The slow twin is ``recurrence_stepwise``.
"""

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tickwise.core.stages import Stage, mark
from tickwise.layers.dropout import dropout
from tickwise.layers.linear import StackedLinear

CellKind = Literal["rnn", "lstm", "gru"]
State = tuple[Tensor, ...]
"""For every layer, and in it for every direction: the output (B, H), with an LSTM followed by the cell (B, H)."""

_GATES: dict[CellKind, int] = {"rnn": 1, "lstm": 4, "gru": 3}


def locked_dropout(x_TBC: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout with one mask for all steps (Gal & Ghahramani 2016)."""
    if not training or rate == 0.0:
        return x_TBC
    return x_TBC * dropout(x_TBC.new_ones(x_TBC.shape[1:]), rate, True)


class Weights(NamedTuple):
    """Of one cell: (G, C), (G,), (G, H), (G,)."""

    input: Tensor
    input_bias: Tensor
    state: Tensor
    state_bias: Tensor | None
    """A GRU's; the others have no use for a second one."""


def recurrence_stepwise(kind: CellKind, x_TBC: Tensor, weights: Weights, state: State) -> tuple[Tensor, ...]:
    """Outputs (T, B, H), with an LSTM also its cells.

    Gates of an LSTM: output, input, forget, candidate (Gers et al. 2000, without peepholes); of a GRU: reset, update,
    candidate, with the reset gate behind the product as in cuDNN, ``n = tanh(x_n + r · (W h + b))``.
    """
    h_BH, outputs, cells = state[0], [], []
    c_BH = state[-1]
    for x_BG in F.linear(x_TBC, weights.input, weights.input_bias).unbind():
        product_BG = F.linear(h_BH, weights.state, weights.state_bias)
        if kind == "rnn":
            h_BH = torch.tanh(x_BG + product_BG)
        elif kind == "lstm":
            o, i, f, candidate = (x_BG + product_BG).chunk(4, -1)
            c_BH = f.sigmoid() * c_BH + i.sigmoid() * candidate.tanh()
            h_BH = (o.sigmoid() * c_BH.tanh()).to(x_BG.dtype)
            cells.append(c_BH)
        else:
            (x_r, x_z, x_n), (h_r, h_z, h_n) = x_BG.chunk(3, -1), product_BG.chunk(3, -1)
            update = (x_z + h_z).sigmoid()
            candidate = torch.tanh(x_n + (x_r + h_r).sigmoid() * h_n)
            h_BH = candidate + update * (h_BH - candidate)
        outputs.append(h_BH)
    return (torch.stack(outputs), torch.stack(cells)) if cells else (torch.stack(outputs),)


def _history(first_BH: Tensor, n_steps: int) -> Tensor:
    """Room for ``n_steps`` states behind the first one."""
    history = first_BH.new_empty(n_steps + 1, *first_BH.shape)
    history[0] = first_BH
    return history


def _tanh_(x: Tensor) -> Tensor:
    """``tanh`` in place, as 2 σ(2x) − 1: PyTorch's own takes a CPU three times as long."""
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)


def _weight_gradient(grad_TBG: Tensor, before_TBH: Tensor) -> Tensor:
    return grad_TBG.flatten(0, 1).t() @ before_TBH.flatten(0, 1)


def _input_gradients(ctx: Any, grad_TBG: Tensor, x_TBC: Tensor, input_GC: Tensor) -> tuple[Tensor | None, ...]:
    """Of the input, its matrix and its bias."""
    return (grad_TBG @ input_GC if ctx.needs_input_grad[0] else None, _weight_gradient(grad_TBG, x_TBC),
            grad_TBG.sum((0, 1)))


class _RNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TBC: Tensor, input_GC: Tensor, bias_G: Tensor, weight_GH: Tensor, h_BH: Tensor) -> Tensor:
        history = _history(h_BH, len(x_TBC))
        steps, weight_HG = history.unbind(), weight_GH.t()
        for t, x_BG in enumerate(F.linear(x_TBC, input_GC, bias_G).unbind()):
            _tanh_(torch.addmm(x_BG, steps[t], weight_HG, out=steps[t + 1]))
        ctx.save_for_backward(x_TBC, input_GC, history, weight_GH)
        return history[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TBH: Tensor) -> tuple[Tensor | None, ...]:
        x_TBC, input_GC, history, weight_GH = ctx.saved_tensors
        grad_gates = torch.ops.aten.tanh_backward(torch.ones_like(history[1:]), history[1:])
        gates, arriving, grad_h = grad_gates.unbind(), grad_TBH.unbind(), grad_TBH[-1]
        for t in reversed(range(len(gates))):
            gates[t].mul_(grad_h)
            if t:
                grad_h = torch.addmm(arriving[t - 1], gates[t], weight_GH)
        grad_first = gates[0] @ weight_GH if ctx.needs_input_grad[4] else None
        return (*_input_gradients(ctx, grad_gates, x_TBC, input_GC), _weight_gradient(grad_gates, history[:-1]),
                grad_first)


class _LSTM(torch.autograd.Function):
    """Cells are float32 whatever the rest is: what they add up over many steps is often small."""

    @staticmethod
    def forward(
        ctx: Any, x_TBC: Tensor, input_GC: Tensor, bias_G: Tensor, weight_GH: Tensor, h_BH: Tensor, c_BH: Tensor
    ) -> tuple[Tensor, Tensor]:
        n_steps, width = len(x_TBC), h_BH.shape[1]
        outputs, cells = _history(h_BH, n_steps), _history(c_BH, n_steps)
        squashed = torch.empty_like(outputs[1:])
        gates_TB4H = F.linear(x_TBC, input_GC, bias_G).unflatten(-1, (4, width))
        h, c, squashed_steps, weight_HG = outputs.unbind(), cells.unbind(), squashed.unbind(), weight_GH.t()
        flat, sigmoids = gates_TB4H.flatten(2).unbind(), gates_TB4H[:, :, :3].unbind()
        o, i, f, candidate = (gates.unbind() for gates in gates_TB4H.unbind(2))
        for t in range(n_steps):
            flat[t].addmm_(h[t], weight_HG)
            sigmoids[t].sigmoid_()
            _tanh_(candidate[t])
            torch.mul(f[t], c[t], out=c[t + 1]).addcmul_(i[t], candidate[t])
            torch.mul(o[t], _tanh_(squashed_steps[t].copy_(c[t + 1])), out=h[t + 1])
        ctx.save_for_backward(x_TBC, input_GC, gates_TB4H, outputs, cells, squashed, weight_GH)
        ctx.set_materialize_grads(False)
        return outputs[1:], cells[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TBH: Tensor | None, grad_cells_TBH: Tensor | None) -> tuple[Tensor | None, ...]:
        x_TBC, input_GC, gates_TB4H, outputs, cells, squashed, weight_GH = ctx.saved_tensors
        if grad_TBH is None:
            grad_TBH = torch.zeros_like(outputs[1:])
        o, i, f, candidate = gates_TB4H.unbind(2)
        # A gate's gradient is that of the output or of the cell times what is known beforehand.
        factors = torch.empty_like(gates_TB4H)
        sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
        sigmoid_backward.grad_input(squashed, o, grad_input=factors[:, :, 0])
        sigmoid_backward.grad_input(candidate, i, grad_input=factors[:, :, 1])
        sigmoid_backward.grad_input(cells[:-1].to(f.dtype), f, grad_input=factors[:, :, 2])
        tanh_backward.grad_input(i, candidate, grad_input=factors[:, :, 3])
        to_cell = tanh_backward(o, squashed).unbind()
        flat, by_output, by_cell = factors.flatten(2).unbind(), factors[:, :, 0].unbind(), factors[:, :, 1:].unbind()
        forget, arriving, grad_h = f.unbind(), grad_TBH.unbind(), grad_TBH[-1]
        grad_c = torch.zeros_like(cells[0])
        for t in reversed(range(len(flat))):
            if grad_cells_TBH is not None:
                grad_c += grad_cells_TBH[t]
            grad_c.addcmul_(grad_h, to_cell[t])
            by_output[t].mul_(grad_h)
            by_cell[t].mul_(grad_c.unsqueeze(1))
            grad_c.mul_(forget[t])
            if t:
                grad_h = torch.addmm(arriving[t - 1], flat[t], weight_GH)
        grad_gates = factors.flatten(2)
        grad_first = flat[0] @ weight_GH if ctx.needs_input_grad[4] else None
        return (*_input_gradients(ctx, grad_gates, x_TBC, input_GC), _weight_gradient(grad_gates, outputs[:-1]),
                grad_first, grad_c)


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TBC: Tensor, input_GC: Tensor, input_bias_G: Tensor, weight_GH: Tensor, bias_G: Tensor, h_BH: Tensor
    ) -> Tensor:
        n_steps, width = len(x_TBC), h_BH.shape[1]
        gates_TBG = F.linear(x_TBC, input_GC, input_bias_G)
        outputs, products_TBG = _history(h_BH, n_steps), torch.empty_like(gates_TBG)
        h, weight_HG = outputs.unbind(), weight_GH.t()
        products = products_TBG.unbind()
        sigmoids, candidate = gates_TBG[..., : 2 * width].unbind(), gates_TBG[..., 2 * width :].unbind()
        reset, update = gates_TBG[..., :width].unbind(), gates_TBG[..., width : 2 * width].unbind()
        product_sigmoids, product_n = products_TBG[..., : 2 * width].unbind(), products_TBG[..., 2 * width :].unbind()
        for t in range(n_steps):
            torch.addmm(bias_G, h[t], weight_HG, out=products[t])
            sigmoids[t].add_(product_sigmoids[t]).sigmoid_()
            _tanh_(candidate[t].addcmul_(reset[t], product_n[t]))
            torch.lerp(candidate[t], h[t], update[t], out=h[t + 1])
        ctx.save_for_backward(x_TBC, input_GC, gates_TBG, products_TBG, outputs, weight_GH)
        return outputs[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TBH: Tensor) -> tuple[Tensor | None, ...]:
        x_TBC, input_GC, gates_TBG, products_TBG, outputs, weight_GH = ctx.saved_tensors
        n_steps, batch, width = len(grad_TBH), *grad_TBH.shape[1:]
        reset, update, candidate = gates_TBG.split(width, -1)
        sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
        # Every gate's gradient is the output's times what is known beforehand.
        factors = gates_TBG.new_empty(n_steps, batch, 3, width)
        by_candidate = tanh_backward(1 - update, candidate)
        sigmoid_backward.grad_input(by_candidate * products_TBG[..., 2 * width :], reset, grad_input=factors[:, :, 0])
        sigmoid_backward.grad_input(outputs[:-1] - candidate, update, grad_input=factors[:, :, 1])
        torch.mul(by_candidate, reset, out=factors[:, :, 2])
        steps, flat, kept = factors.unbind(), factors.flatten(2).unbind(), update.unbind()
        arriving, candidates, grad_h = grad_TBH.unbind(), by_candidate.unbind(), grad_TBH[-1]
        for t in reversed(range(n_steps)):
            steps[t].mul_(grad_h.unsqueeze(1))
            candidates[t].mul_(grad_h)
            if t:
                grad_h = torch.addmm(arriving[t - 1], flat[t], weight_GH).addcmul_(grad_h, kept[t])
        grad_products = factors.flatten(2)
        grad_first = torch.addcmul(flat[0] @ weight_GH, grad_h, kept[0]) if ctx.needs_input_grad[5] else None
        grad_gates = torch.cat((grad_products[..., : 2 * width], by_candidate), -1)
        return (*_input_gradients(ctx, grad_gates, x_TBC, input_GC), _weight_gradient(grad_products, outputs[:-1]),
                grad_products.sum((0, 1)), grad_first)


def recurrence(kind: CellKind, x_TBC: Tensor, weights: Weights, state: State) -> tuple[Tensor, ...]:
    """As ``recurrence_stepwise``, with the backward pass written out."""
    if torch.compiler.is_compiling():
        return recurrence_stepwise(kind, x_TBC, weights, state)
    if kind == "rnn":
        return (_RNN.apply(x_TBC, *weights[:3], *state),)
    if kind == "lstm":
        outputs: tuple[Tensor, ...] = _LSTM.apply(x_TBC, *weights[:3], *state)
        return outputs
    return (_GRU.apply(x_TBC, *weights, *state),)


class RecurrentLayer(nn.Module):
    """One layer in one direction."""

    def __init__(self, kind: CellKind, in_features: int, hidden: int, *, weight_drop: float = 0.0,
                 layer: int | None = None) -> None:
        super().__init__()
        blocks = (hidden,) * _GATES[kind]
        self.kind, self.hidden, self.weight_drop, self.layer = kind, hidden, weight_drop, layer
        self.from_input = StackedLinear(in_features, blocks, bias=True)
        self.from_state = StackedLinear(hidden, blocks, bias=kind == "gru")

    def forward(self, x_TBC: Tensor, state: State) -> tuple[Tensor, ...]:
        """Outputs of all steps (T, B, H), with an LSTM also all cells."""
        mark(Stage.RECURRENT, self.layer)
        weight_GH = dropout(self.from_state.weight, self.weight_drop, self.training)
        weights = Weights(self.from_input.weight, self.from_input.bias, weight_GH, self.from_state.bias)
        return recurrence(self.kind, x_TBC, weights, state)

    def zero_state(self, batch: int) -> State:
        weight = self.from_state.weight
        h_BH = weight.new_zeros(batch, self.hidden)
        return (h_BH, weight.new_zeros(batch, self.hidden, dtype=torch.float32)) if self.kind == "lstm" else (h_BH,)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Normal with deviation 1/√fan-in; an LSTM's forget gates start open with a bias of 1 (Jozefowicz et al. 2015).
        """
        for linear in (self.from_input, self.from_state):
            linear.weight.normal_(0, linear.in_features**-0.5, generator=generator)
            if linear.bias is not None:
                linear.bias.zero_()
        if self.kind == "lstm":
            self.from_input.bias[2 * self.hidden : 3 * self.hidden] = 1.0


class RecurrentLayers(nn.Module):
    """Layers on top of each other: (B, T, C) → (B, T, H), or (B, T, 2 H) in both directions.

    >>> layers = RecurrentLayers("lstm", 50, 100, bidirectional=True)
    >>> y_BTH, state = layers(torch.randn(2, 7, 50), lengths=torch.tensor([7, 3]))
    """

    def __init__(
        self, kind: CellKind, in_features: int, hidden: int, n_layers: int = 1, *, bidirectional: bool = False,
        dropout: float = 0.0, weight_drop: float = 0.0,
    ) -> None:
        """``dropout`` is on what one layer gives the next, with one mask for all steps; ``weight_drop`` on the
        matrices between states, drawn anew for every call (DropConnect as in AWD-LSTM, Merity et al. 2018)."""
        super().__init__()
        self.kind, self.hidden, self.dropout = kind, hidden, dropout
        self.out_features = hidden * (2 if bidirectional else 1)
        widths = [in_features, *[self.out_features] * (n_layers - 1)]
        self.onward = nn.ModuleList(
            RecurrentLayer(kind, width, hidden, weight_drop=weight_drop, layer=i) for i, width in enumerate(widths))
        self.backward_in_time = nn.ModuleList(
            RecurrentLayer(kind, width, hidden, weight_drop=weight_drop, layer=i)
            for i, width in enumerate(widths if bidirectional else ()))

    def directions(self, index: int) -> list[RecurrentLayer]:
        """The layer's cells: onward, and if there is one, backward in time."""
        return [layers[index] for layers in (self.onward, self.backward_in_time) if len(layers)]  # type: ignore[misc]

    def zero_state(self, batch: int) -> State:
        """What a text begins with."""
        return tuple(part for i in range(len(self.onward)) for cell in self.directions(i)
                     for part in cell.zero_state(batch))

    def forward(
        self, x_BTC: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Outputs, and the state after each sequence's last step (backward in time: after its first).

        ``lengths`` (B,), each 1 to T: steps behind a sequence's end change nothing, and their outputs are 0.
        """
        x_TBC = x_BTC.transpose(0, 1)
        n_steps, batch = x_TBC.shape[:2]
        given = iter(self.zero_state(batch) if state is None else state)
        ends: list[Tensor] = []
        padded = lengths is not None and bool((lengths < n_steps).any())
        order = _reversed_rows(n_steps, batch, lengths if padded else None, x_BTC.device) if self._is_both else None
        for index in range(len(self.onward)):
            if index:
                x_TBC = locked_dropout(x_TBC, self.dropout, self.training)
            outputs = []
            for cell, rows in zip(self.directions(index), (None, order), strict=False):
                begin = tuple(next(given) for _ in range(2 if self.kind == "lstm" else 1))
                inputs = x_TBC if rows is None else _Reorder.apply(x_TBC, rows)
                parts = cell(inputs, begin)
                if padded:
                    assert lengths is not None
                    places = (lengths - 1, torch.arange(batch, device=lengths.device))
                    ends += [part[places] for part in parts]
                else:
                    ends += [part[-1] for part in parts]
                outputs.append(parts[0] if rows is None else _Reorder.apply(parts[0], rows))
            x_TBC = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
            if padded:
                assert lengths is not None
                is_inside = torch.arange(n_steps, device=lengths.device)[:, None] < lengths
                x_TBC = x_TBC * is_inside[..., None].to(x_TBC.dtype)
        return x_TBC.transpose(0, 1), tuple(ends)

    @property
    def _is_both(self) -> bool:
        return len(self.backward_in_time) > 0

    def initialise(self, generator: torch.Generator) -> None:
        """Fresh weights."""
        for index in range(len(self.onward)):
            for cell in self.directions(index):
                cell.initialise(generator)


def _reversed_rows(n_steps: int, batch: int, lengths: Tensor | None, device: torch.device) -> Tensor:
    """Where, among T · B rows, each step of the reversed sequences comes from; padding stays where it is."""
    steps = torch.arange(n_steps, device=device)[:, None]
    ends = torch.full((batch,), n_steps, device=device) if lengths is None else lengths.to(device)
    source_TB = torch.where(steps < ends, ends - 1 - steps, steps)
    return (source_TB * batch + torch.arange(batch, device=device)).flatten()


class _Reorder(torch.autograd.Function):
    """Takes rows (t, b) in another order that is its own inverse; so the gradient takes the same way."""

    @staticmethod
    def forward(ctx: Any, x_TBC: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return x_TBC.flatten(0, 1).index_select(0, rows).view(x_TBC.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TBC: Tensor) -> tuple[Tensor, None]:
        return grad_TBC.flatten(0, 1).index_select(0, ctx.saved_tensors[0]).view(grad_TBC.shape), None
