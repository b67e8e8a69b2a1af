"""The PyTorch backend: graphs lowered to modules that train.

torch is imported when a function is called, never before.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from irprune.errors import IrpruneError

if TYPE_CHECKING:
    from irprune.backends.torch.lowering.module import Lowered
    from irprune.model import Model

__all__ = ["to_torch"]


def to_torch(model: Model, *, inplace: bool = True) -> Lowered:
    """Lower a model to a GraphModule of ordinary layers, in eval mode.

    Parameters and buffers have the names of the graph's initializers and their shapes; weights are
    copied. In train mode BatchNorm adapts its running statistics, with the momentum of its node.
    Dropout is an identity: normalisation takes it out, and a graph that was exported in eval mode
    has none. Several graph outputs are returned as a tuple, in their order.

    Args:
        model: the network; normalize it first where weights stand in Constant nodes or where an
            optimiser merged equal biases of unrelated layers.
        inplace: let activations overwrite inputs that nothing else reads, as torchvision does.

    Raises:
        IrpruneError: torch is missing, or nodes cannot be lowered; it names them all.
    """
    if find_spec("torch") is None:
        raise IrpruneError(
            "lowering needs torch", mend="install the extra: pip install 'irprune[torch]'"
        )
    from irprune.backends.torch.lowering.lower import Lowering
    from irprune.backends.torch.lowering.prepare import prepared

    try:
        copy = prepared(model.ir)
        spare = model.ir.graph.initializers
        return Lowering(copy.graph, copy.opset_imports, spare, inplace).run().eval()
    except IrpruneError as error:
        error.file = error.file or model.provenance.path
        raise
