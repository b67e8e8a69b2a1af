"""Caffe: networks and solvers in protobuf text format, weights in the wire format."""
