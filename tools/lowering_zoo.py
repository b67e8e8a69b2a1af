"""Lower the zoo to torch and compare: with onnxruntime, and with the modules that it came from.

    python tools/lowering_zoo.py --json lowering.json --out docs/results/lowering.md
    python tools/lowering_zoo.py --json lowering.json --only 'onnx:*' 'caffe:*' --again refused

``onnx:`` and ``caffe:`` are the networks of the shared folder, ``torch:`` those of
``tools/zoo_models.py``, taken in with `from_torch`. A row holds the largest relative error of all
outputs (``max|a - b| / max|b|``) against onnxruntime without optimisations; for modules also that
of the loss and of the gradients of one step in train mode, Dropout and stochastic depth off.
Gradients are compared tensor by tensor, relative to the largest number of the tensor, but at least
to a thousandth of the largest gradient of all: what rounding leaves of a zero gradient (a bias
before BatchNorm) says nothing. onnxruntime's Sigmoid is right to 2e-7, and 0 below -18: where
all of an output is that small, its relative error says nothing, and the reference is onnxruntime
with Sigmoid written as 1 / (1 + exp(-x)), which is right everywhere.
One process per network; rows that the JSON file holds are left out.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(os.environ.get("IRPRUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
BOUND = 1e-4
EXACT = 1e-6
"""What two equal networks may differ by in float64: constants were rounded to float32."""
VERDICTS = ("equal", "sigmoid", "float32", "differs")
SMALLEST = 1e-3  # of the largest gradient: what a tensor's own is compared with at least


@dataclass
class Row:
    """What became of one network."""

    name: str
    verdict: str = "crashed"
    """equal, differs, refused (by a message), not exported, or crashed; or sigmoid, where outputs
    are equal but for onnxruntime's Sigmoid; or float32, where the lowered network is farther than
    the bound from itself in float64 and onnxruntime no farther than twice that, or where gradients
    agree in float64 alone, or the module's own are that far from those in float64."""
    error: float | None = None
    loss: float | None = None
    gradients: float | None = None
    reason: str = ""
    seconds: float = 0.0


def names() -> Iterator[str]:
    """Every network, by kind and name."""
    yield from (f"onnx:{path.name}" for path in sorted((SHARED / "models/onnx").glob("*.onnx")))
    found = sorted((SHARED / "caffe").rglob("*.prototxt"))
    found = [path for path in found if "solver" not in path.name]
    yield from (f"caffe:{path.relative_to(SHARED / 'caffe')}" for path in found)
    from zoo_models import networks

    yield from (f"torch:{name}" for name in networks())


def outputs(row: Row, model: Any, lowered: Any, feeds: dict[str, np.ndarray]) -> None:
    """Compare a lowered network's outputs with those of onnxruntime.

    Where they differ, onnxruntime runs again with Sigmoid spelled out; and the lowered network in
    float64: an input about which float32 says nothing is told from a fault.
    """
    import onnx
    import onnxruntime
    import torch

    from irprune.proof.compare import difference

    def ran(network: Any, kind: torch.dtype) -> list[np.ndarray]:
        given = (torch.from_numpy(array) for array in feeds.values())
        with torch.no_grad():
            found = network(*(x.to(kind) if x.is_floating_point() else x for x in given))
        parts = found if isinstance(found, tuple) else (found,)
        return [
            part.float().numpy() if part.is_floating_point() else part.numpy() for part in parts
        ]

    def worst(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
        return max(difference(a, b, False) for a, b in zip(found, wanted, strict=True))

    def expected_of(path: Path) -> list[np.ndarray]:
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        return session.run(None, feeds)

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    found = ran(lowered, torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.save(path)
        expected = expected_of(path)
        row.error = worst(found, expected)
        if row.error <= BOUND:
            return
        proto = onnx.load(path)
        if spell_sigmoids(proto.graph):
            onnx.save(proto, path)
            spelled = worst(found, expected_of(path))
            if spelled <= BOUND:
                row.verdict = "sigmoid"
                row.reason = f"{spelled:.1e} where the reference spells Sigmoid out"
                return
    exact = ran(copy.deepcopy(lowered).double(), torch.float64)
    own, theirs = worst(found, exact), worst(expected, exact)
    row.reason = f"against float64: lowered {own:.1e}, onnxruntime {theirs:.1e}"
    if own > BOUND and theirs <= 2 * own:
        row.verdict = "float32"


def spell_sigmoids(graph: Any) -> int:
    """Replace the Sigmoid nodes of a float32 graph by 1 / (1 + exp(-x)); return how many."""
    from onnx import helper, numpy_helper

    nodes, count = [], 0
    for node in graph.node:
        if node.op_type != "Sigmoid":
            nodes.append(node)
            continue
        (x,), (y,) = node.input, node.output
        count += 1
        nodes += [
            helper.make_node("Neg", [x], [f"{y}/neg"]),
            helper.make_node("Exp", [f"{y}/neg"], [f"{y}/exp"]),
            helper.make_node("Add", [f"{y}/exp", "spelled/one"], [f"{y}/sum"]),
            helper.make_node("Reciprocal", [f"{y}/sum"], [y]),
        ]
    if count:
        graph.initializer.append(numpy_helper.from_array(np.float32(1), "spelled/one"))
    del graph.node[:]
    graph.node.extend(nodes)
    return count


def measure_graph(row: Row, model: Any) -> None:
    """Fill in the row of a graph that came as it is."""
    from randomize import randomize

    import irprune
    from irprune.proof.feeds import make_feeds

    randomize(model)
    model = irprune.run("normalize", model, verify=False).model
    lowered = irprune.to_torch(model)
    outputs(row, model, lowered, make_feeds(model.ir, {}, 0, style=1))


def step(module: Any, x: Any) -> tuple[float, dict[str, Any]]:
    """Return the loss of one training step and its gradients by name."""
    import torch
    from torch.utils import _pytree as pytree

    module = copy.deepcopy(module).train()
    for part in module.modules():
        for name in ("p", "drop_prob", "drop_rate", "dropout", "attn_drop", "proj_drop"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
    result = module(x)
    leaves = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    flat = leaves[0].flatten(1)
    weights = torch.linspace(-1, 1, flat.shape[1])
    loss = (flat * weights).mean() + flat.square().mean()
    loss.backward()
    named = module.named_parameters()
    return float(loss.detach()), {k: p.grad.numpy() for k, p in named if p.grad is not None}


def measure_module(row: Row, name: str) -> None:
    """Fill in the row of a network of torchvision or timm."""
    import torch
    from zoo_models import networks
    from zoo_weights import randomise

    import irprune

    network = networks()[name]
    torch.manual_seed(0)
    module, x = network.build(), network.inputs(2 if network.dense else 1, 1)
    randomise(module, x, 0)
    try:
        model = irprune.from_torch(module, (x,), dynamic_shapes=None if network.dense else {})
    except irprune.IrpruneError as error:
        row.verdict, row.reason = "not exported", str(error)
        return
    lowered = irprune.to_torch(model)
    outputs(row, model, lowered, {model.ir.graph.inputs[0].name: x.numpy()})
    if not network.dense:
        return
    row.loss, row.gradients, used = step_errors(module, lowered, x)
    if used:
        row.reason = f"no gradient for {', '.join(used[:4])}"
    elif max(row.loss, row.gradients) > BOUND:
        judge_exactly(row, module, lowered, x)


def judge_exactly(row: Row, module: Any, lowered: Any, x: Any) -> None:
    """Tell gradients that differ in float32 alone from a fault."""
    exact = step(copy.deepcopy(module).double(), x.double())
    shared = aliases(module)
    try:
        found = step(copy.deepcopy(lowered).double(), x.double())
    except RuntimeError:  # the graph casts to float32 itself
        own, theirs = (
            max(compared(exact, step(each, x), shared)[:2]) for each in (module, lowered)
        )
        row.reason = (
            f"a step against the module's in float64: module {own:.1e}, lowered {theirs:.1e}"
        )
        same = own > BOUND and theirs <= 2 * own
    else:
        loss, gradients, _ = compared(exact, found, shared)
        row.reason = f"one step in float64: loss {loss:.1e}, gradients {gradients:.1e}"
        same = max(loss, gradients) <= EXACT
    if same and row.error is not None and row.error <= BOUND:
        row.verdict = "float32"


def step_errors(module: Any, lowered: Any, x: Any) -> tuple[float, float, list[str]]:
    """Return the relative errors of loss and gradients of a step, and the gradients that lack."""
    return compared(step(module, x), step(lowered, x), aliases(module))


def compared(
    wanted: tuple[float, dict[str, Any]],
    given: tuple[float, dict[str, Any]],
    tied: list[set[str]],
) -> tuple[float, float, list[str]]:
    """Return the relative errors of a loss and its gradients, and the gradients that lack.

    Without one of the gradients that are not zero, their error is infinite.
    """
    (loss, gradients), (same, found) = wanted, given
    for names in tied:
        for name in names & found.keys():
            found |= dict.fromkeys(names, found[name])
    floor = SMALLEST * max(float(np.abs(g).max()) for g in gradients.values())
    missing = gradients.keys() - found.keys()
    worst = max(
        float(np.abs(found[k] - g).max() / max(float(np.abs(g).max()), floor))
        for k, g in gradients.items()
        if k in found
    )
    used = sorted(k for k in missing if np.abs(gradients[k]).max() > 0)
    return abs(same - loss) / abs(loss), float("inf") if used else worst, used


def aliases(module: Any) -> list[set[str]]:
    """Return all names of each parameter that layers share: an export keeps one of them."""
    names: dict[int, set[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return [shared for shared in names.values() if len(shared) > 1]


def measure(name: str) -> Row:
    """Measure one network in this process."""
    import irprune

    row, start = Row(name), time.perf_counter()
    kind, _, rest = name.partition(":")
    try:
        if kind == "torch":
            measure_module(row, rest)
        elif kind == "onnx":
            measure_graph(row, irprune.load(SHARED / "models/onnx" / rest))
        else:
            measure_graph(row, caffe(SHARED / "caffe" / rest))
        errors = [e for e in (row.error, row.loss, row.gradients) if e is not None]
        if row.verdict == "crashed":
            row.verdict = "equal" if max(errors) <= BOUND else "differs"
    except irprune.IrpruneError as error:
        row.verdict, row.reason = "refused", str(error).replace(f"{SHARED}/", "")
    except Exception as error:  # a fault of ours: the table shows it
        row.reason = f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"
    row.seconds = round(time.perf_counter() - start, 1)
    return row


def caffe(path: Path) -> Any:
    """Import a Caffe network, with its weights where the folder has them."""
    from caffe_zoo import said_of, weights_of

    from irprune.frontends.caffe import Options, import_caffe

    options = Options(end_at_heads=True, **said_of(path))
    return import_caffe(path, weights_of(path), options).model


def table(rows: list[Row], command: str, missing: int) -> str:
    """Return the document."""
    kinds = {"torch": "torchvision and timm", "onnx": "shared ONNX files", "caffe": "Caffe"}
    lines = ["# Lowered networks against onnxruntime and against their modules", ""]
    lines += [
        f"`{command}`, on a CPU. Bound: {BOUND:g}.",
        *([f"Unfinished: {missing} networks have not been measured."] if missing else []),
        "sigmoid: within it where onnxruntime's Sigmoid, which is right to 2e-7 alone and 0",
        "below -18, is written as 1 / (1 + exp(-x)); the outputs are numbers near 0 throughout.",
        "float32: the network is farther than that from itself in float64, and onnxruntime no",
        f"farther than twice that; or loss and gradients agree in float64 alone, within {EXACT:g},",
        "or, where the graph cannot run in float64, the module's are as far from those of its own.",
        "",
    ]
    lines += [
        "| source | networks | equal | sigmoid | float32 | differ | refused or not exported "
        "| crashed |"
    ]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for kind, title in kinds.items():
        part = [row.verdict for row in rows if row.name.startswith(f"{kind}:")]
        absent = sum(part.count(v) for v in ("refused", "not exported"))
        counts = [len(part), *map(part.count, VERDICTS), absent]
        lines.append(f"| {title} | {' | '.join(map(str, [*counts, part.count('crashed')]))} |")
    lines += ["", "| network | outputs | loss | gradients | verdict |"]
    lines += ["| --- | ---: | ---: | ---: | --- |"]
    show: Callable[[float | None], str] = lambda e: "-" if e is None else f"{e:.1e}"  # noqa: E731
    for row in rows:
        cells = [row.name, show(row.error), show(row.loss), show(row.gradients), row.verdict]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Reasons", ""]
    lines += [f"- {row.name}: {row.verdict}: {row.reason}" for row in rows if row.reason]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="the rows, read and extended")
    parser.add_argument("--out", type=Path, help="write the table here")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--again", nargs="*", default=[], help="drop these verdicts and redo them")
    parser.add_argument("--minutes", type=float, default=15, help="that one network may take")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asdict(measure(options.one))))
        return
    kept = json.loads(options.json.read_text()) if options.json.exists() else []
    rows = [Row(**row) for row in kept if row["verdict"] not in options.again]
    for name in names():
        if any(row.name == name for row in rows):
            continue
        if not any(fnmatch(name, pattern) for pattern in options.only):
            continue
        row = _apart(name, options.minutes)
        rows.append(row)
        print(row.name, row.verdict, row.error, row.gradients, row.reason[:300], flush=True)
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.out:
        command = f"python tools/lowering_zoo.py --json FILE --out {options.out}"
        missing = len({*names()} - {row.name for row in rows})
        options.out.write_text(table(rows, command, missing))


def _apart(name: str, minutes: float) -> Row:
    """Measure one network in a process of its own."""
    command = [sys.executable, __file__, "--json", "-", "--one", name]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 * minutes, env=environment
        )
    except subprocess.TimeoutExpired:
        return Row(name, reason=f"took longer than {minutes:g} minutes")
    if done.returncode or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Row(name, reason=f"exit status {done.returncode}: {last}")
    return Row(**json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()
