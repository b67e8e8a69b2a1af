"""Where the time goes: what onnxruntime ran, and which nodes of the model that was.

onnxruntime fuses nodes, renames them and inserts its own. Its graph is mapped back over tensors:
a tensor that kept its name, one that the name of a blocked kernel tells (`<tensor>_nchwc`), and the
inputs of a node that stands for a known one. A node of the runtime then stands for the nodes of the
model between its inputs and its output; for none of them, if it only changes a layout.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from irprune.protocols import NodeTime

if TYPE_CHECKING:
    import onnx

_SUFFIX = "_kernel_time"
_BLOCKED = "_nchwc"
_NUMBERED = re.compile(r".*_\d+")
_MICROSECOND = 1e-6

Labels = tuple[str, ...]
Mapped = list[tuple["onnx.NodeProto", Labels]]


def node_times(model: Path, trace: Path, running: Path | None) -> tuple[NodeTime, ...]:
    """Return what ran, slowest first, from a trace of onnxruntime and the graph that it ran."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    kernels = list(_kernels(json.loads(trace.read_text())))
    if running is None:
        known: dict[str, Labels] = {n.name: (_label(n),) for n in graph.node if n.name}
    else:
        mapped = _mapped(graph, onnx.load(running, load_external_data=False).graph)
        known = {node.name: labels for node, labels in mapped if node.name}
        known |= _unnamed(
            mapped,
            {(name, op) for name, op, *_ in kernels}
            - {(node.name, node.op_type) for node, _ in mapped},
        )
    found = [NodeTime(*kernel, known.get(kernel[0], ())) for kernel in kernels]
    return tuple(sorted(found, key=lambda node: -node.seconds))


def _unnamed(mapped: Mapped, kernels: set[tuple[str, str]]) -> dict[str, Labels]:
    """Return the labels of nodes without names: onnxruntime calls them by op type and number.

    The numbers rise in the order of the nodes; where as many ran of an op as there are, they match.
    """
    found: dict[str, Labels] = {}
    for op in {op for _, op in kernels}:
        names = [name for name, other in kernels if op == other and _NUMBERED.fullmatch(name)]
        names.sort(key=lambda name: int(name.rpartition("_")[2]))
        labels = [each for node, each in mapped if node.op_type == op and not node.name]
        if len(names) == len(labels):
            found |= dict(zip(names, labels, strict=True))
    return found


def _kernels(events: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str, str, float]]:
    """Yield name, op type, provider and median seconds per kernel; bodies count in their owner."""
    durations: defaultdict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith(_SUFFIX)]
    end = -1
    for event in sorted(kernels, key=lambda e: (e["ts"], -e["dur"])):
        if event["ts"] + event["dur"] <= end:
            continue
        end = event["ts"] + event["dur"]
        args = event["args"]
        name = event["name"].removesuffix(_SUFFIX)
        key = (args.get("node_index", ""), name, args.get("op_name", ""), args.get("provider", ""))
        durations[key].append(event["dur"] * _MICROSECOND)
    for (_, name, op, provider), seconds in durations.items():
        yield name, op, provider, median(seconds)


def _mapped(graph: onnx.GraphProto, running: onnx.GraphProto) -> Mapped:
    """Return the labels of the model's nodes that each node of the running graph stands for."""
    makers = {out: node for node in graph.node for out in node.output if out}
    sources = {value.name for value in (*graph.input, *graph.initializer)}
    names = {node.name: node for node in graph.node if node.name}
    same: dict[str, str] = {tensor: tensor for tensor in (*makers, *sources)}
    ends = [_end(node, names, makers) for node in running.node]
    for node, end in zip(running.node, ends, strict=True):
        twin = None if end is None else _twin(node, end, makers)
        for theirs, ours in zip(node.input, twin.input if twin else (), strict=False):
            if theirs:
                same.setdefault(theirs, ours)
    for node, end in zip(running.node, ends, strict=True):
        if end is not None:  # and no later node told otherwise
            same.setdefault(node.output[0], end)
    stops = set(same.values()) & {
        same[tensor] for node in running.node for tensor in node.output if tensor in same
    }
    found = []
    for node in running.node:
        end = same.get(node.output[0], "")
        inputs = {same[tensor] for tensor in node.input if tensor in same}
        labels = _between(end, inputs | (stops - {end}), makers) if end in makers else ()
        found.append((node, labels))
    return found


def _end(
    node: onnx.NodeProto, names: dict[str, onnx.NodeProto], makers: dict[str, onnx.NodeProto]
) -> str | None:
    """Return the model's tensor that a running node ends in, as far as names tell."""
    candidates: list[str] = [*node.output, node.name.removesuffix(_BLOCKED)]
    for name in candidates:
        if name in makers:
            return name
    twin = names.get(node.name)
    return str(twin.output[0]) if twin is not None and twin.op_type == node.op_type else None


def _twin(
    node: onnx.NodeProto, end: str, makers: dict[str, onnx.NodeProto]
) -> onnx.NodeProto | None:
    """Return the model's node of the same op from which one chain of inputs leads to `end`."""
    op = node.op_type.removeprefix("Fused")
    maker = makers.get(end)
    while maker is not None and maker.op_type != op:
        inputs = [makers[tensor] for tensor in maker.input if tensor in makers]
        maker = inputs[0] if len(inputs) == 1 else None
    return maker


def _between(end: str, stops: set[str], makers: dict[str, onnx.NodeProto]) -> tuple[str, ...]:
    """Return the labels of the nodes that lead to `end`, back to `stops`, first ones first."""
    found: dict[str, None] = {}
    frontier = [] if end in stops else [end]
    while frontier:
        node = makers.get(frontier.pop())
        if node is not None and _label(node) not in found:
            found[_label(node)] = None
            frontier += [tensor for tensor in node.input if tensor not in stops]
    return tuple(reversed(found))


def _label(node: onnx.NodeProto) -> str:
    return f"{node.name or node.output[0]} ({node.op_type})"
