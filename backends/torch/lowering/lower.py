"""From the graph IR to a GraphModule: node by node, each by the rule of its op."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx, nn

from irprune.backends.torch.lowering import host, rules
from irprune.backends.torch.lowering.module import NAMES, VALUES, Lowered
from irprune.backends.torch.lowering.parameters import DTYPES, to_tensor
from irprune.backends.torch.lowering.places import Places
from irprune.errors import IrpruneError
from irprune.folding.constants import EVALUATED, evaluate
from irprune.queries import Dim, describe, dims_of
from irprune.roles import MADE_OF, Role, predecessors, roles

MOST_EVALUATED = 1 << 22
"""Elements of a constant that is computed once, when the graph is lowered."""
_MOST_NAMED = 8
_RESERVED = frozenset(["self", "torch", "device", "getattr", "inf", "nan", "NoneType"])
"""What the code that torch writes for a graph calls by name."""
_REFUSED_RANK = 5


class Unsupported(Exception):
    """A node that a rule cannot lower; the text says why."""


class Lowering:
    """The network under construction, and what rules ask of it.

    Args:
        graph: the ONNX graph, prepared, its shapes inferred; it is only read.
        opsets: the versions of its domains.
        spare: tensors by name, also those that nothing reads.
        inplace: whether activations may overwrite what nothing else reads.
        fused: whether one kernel may compute several nodes of attention.
    """

    def __init__(
        self,
        graph: ir.Graph,
        opsets: Mapping[str, int],
        spare: Mapping[str, ir.TensorProtocol],
        inplace: bool,
        fused: bool,
    ) -> None:
        self.source, self.opsets, self.inplace = graph, dict(opsets), inplace
        self.fused = fused
        self.opset = opsets.get("", 0)
        self.graph = fx.Graph()
        self.roles = roles(graph)
        self.places = Places(self.roles, spare)
        self.made: dict[ir.Value, fx.Node] = {}
        self.numbers: dict[ir.Value, host.Numbers] = {}
        self.constants: dict[ir.Value, np.ndarray] = {}
        for value, role in self.roles.items():
            integer = value.dtype is not None and not value.dtype.is_floating_point()
            if value.const_value is not None and (role is Role.CONSTANT or integer):
                if value.dtype == ir.DataType.STRING:
                    continue
                self.constants[value] = value.const_value.numpy()

    # The walk

    def run(self) -> Lowered:
        """Lower the whole graph; one IrpruneError names every node that cannot be."""
        refused: list[tuple[str, str]] = []
        taken: set[str] = set()
        for value in self.source.inputs:
            if value.dtype is not None and value.dtype not in DTYPES:
                refused.append(("the graph", f"its input {value.name} is {value.dtype}"))
            self.made[value] = self.graph.placeholder(argument(value.name or "input", taken))
        for node in self.source:
            try:
                self._lower(node)
            except Unsupported as error:
                refused.append((describe(node), str(error)))
                for value in node.outputs:  # so that the rest is looked at too
                    self.made[value] = self.graph.call_function(_refused)
        results = []
        for value in self.source.outputs:
            try:
                results.append(self.tensor(value))
            except Unsupported:
                maker = value.producer()
                where = "the graph" if maker is None else describe(maker)
                refused.append((where, f"its output {value.name} has no lowering"))
        if refused:
            raise _refusal(refused)
        self.graph.output(results[0] if len(results) == 1 else tuple(results))
        for node in reversed(list(self.graph.nodes)):  # lengths that nothing asked for
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)
        return self._module()

    def _module(self) -> Lowered:
        used = {node.target for node in self.graph.nodes if node.op in ("call_module", "get_attr")}
        root = self.places.assemble({str(target) for target in used})
        module = Lowered(root, self.graph, "Lowered")
        self.places.mark_temporary(module)
        module.meta[NAMES] = self.places.names(module)
        made = {value.name: predecessors(value) for value in self.roles}
        module.meta[MADE_OF] = {name: names for name, names in made.items() if names}
        alive = set(self.graph.nodes)
        module.meta[VALUES] = {
            value.name: node.name for value, node in self.made.items() if node in alive
        }
        return module

    def _lower(self, node: ir.Node) -> None:
        if not node.domain and node.op_type in ("Shape", "Size"):
            self._lengths(node)
            return
        if self._by_numbers(node) or self._by_evaluation(node):
            return
        rule = rules().get((node.domain, node.op_type))
        if rule is None:
            raise Unsupported("there is no lowering for this op")
        made = rule(self, node)
        outputs = made if isinstance(made, tuple) else (made,)
        for value, result in zip(node.outputs, outputs, strict=False):
            self.made[value] = result

    def _lengths(self, node: ir.Node) -> None:
        """Shape and Size: known lengths are numbers, others are read from the tensor."""
        value, output = node.inputs[0], node.outputs[0]
        assert value is not None
        dims = dims_of(value)
        if dims is None:
            raise Unsupported("the rank of its input is unknown")
        if node.op_type == "Size":
            known = all(isinstance(dim, int) for dim in dims)
            total = int(np.prod([d for d in dims if isinstance(d, int)])) if known else None
            item = self.method("numel", self.tensor(value)) if total is None else total
            self.numbers[output] = host.array([item], ())
            return
        start, end = self.integer(node, "start", 0), self.integer(node, "end", len(dims))
        items = [self.length(value, k) for k in range(len(dims))][start:end]
        self.numbers[output] = host.array(items, (len(items),))

    def _by_numbers(self, node: ir.Node) -> bool:
        """Compute a node with Python numbers where an input comes from a shape."""
        rule = host.RULES.get(node.op_type)
        given = [value for value in node.inputs if value is not None]
        if rule is None or node.domain or not any(value in self.numbers for value in given):
            return False
        if any(self.items(value) is None for value in given):
            return False
        inputs = [None if value is None else self.items(value) for value in node.inputs]
        result = rule(self, node, inputs)
        if result is None or result.ndim > 1:
            return False
        self.numbers[node.outputs[0]] = result
        return True

    def _by_evaluation(self, node: ir.Node) -> bool:
        """Compute a node of constants alone, once."""
        given = [value for value in node.inputs if value is not None]
        if node.op_type == "CastLike" and given[0] in self.constants and given[1].dtype is not None:
            array = self.constants[given[0]].astype(given[1].dtype.numpy())
            self.constants[node.outputs[0]] = array
            return True
        if not all(value in self.constants for value in given) or node.domain:
            return False
        if len(node.outputs) != 1 or node.op_type not in EVALUATED:
            return False
        dims = dims_of(node.outputs[0]) or []
        if any(not isinstance(dim, int) for dim in dims):
            return False
        if np.prod([d for d in dims if isinstance(d, int)]) > MOST_EVALUATED:
            return False
        arrays = {value.name or "": self.constants[value] for value in given}
        try:
            (result,) = evaluate(node, arrays, self.opsets)
        except Exception:  # what onnx.reference lacks, torch computes
            return False
        self.constants[node.outputs[0]] = result
        return True

    # What rules read

    def items(self, value: ir.Value) -> host.Numbers | None:
        """Return the elements of a short vector or number known as numbers; None for others."""
        if value in self.numbers:
            return self.numbers[value]
        numbers = self.constants.get(value)
        if numbers is None or numbers.size > host.MOST or numbers.ndim > 1:
            return None
        return host.array(numbers.ravel().tolist(), numbers.shape)

    def constant(self, value: ir.Value | None) -> np.ndarray | None:
        """Return the numbers of what does not change, None for a weight or a computed value."""
        return None if value is None else self.constants.get(value)

    def input(self, node: ir.Node, index: int) -> ir.Value | None:
        """Return an input, None where it is omitted."""
        return node.inputs[index] if index < len(node.inputs) else None

    def data(self, node: ir.Node, index: int = 0) -> fx.Node:
        """Return the tensor of an input that must be there."""
        value = self.input(node, index)
        if value is None:
            raise Unsupported(f"its input {index} is missing")
        return self.tensor(value)

    def rank(self, value: ir.Value | None) -> int:
        """Return the rank of a value."""
        dims = None if value is None else dims_of(value)
        if dims is None:
            raise Unsupported(f"the rank of {None if value is None else value.name} is unknown")
        return len(dims)

    def dims(self, value: ir.Value | None) -> list[Dim]:
        """Return the dimensions of a value, all None where only the rank is known."""
        rank = self.rank(value)
        assert value is not None
        return (dims_of(value) or [])[:rank]

    def length(self, value: ir.Value, axis: int) -> Any:
        """Return a length, as a number or as a node."""
        dim = self.dims(value)[axis]
        return dim if isinstance(dim, int) else self.method("size", self.tensor(value), axis)

    def ints(self, node: ir.Node, index: int | None, attribute: str = "") -> list[int] | None:
        """Return integers that an attribute or a constant input holds, None where absent."""
        if attribute in node.attributes:
            held = node.attributes[attribute]
            return [held.as_int()] if held.type == ir.AttributeType.INT else list(held.as_ints())
        value = None if index is None else self.input(node, index)
        if value is None:
            return None
        numbers = self.constant(value)
        if numbers is None:
            raise Unsupported(f"its input {value.name} is computed")
        return [int(n) for n in numbers.ravel()]

    def sizes(self, node: ir.Node, index: int) -> list[Any]:
        """Return lengths that an input holds, as numbers or nodes."""
        value = self.input(node, index)
        items = None if value is None else self.items(value)
        if items is None:
            if value is None:
                raise Unsupported(f"its input {index} is missing")
            (length,) = self.dims(value)
            if not isinstance(length, int):
                raise Unsupported(f"the length of {value.name} is unknown")
            listed = self.method("tolist", self.tensor(value))
            return [self.call(_item, listed, k) for k in range(length)]
        return list(items.ravel())

    def integer(self, node: ir.Node, name: str, default: int) -> int:
        """Return an integer attribute."""
        found = node.attributes.get(name)
        return default if found is None else found.as_int()

    def real(self, node: ir.Node, name: str, default: float) -> float:
        """Return a floating-point attribute as it was written: 0.1 rather than its float32."""
        found = node.attributes.get(name)
        return default if found is None else float(str(np.float32(found.as_float())))

    def text(self, node: ir.Node, name: str, default: str) -> str:
        """Return a string attribute."""
        found = node.attributes.get(name)
        return default if found is None else found.as_string()

    def number(self, node: ir.Node, index: int) -> Any:
        """Return a scalar input as a Python number, a node for a computed one; None if absent."""
        value = self.input(node, index)
        if value is None:
            return None
        items = self.items(value)
        return items.ravel()[0] if items is not None and items.size == 1 else self.tensor(value)

    def dtype(self, value: ir.Value | None) -> torch.dtype:
        """Return torch's name of the type of a value."""
        kind = None if value is None else value.dtype
        if kind not in DTYPES:
            raise Unsupported(f"torch has no type {kind}")
        return DTYPES[kind]

    def is_read(self, node: ir.Node, index: int) -> bool:
        """Return whether anything reads an output of a node."""
        if index >= len(node.outputs):
            return False
        value = node.outputs[index]
        return bool(value.uses()) or value.is_graph_output()

    def only_reader(self, node: ir.Node, value: ir.Value | None) -> bool:
        """Return whether nothing but one input of this node reads a computed value."""
        return (
            value is not None
            and value.producer() is not None
            and not value.is_graph_output()
            and [use.node for use in value.uses()] == [node]
        )

    # What rules write

    def tensor(self, value: ir.Value) -> fx.Node:
        """Return the node that yields a value."""
        if value in self.made:
            return self.made[value]
        if value.dtype is not None and value.dtype not in DTYPES:
            raise Unsupported(f"torch has no type {value.dtype}, of {value.name}")
        dtype = DTYPES.get(value.dtype) if value.dtype is not None else None
        if value in self.numbers:
            numbers = self.numbers[value]
            like = next(self.made[v] for v in self.source.inputs)
            items = numbers.ravel().tolist()
            flat = self.call(host.stacked, like, items, dtype or torch.int64)
            made = flat if numbers.ndim == 1 else self.method("reshape", flat, numbers.shape)
        elif value in self.roles and self.roles[value] is not Role.CONSTANT:
            made = self.graph.get_attr(self.places.tensor(value))
        elif value in self.constants:
            made = self._constant(self.constants[value])
        else:
            raise Unsupported(f"its input {value.name} is not computed before it")
        self.made[value] = made
        return made

    def _constant(self, array: np.ndarray) -> fx.Node:
        """Hold a constant, of rank 5 flat: `Module.to(memory_format=channels_last)` refuses it."""
        if array.ndim != _REFUSED_RANK:
            return self.graph.get_attr(self.places.constant(to_tensor(array)))
        flat = self.graph.get_attr(self.places.constant(to_tensor(array.ravel())))
        return self.method("reshape", flat, array.shape)

    def operand(self, value: ir.Value, other: ir.Value | None = None) -> Any:
        """Return what enters a formula: a number for a constant that one is enough for.

        `other` is the value that the number meets: it must have the rank that the result has.
        """
        numbers = self.numbers.get(value, self.constants.get(value))
        if numbers is None or numbers.size != 1 or value in self.made:
            return self.tensor(value)
        met = other is not None and other not in self.constants and other not in self.numbers
        if met and (numbers.ndim == 0 or numbers.ndim <= self.rank(other)):
            item = numbers.ravel()[0]
            return item.item() if isinstance(item, np.generic) else item
        return self.tensor(value)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Add a call of a function."""
        return self.graph.call_function(function, args, kwargs)

    def method(self, name: str, *args: Any, **kwargs: Any) -> fx.Node:
        """Add a call of a method of its first argument."""
        return self.graph.call_method(name, args, kwargs)

    def layer(
        self, node: ir.Node, layer: nn.Module, tensors: Mapping[str, ir.Value], *inputs: Any
    ) -> fx.Node:
        """Add a call of a layer that holds initializers as `tensors`, by attribute."""
        path = self.places.layer(node.name or node.op_type, layer, tensors)
        return self.graph.call_module(path, inputs)

    def held(self, value: ir.Value | None) -> bool:
        """Return whether a value is a tensor that a layer can hold."""
        return value is not None and self.roles.get(value, Role.CONSTANT) is not Role.CONSTANT


def _item(items: Sequence[Any], index: int) -> Any:
    return items[index]


def _refused() -> None:
    """What stands for a refused node until the error is raised."""


def _refusal(refused: Sequence[tuple[str, str]]) -> IrpruneError:
    lines = [f"{where}: {reason}" for where, reason in refused[:_MOST_NAMED]]
    more = len(refused) - len(lines)
    lines += [f"and {more} more"] if more > 0 else []
    mend = "replace these nodes, or train the part of the graph without them"
    if len(refused) == 1:
        return IrpruneError(refused[0][1], node=refused[0][0], mend=mend)
    return IrpruneError(f"{len(refused)} nodes cannot be lowered: " + "; ".join(lines), mend=mend)


def argument(name: str, taken: set[str]) -> str:
    """Return a name for an argument of the network that Python can carry, and note it."""
    stem = re.sub(r"\W", "_", name)
    stem = stem if stem.isidentifier() else f"_{stem}"
    text, count = stem, 1
    while text in taken or text in _RESERVED or keyword.iskeyword(text):
        count += 1
        text = f"{stem}_{count}"
    taken.add(text)
    return text
