"""Layers of Caffe's two older syntaxes, turned into layers of the current one.

V1: `layers { type: CONVOLUTION blobs_lr: 1 param: "shared" ... }`, types from an enum.
V0: `layers { layer { type: "conv" kernelsize: 3 ... } bottom: "x" top: "y" }`, parameters flat and
padding a layer of its own. Values keep the spot where the file has them.
"""

from __future__ import annotations

from collections.abc import Sequence

from irprune.frontends.caffe.message import Bareword, Field, Message

_V1_TYPES = {
    "NONE": "",
    "ACCURACY": "Accuracy",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DROPOUT": "Dropout",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "POOLING": "Pooling",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "WINDOW_DATA": "WindowData",
    "ELTWISE": "Eltwise",
    "POWER": "Power",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "HINGE_LOSS": "HingeLoss",
    "MEMORY_DATA": "MemoryData",
    "ARGMAX": "ArgMax",
    "THRESHOLD": "Threshold",
    "DUMMY_DATA": "DummyData",
    "SLICE": "Slice",
    "MVN": "MVN",
    "ABSVAL": "AbsVal",
    "SILENCE": "Silence",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "EXP": "Exp",
    "DECONVOLUTION": "Deconvolution",
    # of forks, whose numbers differ
    "BN": "BN",
    "CROP": "Crop",
    "INTERP": "Interp",
    "NORMALIZE": "Normalize",
    "PRELU": "PReLU",
    "UPSAMPLE": "Upsample",
}
"""Current type names by the names of the V1 enum, the numbered ones in order."""
_V1_NUMBERED = 40

_V0_KINDS = {
    "accuracy": ("ACCURACY", "", ""),
    "bnll": ("BNLL", "", ""),
    "concat": ("CONCAT", "concat_param", "concat_dim"),
    "conv": (
        "CONVOLUTION",
        "convolution_param",
        "num_output biasterm weight_filler bias_filler pad kernelsize group stride",
    ),
    "data": ("DATA", "data_param", "source batchsize rand_skip"),
    "dropout": ("DROPOUT", "dropout_param", "dropout_ratio"),
    "euclidean_loss": ("EUCLIDEAN_LOSS", "", ""),
    "flatten": ("FLATTEN", "", ""),
    "hdf5_data": ("HDF5_DATA", "hdf5_data_param", "source batchsize"),
    "hdf5_output": ("HDF5_OUTPUT", "", ""),
    "im2col": ("IM2COL", "", ""),
    "images": (
        "IMAGE_DATA",
        "image_data_param",
        "source batchsize rand_skip shuffle_images new_height new_width",
    ),
    "infogain_loss": ("INFOGAIN_LOSS", "infogain_loss_param", "source"),
    "innerproduct": (
        "INNER_PRODUCT",
        "inner_product_param",
        "num_output biasterm weight_filler bias_filler",
    ),
    "lrn": ("LRN", "lrn_param", "local_size alpha beta k"),
    "multinomial_logistic_loss": ("MULTINOMIAL_LOGISTIC_LOSS", "", ""),
    "padding": ("PADDING", "", ""),
    "pool": ("POOLING", "pooling_param", "pad kernelsize stride pool"),
    "relu": ("RELU", "", ""),
    "sigmoid": ("SIGMOID", "", ""),
    "softmax": ("SOFTMAX", "", ""),
    "softmax_loss": ("SOFTMAX_LOSS", "", ""),
    "split": ("SPLIT", "", ""),
    "tanh": ("TANH", "", ""),
    "window_data": (
        "WINDOW_DATA",
        "window_data_param",
        "source batchsize det_fg_threshold det_bg_threshold det_fg_fraction det_context_pad "
        "det_crop_mode",
    ),
}
"""By V0 type: the type in V1, the message that takes its parameters, and which they are."""
_V0_RENAMED = {
    "biasterm": "bias_term",
    "kernelsize": "kernel_size",
    "batchsize": "batch_size",
    "shuffle_images": "shuffle",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
}
_V0_TRANSFORM = ("scale", "meanfile", "cropsize", "mirror")

_TRANSFORMED = {
    "Data": "data_param",
    "ImageData": "image_data_param",
    "WindowData": "window_data_param",
}
_TRANSFORM = ("scale", "mean_file", "crop_size", "mirror")


def current_layers(net: Message) -> list[Message]:
    """The layers of a network in the current syntax, whatever syntax the file has."""
    current, old = net.messages("layer"), net.messages("layers")
    if current and old:
        raise net.all("layers")[0].error("`layer` and `layers` cannot stand in one network")
    flat = [_from_v0(layer) if "layer" in layer else layer for layer in old]
    upgraded = [_from_v1(layer) for layer in _without_padding(flat)]
    return [_with_transform(layer) for layer in [*current, *upgraded]]


def _from_v0(outer: Message) -> Message:
    """The V1 layer that a V0 layer spells, padding layers still among them."""
    inner = outer.need("layer").message()
    kind = inner.need("type")
    type_, param, names = _V0_KINDS[kind.one_of(list(_V0_KINDS))]
    fields = [Field("type", Bareword(type_), kind.source, kind.offset)]
    fields += [one for one in outer.fields if one.name != "layer"]
    moved: dict[str, list[Field]] = {}
    for one in inner.fields:
        target = param if one.name in names.split() else ""
        if one.name in _V0_TRANSFORM:
            target = "transform_param"
        if target:
            name = _V0_RENAMED.get(one.name, one.name.removeprefix("det_"))
            moved.setdefault(target, []).append(_renamed(one, name))
        elif one is not kind:
            fields.append(one)
    fields += [_wrapped(name, found, inner) for name, found in moved.items()]
    return Message(fields, outer.source, outer.offset)


def _without_padding(layers: list[Message]) -> list[Message]:
    """The layers with padding layers merged into the convolutions and poolings behind them."""
    kept: list[Message] = []
    pads: dict[str, Message] = {}  # by the blob that a padding layer makes
    for layer in layers:
        bottoms, tops = layer.all("bottom"), layer.strs("top")
        padded = [bottom for bottom in bottoms if bottom.str() in pads]
        if padded:
            layer = _padded(layer, padded[0], pads[padded[0].str()])
        for top in tops:
            pads.pop(top, None)
        if layer.need("type").value != "PADDING":
            kept.append(layer)
        elif len(bottoms) == len(tops) == 1:
            pads[tops[0]] = layer
        else:
            raise layer.error("a padding layer takes one blob and makes one")
    return kept


def _padded(layer: Message, bottom: Field, padding: Message) -> Message:
    """The convolution or pooling `layer` with what the padding layer before it adds."""
    params = {"CONVOLUTION": "convolution_param", "POOLING": "pooling_param"}
    param = params.get(str(layer.need("type").value))
    if param is None or len(layer.all("bottom")) != 1:
        raise bottom.error("only a convolution or a pooling of one blob can follow padding")
    inner = [one for one in layer.message(param).fields if one.name != "pad"]
    inner += padding.all("pad")
    fields = [one for one in layer.fields if one.name not in ("bottom", param)]
    fields += [*padding.all("bottom"), _wrapped(param, inner, layer)]
    return Message(fields, layer.source, layer.offset)


def _from_v1(layer: Message) -> Message:
    """The current layer: its type a string, rates and shared names of its blobs in `param`."""
    kind = layer.need("type")
    numbered = isinstance(kind.value, int)
    name = kind.enum(list(_V1_TYPES)[: _V1_NUMBERED if numbered else None])
    fields = [Field("type", _V1_TYPES[name], kind.source, kind.offset)]
    renamed = {"param": "name", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}
    params: list[list[Field]] = []
    for old, new in renamed.items():
        for index, one in enumerate(layer.all(old)):
            if index == len(params):
                params.append([])
            params[index].append(_renamed(one, new))
    fields += [one for one in layer.fields if one.name not in ("type", *renamed)]
    fields += [_wrapped("param", found, layer) for found in params]
    return Message(fields, layer.source, layer.offset)


def _with_transform(layer: Message) -> Message:
    """A data layer with what is done to its images in `transform_param`, not in its own."""
    kind = layer.one("type")
    param = _TRANSFORMED.get(str(kind.value)) if kind else None
    own = layer.message(param).fields if param else ()
    moved = [one for one in own if one.name in _TRANSFORM]
    if param is None or not moved:
        return layer
    rest = [one for one in own if one.name not in _TRANSFORM]
    moved += layer.message("transform_param").fields
    fields = [one for one in layer.fields if one.name not in (param, "transform_param")]
    fields += [_wrapped(param, rest, layer), _wrapped("transform_param", moved, layer)]
    return Message(fields, layer.source, layer.offset)


def _renamed(one: Field, name: str) -> Field:
    return Field(name, one.value, one.source, one.offset)


def _wrapped(name: str, fields: Sequence[Field], near: Message) -> Field:
    """A message in a field, at the spot of the message that its fields come from."""
    return Field(name, Message(fields, near.source, near.offset), near.source, near.offset)
