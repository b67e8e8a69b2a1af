"""Data sets: what is read, what is refused, how pictures are changed."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch_devices import DEVICES

from irprune.backends.torch.training.data import ArrayData, Augmentation, Draw, open_data
from irprune.backends.torch.training.data.arrays import augmented, shifts_of
from irprune.backends.torch.training.data.source import check_fit, fingerprint
from irprune.errors import IrpruneError

CPU = torch.device("cpu")


def arrays(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    made = {
        "x_train": random.integers(0, 256, (20, 3, 8, 8), dtype=np.uint8),
        "y_train": np.arange(20) % 4,
        "x_test": random.integers(0, 256, (6, 3, 8, 8), dtype=np.uint8),
        "y_test": np.arange(6) % 4,
    }
    return made | changes


def made_by_factory(path: object) -> dict[str, Any]:
    return arrays()


class Loader:
    """A user's own `Data`: two classes of three numbers."""

    classes, shape = 2, (3,)

    def __init__(self, x: Any = None, y: Any = None, count: int = 4) -> None:
        self.x = torch.zeros(2, 3) if x is None else x
        self.y = torch.tensor([0, 1]) if y is None else y
        self.count = count

    def size(self, split: str) -> int:
        return self.count

    def batches(self, split: str, draws: Any, device: torch.device) -> Any:
        assert self.x is not Loader, "its own trouble"
        for _ in list(draws)[:1]:
            yield self.x, self.y


def a_loader(path: Any) -> Loader:
    return Loader(**(path or {}))


def ragged(path: object) -> dict[str, Any]:
    return arrays(x_train=[[1], [1, 2]])


def write_idx(folder: Path, stem: str, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    (folder / f"{stem}.gz").write_bytes(gzip.compress(head + array.tobytes()))


def mnist(folder: Path) -> Path:
    for stem, count in (("train", 5), ("t10k", 3)):
        write_idx(folder, f"{stem}-images-idx3-ubyte", np.full((count, 28, 28), 255, np.uint8))
        write_idx(folder, f"{stem}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8))
    return folder


def test_mnist_is_read_and_scaled(tmp_path: Path) -> None:
    data = open_data("mnist", mnist(tmp_path))
    assert (data.shape, data.classes, data.size("train")) == ((1, 28, 28), 5, 5)
    ((x, y),) = data.batches("test", [Draw(np.array([2, 0]))], CPU)
    assert y.tolist() == [2, 0]
    assert torch.allclose(x, torch.tensor((1 - 0.1307) / 0.3081))


@pytest.mark.shared
def test_the_real_mnist(shared: Path) -> None:
    data = open_data("mnist", shared / "data" / "mnist")
    assert (data.size("train"), data.size("test"), data.classes) == (60000, 10000, 10)


def test_npz_takes_images_with_channels_last(tmp_path: Path) -> None:
    given = arrays()
    turned = {k: v.transpose(0, 2, 3, 1) if k[0] == "x" else v for k, v in given.items()}
    np.savez(tmp_path / "a.npz", **turned)
    data = open_data("npz", tmp_path / "a.npz")
    assert data.shape == (3, 8, 8)
    ((x, _),) = data.batches("train", [Draw(np.array([3]))], CPU)
    assert np.allclose(x[0].numpy(), given["x_train"][3] / 255)


def test_cifar10_binary_version(tmp_path: Path) -> None:
    record = np.concatenate([[7], np.arange(3072) % 256]).astype(np.uint8)
    for name in ("data_batch_1", "test_batch"):
        (tmp_path / f"{name}.bin").write_bytes(np.tile(record, 2).tobytes())
    data = open_data("cifar10", tmp_path)
    assert (data.shape, data.size("train"), data.classes) == ((3, 32, 32), 2, 8)


def test_a_factory_by_name() -> None:
    assert open_data(f"{__name__}:made_by_factory").classes == 4


def test_a_fingerprint_tells_arrays_apart_wherever_they_lie(tmp_path: Path) -> None:
    def told(name: str, **changes: Any) -> dict[str, Any]:
        np.savez(tmp_path / name, **arrays(**changes))
        return fingerprint(open_data("npz", tmp_path / name))

    first = told("a.npz")
    assert told("b.npz") == first == json.loads(json.dumps(first))
    for key, changes in (
        ("content", {"y_test": np.zeros(6, int)}),
        ("classes", {"y_train": np.arange(20) % 5}),
        ("train", {"x_train": np.ones((19, 3, 8, 8)), "y_train": np.arange(19) % 4}),
    ):
        assert told("a.npz", **changes)[key] != first[key]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": np.zeros(20)}, "not class numbers"),
        ({"y_train": np.arange(19)}, "19 labels for 20 examples"),
        ({"y_test": np.array([0, 1, -1, 0, 0, 0])}, r"y_test\[2\] = -1"),
        ({"x_test": np.zeros((6, 3, 9, 9), np.uint8)}, "x_test"),
        ({"x_train": np.full((20, 3, 8, 8), np.nan, np.float32)}, "NaN"),
        ({"x_train": np.zeros((20, 3, 8, 8), np.int64)}, "uint8 or floats"),
        ({"x_test": np.zeros((0, 3, 8, 8), np.uint8), "y_test": np.zeros(0, int)}, "empty"),
        ({"x_train": np.full((20, 3, 8, 8), 1e300)}, "infinite in float32"),
        ({"y_train": np.full(20, 2**63 + 1, np.uint64)}, r"y_train\[0\] = 9223372036854775809"),
        ({"y_train": np.arange(20).astype("m8[s]")}, "not class numbers"),
        (
            {"x_test": np.full((6, 3, 8, 8), 255.0)},
            "x_train uint8 and x_test float32, .* 255: uint8",
        ),
    ],
)
def test_bad_arrays_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays(**changes))
    with pytest.raises(IrpruneError, match=message) as raised:
        open_data("npz", tmp_path / "a.npz")
    assert "a.npz" in str(raised.value)


@pytest.mark.parametrize("kind", [">f4", ">f2", "f8", np.longdouble])
def test_floats_of_any_kind_are_taken(kind: Any) -> None:
    x = np.arange(20 * 3, dtype=np.float32).reshape(20, 3)
    data = ArrayData(**arrays(x_train=x.astype(kind)[::-1], x_test=x[:6].astype(kind)))
    ((found, _),) = data.batches("train", [Draw(np.arange(20))], CPU)
    assert np.array_equal(found.numpy(), x[::-1])


@pytest.mark.parametrize("kind", [int, np.float64])
def test_statistics_of_any_kind_are_taken(kind: Any) -> None:
    x = np.ones((20, 3, 2, 2), np.uint8)
    statistics = {"mean": tuple(map(kind, (1, 2, 3))), "std": tuple(map(kind, (1, 1, 2)))}
    data = ArrayData(**arrays(x_train=x, x_test=x[:6]), **statistics)
    ((found, _),) = data.batches("train", [Draw(np.arange(20))], CPU)
    assert found.dtype == torch.float32
    assert found[0, :, 0, 0].tolist() == pytest.approx(
        [1 / 255 - 1, 1 / 255 - 2, (1 / 255 - 3) / 2]
    )


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"std": (1.0, 0.0, 1.0)}, "std = 0.0 must lie in"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "mean = nan must lie in"),
        ({"mean": (0.5,)}, "mean has 1 numbers for 3 channels"),
    ],
)
@pytest.mark.parametrize("name", ["npz", "imagefolder"])
def test_bad_statistics_are_refused(
    tmp_path: Path, name: str, numbers: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays())
    path = tmp_path / "a.npz" if name == "npz" else pictures(tmp_path)
    with pytest.raises(IrpruneError, match=message) as raised:
        open_data(name, path, **numbers)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "given", "message"),
    [
        (":f", None, "names no module"),
        ("nowhere:", None, "names no module"),
        ("nowhere:nothing", None, "no module 'nowhere'"),
        (f"{__name__}:nothing", None, "has no function 'nothing'"),
        ("broken_module:f", None, "importing the module failed: SyntaxError"),
        ("raising_module:f", None, r"importing the module failed: ZeroDivisionError"),
        (f"{__name__}:a_loader", {"none": 1}, "the factory failed: TypeError"),
        (f"{__name__}:ragged", None, "the factory failed: ValueError"),
        (f"{__name__}:a_loader", {"count": 0}, "no examples to train on"),
        (f"{__name__}:a_loader", {"x": torch.zeros(2, 4)}, r"examples are .*\(2, 4\)"),
        (f"{__name__}:a_loader", {"x": torch.zeros(2, 3).double()}, "examples are .*float64"),
        (f"{__name__}:a_loader", {"y": torch.zeros(2)}, "labels are .*float32"),
        (f"{__name__}:a_loader", {"y": torch.tensor([0, 2])}, "labels lie in 0 to 2"),
        (f"{__name__}:a_loader", {"x": Loader}, "the data failed: AssertionError"),
        (f"{__name__}:a_loader", None, "1 batches for 2"),
    ],
)
def test_what_a_factory_does_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, given: Any, message: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_module.py").write_text("def f(:")
    (tmp_path / "raising_module.py").write_text("1 / 0")
    with pytest.raises(IrpruneError, match=f"^{spec}: .*{message}"):
        list(open_data(spec, given).batches("train", [Draw(np.array([0, 1]))] * 2, CPU))


def test_a_user_s_own_data() -> None:
    data = open_data(f"{__name__}:a_loader")
    assert (data.shape, data.classes, data.size("test")) == ((3,), 2, 4)
    ((x, y),) = data.batches("test", [Draw(np.array([2, 3]))], CPU)
    assert x.shape == (2, 3) and y.tolist() == [0, 1]


@pytest.mark.parametrize(
    "change", [{"augmentation": Augmentation(flip=True)}, {"mean": (0.0,)}, {"std": (1.0,)}]
)
def test_what_a_user_s_own_data_cannot_honour(change: dict[str, Any]) -> None:
    with pytest.raises(IrpruneError, match="by itself; leave mean, std, crop and flip out"):
        open_data(f"{__name__}:a_loader", **change)


def test_a_data_set_too_large_for_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*anything: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    np.savez(tmp_path / "a.npz", **arrays())
    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(IrpruneError, match=r"a.npz: the data set on cpu does not fit"):
        list(open_data("npz", tmp_path / "a.npz").batches("test", [], CPU))


def test_missing_and_corrupt_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IrpruneError, match="no train-images"):
        open_data("mnist", tmp_path)
    with pytest.raises(IrpruneError, match="no such file"):
        open_data("npz", tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(IrpruneError, match="not a usable"):
        open_data("npz", tmp_path / "bad.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    with pytest.raises(IrpruneError, match="single.npz: not a usable .* a single array"):
        open_data("npz", tmp_path / "single.npz")
    np.savez(tmp_path / "part.npz", x_train=np.zeros((2, 2), np.float32))
    with pytest.raises(IrpruneError, match="holds no y_train, x_test, y_test"):
        open_data("npz", tmp_path / "part.npz")
    np.savez(tmp_path / "pickled.npz", **arrays(y_train=np.array([None] * 20)))
    with pytest.raises(IrpruneError, match="not a usable"):
        open_data("npz", tmp_path / "pickled.npz")
    with pytest.raises(IrpruneError, match="no data set is called"):
        open_data("mnits", tmp_path)


@pytest.mark.parametrize("cut", [3, 9, 100])
def test_a_short_idx_file_is_corrupt(tmp_path: Path, cut: int) -> None:
    path = mnist(tmp_path) / "train-images-idx3-ubyte.gz"
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[:cut]))
    with pytest.raises(IrpruneError, match=r"idx file|corrupt"):
        open_data("mnist", tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(IrpruneError, match="corrupt"):
        open_data("mnist", tmp_path)


@pytest.mark.parametrize("shape", [(1,) * 70, (0, 2**32 - 1, 2**32 - 1), (2**32 - 1,) * 3])
def test_a_header_beyond_all_arrays_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    head = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    path = mnist(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(head + bytes(len(shape) == 70)))
    with pytest.raises(IrpruneError, match=rf"{path.name}: (not an idx file|corrupt)"):
        open_data("mnist", tmp_path)


def test_a_folder_in_place_of_records_is_named(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1.bin").mkdir()
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073))
    with pytest.raises(IrpruneError, match=r"data_batch_1.bin: cannot read: Is a directory"):
        open_data("cifar10", tmp_path)


def test_examples_must_fit_the_model() -> None:
    data = ArrayData(**arrays())
    assert not check_fit(data, (3, 8, 8), 4)
    assert not check_fit(data, (3, None, None), None)
    assert check_fit(data, (192,), 10)
    with pytest.raises(IrpruneError, match="labels go up to 3, the model tells 3"):
        check_fit(data, (3, 8, 8), 3)
    with pytest.raises(IrpruneError, match="examples are 3x8x8, the model takes 1x8x8"):
        check_fit(data, (1, 8, 8), 4)


@pytest.mark.parametrize(
    ("have", "want", "mend"),
    [
        ((8, 8, 3), (3, 8, 8), "8x8x3, the model takes 3x8x8; channels come first, as in 3x32x32$"),
        ((3, 8, 8), (3, 6, 6), "3x6x6; give them the model's size, .*data.size .*imagefolder$"),
        ((1, 7, 8), (1, 8, 8), "1x8x8; give them the model's size"),
        ((3, 8, 3), (3, 8, 8), "3x8x8; give them the model's size"),
        ((8, 8), (1, 8, 8), "8x8, the model takes 1x8x8; add an axis for the channel: 1x8x8$"),
        ((8, 8), (3, 8, 8), "3x8x8$"),
        ((3, 8, 8), (1, 8, 8), "1x8x8$"),
        ((6,), (5,), "5$"),
    ],
)
def test_the_mend_is_of_what_does_not_fit(
    have: tuple[int, ...], want: tuple[int, ...], mend: str
) -> None:
    data = ArrayData(*(np.zeros((4, *have), np.float32), np.arange(4)) * 2)
    with pytest.raises(IrpruneError, match=mend):
        check_fit(data, want, 4)


def test_crop_and_flip_are_windows_of_the_padded_picture() -> None:
    x = torch.arange(1, 1 + 40 * 2 * 5 * 6, dtype=torch.float32).reshape(40, 2, 5, 6)
    how = Augmentation(crop=2, flip=True)
    shifts = torch.from_numpy(shifts_of(len(x), how, seed=3))
    found = augmented(x, how, shifts)
    padded = torch.nn.functional.pad(x, [2, 2, 2, 2])
    kinds = set()
    for before, after in zip(padded, found, strict=True):
        hits = [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            for cut in [before[:, top : top + 5, left : left + 6]]
            if torch.equal(cut.flip(2) if flip else cut, after)
        ]
        assert len(hits) == 1
        kinds.add(hits[0])
    assert len(kinds) > 20 and {flip for _, _, flip in kinds} == {False, True}
    assert torch.equal(found, augmented(x, how, shifts))
    assert torch.equal(x, augmented(x, how, torch.from_numpy(shifts_of(len(x), how, None))))


@pytest.mark.parametrize("device", DEVICES)
def test_examples_live_on_the_device_and_every_draw_has_its_own_seed(device: str) -> None:
    how = Augmentation(crop=2, flip=True)
    data = ArrayData(**arrays(), augmentation=how)
    draws = [Draw(np.arange(k, k + 5), seed) for k, seed in ((0, 7), (5, None), (9, 8), (0, 7))]
    found = list(data.batches("train", draws, torch.device(device)))
    whole = torch.from_numpy(arrays()["x_train"])
    for draw, (x, y) in zip(draws, found, strict=True):
        shifts = torch.from_numpy(shifts_of(5, how, draw.seed))
        wanted = augmented(whole[draw.indices], how, shifts).float() / 255
        assert x.device.type == y.device.type == device
        assert torch.equal(x.cpu(), wanted)
        assert y.tolist() == (draw.indices % 4).tolist()
    assert torch.equal(found[0][0], found[3][0])
    assert not list(data.batches("train", [], torch.device(device)))


def pictures(folder: Path) -> Path:
    """One picture of each of two classes in each split."""
    for split in ("train", "val"):
        for number, name in enumerate(("ant", "bee")):
            (folder / split / name).mkdir(parents=True)
            picture = Image.new("RGB", (40, 30), (0, 255 * number, 0))
            picture.save(folder / split / name / "one.png")
    return folder


def test_folders_of_pictures(tmp_path: Path) -> None:
    (pictures(tmp_path) / "train" / "ant" / "folder.png").mkdir()
    data = open_data("imagefolder", tmp_path, size=16, workers=0, mean=(0, 0, 0), std=(1, 1, 1))
    assert (data.classes, data.shape, data.size("train")) == (2, (3, 16, 16), 2)
    for split, seed in (("test", None), ("train", 5)):
        ((x, y),) = data.batches(split, [Draw(np.array([1, 0]), seed)], CPU)  # type: ignore[arg-type]
        assert y.tolist() == [1, 0]
        assert x[0, 1].eq(1).all() and x[1].eq(0).all()
    first = fingerprint(data)
    assert fingerprint(open_data("imagefolder", tmp_path, size=16, workers=0)) == first
    with pytest.raises(IrpruneError, match="flips at random by itself; leave crop and flip out"):
        open_data("imagefolder", tmp_path, augmentation=Augmentation(crop=4))

    (tmp_path / "train" / "ant" / "one.png").write_bytes(b"no picture")
    assert fingerprint(data) != first


def whole(size: tuple[int, int]) -> bytes:
    """A picture as a file's bytes."""
    file = io.BytesIO()
    Image.effect_noise(size, 50).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("content", "most"),
    [(b"no picture", None), (whole((30, 30))[:200], None), (whole((60, 60)), 1300)],
    ids=["garbage", "cut short", "too many pixels"],
)
def test_a_broken_picture_is_named_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, content: bytes, most: int | None
) -> None:
    path = pictures(tmp_path) / "train" / "ant" / "one.png"
    path.write_bytes(content)
    if most is not None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    data = open_data("imagefolder", tmp_path, size=16, workers=workers)
    with pytest.raises(IrpruneError) as raised:
        list(data.batches("train", [Draw(np.array([1, 0]))], CPU))
    assert str(raised.value).startswith(f"{path}: cannot decode")
    assert "Traceback" not in str(raised.value)
