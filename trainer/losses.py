"""Cross entropy against next tokens and sparse distributions, without ever holding all the logits.

A distribution is a few tokens with weights a position. It comes dense, `[positions, slots]`, or
ragged: flat arrays in which position i owns the entries from `offsets[i]` up to `offsets[i + 1]`.
The dense one is a ragged one whose offsets are evenly spaced, and treated as such.

With logits l, weights w_s on tokens t_s and W their sum, a position's loss and its gradient are

    W * logsumexp(l) - sum_s w_s * l[t_s]   and   W * softmax(l) - sum_s w_s * onehot(t_s),

so a dense target is never needed. `linear_cross_entropy` takes a chunk of positions at a time:
multiplies, replaces the logits by their gradient in place, multiplies that back, and forgets it.
What is left for the backward pass is a multiplication by a number.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from corpusmill.trainer.batches import IGNORED, Task

# Logits that are held at a time. Each chunk passes over the whole gradient of the weight once.
_CHUNK = {"cpu": 2**23, "cuda": 2**27}
# Of these, how many the CPU turns into their gradient at a time: as many as its caches hold.
_BLOCK = 2**20


class Loss(NamedTuple):
    """Means over positions; all float32 without dimensions, except in float64.

    Attributes:
      total: what to minimize; only this one has a gradient.
      next_token: plain cross entropy of the next tokens, in nats.
      z: the part of `total` that is due to `z_loss`.
      positions: how many positions had something to predict, int64.
      predicted: the most likely tokens, int64 of shape [n]; None where nobody asked.
    """

    total: Tensor
    next_token: Tensor
    z: Tensor
    positions: Tensor
    predicted: Tensor | None = None


def sparse_cross_entropy(logits: Tensor, target_tokens: Tensor, target_weights: Tensor) -> Tensor:
    """Cross entropy against sparse distributions, for a training loop that has its own logits.

    Args:
      logits: floating point of shape [..., vocabulary].
      target_tokens: integers of shape [..., slots].
      target_weights: floating point of shape [..., slots]; 0 in slots that aren't used.

    Returns:
      The loss of each position in nats, float32 (float64 for such logits), of shape [...]. Slots
      of weight 0 don't matter, whatever their logit.

    Raises:
      ValueError: a target token is outside the vocabulary; on a GPU the device's assertion fails.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    _check_ids(target_tokens, logits.shape[-1], "target tokens")
    targets = logits.gather(-1, target_tokens.long())
    # Where the vocabulary is masked a logit is -inf, and 0 times that is no number.
    targets = targets.masked_fill(target_weights == 0, 0)
    return target_weights.sum(-1) * logits.logsumexp(-1) - (target_weights * targets).sum(-1)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    next_tokens: Tensor,
    target_tokens: Tensor | None = None,
    target_weights: Tensor | None = None,
    *,
    target_offsets: Tensor | None = None,
    mix: float = 1.0,
    z_loss: float = 0.0,
    positions: Tensor | int | None = None,
    chunk: int | None = None,
) -> Loss:
    """The loss of the logits `hidden @ weight.T`, of which only a chunk exists at a time.

    It is `mix * (cross entropy of the targets) + (1 - mix) * (cross entropy of the next tokens) +
    z_loss * logsumexp(logits)**2`, added up over the positions that have a next token and divided
    by their number.

    Matrices are multiplied in the type of autocast, where that is on; sums are in float32.

    Args:
      hidden: floating point of shape [n, width].
      weight: floating point of shape [vocabulary, width].
      next_tokens: int64 of shape [n]; `IGNORED` where there is nothing to predict.
      target_tokens: integers of shape [n, slots], or [entries] with `target_offsets`; without
        them the next tokens are all there is, whatever `mix`.
      target_weights: floating point of the same shape.
      target_offsets: int64 of shape [n + 1]: where each position's entries begin, and the end.
      mix: share of the targets in the loss.
      z_loss: weight of the squared log partition function.
      positions: what sums are divided by instead of the number of positions, for a batch that is
        computed in parts.
      chunk: positions at a time; by default as many as suit the device.

    Returns:
      The loss. Its gradient is computed at once, if any is going to be needed.

    Raises:
      ValueError: there are target tokens without weights, or the other way round; an id is outside
        the vocabulary (on a GPU, where asking would wait for it, the device's assertion fails).
    """
    if (target_tokens is None) != (target_weights is None):
        raise ValueError("target_tokens and target_weights belong together; give both or neither")
    predicted = next_tokens != IGNORED
    count = predicted.sum()
    _check_ids(next_tokens.where(predicted, 0), len(weight), f"next tokens other than {IGNORED}")
    if target_tokens is None or target_weights is None:
        mix, offsets = 0.0, torch.zeros(len(hidden) + 1, dtype=torch.int64, device=hidden.device)
        target_tokens, target_weights = offsets[:0], hidden.new_zeros(0)
    elif target_offsets is None:
        offsets = torch.arange(len(hidden) + 1, device=hidden.device) * target_tokens.shape[1]
    else:
        offsets = target_offsets
    _check_ids(target_tokens, len(weight), "target tokens")
    divisor = count.clamp(min=1) if positions is None else positions
    task = Task(
        next_tokens,
        offsets,
        target_tokens.flatten(),
        target_weights.flatten(),
        scale=hidden.new_ones((), dtype=_wide(hidden.dtype)) / divisor,
        mix=mix,
        z_loss=z_loss,
    )
    rows = _rows_at_once(hidden, weight, chunk)
    if torch.is_grad_enabled():
        losses = _LinearCrossEntropy.apply(hidden, weight, task, rows)
    else:
        losses = _losses_and_gradients(hidden, weight, task, rows, (False, False))[0]
    return Loss(losses[0], losses[1], losses[2], count)


@torch.no_grad()
def most_likely(hidden: Tensor, weight: Tensor, chunk: int | None = None) -> Tensor:
    """The token with the greatest of the logits `hidden @ weight.T`, the first one of equals.

    Args:
      hidden: floating point of shape [n, width].
      weight: floating point of shape [vocabulary, width].
      chunk: positions at a time; by default as many as suit the device.

    Returns:
      int64 of shape [n].
    """
    rows = _rows_at_once(hidden, weight, chunk)
    found = torch.empty(len(hidden), dtype=torch.int64, device=hidden.device)
    for part in _slices(len(hidden), rows):
        found[part] = (hidden[part] @ weight.t()).argmax(1)
    return found


def _check_ids(ids: Tensor, vocabulary: int, name: str) -> None:
    good = ((ids >= 0) & (ids < vocabulary)).all()
    message = f"{name} are not all between 0 and {vocabulary - 1}"
    if ids.device.type != "cpu":
        torch._assert_async(good, message)
    elif not good:
        wrong = ids[(ids < 0) | (ids >= vocabulary)][0]
        raise ValueError(f"{message}: {int(wrong)} is among them")


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, task: Task, rows: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        needed = ctx.needs_input_grad[:2]
        losses, gradients = _losses_and_gradients(hidden, weight, task, rows, needed)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(*losses[1:])
        return losses

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (each if each is None else each * outer[0] for each in ctx.saved_tensors)
        return *gradients, None, None


def _losses_and_gradients(
    hidden: Tensor, weight: Tensor, task: Task, rows: int, needed: tuple[bool, bool]
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor | None, Tensor | None]]:
    """Losses as in `Loss`, and the gradients of the total in `hidden` and `weight` if needed."""
    device, dtype = hidden.device.type, hidden.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    step = _step_for(hidden.device, dtype)
    inputs, matrix = hidden.to(dtype), weight.to(dtype)
    hidden_gradient = torch.empty_like(hidden) if needed[0] else None
    weight_gradient = torch.zeros_like(weight) if needed[1] else None
    # A batch can be empty.
    losses = [inputs.new_zeros((3, 0), dtype=_wide(dtype))]
    # One buffer for all chunks: memory fresh from the system is slow at first touch.
    buffer = inputs.new_empty(min(rows, len(inputs)), len(matrix))
    # The types are chosen already.
    with torch.autocast(device, enabled=False):
        for part in _slices(len(inputs), rows):
            some = inputs[part]
            logits = torch.mm(some, matrix.t(), out=buffer[: len(some)])
            losses.append(step(logits, task.part(part)))
            # Now these are the logits' gradient.
            if hidden_gradient is not None:
                hidden_gradient[part] = torch.mm(logits, matrix)
            if weight_gradient is not None:
                _add_product(weight_gradient, logits.t(), some)
    sums = torch.cat(losses, 1).sum(1) * task.scale
    return (sums[0], sums[1], sums[2]), (hidden_gradient, weight_gradient)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += torch.mm(left, right)


def _step_for(device: torch.device, dtype: torch.dtype) -> Callable[[Tensor, Task], Tensor]:
    """What turns logits into their gradient; Triton is optional."""
    if device.type == "cuda" and dtype != torch.float64:
        try:
            from corpusmill.trainer import kernels
        except ImportError:
            pass
        else:
            return kernels.replace_by_gradient
    return replace_by_gradient


def replace_by_gradient(logits: Tensor, task: Task) -> Tensor:
    """Replaces logits by the gradient of the scaled loss in them, in place.

    Args:
      logits: floating point of shape [rows, vocabulary].
      task: of these rows.

    Returns:
      Total loss, next-token loss and z-loss of each row, not scaled; float32 of shape [3, rows].
    """
    size = len(logits)
    if logits.device.type == "cpu":
        size = max(1, _BLOCK // logits.shape[1])
    blocks = [_replace_block(logits[part], task.part(part)) for part in _slices(len(logits), size)]
    return torch.cat(blocks, 1)


def _replace_block(logits: Tensor, task: Task) -> Tensor:
    predicted = task.next_tokens != IGNORED
    next_tokens = torch.where(predicted, task.next_tokens, 0)
    own = slice(int(task.offsets[0]), int(task.offsets[-1]))
    tokens, weights = task.tokens[own].long(), task.weights[own]
    row_numbers = torch.arange(len(logits), device=logits.device)
    entry_rows = row_numbers.repeat_interleave(task.offsets.diff(), output_size=len(tokens))

    # In float32 these are the logits themselves, and what follows happens in place.
    wide = logits.to(_wide(logits.dtype))
    weights = weights.to(wide.dtype)
    next_logits = wide[row_numbers, next_tokens]
    target_logits = wide[entry_rows, tokens]
    greatest = wide.amax(1)
    total = wide.sub_(greatest[:, None]).exp_().sum(1)
    log_partition = greatest + total.log()

    nothing = torch.zeros_like(total)
    weight_sums = nothing.index_add(0, entry_rows, weights)
    target_losses = weight_sums * log_partition
    # Where the vocabulary is masked a logit is -inf, and 0 times that is no number.
    shares = (weights * target_logits).where(weights != 0, 0)
    target_losses.index_add_(0, entry_rows, shares, alpha=-1)
    next_losses = log_partition - next_logits
    z_losses = task.z_loss * log_partition**2
    losses = z_losses
    if task.mix:
        losses = losses + task.mix * target_losses
    if task.mix != 1:
        losses = losses + (1 - task.mix) * next_losses

    scale = task.scale * predicted
    slope = task.mix * weight_sums + (1 - task.mix) + 2 * task.z_loss * log_partition
    wide.mul_((slope * scale / total)[:, None])
    entries = -task.mix * weights * scale[entry_rows]
    wide.index_put_((entry_rows, tokens), entries, accumulate=True)
    wide[row_numbers, next_tokens] -= (1 - task.mix) * scale
    logits.copy_(wide)
    return torch.stack([losses, next_losses, z_losses]).where(predicted, 0)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _rows_at_once(hidden: Tensor, weight: Tensor, chunk: int | None) -> int:
    return chunk or max(1, _CHUNK.get(hidden.device.type, _CHUNK["cuda"]) // len(weight))


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, length)) for first in range(0, length, size))
