"""Normalisation of shape arithmetic, on small graphs and on real models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from normalized import normalize, ops

from irprune.frontends.onnx import load
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.normalize import Normalize

Parse = Callable[..., Model]
Same = Callable[..., None]


def test_static_shape_arithmetic_vanishes(parse: Parse, same: Same) -> None:
    """A channel shuffle as TorchScript writes it."""
    model = parse("""g (float[1, 6, 4, 4] x) => (float[1, 6, 4, 4] y)
        <int64 i = {1}, int64 groups = {2}, int64[1] zero = {0}, int64[1] m = {-1},
         int64[2] hw = {4, 4}> {
        s = Shape(x)
        c = Gather(s, i)
        k = Div(c, groups)
        g1 = Unsqueeze(groups, zero)
        k1 = Unsqueeze(k, zero)
        c1 = Unsqueeze(c, zero)
        target = Concat<axis = 0>(m, g1, k1, hw)
        a = Reshape(x, target)
        b = Transpose<perm = [0, 2, 1, 3, 4]>(a)
        back = Concat<axis = 0>(m, c1, hw)
        y = Reshape(b, back)
    }""")
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["Reshape", "Transpose", "Reshape"]
    targets = [
        n.inputs[1].const_value.numpy().tolist() for n in after.ir.graph if len(n.inputs) > 1
    ]
    assert targets == [[-1, 2, 3, 4, 4], [-1, 6, 4, 4]]


@pytest.mark.parametrize(
    ("target", "allowzero", "expected"),
    [
        ("b, c, hw", 0, [0, 6, -1]),
        ("b, c, hw", 1, [0, 6, -1]),
        ("b, m", 0, [0, -1]),
        ("m, c, h, w", 0, [0, 6, 0, 0]),
        ("b, c, h, w", 0, [0, 6, 0, 0]),
        ("bhw, c", 0, [-1, 6]),
        ("z, z, hw", 0, [0, 0, -1]),
        ("c, b, hw", 0, None),
    ],
)
def test_targets_with_dynamic_lengths(
    parse: Parse, same: Same, target: str, allowzero: int, expected: list[int] | None
) -> None:
    model = parse(f"""g (float[N, 6, H, W] x) => (float y)
        <int64[1] i0 = {{0}}, int64[1] i1 = {{1}}, int64[1] i2 = {{2}}, int64[1] i3 = {{3}},
         int64[1] m = {{-1}}, int64[1] z = {{0}}> {{
        r = Relu(x)
        s = Shape(r)
        b = Gather(s, i0)
        c = Gather(s, i1)
        h = Slice(s, i2, i3)
        w = Gather(s, i3)
        hw = Mul(h, w)
        bhw = Mul(b, hw)
        t = Concat<axis = 0>({target})
        v = Reshape<allowzero = {allowzero}>(r, t)
        k = ReduceMax<keepdims = 0>(v)
        n = ReduceMean<axes = [0], keepdims = 1>(v)
        j = ReduceMax<keepdims = 0>(n)
        y = Add(k, j)
    }}""")
    after = normalize(model)
    same(model, after)
    reshape = next(n for n in after.ir.graph if n.op_type == "Reshape")
    assert reshape.inputs[1] is not None
    constant = reshape.inputs[1].const_value
    assert (None if constant is None else constant.numpy().tolist()) == expected
    assert expected is None or reshape.attributes.get_int("allowzero", 0) * (0 in expected) == 0


def test_names_of_dimensions_survive_a_view(parse: Parse, same: Same) -> None:
    model = parse("""g (float[batch, 6, 2, 2] x) => (float[batch, 24] y)
        <int64[2] t = {-1, 24}> { r = Reshape(x, t) y = Relu(r) }""")
    after = normalize(model)
    same(model, after)
    (reshape, _) = after.ir.graph
    assert str(reshape.outputs[0].shape) == "[batch,24]"


def test_sizes_of_a_resize_keep_static_channels(parse: Parse, same: Same) -> None:
    model = parse("""g (float[N, 3, H, W] x, float[N, 3, h, w] small) => (float[N, 3, A, B] y)
        <int64[1] two = {2}, int64[1] zero = {0}, int64[1] four = {4}> {
        s = Shape(x)
        size = Slice(s, two, four)
        p = Shape(small)
        head = Slice(p, zero, two)
        wide = Cast<to = 6>(head)
        back = Cast<to = 7>(wide)
        sizes = Concat<axis = 0>(back, size)
        y = Resize<mode = "nearest">(small, , , sizes)
    }""")
    after = normalize(model)
    same(model, after)
    # Every Shape is read by a Gather of constant positions, none of them the channels.
    for node in after.ir.graph:
        if node.op_type == "Shape":
            (use,) = node.outputs[0].uses()
            assert use.node.op_type == "Gather" and use.node.inputs[1] is not None
            assert use.node.inputs[1].const_value.numpy().tolist() in ([0], [2, 3])
    resize = list(after.ir.graph)[-1]
    assert resize.inputs[3] is not None
    concat = resize.inputs[3].producer()
    assert concat is not None and concat.op_type == "Concat"
    assert concat.inputs[1] is not None and concat.inputs[1].const_value.numpy().tolist() == [3]


def test_expand_as_torchscript_writes_it(parse: Parse, same: Same) -> None:
    model = parse("""g (float[N, 4, 1] x, float[N, 4, 5] like) => (float[N, 4, 5] y)
        <int64[3] asked = {-1, -1, 5}, int64 m = {-1}> {
        s = Shape(like)
        n = ConstantOfShape<value = int64[1] {1}>(three)
        minus = Mul(n, m)
        open = Equal(asked, minus)
        t = Where(open, s, asked)
        three = Identity(size)
        size = Shape(s)
        y = Expand(x, t)
    }""")
    model.ir.graph.sort()
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["Shape", "Gather", "Concat", "Expand"]


@pytest.mark.parametrize("opset", [7, 8, 9])
def test_old_opsets_with_attributes(parse: Parse, same: Same, opset: int) -> None:
    model = parse("""g (float[N, 4, 3] x) => (float[N, 12] y, float[N, 2, 3] z) {
        s = Shape(x)
        n = Slice<starts = [0], ends = [1], axes = [0]>(s)
        c = Slice<starts = [1], ends = [2], axes = [0]>(s)
        k = Slice<starts = [2], ends = [9223372036854775807], axes = [0]>(s)
        ck = Mul(c, k)
        b = Squeeze<axes = [0]>(n)
        b1 = Unsqueeze<axes = [0]>(b)
        t = Concat<axis = 0>(b1, ck)
        y = Reshape(x, t)
        z = Slice<starts = [2], ends = [4], axes = [1]>(x)
    }""", opset, ir_version=4)  # fmt: skip
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["Reshape", "Slice"]


def test_a_scale_from_the_file_may_meet_a_length(parse: Parse, same: Same) -> None:
    """Sizes of an interpolation: floor(length * 2.0), where the factor is an initializer."""
    model = parse("""g (float[N, 3, 4, 4] x) => (float[N, 3, A, B] y)
        <float factor = {2.0}, int64[1] two = {2}, int64[1] zero = {0}, int64[1] four = {4}> {
        s = Shape(x)
        size = Slice(s, two, four)
        f = Cast<to = 1>(size)
        scaled = Mul(f, factor)
        whole = Floor(scaled)
        hw = Cast<to = 7>(whole)
        head = Slice(s, zero, two)
        sizes = Concat<axis = 0>(head, hw)
        y = Resize<mode = "nearest">(x, , , sizes)
    }""")
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["Shape", "Gather", "Concat", "Resize"]
    assert str(after.ir.graph.outputs[0].shape) == "[N,3,A,B]"


def test_a_number_of_rank_0_may_stand_twice_in_a_row(parse: Parse, same: Same) -> None:
    """As in the table of positions of a window whose size is computed: Reshape to (n, n, -1)."""
    model = parse("""g (float[N, 100] x) => (float[A, B, C] y)
        <int64 zero = {0}, int64 one = {1}, int64[1] front = {0}, int64[1] rest = {-1}> {
        s = Shape(x)
        a = Gather(s, zero)
        n = Sub(a, one)
        first = Unsqueeze(n, front)
        second = Unsqueeze(n, front)
        target = Concat<axis = 0>(first, second, rest)
        y = Reshape(x, target)
    }""")
    same(model, normalize(model), feeds={"x": np.ones((3, 100), np.float32)})


def test_a_late_shape_follows_from_an_early_fold(parse: Parse, same: Same) -> None:
    """Each split depends on shapes that only the fold before it makes known."""
    steps = "\n".join(
        f"""s{k} = Shape(x{k})
        c{k} = Gather(s{k}, one)
        h{k} = Div(c{k}, two)
        l{k} = Slice(x{k}, zero, h{k}, one)
        r{k} = Slice(x{k}, h{k}, c{k}, one)
        x{k + 1} = Concat<axis = 1>(r{k}, l{k})"""
        for k in range(12)
    )
    model = parse(f"""g (float[N, 6, 3] x0) => (float[N, 6, 3] y)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}> {{
        {steps}
        y = Relu(x12)
    }}""")
    context, after = Context(), model.clone()
    Normalize().run(after, context)
    same(model, after)
    assert set(ops(after)) == {"Slice", "Concat", "Relu"}
    assert Normalize().run(after, Context()) == {}


# Real models

SIZES = {"p2o.DynamicDimension.1": 64, "p2o.DynamicDimension.2": 96, "sequence": 512}


def real_feeds(model: Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds = {}
    for value in model.ir.graph.inputs:
        assert value.shape is not None and value.dtype is not None and value.name is not None
        dims = [d if isinstance(d, int) else d.value for d in value.shape.dims]
        shape = [d if isinstance(d, int) else SIZES.get(d or "", 2) for d in dims]
        if value.name == "sr":
            feeds[value.name] = np.array(16000)
        elif value.name == "input" and dims == [None, None]:
            feeds[value.name] = rng.standard_normal((2, 512)).astype(np.float32)
        elif value.dtype.is_integer():
            feeds[value.name] = rng.integers(0, 5, shape).astype(value.dtype.numpy())
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(value.dtype.numpy())
    return feeds


@pytest.mark.shared
def test_real_models_compute_the_same(shared: Path, same: Same) -> None:
    files = sorted((shared / "models" / "onnx").glob("*.onnx"))
    assert files
    for file in files:
        model = load(file)
        after = model.clone()
        Normalize().run(after, Context())
        assert not {"Constant", "Dropout"} & set(ops(after)), file.name
        assert Normalize().run(after.clone(), Context()) == {}, file.name
        if file.stem != "superresolution_prepost_op18":  # needs ops that onnxruntime lacks
            same(model, after, feeds=real_feeds(model))
