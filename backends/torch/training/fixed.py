"""Networks whose file fixes the batch: many take any other as well, and those can be trained."""

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
_MEND = "export the model with a dynamic batch"


def check_any_batch(module: nn.Module, shape: tuple[int, ...], classes: int, batch: int) -> None:
    """Raise IrpruneError unless three examples give what each of them gives alone.

    Args:
        module: the network, in train or eval mode; it is tried in eval mode.
        shape: of one example.
        batch: what the file fixes.
    """
    x = torch.randn(_EXAMPLES, *shape, generator=torch.Generator().manual_seed(0))
    training = module.training
    module.eval()
    try:
        with torch.no_grad(), redirect_stderr(StringIO()):  # fx prints where a module failed
            whole = logits_of(module(x), classes)
            alone = torch.cat([logits_of(module(one), classes) for one in torch.split(x, 1)])
    except (RuntimeError, IndexError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        said = (str(error).splitlines() or ["?"])[0]
        raise IrpruneError(
            f"the batch is fixed to {batch}, inside too: {said}", mend=_MEND
        ) from error
    finally:
        module.train(training)
    size = float(alone.abs().nan_to_num().max())
    same = whole.shape == alone.shape and torch.allclose(
        whole, alone, rtol=0, atol=_TOLERANCE * size, equal_nan=True
    )
    if not same:
        reason = f"the batch is fixed to {batch}, and examples of another one are mixed up"
        raise IrpruneError(reason, mend=_MEND)
