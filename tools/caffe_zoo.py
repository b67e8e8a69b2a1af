"""Import, prune and prove every Caffe network of the shared folder; compare with OpenCV.

    python tools/caffe_zoo.py --out docs/results/caffe.md
    python tools/caffe_zoo.py squeezenet lenet

Each network is imported as the file has it, then again for one image, pruned, compacted and proved.
Constant weights that fillers leave get random numbers first: about them a proof says nothing. Where
the folder has weights, each layer that OpenCV exposes is compared with the value of the same layer.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import caffe_probes
import cv2
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from randomize import randomize

from irprune import api
from irprune.errors import IrpruneError
from irprune.frontends.caffe import Options, import_caffe
from irprune.frontends.caffe.build import Imported

SHARED = Path(os.environ.get("IRPRUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
FOLDER = SHARED / "caffe"
PIPELINE = "normalize, prune{ratio=0.4 scope=local}, compact"
BOUND = 1e-4

SAID: dict[str, dict[str, Any]] = {
    "nets/automtl/models/deeplab_resnet34.prototxt": {"shapes": {"data": (1, 3, 226, 226)}},
    "mnist_siamese_train_test.prototxt": {"shapes": {"pair_data": (100, 2, 28, 28)}},
    "mnist_autoencoder.prototxt": {
        "stages": ("test-on-test",),
        "shapes": {"data": (100, 1, 28, 28)},
    },
    "lenet_train_test.prototxt": {"shapes": {"data": (100, 1, 28, 28)}},
    "hdf5_classification/nonlinear_auto_test.prototxt": {"shapes": {"data": (10, 4)}},
    "hdf5_classification/nonlinear_auto_train.prototxt": {"shapes": {"data": (10, 4)}},
    "hdf5_classification/nonlinear_train_val.prototxt": {"shapes": {"data": (10, 4)}},
    "hdf5_classification/train_val.prototxt": {"shapes": {"data": (10, 4)}},
    "MobileNetSSD_train.prototxt": {"phase": "TRAIN", "shapes": {"data": (24, 3, 300, 300)}},
}
"""What these files leave to the user, by the end of their path."""


@dataclass
class Row:
    """What became of one network."""

    name: str
    weights: str = "fillers"
    nodes: int = 0
    ended: int = 0
    said: str = ""
    params: str = ""
    macs: str = ""
    verdict: str = ""
    error: str = ""
    compared: str = ""
    worst: str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def networks() -> list[Path]:
    """Every network of the folder; solver files are none."""
    return [p for p in sorted(FOLDER.rglob("*.prototxt")) if "solver" not in p.name]


def weights_of(path: Path) -> Path | None:
    """The caffemodel that belongs to a network, None where there is none."""
    found = sorted(path.parent.glob("*.caffemodel"))
    return found[0] if found else None


def said_of(path: Path) -> dict[str, Any]:
    name = path.relative_to(FOLDER).as_posix()
    return next((said for end, said in SAID.items() if name.endswith(end)), {})


def one_image(path: Path, imported: Imported, options: Options) -> Imported:
    """The same network for one image, where its inputs hold more."""
    sizes = {v.name: tuple(int(n) for n in v.shape) for v in imported.model.ir.graph.inputs}
    if all(size[0] == 1 for size in sizes.values()):
        return imported
    shapes = {name: (1, *size[1:]) for name, size in sizes.items()}
    return import_caffe(path, weights_of(path), replace(options, shapes=shapes))


def study(path: Path) -> Row:
    row = Row(path.relative_to(FOLDER).as_posix())
    said = said_of(path)
    row.said = ", ".join(said)
    options = Options(end_at_heads=True, **said)
    start = time.perf_counter()
    imported = import_caffe(path, weights_of(path), replace(options, warn=row.notes.append))
    row.nodes, row.ended = len(imported.model.ir.graph), len(imported.ended)
    if weights_of(path) is not None:
        row.weights = "trained"
        compare(path, row, options)
    try:
        model = one_image(path, imported, options).model
        if row.weights == "fillers":
            randomize(model)
        report = api.run(PIPELINE, model).report
    except IrpruneError as error:
        nothing = error.reason.startswith("no channel can be pruned")
        row.verdict = "nothing to prune" if nothing else f"**{error}**".replace("\n", " ")
    else:
        proofs = report["proof"]
        row.verdict = (
            proofs[-1]["verdict"] if {p["verdict"] for p in proofs} == {"proved"} else "**no**"
        )
        row.error = f"{max(proof['max_error'] for proof in proofs):.1e}"
        before, after = report["before"], report["after"]
        row.params = f"{after['params'] / before['params']:.0%}"
        row.macs = f"{after['macs'] / before['macs']:.0%}" if before["macs"] else "none"
    row.seconds = time.perf_counter() - start
    return row


def compare(path: Path, row: Row, options: Options) -> None:
    """Compare every layer that OpenCV exposes, Scale layers unmerged, and the merged outputs."""
    feeds: dict[str, np.ndarray] = {}
    ours: dict[str, np.ndarray] = {}
    for merged in (True, False):
        imported = import_caffe(path, weights_of(path), replace(options, merge_scale=merged))
        found = activations(imported, feeds)
        if merged:
            outputs = {v.name: found[v.name] for v in imported.model.ir.graph.outputs}
        else:
            ours = found
    names = dict(imported.values)
    try:
        net = cv2.dnn.readNetFromCaffe(str(path), str(weights_of(path)))
    except cv2.error as problem:
        row.compared = "not loaded"
        row.notes.append(f"OpenCV does not load it: {problem.err}")
        return
    net.enableFusion(False)
    errors, missing = [], []
    for layer in net.getLayerNames():
        value = names.get(layer, layer)
        if value not in ours:
            missing.append(layer)
            continue
        for name, array in feeds.items():
            net.setInput(array, name)
        theirs = np.asarray(net.forward(layer))
        for mine in (ours, outputs):
            if value in mine:
                errors.append((error(theirs, mine[value]), layer))
    worst, where = max(errors)
    row.compared = f"{len(errors)} of {len(errors) + len(missing)}"
    row.worst = f"{worst:.1e} ({where})" if worst <= BOUND else f"**{worst:.1e} ({where})**"
    if missing:
        row.notes.append(f"OpenCV also has {', '.join(missing)}")


def activations(imported: Imported, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every value of the graph, run as it is; `feeds` is filled once, with numbers from 0 to 1."""
    graph = imported.model.ir.graph
    random = np.random.default_rng(0)
    for value in graph.inputs:
        shape = tuple(int(n) for n in value.shape)
        feeds.setdefault(value.name, random.uniform(0, 1, shape).astype(np.float32))
    proto = ir.serde.serialize_model(imported.model.ir)
    names = [value.name for node in graph for value in node.outputs]
    listed = {output.name for output in proto.graph.output}
    for name in names:
        if name not in listed:
            proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return dict(zip(names, session.run(names, feeds), strict=True))


def error(theirs: np.ndarray, ours: np.ndarray) -> float:
    """max|a - b| / max|b|; infinite where the sizes differ."""
    if theirs.size != ours.size:
        return float("inf")
    return float(np.abs(theirs.ravel() - ours.ravel()).max() / max(np.abs(theirs).max(), 1e-12))


HEAD = (
    "network", "weights", "nodes", "said", "layers cut", "params kept", "MACs kept", "proof",
    "largest error", "layers = OpenCV", "worst",
)  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "| " + " | ".join("---" for _ in HEAD) + " |"]
    for row in rows:
        cells = (
            row.name, row.weights, str(row.nodes), row.said, str(row.ended or ""), row.params,
            row.macs, row.verdict, row.error, row.compared, row.worst,
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


INTRO = f"""# Caffe networks

Written by `python tools/caffe_zoo.py --out docs/results/caffe.md` (OpenCV {cv2.__version__},
onnxruntime {ort.__version__}). Every network of the shared folder is imported, then pruned by
`{PIPELINE}` for one image and proved. *said*: what the file leaves open and the tool states.
*layers cut*: layers that ONNX cannot hold, such as PriorBox and DetectionOutput, and those behind
them; the graph ends before them. *layers = OpenCV*: of the layers that
`cv2.dnn.readNetFromCaffe` exposes (fusion off), how many were compared on random input, with the
largest `max|a - b| / max|b|` (bound {BOUND:g}).
"""


PROBED = """
## Single layers

OpenCV against irprune on one layer and random input (`python tools/caffe_probes.py`): where OpenCV
deviates from Caffe.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("only", nargs="*", help="networks whose path contains one of these")
    parser.add_argument("--out", type=Path, help="write the table here")
    options = parser.parse_args()
    rows, failed = [], []
    for path in networks():
        name = path.relative_to(FOLDER).as_posix()
        if options.only and not any(word in name for word in options.only):
            continue
        try:
            row = study(path)
        except IrpruneError as problem:
            failed.append(name)
            row = Row(name, verdict=f"**not imported: {problem}**".replace("\n", " "))
        rows.append(row)
        print(f"{row.seconds:6.1f} s  {table([row]).splitlines()[-1]}", flush=True)
    proved = sum(row.verdict == "proved" for row in rows)
    bare = sum(row.verdict == "nothing to prune" for row in rows)
    text = (
        f"{len(rows)} networks, {len(rows) - len(failed)} imported, {proved} pruned and proved, "
        f"{bare} with nothing to prune (one layer)."
    )
    print(text)
    if options.out:
        notes = [
            f"- `{row.name}`: {note}" for row in rows for note in row.notes if "OpenCV" in note
        ]
        body = [INTRO, text, "", table(rows), "", *notes, PROBED, caffe_probes.table()]
        options.out.write_text("\n".join(body).rstrip() + "\n")


if __name__ == "__main__":
    main()
