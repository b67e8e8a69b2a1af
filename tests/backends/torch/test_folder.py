"""Folders of pictures: which count, how they are decoded, and what is cut out of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from irprune.backends.torch.training.data import Draw, FolderData, open_data
from irprune.backends.torch.training.data.folder import random_part
from irprune.errors import IrpruneError

GREY = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def folders(root: Path, picture: Image.Image, kind: str = "png") -> Path:
    """The same picture for both of two classes, in both splits."""
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            picture.save(root / split / name / "one.png", kind)
    return root


def opened(root: Path, size: int = 16) -> FolderData:
    data = open_data("imagefolder", root, size=size, workers=0, mean=(0, 0, 0), std=(1, 1, 1))
    assert isinstance(data, FolderData)
    return data


def read(data: FolderData, split: Any = "test", seed: int | None = None) -> torch.Tensor:
    ((x, _),) = data.batches(split, [Draw(np.array([0]), seed)], torch.device("cpu"))
    return x[0]


@pytest.mark.parametrize("size", [(1, 400), (400, 1)])
@pytest.mark.parametrize("seed", [None, 3])
def test_a_narrow_picture_never_grows_huge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], seed: int | None
) -> None:
    """As wide as it is asked to be, the whole of it would be 400 times as long."""
    made: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def noted(picture: Image.Image, to: tuple[int, int], **how: Any) -> Image.Image:
        made.append(to)
        return resize(picture, to, **how)

    monkeypatch.setattr(Image.Image, "resize", noted)
    read(opened(folders(tmp_path, Image.new("RGB", size))), seed=seed)
    assert made == [(16, 16)]


@pytest.mark.parametrize(("width", "height"), [(64, 64), (100, 60), (31, 47)])
def test_the_centre_is_that_of_the_whole_picture_resized(
    tmp_path: Path, width: int, height: int
) -> None:
    ramp = np.linspace(0, 255, width)[None, :] * np.ones((height, 1))
    picture = Image.fromarray(ramp.astype(np.uint8))
    side = 28
    scale = side * 256 / 224 / min(width, height)
    wide, high = round(width * scale), round(height * scale)
    left, top = (wide - side) // 2, (high - side) // 2
    whole = picture.resize((wide, high)).crop((left, top, left + side, top + side))
    found = read(opened(folders(tmp_path, picture), side))[0].numpy() * 255
    assert np.abs(found - np.asarray(whole)).max() <= 255 / wide


@pytest.mark.parametrize(
    ("kind", "picture"),
    [
        ("png", Image.fromarray((GREY * 65535).astype(np.uint16))),
        ("tiff", Image.fromarray((GREY * 65535).astype(">u2"))),
        ("tiff", Image.fromarray((GREY * 65535).astype(np.int32))),
        ("png", Image.fromarray((GREY * 255).astype(np.uint8))),
    ],
    ids=["16 bits", "16 bits, big end first", "32 bits", "8 bits"],
)
def test_grey_of_any_depth_is_grey(tmp_path: Path, kind: str, picture: Image.Image) -> None:
    x = read(opened(folders(tmp_path, picture, kind), 64))
    assert x.mean() == pytest.approx(0.5, abs=0.01)
    assert x.min() == pytest.approx(1 / 16, abs=0.02) and x.max() == pytest.approx(
        15 / 16, abs=0.02
    )


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (GREY.astype(np.float32), "floats, whose range nothing tells"),
        ((GREY * 1e6).astype(np.int32), "grey of 0 to 1000000, which is more than 16 bits"),
        ((-GREY * 9).astype(np.int32), "grey of -9 to 0"),
    ],
)
def test_numbers_that_are_no_pixels_are_refused(
    tmp_path: Path, numbers: np.ndarray, message: str
) -> None:
    data = opened(folders(tmp_path, Image.fromarray(numbers), "tiff"))
    with pytest.raises(IrpruneError, match=rf"val/ant/one.png: cannot decode: {message}"):
        read(data)


@pytest.mark.parametrize("size", [(400, 100), (100, 400), (100, 100), (1, 900), (1, 1), (60, 80)])
def test_a_random_cut_keeps_to_its_aspect(size: tuple[int, int]) -> None:
    shares = []
    for seed in range(200):
        left, top, right, bottom = random_part(size, np.random.default_rng(seed))
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
        width, height = right - left, bottom - top
        assert 3 / 4 * (height - 1) <= width + 1e-9 and width <= 4 / 3 * (height + 1) + 1e-9
        shares.append(width * height / (size[0] * size[1]))
    if size == (100, 100):
        assert min(shares) < 0.12 and max(shares) > 0.95


def test_what_is_hidden_is_no_class_and_no_picture(tmp_path: Path) -> None:
    folders(tmp_path, Image.new("RGB", (8, 8)))
    for hidden in ("train/.ipynb_checkpoints", "train/ant/.ipynb_checkpoints", "val/.git"):
        (tmp_path / hidden).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / hidden / "one.png")
    (tmp_path / "train" / "bee" / "._one.png").write_bytes(b"of a desktop")
    data = opened(tmp_path)
    assert (data.classes, data.size("train"), data.size("test")) == (2, 2, 2)


def test_a_class_without_pictures_is_refused(tmp_path: Path) -> None:
    (folders(tmp_path, Image.new("RGB", (8, 8))) / "train" / "cow").mkdir()
    with pytest.raises(IrpruneError, match="train/cow: class cow has no images to train on"):
        opened(tmp_path)
