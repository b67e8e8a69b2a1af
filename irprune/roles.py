"""Which initializers of a graph train, which are kept, which are mere constants of a formula."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from enum import Enum

import numpy as np
import onnx_ir as ir

from irprune import tidy
from irprune.errors import IrpruneError

PARAMETER = "irprune.parameter"
"""Metadata of an initializer that is one parameter of its source: all its uses stay tied."""
TRAINED, BUFFER = "1", "buffer"
"""What that metadata says: the source trains the initializer, or keeps it but does not train it."""
MADE_OF = "irprune.made-of"
"""Metadata of an initializer that pruning put in the place of others: their names, as JSON."""

_STATISTICS = {"BatchNormalization": (3, 4)}
_SETTINGS = {
    "Clip": (1, 2),
    "HardSigmoid": (),
    "Pad": (2,),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "OneHot": (1, 2),
    "Range": (0, 1, 2),
    "NonMaxSuppression": (2, 3, 4),
}
"""Input numbers that hold settings of an op, not weights."""
_UNREAD = {"CastLike": (1,), "EyeLike": (0,)}
"""Inputs of which an op reads the type or the shape, but no numbers."""
_MASK_VALUES = 2
_ARITHMETIC = ("Add", "Div", "Greater", "Less", "Max", "Min", "Mul", "Pow", "Sub", "Where")


class Role(Enum):
    """What the lowered network makes of an initializer."""

    PARAMETER = "trained"
    BUFFER = "kept by name, not trained"
    CONSTANT = "part of a formula"


def roles(graph: ir.Graph) -> dict[ir.Value, Role]:
    """Return the role of every initializer that holds numbers.

    Where the graph marks the state of its source (`from_torch`), exactly its parameters train, and
    what passes computed from them (`inherit`).
    Elsewhere floating-point tensors with an axis do, but for running statistics, settings of an op
    (bounds, scales), single numbers in arithmetic, and masks: tables with two longer axes whose
    elements take just two values.
    """
    marked = any(PARAMETER in value.metadata_props for value in graph.initializers.values())
    return {value: _role(value, marked) for value in graph.initializers.values()}


def _role(value: ir.Value, marked: bool) -> Role:
    tensor = value.const_value
    mark = value.metadata_props.get(PARAMETER)
    if tensor is None or not tensor.dtype.is_floating_point():
        return Role.CONSTANT if mark is None else Role.BUFFER
    if any(index in _STATISTICS.get(node.op_type, ()) for node, index in value.uses()):
        return Role.BUFFER
    if marked:
        return {None: Role.CONSTANT, BUFFER: Role.BUFFER}.get(mark, Role.PARAMETER)
    if not tensor.shape.rank() or _is_setting(value):
        return Role.CONSTANT
    return Role.CONSTANT if _is_mask(tensor) or _is_factor(value) else Role.PARAMETER


def _is_setting(value: ir.Value) -> bool:
    return any(index in _SETTINGS.get(node.op_type, ()) for node, index in value.uses())


def _is_factor(value: ir.Value) -> bool:
    return (
        value.const_value is not None
        and value.const_value.size == 1
        and all(node.op_type in _ARITHMETIC for node, _ in value.uses())
    )


def _is_mask(tensor: ir.TensorProtocol) -> bool:
    longer = [n for n in tensor.shape.numpy() if n > 1]
    if len(longer) < 2:
        return False
    numbers = tensor.numpy().ravel()
    few = np.unique(numbers[:1024].astype(np.float64))
    if len(few) != _MASK_VALUES:
        return False
    return len(np.unique(numbers.astype(np.float64))) == _MASK_VALUES


def origins(
    values: Iterable[ir.Value | None], without: Collection[ir.Value] = ()
) -> list[ir.Value]:
    """Return the floating-point initializers whose numbers values are computed from.

    Types, shapes, indices and conditions do not count: nothing trains through them. Neither does
    what is computed from the values `without` alone.
    """
    found: dict[ir.Value, None] = {}
    seen, stack = set(without), list(values)[::-1]
    while stack:
        value = stack.pop()
        if value is None or value in seen:
            continue
        seen.add(value)
        if value.dtype is not None and not value.dtype.is_floating_point():
            continue
        node = value.producer()
        if value.is_initializer():
            found[value] = None
        elif node is not None:
            unread = _UNREAD.get(node.op_type, ())
            stack += [v for k, v in enumerate(node.inputs) if k not in unread][::-1]
    return list(found)


def inherit(made: ir.Value, sources: Iterable[ir.Value]) -> None:
    """Mark an initializer that a pass computed as a parameter where a parameter went into it."""
    if any(source.metadata_props.get(PARAMETER, BUFFER) != BUFFER for source in sources):
        made.metadata_props[PARAMETER] = TRAINED


def succeed(made: ir.Value, sources: Iterable[ir.Value]) -> None:
    """Let an initializer inherit from those in whose place pruning puts it, and note their names.

    The names tell what to do with the new one where only the old ones are known, as an optimizer.
    """
    sources = list(sources)
    inherit(made, sources)
    names = [name for source in sources for name in (source.name or "", *predecessors(source))]
    if names:
        made.metadata_props[MADE_OF] = json.dumps([*dict.fromkeys(names)])


def predecessors(value: ir.Value) -> list[str]:
    """Return the names of the initializers that pruning replaced by this one, nearest first.

    Raises:
        IrpruneError: the metadata is no list of names.
    """
    try:
        names = json.loads(value.metadata_props.get(MADE_OF, "[]"))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        mend = "remove it, or prune the model again"
        raise IrpruneError(
            f"its metadata {MADE_OF} is no list of names", node=value.name, mend=mend
        )
    return names


def trained(model: ir.Model) -> set[str]:
    """Return the names of the parameters that reach an output of a model."""
    copy = model.clone()
    tidy.bypass_copies(copy.graph)
    tidy.remove_dead(copy)
    found = roles(copy.graph)
    return {value.name or "" for value, role in found.items() if role is Role.PARAMETER}
