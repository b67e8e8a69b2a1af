"""The PyTorch backend: graphs lowered to modules that train.

torch is imported when a function is called, never before.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from irprune.errors import IrpruneError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from irprune.backends.torch.lowering.module import Lowered
    from irprune.model import Model
    from irprune.plan import Plan

__all__ = ["carry_optimizer", "to_torch"]


def to_torch(model: Model, *, inplace: bool = True, fused: bool = True) -> Lowered:
    """Lower a model to a GraphModule of ordinary layers, in eval mode.

    Parameters and buffers have the names of the graph's initializers and their shapes; weights are
    copied. In train mode BatchNorm adapts its running statistics, with the momentum of its node; a
    momentum of 1, with which they never would, is refused. Copies by `copy` and `pickle` (hence
    `torch.save`) keep the names.
    Dropout is an identity, in train mode too: normalisation takes it out, and a graph that was
    exported in eval mode has none. Several graph outputs are returned as a tuple, in their order.

    Args:
        model: the network; normalize it first where weights stand in Constant nodes or where an
            optimiser merged equal biases of unrelated layers.
        inplace: let activations overwrite inputs that nothing else reads, as torchvision does.
        fused: let one kernel compute attention that is written out; what lies inside it then has
            no counterpart in the module.

    Raises:
        IrpruneError: torch is missing, or nodes cannot be lowered; it names them all.
    """
    _require()
    from irprune.backends.torch.lowering.lower import Lowering
    from irprune.backends.torch.lowering.prepare import prepared

    try:
        copy = prepared(model.ir)
        spare = model.tensors()
        return Lowering(copy.graph, copy.opset_imports, spare, inplace, fused).run().eval()
    except IrpruneError as error:
        error.file = error.file or model.provenance.path
        raise


def carry_optimizer(optimizer: Optimizer, old: nn.Module, new: nn.Module, plan: Plan) -> Optimizer:
    """Return an optimizer of the pruned module that goes on where the old one was.

    Each state tensor of a parameter (momentum, averages of gradients and of their squares, ...) is
    sliced by what the plan keeps of that parameter, also where each group of a convolution keeps
    other channels; steps and other scalars stay. Parameter groups keep their settings, and the
    current learning rate among them; a subclass keeps the attributes that are called as arguments
    of its constructor. Nothing is shared with the old optimizer. What the plan removes altogether
    leaves its group. What is frozen in `old` (`requires_grad`) is frozen in `new`.

    What pruning made, the constant of a removed branch or a new bias, has no state yet: it starts
    without, in the group of a parameter that it replaces, and frozen where all of those are.

    Args:
        optimizer: of the parameters of `old`; it is left as it is.
        old: the lowered model before the plan; both may be wrapped, by `torch.compile` say.
        new: the lowered model after it; only what has to be frozen in it changes.
        plan: from the one to the other: `Result.plan`, where `old` was lowered from the base.

    Raises:
        IrpruneError: the plan does not lead from `old` to `new`, `new` has a parameter that neither
            `old` has nor pruning made (a weight that `normalize` folded in between), or the
            optimizer keeps a tensor that is laid out unlike its parameter.
    """
    from irprune.backends.torch import carry

    return carry.carry_optimizer(optimizer, old, new, plan)


def _require() -> None:
    if find_spec("torch") is None:
        raise IrpruneError(
            "lowering needs torch", mend="install the extra: pip install 'irprune[torch]'"
        )
