"""How fast irprune is: the whole command and its parts against loading and saving the file.

    python tools/speed.py process MODEL    # whole process: wall time and peak memory
    python tools/speed.py inside MODEL     # the same work in one process, imports aside
    python tools/speed.py scaling          # analysis time per node of chains with residuals

Everything is interleaved in one run; ratios are medians. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PIPELINE = "normalize, prune{ratio=0.5}, compact"
LOAD_SAVE = "import onnx, sys; onnx.save(onnx.load(sys.argv[1]), sys.argv[2])"


def child(command: list[str]) -> tuple[float, float]:
    """Run a command on one core; return its wall seconds and peak memory in MiB."""
    started = time.perf_counter()
    process = os.posix_spawn(command[0], command, {**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def process(model: Path, rounds: int) -> None:
    """Whole processes, one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out.onnx"
        ours = [sys.executable, "-m", "irprune", "run", PIPELINE, str(model), "-o", out]
        quiet = [*ours, "--no-verify", "--report", f"{folder}/report.json"]
        base = [sys.executable, "-c", LOAD_SAVE, str(model), out]
        pairs = [(child(base), child(_silent(quiet))) for _ in range(rounds + 1)][1:]
    wall = [ours[0] / base[0] for base, ours in pairs]
    memory = [ours[1] / base[1] for base, ours in pairs]
    for name, k in (("seconds", 0), ("peak MiB", 1)):
        medians = [statistics.median(pair[side][k] for pair in pairs) for side in (0, 1)]
        print(f"{name:<10} load+save {medians[0]:8.2f}   irprune {medians[1]:8.2f}")
    print(
        f"ratio      seconds {statistics.median(wall):.2f}   memory {statistics.median(memory):.2f}"
    )


def _silent(command: list[str]) -> list[str]:
    return ["/bin/sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh", *command]


def inside(model: Path, rounds: int) -> None:
    """The same work in this process, imports and one warm-up round aside."""
    from irprune import api

    with tempfile.TemporaryDirectory() as folder:

        def base() -> None:
            onnx.save(onnx.load(model), f"{folder}/a.onnx")

        def ours() -> None:
            result = api.run(PIPELINE, api.load(model), verify=False)
            result.model.save(f"{folder}/b.onnx")

        base()
        ours()
        ratios, seconds = [], []
        for _ in range(rounds):
            a, b = timed(base), timed(ours)
            ratios.append(b / a)
            seconds.append((a, b))
    a, b = (statistics.median(pair[k] for pair in seconds) for k in (0, 1))
    print(f"load+save {a:.3f} s   irprune {b:.3f} s   ratio {statistics.median(ratios):.2f}")


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def chain(nodes: int) -> onnx.ModelProto:
    """Return a chain of residual blocks (Conv, Relu, Conv, Add) of about that many nodes."""
    random = np.random.default_rng(0)
    made, weights, value = [], [], "x0"

    def conv(name: str, data: str, out: str, shape: tuple[int, ...]) -> None:
        array = random.standard_normal(shape).astype(np.float32)
        weights.append(numpy_helper.from_array(array, f"{name}.w"))
        made.append(helper.make_node("Conv", [data, f"{name}.w"], [out], name))

    conv("first", "image", value, (8, 3, 1, 1))
    for k in range((nodes - 2) // 4):
        conv(f"a{k}", value, f"a{k}.y", (8, 8, 1, 1))
        made.append(helper.make_node("Relu", [f"a{k}.y"], [f"r{k}.y"], f"r{k}"))
        conv(f"b{k}", f"r{k}.y", f"b{k}.y", (8, 8, 1, 1))
        made.append(helper.make_node("Add", [f"b{k}.y", value], [f"x{k + 1}"], f"s{k}"))
        value = f"x{k + 1}"
    conv("last", value, "y", (4, 8, 1, 1))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4, 4])
    graph = helper.make_graph(made, "chain", [image], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def scaling(sizes: list[int]) -> None:
    """Analysis time per node: labels and coupled groups."""
    from irprune.channels import analyse
    from irprune.groups import coupled_groups
    from irprune.model import Model
    from irprune.shapes import infer

    per_node = []
    for size in sizes:
        model = Model.from_proto(chain(size))
        infer(model.ir)
        graph = model.ir.graph
        count = len(graph)
        seconds = min(timed(lambda graph=graph: coupled_groups(analyse(graph))) for _ in range(3))
        per_node.append(seconds / count * 1e6)
        print(f"{count:>7} nodes {seconds:8.3f} s {per_node[-1]:8.1f} microseconds per node")
    print(f"largest over smallest time per node: {max(per_node) / min(per_node):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("process", "inside"):
        command = commands.add_parser(name)
        command.add_argument("model", type=Path)
        command.add_argument("--rounds", type=int, default=7)
    commands.add_parser("scaling").add_argument(
        "--sizes", type=int, nargs="+", default=[1_000, 10_000, 50_000]
    )
    options = parser.parse_args()
    if options.command == "process":
        process(options.model, options.rounds)
    elif options.command == "inside":
        inside(options.model, options.rounds)
    else:
        scaling(options.sizes)


if __name__ == "__main__":
    main()
