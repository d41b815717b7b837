"""The step from logits to their gradient as one Triton kernel; importing this needs Triton.

It does what `trainer.losses.replace_by_gradient` does, to a row of logits in each program.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from corpusmill.trainer.batches import IGNORED, Task

_BLOCK = 4096
_WARPS = 16


def replace_by_gradient(logits: Tensor, task: Task) -> Tensor:
    """Replaces logits by the gradient of the scaled loss in them, in place.

    Args:
      logits: bfloat16, float16 or float32 of shape [rows, vocabulary], rows contiguous. The
        gradient is rounded to their type before a target's weight is subtracted and once more
        after that.
      task: of these rows.

    Returns:
      Total loss, next-token loss and z-loss of each row, not scaled; float32 of shape [3, rows].
    """
    rows, columns = logits.shape
    losses = torch.empty(3, rows, dtype=torch.float32, device=logits.device)
    _kernel[(rows,)](
        logits,
        logits.stride(0),
        columns,
        task.next_tokens,
        task.offsets,
        task.tokens,
        task.weights,
        task.scale,
        task.mix,
        task.z_loss,
        losses,
        rows,
        IGNORED,
        _BLOCK,
        num_warps=_WARPS,
    )
    return losses


@triton.jit
def _kernel(
    logits,
    stride,
    columns,
    next_tokens,
    offsets,
    tokens,
    weights,
    scale,
    mix,
    z_loss,
    losses,
    rows,
    ignored: tl.constexpr,
    size: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    next_token = tl.load(next_tokens + row)
    predicted = (next_token != ignored).to(tl.float32)
    next_token = tl.maximum(next_token, 0)
    first = tl.load(offsets + row)
    last = tl.load(offsets + row + 1)

    # Each lane keeps a maximum and a sum of its own, which are joined once.
    # Not from -inf: where the vocabulary is masked a lane may have nothing but these.
    greatest = tl.full([size], -1e38, tl.float32)
    total = tl.zeros([size], tl.float32)
    for start in range(0, columns, size):
        at = start + tl.arange(0, size)
        # Not -inf: a lane may have nothing but these, and -inf - -inf is no number.
        block = tl.load(logits + at, mask=at < columns, other=-1e38).to(tl.float32)
        new = tl.maximum(greatest, block)
        total = total * tl.exp(greatest - new) + tl.exp(block - new)
        greatest = new
    top = tl.max(greatest, 0)
    log_partition = top + tl.log(tl.sum(total * tl.exp(greatest - top), 0))

    weight_sum = 0.0
    target_sum = 0.0
    for entry in range(first, last):
        weight = tl.load(weights + entry).to(tl.float32)
        weight_sum += weight
        logit = tl.load(logits + tl.load(tokens + entry)).to(tl.float32)
        target_sum += tl.where(weight != 0, weight * logit, 0.0)
    next_loss = log_partition - tl.load(logits + next_token).to(tl.float32)
    target_loss = weight_sum * log_partition - target_sum
    z = z_loss * log_partition * log_partition
    # Masked logits make infinite losses, and 0 times these is no number.
    loss = tl.where(mix != 0, mix * target_loss, 0.0)
    loss += tl.where(mix != 1, (1 - mix) * next_loss, 0.0) + z
    tl.store(losses + row, tl.where(predicted != 0, loss, 0.0))
    tl.store(losses + rows + row, tl.where(predicted != 0, next_loss, 0.0))
    tl.store(losses + 2 * rows + row, tl.where(predicted != 0, z, 0.0))

    share = tl.load(scale).to(tl.float32) * predicted
    slope = share * (mix * weight_sum + (1 - mix) + 2 * z_loss * log_partition)
    # The logits above are read by all threads, and overwritten below by any.
    tl.debug_barrier()
    for start in range(0, columns, size):
        at = start + tl.arange(0, size)
        block = tl.load(logits + at, mask=at < columns, other=0.0).to(tl.float32)
        gradient = slope * tl.exp(block - log_partition)
        tl.store(logits + at, gradient.to(logits.dtype.element_ty), mask=at < columns)
    tl.debug_barrier()
    # One after the other, because a token may occur again. The thread that stores a number
    # is always the same one, and sees what it stored before.
    for entry in range(first, last):
        place = logits + tl.load(tokens + entry)
        less = tl.load(place).to(tl.float32) - share * mix * tl.load(weights + entry)
        tl.store(place, less.to(logits.dtype.element_ty))
    place = logits + next_token
    less = tl.load(place).to(tl.float32) - share * (1 - mix)
    tl.store(place, less.to(logits.dtype.element_ty))
