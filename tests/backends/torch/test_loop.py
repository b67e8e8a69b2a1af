"""The training loop: exact resume, its guards, and that every part of a recipe does something."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_devices import DEVICES

from irprune.backends.torch.training.data import ArrayData, Augmentation
from irprune.backends.torch.training.loop import CHECKPOINT, Job, train
from irprune.backends.torch.training.repeatable import repeatable
from irprune.errors import IrpruneError
from irprune.recipe import Distillation, Machine, Optimizer, Recipe, Schedule
from irprune.training import Diverged

CPU = Machine(accelerator="cpu", log_steps=1)
RECIPE = Recipe(epochs=3, batch=16, optimizer=Optimizer("nadam", lr=0.01))


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def digits(count: int = 70) -> ArrayData:
    random = np.random.default_rng(0)
    x = random.normal(size=(count + 30, 3, 6, 6)).astype(np.float32)
    y = (x[:, 0].mean((1, 2)) > 0).astype(int) + 2 * (x[:, 1].mean((1, 2)) > 0)
    x[np.arange(len(x)), 2] += y[:, None, None]
    parts = (x[:count], y[:count], x[count:], y[count:])
    return ArrayData(*parts, augmentation=Augmentation(crop=1, flip=True))


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
        nn.Linear(128, 4),
    )  # fmt: skip


def job(folder: Path, recipe: Recipe = RECIPE, module: nn.Module | None = None, **more: Any) -> Job:
    more = {"machine": CPU} | more
    return Job(net() if module is None else module, digits(), recipe, folder, **more)


def losses(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if "lr" in row]


def dying(seen: list[int]) -> Callable[[int], None]:
    """Notes epochs, and dies after the second."""

    def note(epoch: int) -> None:
        seen.append(epoch)
        if epoch == 2:
            raise Killed

    return note


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("step", [1, 4, 5, 8])
@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer("nadam", lr=0.01, weight_decay=1e-4),
        Optimizer("sgd", lr=0.05, momentum=0.9, nesterov=True),
        Optimizer("adamw", lr=0.01, weight_decay=0.01),
        Optimizer("rmsprop", lr=0.01),
    ],
    ids=lambda o: o.name,
)
def test_a_killed_run_goes_on_exactly(
    tmp_path: Path, step: int, optimizer: Optimizer, device: Any
) -> None:
    """The same losses step by step, the same weights, whatever the step of the kill."""
    schedule = Schedule("cosine", warmup=0.5)
    recipe = replace(RECIPE, optimizer=optimizer, schedule=schedule)
    machine = replace(CPU, accelerator=device, checkpoint_steps=2)
    whole = job(tmp_path / "whole", recipe, machine=machine)
    rows = train(whole)

    cut = job(tmp_path / "cut", recipe, _Dying(net(), step), machine=machine)
    with pytest.raises(Killed):
        train(cut)
    torch.manual_seed(99)
    start = net() if step < 2 else net(5)
    again = job(tmp_path / "cut", recipe, _Dying(start, 10**9), machine=machine)
    assert train(again) == rows
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    for one, two in zip(
        whole.module.state_dict().values(), again.module.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two)


class _Dying(nn.Module):
    """Dies in the forward pass after some training steps."""

    def __init__(self, inner: nn.Module, steps: int) -> None:
        super().__init__()
        self.inner, self.left = inner, steps

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.left -= 1
            if self.left < 0:
                raise Killed
        out: Tensor = self.inner(x)
        return out


def test_a_compiled_module_trains_the_same_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a backend that takes no C++ compiler; its checkpoints are those of the module itself."""
    graphs: list[Any] = []

    def eager(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=eager))
    machine = replace(CPU, compile=True, checkpoint_steps=2)
    seen: list[int] = []
    with pytest.raises(Killed):
        train(job(tmp_path / "cut", machine=machine, after_epoch=dying(seen)))
    again = job(tmp_path / "cut", module=net(5), machine=machine)
    whole = job(tmp_path / "whole", machine=machine)
    rows = train(whole)
    assert train(again) == rows and seen == [1, 2]
    assert graphs
    plain = train(job(tmp_path / "plain"))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in plain], rel=1e-3)
    for name, tensor in again.module.state_dict().items():
        assert torch.equal(tensor, whole.module.state_dict()[name]), name


def test_training_learns_and_starts_where_it_is_told(tmp_path: Path) -> None:
    rows = train(job(tmp_path / "a", replace(RECIPE, epochs=12)))
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert rows[-1]["train_loss"] < 0.6 * rows[0]["train_loss"]
    later = train(job(tmp_path / "b", replace(RECIPE, epochs=12), first=10))
    assert [row["epoch"] for row in later] == [11, 12]


def test_the_learning_rate_of_later_epochs_is_theirs(tmp_path: Path) -> None:
    schedule = Schedule("multistep", at=(2,), gamma=0.1)
    train(job(tmp_path, replace(RECIPE, schedule=schedule), first=2))
    assert [row["lr"] for row in losses(tmp_path)] == pytest.approx([0.001] * 5)


def test_epochs_are_announced_before_their_checkpoint(tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(Killed):
        train(job(tmp_path, after_epoch=dying(seen)))
    train(job(tmp_path, module=net(3), after_epoch=seen.append))
    assert seen == [1, 2, 2, 3]


def test_the_last_epoch_is_cut_short(tmp_path: Path) -> None:
    """5 batches an epoch: 13 steps end in the third; a kill in it changes nothing."""
    recipe = replace(RECIPE, steps=13, schedule=Schedule("poly", unit="steps"))
    rows = train(job(tmp_path / "whole", recipe))
    told = losses(tmp_path / "whole")
    assert '"step": 13, "epoch": 3' in (tmp_path / "whole" / "log.jsonl").read_text()
    assert [row["step"] for row in told] == list(range(1, 14))
    assert [row["lr"] for row in told] == pytest.approx([0.01 * (1 - t / 13) for t in range(13)])
    machine = replace(CPU, checkpoint_steps=2)
    with pytest.raises(Killed):
        train(job(tmp_path / "cut", recipe, _Dying(net(), 12), machine=machine))
    again = train(job(tmp_path / "cut", recipe, _Dying(net(), 10**9), machine=machine))
    assert again == rows and len(rows) == 3
    for steps in (10, 16):
        with pytest.raises(IrpruneError, match=f"epochs = {-(-steps // 5)}"):
            train(job(tmp_path / str(steps), replace(recipe, steps=steps)))


def test_training_stops_at_the_target(tmp_path: Path) -> None:
    rows = train(job(tmp_path, replace(RECIPE, epochs=50, target=0.3)))
    assert len(rows) < 50 and rows[-1]["accuracy"] >= 0.3
    assert train(job(tmp_path, replace(RECIPE, epochs=50, target=0.3))) == rows


@pytest.mark.parametrize(("least", "done"), [(0, 1), (2, 2), (9, 3)])
def test_the_target_waits_for_epochs_that_are_wanted(tmp_path: Path, least: int, done: int) -> None:
    assert len(train(job(tmp_path, replace(RECIPE, target=0.0), least=least))) == done


def test_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    class Bad(_Dying):
        def forward(self, x: Tensor) -> Tensor:
            self.left -= self.training
            out: Tensor = self.inner(x)
            return out * float("nan") if self.left < 0 else out

    with pytest.raises(Diverged, match="checkpoint.pt is the last good one"):
        train(job(tmp_path, module=Bad(net(), 7)))
    kept = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert kept["progress"]["epoch"] == 1
    assert all(t.isfinite().all() for t in kept["module"].values())


def test_weights_that_overflow_are_not_kept(tmp_path: Path) -> None:
    """Nor those of the first step, whose loss is still that of the weights before."""
    recipe = replace(RECIPE, optimizer=Optimizer("sgd", lr=3e38, weight_decay=1e3))
    with pytest.raises(Diverged, match="after step 1 "):
        train(job(tmp_path, recipe, machine=replace(CPU, checkpoint_steps=1)))
    assert not (tmp_path / CHECKPOINT).exists()


class _Small(nn.Module):
    """A network for which memory holds so many examples in training, and so many in testing."""

    def __init__(self, room: int, tested: int = 10**9) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.room, self.tested = nn.Linear(108, 4), room, tested

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > (self.room if self.training else self.tested):
            raise torch.OutOfMemoryError("CUDA out of memory")
        out: Tensor = self.layer(x.flatten(1))
        return out


def test_a_batch_too_large_is_split_and_said(tmp_path: Path) -> None:
    """16 become 8, then 4 at a time; the steps are those of the whole batch."""
    said: list[str] = []
    large, small = _Small(16), _Small(5)
    wanted = train(job(tmp_path / "large", module=large))
    found = train(job(tmp_path / "small", module=small, log=said.append))
    assert len(said) == 2 and "4 at a time" in said[-1]
    assert found[-1]["train_loss"] == pytest.approx(wanted[-1]["train_loss"], rel=1e-4)
    assert torch.allclose(large.layer.weight, small.layer.weight, atol=1e-5)
    with pytest.raises(IrpruneError, match="not even one example"):
        train(job(tmp_path / "none", module=_Small(0)))


def test_a_test_batch_too_large_is_split_and_said(tmp_path: Path) -> None:
    """30 become 15, then 8 at a time, in all later epochs too."""
    said: list[str] = []
    wanted = train(job(tmp_path / "large", module=_Small(16)))
    found = train(job(tmp_path / "small", module=_Small(16, tested=9), log=said.append))
    assert len(said) == 2 and "test: 15 examples" in said[-1] and "8 at a time" in said[-1]
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)
    with pytest.raises(IrpruneError, match="not even one example"):
        train(job(tmp_path / "none", module=_Small(16, tested=0)))


def test_memory_that_the_optimiser_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: object, closure: object = None) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.optim.NAdam, "step", step)
    with pytest.raises(IrpruneError, match="training does not fit into memory; lower train.batch"):
        train(job(tmp_path))


def test_other_errors_are_not_taken_for_memory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(job(tmp_path, module=nn.Sequential(nn.Flatten(), nn.Linear(7, 4))))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Flatten(), "no weights to train"),
        (nn.Linear(6, 4).requires_grad_(False), "all are frozen"),
        (nn.Sequential(nn.Flatten(), nn.Linear(108, 3)), r"float32 \(16, 3\), .* 4 classes"),
        (nn.Linear(6, 4), r"float32 \(16, 3, 6, 4\)"),
    ],
)
def test_networks_that_cannot_be_trained(tmp_path: Path, module: nn.Module, message: str) -> None:
    with pytest.raises(IrpruneError, match=message):
        train(job(tmp_path, module=module))


def test_a_batch_norm_of_one_example_is_refused(tmp_path: Path) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(108), nn.Linear(108, 4))
    with pytest.raises(IrpruneError, match=r"one example at a time.*raise train.batch"):
        train(job(tmp_path, replace(RECIPE, batch=1), flat))
    train(job(tmp_path / "spatial", replace(RECIPE, epochs=1, batch=1)))


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    train(job(tmp_path))
    with pytest.raises(IrpruneError, match="another recipe"):
        train(job(tmp_path, replace(RECIPE, seed=1)))


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"format": 1, "trap": Trap()}, tmp_path / CHECKPOINT)
    with pytest.raises(IrpruneError, match="not a usable checkpoint"):
        train(job(tmp_path))
    assert not (tmp_path / "sprung").exists()


def test_gradients_are_clipped(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1, clip=1e-3, optimizer=Optimizer("sgd", lr=1.0))
    module = _Small(16)
    before = module.layer.weight.detach().clone()
    train(job(tmp_path, recipe, module))
    assert 0 < (module.layer.weight - before).norm() <= 5 * 1e-3 * 1.001


def test_distillation_pulls_towards_the_teacher(tmp_path: Path) -> None:
    """Wholly distilled, the student forgets the labels and copies a constant teacher."""
    teacher = _Small(10**9)
    with torch.no_grad():
        teacher.layer.weight.zero_()
        teacher.layer.bias.copy_(torch.tensor([4.0, 0, 0, 0]))
    how = {"optimizer": Optimizer("nadam", lr=0.05), "distillation": Distillation(1.0, 2.0)}
    recipe = replace(RECIPE, epochs=30, **how)
    student = _Small(16)
    train(job(tmp_path, recipe, student, teacher=teacher))
    x = torch.zeros(1, 3, 6, 6)
    found, wanted = student(x).softmax(1), teacher(x).softmax(1)
    assert (found - wanted).abs().max() < 0.1
    with pytest.raises(IrpruneError, match="needs a teacher"):
        train(job(tmp_path / "b", recipe))


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_channels_last_and_tensorboard(tmp_path: Path, device: Any) -> None:
    how = {"precision": "bf16-mixed", "channels_last": True, "tensorboard": True}
    rows = train(job(tmp_path, machine=replace(CPU, accelerator=device, **how)))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_channels_last_takes_volumes(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 1, 2, 2, 2)).astype(np.float32), np.arange(20)
    data = ArrayData(x, y % 4, x, y % 4)
    volumes = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(32, 4))
    rows = train(Job(volumes, data, RECIPE, tmp_path, replace(CPU, channels_last=True)))
    assert len(rows) == 3


def test_cuda_is_asked_for_and_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(IrpruneError, match="no CUDA device"):
        train(job(tmp_path, machine=replace(CPU, accelerator="cuda")))


@pytest.mark.parametrize(
    ("accelerator", "asked", "set_so"),
    [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)],
)
def test_a_gpu_is_told_to_repeat_itself(accelerator: str, asked: bool, set_so: bool) -> None:
    """Said to torch while training lasts, and no longer: the flags are the process's."""
    fabric = SimpleNamespace(device=torch.device(accelerator))
    machine = replace(CPU, deterministic=asked)
    with pytest.raises(Killed), repeatable(machine, fabric):  # type: ignore[arg-type]
        assert torch.are_deterministic_algorithms_enabled() is set_so
        assert torch.utils.deterministic.fill_uninitialized_memory is not set_so
        raise Killed
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
