"""How many bytes of tensors a piece of PyTorch code holds at its worst moment, found by running it without data.

The code runs on stand-ins (``profiling/stand_ins.py``), which have shapes and a device, but no memory. Every storage is
counted when the first tensor on it appears and discounted when the last one is gone, so the count follows the real
lifetimes: what autograd keeps for the backward pass, temporaries, updates in place, tied weights. What a kernel
allocates and frees inside itself is not seen. The same events go through a simulated heap (``profiling/heap.py``),
which says how much memory stays resident for them on a CPU.
"""

import statistics
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tickwise.core.allocator import is_tuned
from tickwise.profiling.heap import Heap
from tickwise.profiling.stand_ins import StandIn, result_of, schema_of

_BF16_PRODUCTS = {"aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm"}
_KERNEL_BYTES = 258_376
"""What oneDNN's code generator reserves for a kernel. It makes them for every new shape of a bf16 product, and its
cache of 1,024 products keeps them: 78 blocks of this size for 48 products in a small model's serving."""
_KERNELS_PER_PRODUCT = 1.6
_HEAPS = 5
"""Holes depend on chance, in the simulation as in processes: so many are simulated, and their mean is taken."""


class DryRun(TorchDispatchMode):
    """Inside the ``with`` block every new tensor is a stand-in, and nothing is computed.

    ``now`` is the bytes of all of them that exist and ``peak`` the most there have been since ``reset_peak``;
    ``resident_peak`` is the most that a process would have had resident for them. Code in the block must not look at
    values (``.item()``), and must not leave stand-ins in caches that outlive it.
    """

    def __init__(self, device: torch.device | None = None, *, simulate_heap: bool = True) -> None:
        """``device`` is where new tensors are that ask for none (the CPU). Without a simulated heap what is resident is
        the tensors themselves."""
        super().__init__()
        self.now = self.peak = 0
        self.among_small = True
        """Whether code that now runs makes many small blocks too, as autograd and an optimizer do."""
        n_heaps = _HEAPS if simulate_heap else 0
        self._heaps = [Heap(phase=number / _HEAPS, tuned=is_tuned()) for number in range(n_heaps)]
        self._device = device if device is not None else torch.device("cpu")
        self._storages: dict[int, weakref.ref[Any]] = {}
        self._products: set[Any] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """The default wraps every operation into something that first loads PyTorch's compiler."""
        return False

    def reset_peak(self) -> None:
        self.peak = self.now
        for heap in self._heaps:
            heap.reset_peak()

    def give_back(self) -> None:
        """What ``core.allocator.give_back`` does to the process."""
        for heap in self._heaps:
            heap.give_back()

    @property
    def simulates_heap(self) -> bool:
        return bool(self._heaps)

    @property
    def resident_peak(self) -> int:
        """Never less than the tensors themselves."""
        if not self._heaps:
            return self.peak
        return max(self.peak, round(statistics.fmean(heap.peak for heap in self._heaps)))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        schema = schema_of(func)
        if schema.is_composite:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        device = next((t.device for t in tensors if isinstance(t, StandIn)), self._device)
        if not tensors and "device" in schema.names:
            device = torch.device(kwargs.get("device") or device)
            kwargs = {**kwargs, "device": device}
        output = result_of(func, args, kwargs, device)
        if schema.packet in _BF16_PRODUCTS:
            self._generate_kernels(schema.packet, tensors)
        for leaf in tree_leaves(output):
            if isinstance(leaf, StandIn):
                self._hold(leaf)
        return output

    def _generate_kernels(self, packet: str, tensors: list[Tensor]) -> None:
        """Code that the library keeps for products of these shapes."""
        if tensors[-1].dtype != torch.bfloat16 or tensors[-1].device.type != "cpu":
            return
        key = (packet, *((t.shape, t.stride(-1) == 1) for t in tensors))
        if key not in self._products:
            before = int(len(self._products) * _KERNELS_PER_PRODUCT)
            self._products.add(key)
            for _ in range(int(len(self._products) * _KERNELS_PER_PRODUCT) - before):
                for heap in self._heaps:
                    heap.allocate(_KERNEL_BYTES, self.among_small)

    def _hold(self, tensor: StandIn) -> None:
        storage = tensor.meta.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return
        blocks = [heap.allocate(size, self.among_small) for heap in self._heaps] if size else []

        def gone(_reference: Any) -> None:
            self._storages.pop(key, None)
            self.now -= size
            for heap, block in zip(self._heaps, blocks, strict=False):
                heap.free(block)

        self._storages[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def convert(module: nn.Module, dtype: torch.dtype) -> None:
    """``module.to(dtype)`` for a module of stand-ins, whose number format their data do not carry."""
    for parameter in module.parameters():
        converted = parameter.data.to(dtype)
        parameter.data = converted
        parameter.meta = converted.meta  # type: ignore[attr-defined]
