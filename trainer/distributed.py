"""The processes that train together, as torchrun starts them; without torchrun there is one."""

import contextlib
import datetime as dt
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from corpusmill.corpus.errors import UsageError

# The others wait for the first process while it reads or uploads a checkpoint, or makes a table of
# counts. torchrun ends them if one fails, so a short wait would find nothing.
_PATIENCE = dt.timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """This process and those that it works with.

    Attributes:
      device: of this process.
      rank: its number.
      ranks: how many there are.
    """

    device: torch.device
    rank: int = 0
    ranks: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and shows progress."""
        return self.rank == 0

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum of the processes' tensors, which is the same in all of them; in place."""
        if self.ranks > 1:
            dist.all_reduce(tensor)
        return tensor

    def share(self, value: Any) -> Any:
        """The first process's value."""
        if self.ranks == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def wrap(self, module: nn.Module, parallel: str, parts: nn.ModuleList) -> nn.Module:
        """Makes the processes' copies of a module train as one.

        Args:
          module: with the same parameters in every process; they are moved to the device.
          parallel: `ddp` (whole copies, gradients averaged) or `fsdp` (parameters, gradients and
            optimizer state divided among the processes).
          parts: the modules within it that fsdp gathers one at a time.

        Returns:
          The module to call instead.
        """
        module.to(self.device)
        if self.ranks == 1:
            return module
        if parallel == "ddp":
            return DistributedDataParallel(module)
        mesh = init_device_mesh(self.device.type, (self.ranks,))
        for part in parts:
            fully_shard(part, mesh=mesh)
        fully_shard(module, mesh=mesh)
        return module


@contextlib.contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Joins the other processes, if torchrun started any, until the block ends.

    Args:
      device: `cpu`, `cuda` (this process's share of the GPUs), or `auto`: cuda where there is one.

    Raises:
      UsageError: there is no such device here.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise UsageError("--device cuda: this machine has no usable GPU; use --device cpu")
    kind = "cuda" if device != "cpu" and has_cuda else "cpu"
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    here = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        yield Processes(here)
        return
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(here, dist.get_rank(), ranks)
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def gradients_exchanged(module: nn.Module, exchanged: bool) -> Iterator[None]:
    """Within the block, gradients are exchanged between processes only if `exchanged`."""
    if isinstance(module, DistributedDataParallel):
        with contextlib.nullcontext() if exchanged else module.no_sync():
            yield
        return
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(exchanged)
    yield
