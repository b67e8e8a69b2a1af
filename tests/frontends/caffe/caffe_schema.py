"""A small part of Caffe's schema for Google's protobuf: the independent reader and writer."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELDS = {
    "Shape": "dim:int64*:1",
    "Loose": "dim:int64+:1",
    "Blob": "num:int64:1 channels:int64:2 height:int64:3 width:int64:4 data:float*:5 diff:float*:6 "
    "shape:.Shape:7 double_data:double*:8",
    "LooseBlob": "data:float+:5 shape:.Loose:7 double_data:double+:8",
    "Filler": "type:string:1 value:float:2 std:double:6 sparse:int32:7 norm:enum:8",
    "V0Layer": "name:string:1 type:string:2 blobs:.Blob+:50",
    "V1Layer": "layer:.V0Layer:1 bottom:string+:2 name:string:4 type:int32:5 blobs:.Blob+:6",
    "Layer": "name:string:1 type:string:2 bottom:string+:3 top:string+:4 phase:enum:10 "
    "blobs:.Blob+:7 loss_weight:float+:5 flag:bool+:11 filler:.Filler+:12 "
    "size:uint64+:13",
    "Net": "name:string:1 layers:.V1Layer+:2 layer:.Layer+:100",
}
"""`name:type:number`; `+` repeated, `*` packed."""

ENUM = ("TRAIN", "TEST", "NONE_")


def _messages() -> dict[str, Any]:
    proto = descriptor_pb2.FileDescriptorProto(name="irprune_caffe.proto", package="caffe")
    enum = proto.enum_type.add(name="Phase")
    for number, name in enumerate(ENUM):
        enum.value.add(name=name, number=number)
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in _FIELDS.items():
        described = proto.message_type.add(name=message)
        for field in fields.split():
            name, kind, number = field.split(":")
            bare = kind.rstrip("*+")
            added = described.field.add(name=name, number=int(number))
            added.label = kinds.LABEL_OPTIONAL if bare == kind else kinds.LABEL_REPEATED
            if bare.startswith("."):
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".caffe{bare}"
            elif bare == "enum":
                added.type, added.type_name = kinds.TYPE_ENUM, ".caffe.Phase"
            else:
                added.type = getattr(kinds, f"TYPE_{bare.upper()}")
            added.options.packed = kind.endswith("*")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))
        for name in _FIELDS
    }


MESSAGES = _messages()
"""The message classes by name."""
