"""Networks that take one batch alone, whatever their file says: these cannot be trained."""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO

import torch
from torch import nn

from irprune.backends.torch.training.memory import is_out_of_memory
from irprune.backends.torch.training.objective import logits_of
from irprune.errors import IrpruneError

_EXAMPLES = 3
_TOLERANCE = 1e-3
_ULPS = 32
"""The same, in steps of a weight's own type: the half ones are coarser."""
_MEND = "export the model with a dynamic batch, inside too"


def check_any_batch(
    module: nn.Module, shape: tuple[int, ...], classes: int, batch: int | None
) -> None:
    """Raise IrpruneError unless three examples fit, and give what each of them gives alone.

    Args:
        module: the network, in train or eval mode; it is tried in eval mode.
        shape: of one example.
        batch: what the file fixes; None where it fixes nothing.
    """
    fixed = "" if batch is None else f"the batch is fixed to {batch}, "
    x = torch.randn(_EXAMPLES, *shape, generator=torch.Generator().manual_seed(0))
    training = module.training
    module.eval()
    try:
        with torch.no_grad(), redirect_stderr(StringIO()):  # fx prints where a module failed
            whole = logits_of(module(x), classes)
            alone = torch.cat([logits_of(module(one), classes) for one in torch.split(x, 1)])
    except (RuntimeError, IndexError, ValueError) as error:
        if is_out_of_memory(error):
            reason = f"{_EXAMPLES} examples do not fit into memory"
            raise IrpruneError(reason, mend="take a smaller network or input") from error
        said = (str(error).splitlines() or ["?"])[0]
        reason = f"{fixed}a batch of {_EXAMPLES} does not pass: {said}"
        raise IrpruneError(reason, mend=_MEND) from error
    finally:
        module.train(training)
    size = float(alone.abs().nan_to_num().max())
    same = whole.shape == alone.shape and torch.allclose(
        whole, alone, rtol=0, atol=_tolerance(module) * size, equal_nan=True
    )
    if not same:
        reason = f"{fixed}examples of a batch of {_EXAMPLES} are mixed up"
        raise IrpruneError(reason, mend=_MEND)


def _tolerance(module: nn.Module) -> float:
    kinds = {t.dtype for t in module.state_dict().values() if t.is_floating_point()}
    return max([_TOLERANCE, *(_ULPS * torch.finfo(kind).eps for kind in kinds)])
