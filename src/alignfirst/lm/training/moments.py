"""AdamW's moments, its step and its gradients, shared out over processes; every one holds whole weights.

With gradients summed at the end of an update this is the first stage of ZeRO (Rajbhandari et al. 2020,
arXiv:1910.02054); summed in every backward pass, it is the second, which FSDP calls SHARD_GRAD_OP. Weights stay whole
because processes sample and score at their own pace: if they were fetched layer by layer, every process would wait for
the others' draws. What is seen of a model is what one process sees; no module is wrapped.

The phases of one update, of P processes:

1. Every process goes backward through its own chunks; gradients add up in `parameter.grad`. At the end of each pass it
   calls `end_backward`.
2. Reduce-scatter: each bucket's gradients are summed over processes, and a process keeps the sum of its P-th part. With
   `every_pass` this happens within phase 1, as soon as a bucket's gradients are there; else in `reduce_gradients`.
3. All-reduce of one number: `norm`, the norm of the whole gradient, by which all clip alike.
4. AdamW steps the P-th part (`own`) of every bucket, for which alone it holds moments.
5. All-gather: `all_gather_params` gives every process the weights that the others have stepped.

Now and then, for a checkpoint, `gather_moments` puts the moments together on the first process; `restore` is its
inverse, at any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET = 2**25  # weights whose gradients are summed at once; a larger tensor is a bucket of its own
Moments = Mapping[Any, Mapping[str, Tensor]]  # of parameters, by name: AdamW's state

# the names of torch 2.13, and those before
_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Bucket:
    """Parameters side by side in one tensor, of which this process steps one part."""

    def __init__(self, parameters: Sequence[Any], rank: int, size: int) -> None:
        self.parameters = parameters
        self.each = -(-sum(p.numel() for p in parameters) // size)
        self.flat = torch.zeros(self.each * size, dtype=parameters[0].dtype, device=parameters[0].device)
        for p, place in zip(parameters, self.views(self.flat), strict=True):
            place.copy_(p.detach())
            p.data = place
        self.here = slice(rank * self.each, (rank + 1) * self.each)
        self.own = torch.nn.Parameter(self.flat[self.here])  # the weights themselves, no copy

    def views(self, flat: Tensor) -> list[Tensor]:
        """Views into a tensor that is laid out as `flat` is, one a parameter, in the parameters' shapes."""
        sizes = [p.numel() for p in self.parameters]
        parts = flat[: sum(sizes)].split(sizes)
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    def reduce_scatter(self) -> None:
        """Add the sum of all processes' gradients to this one's part, and forget them."""
        whole, part = torch.zeros_like(self.flat), torch.empty_like(self.flat[self.here])
        for p, place in zip(self.parameters, self.views(whole), strict=True):
            if p.grad is not None:
                place.copy_(p.grad)
                p.grad = None
        _scatter(part, whole)
        self.own.grad = part if self.own.grad is None else self.own.grad.add_(part)

    def all_gather(self) -> None:
        """Give all processes the weights that this one has stepped."""
        _gather(self.flat, self.own.detach().clone())

    def gather_moment(self, part: Tensor) -> list[Tensor]:
        """One moment of every process's part, put together: a tensor a parameter, on the CPU of the first process."""
        if part.ndim == 0:  # AdamW's count of steps
            return [part.cpu()] * len(self.parameters)
        flat = torch.empty_like(self.flat, dtype=part.dtype)
        _gather(flat, part)
        return [] if self.here.start else self.views(flat.cpu())

    def restore_moment(self, part: Tensor, p: Any, tensor: Tensor) -> None:
        """Inverse of `gather_moment`: what belongs to this process's part of one parameter's tensor goes there."""
        begin = sum(q.numel() for q in self.parameters[: [q is p for q in self.parameters].index(True)])
        first, last = max(begin, self.here.start), min(begin + p.numel(), self.here.stop)
        if first < last:
            part[first - self.here.start : last - self.here.start] = tensor.reshape(-1)[first - begin : last - begin]


class Shards:
    """The parameters of one training in buckets.

    With `every_pass`, buckets are summed as soon as the backward pass has been through them, always in one order, so
    that a process holds the gradients of about a layer and a bucket, never the whole model's. All processes must end
    equally many passes with `end_backward`: that sums what is left, whatever a pass did not reach.
    """

    def __init__(self, parameters: Sequence[Any], rank: int, size: int, every_pass: bool) -> None:
        self.buckets = [Bucket(group, rank, size) for group in grouped(parameters)]
        self.own = [bucket.own for bucket in self.buckets]
        self.every_pass, self._hooks = every_pass, list[Any]()
        if every_pass:
            self._hooks = [
                p.register_post_accumulate_grad_hook(partial(self._arrived, number))
                for number, bucket in enumerate(self.buckets)
                for p in bucket.parameters
            ]
        self._begin_pass()

    def _begin_pass(self) -> None:
        self._missing = [len(bucket.parameters) for bucket in self.buckets]  # gradients of this pass
        self._summed = 0  # buckets

    def _arrived(self, number: int, _: Any) -> None:
        self._missing[number] -= 1
        while self._summed < len(self.buckets) and not self._missing[self._summed]:
            self.buckets[self._summed].reduce_scatter()
            self._summed += 1

    def _reduce_what_is_left(self) -> None:
        for bucket in self.buckets[self._summed :]:
            bucket.reduce_scatter()
        self._begin_pass()

    def end_backward(self) -> None:
        if self.every_pass:
            self._reduce_what_is_left()

    def reduce_gradients(self) -> None:
        """After the backward passes of an update: `own` have the sums of all processes' gradients."""
        if not self.every_pass:
            self._reduce_what_is_left()

    def norm(self, own: Tensor) -> Tensor:
        """The norm of the whole gradient from those of the parts."""
        square = own.double() ** 2
        dist.all_reduce(square)
        return square.sqrt().to(own.dtype)

    @torch.no_grad()
    def all_gather_params(self) -> None:
        """After the step of every process: whole weights in all."""
        for bucket in self.buckets:
            bucket.all_gather()

    @torch.no_grad()
    def gather_moments(self, moments: Moments) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        """AdamW's state of the parameters from that of the parts. All processes must ask, the first gets it."""
        for bucket in self.buckets:
            state = moments[bucket.own]
            found: dict[str, list[Tensor]] = {kind: bucket.gather_moment(part) for kind, part in state.items()}
            for n, p in enumerate(bucket.parameters):
                yield p, {kind: tensors[n] for kind, tensors in found.items() if tensors}

    @torch.no_grad()
    def restore(self, moments: Any, p: Any, kept: Mapping[str, Tensor]) -> None:
        """Inverse of `gather_moments`, a parameter at a time: set the state of the part that has it."""
        (bucket,) = (b for b in self.buckets if any(q is p for q in b.parameters))
        state = moments[bucket.own]
        for kind, tensor in kept.items():
            if tensor.ndim == 0:  # AdamW's count of steps
                state[kind] = tensor.to(bucket.flat.device)
                continue
            if kind not in state:
                state[kind] = torch.zeros_like(bucket.own, dtype=tensor.dtype)
            bucket.restore_moment(state[kind], p, tensor)

    def close(self) -> None:
        """Make the parameters ordinary ones again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def grouped(parameters: Sequence[Any]) -> list[list[Any]]:
    """Neighbours of one type in groups of at most BUCKET weights, the last first, as gradients come."""
    groups: list[list[Any]] = []
    room, kind = 0, None
    for p in reversed(parameters):
        if p.numel() > room or (p.dtype, p.device) != kind:
            groups.append([])
            room, kind = BUCKET, (p.dtype, p.device)
        groups[-1].append(p)
        room -= p.numel()
    return groups
