"""Samples from a file: which arrays are taken, which labels belong to them, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import Net

from irprune import IrpruneError
from irprune.model import Model
from irprune.passes.scores.calibration import read_samples

IMAGES = np.random.default_rng(1).normal(size=(7, 3, 6, 6)).astype(np.float32)
LABELS = np.arange(7) % 4


def _net(batch: Any = "N") -> Model:
    net = Net()
    net.op("Relu", net.input(batch, 3, 6, 6), name="y")
    return net.model()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": IMAGES}, "holds no array for x; it holds z"),
        ({"x": IMAGES.astype(np.float64)}, "float64"),
        ({"x": IMAGES[:, :2]}, "the model takes"),
        ({"x": IMAGES[:0]}, "or none"),
        ({"x": IMAGES, "y": LABELS[:3]}, "labels have shape"),
        ({"x": IMAGES, "y": LABELS * 1.0}, "labels have shape"),
    ],
)
def test_samples_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "s.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(IrpruneError, match=message) as caught:
        read_samples(str(tmp_path / "s.npz"), _net().ir.graph)
    assert caught.value.file == str(tmp_path / "s.npz") and caught.value.mend is not None


def test_a_lone_array_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    with path.open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(IrpruneError, match="a single array without a name"):
        read_samples(str(path), _net().ir.graph)


@pytest.mark.parametrize("name", ["labels", "label", "y", "y_train", "y_test"])
def test_labels_have_several_names(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "s.npz", x=IMAGES, **{name: LABELS})  # type: ignore[arg-type]
    samples = read_samples(str(tmp_path / "s.npz"), _net().ir.graph)
    assert samples.labels is not None and (samples.labels == LABELS).all()


ONE, OTHER = LABELS, (LABELS + 1) % 4


@pytest.mark.parametrize(
    ("names", "right"),
    [
        ("x_train y_train y_test", "y_train"),
        ("x_test y_train y_test", "y_test"),
        ("x_test y_test labels", "y_test"),
        ("x_train y_test labels", "labels"),
        ("x_train y_test", None),
        ("x_test y_train", None),
        ("x label y_train", "label"),
        ("x y_test", "y_test"),
    ],
)
def test_labels_are_those_of_the_samples_split(
    tmp_path: Path, names: str, right: str | None
) -> None:
    x, *labels = names.split()
    held = {name: ONE if name == right else OTHER for name in labels}
    np.savez(tmp_path / "s.npz", **{x: IMAGES}, **held)  # type: ignore[arg-type]
    samples = read_samples(str(tmp_path / "s.npz"), _net().ir.graph)
    if right is None:
        assert samples.labels is None
    else:
        assert samples.labels is not None and (samples.labels == ONE).all()


def test_labels_of_two_splits_for_samples_of_neither_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=IMAGES, y_train=ONE, y_test=OTHER)
    with pytest.raises(IrpruneError, match="y_train and y_test, either of which") as caught:
        read_samples(str(tmp_path / "s.npz"), _net().ir.graph)
    assert caught.value.file == str(tmp_path / "s.npz")


@pytest.mark.parametrize(("batch", "full"), [(3, [3, 3]), (32, [32, 32]), ("N", [32, 32, 6])])
def test_a_fixed_batch_is_kept(tmp_path: Path, batch: int | str, full: list[int]) -> None:
    count = 70 if full[0] == 32 else 7
    x, y = np.resize(IMAGES, (count, *IMAGES.shape[1:])), np.resize(LABELS, count)
    np.savez(tmp_path / "s.npz", x_train=x, y_train=y)
    samples = read_samples(str(tmp_path / "s.npz"), _net(batch).ir.graph)
    assert [len(feeds["x"]) for feeds in samples.batches()] == full
    assert samples.labels is not None and len(samples.labels) == sum(full)


@pytest.mark.parametrize("batch", [9, 32])
def test_too_few_samples_for_a_fixed_batch_are_refused(tmp_path: Path, batch: int) -> None:
    np.savez(tmp_path / "s.npz", x=IMAGES)
    with pytest.raises(IrpruneError, match=f"do not fill the model's batch of {batch}"):
        read_samples(str(tmp_path / "s.npz"), _net(batch).ir.graph)


def test_inputs_that_fix_different_batches_are_refused(tmp_path: Path) -> None:
    net = Net()
    net.op("Add", net.input(1, 3, name="a"), net.input(2, 3, name="b"), name="y")
    np.savez(tmp_path / "s.npz", a=np.ones((4, 3), np.float32), b=np.ones((4, 3), np.float32))
    with pytest.raises(IrpruneError, match="fix different batches: 1 and 2"):
        read_samples(str(tmp_path / "s.npz"), net.model().ir.graph)
