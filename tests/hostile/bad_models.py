"""ONNX files that are damaged, malicious, or not classifiers."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from case import CLASSES, SIDE, Case, artifact_in, evalset_in, written
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from export.to_onnx import INPUT_NAME, OUTPUT_NAME
from runtimes.artifact import Artifact, Manifest
from runtimes.files import sha256_file
from runtimes.preprocessing import Preprocessing

VALID_TO_QUANTIZE = (
    "four dynamic sides",  # the crop fixes them
    "a negative side",
    "a version of IR from the future",  # the INT8 file has an older one
)
VALID_WITHOUT_MANIFEST = (
    "weights that are no numbers",
    "nothing to quantize",
    "a loop without end",
    "a class too many",
    "NaN",
    "images as output",
    "a picture",
    "texts",
    "whole numbers",
    "float64",
)  # latency
VALID_FOR_ONNX_RUNTIME = (
    "an unknown domain",  # no node depends on it
    "version 0 of IR",
    "four dynamic sides",
    "float64",
)


def models(folder: Path) -> Iterator[Case]:
    """Yield ONNX files that are damaged, malicious or not classifiers."""
    artifact = artifact_in(folder / "model")
    photos = folder / "photos"
    for index in range(4):
        picture = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        photos.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(photos / f"{index}.png")
    good = artifact.read_bytes()
    random = np.random.default_rng(3)
    cases = {
        f"truncated to {share} %": good[: len(good) * share // 100]
        for share in (0, 1, 3, 10, 25, 40, 50, 60, 75, 90, 95, 99)
    }
    for index in range(12):
        flipped = bytearray(good)
        for place in random.integers(0, min(len(good), 3000), 8):  # the bytes of the graph
            flipped[place] ^= 0xFF
        cases[f"bytes flipped {index}"] = bytes(flipped)
    cases |= {
        "random bytes": random.bytes(4000),
        "a text": b"not a model",
        "JSON": b"{}",
        "a pickle": pickle.dumps([1]),
    }
    cases |= {name: model.SerializeToString() for name, model in _odd_graphs(good).items()}
    for name, content in cases.items():
        place = folder / f"case-{zlib.crc32(name.encode())}"
        path = written(place / "model.onnx", content)
        arguments = ["quantize", str(path), "--calibration", str(photos), "--resize", str(SIDE), "--crop", str(SIDE),
                     "-o", str(place / "out.onnx"), "--target", "generic"]  # fmt: skip
        valid = name in VALID_TO_QUANTIZE
        yield Case(name, place, arguments, "out.onnx" if valid else "model.onnx", content, valid)
    for name, content in {
        **cases,
        **{name: model.SerializeToString() for name, model in _wrong_outputs().items()},
    }.items():
        place = folder / f"plain-{zlib.crc32(name.encode())}"
        arguments = ["measure", str(written(place / "model.onnx", content)), "--blocks", "2"]
        valid = name in VALID_WITHOUT_MANIFEST
        yield Case(f"without a manifest: {name}", place, arguments, "model.onnx", content + b" alone", valid)
    images = evalset_in(folder / "images")
    with_manifest = {name: (content, INPUT_NAME, OUTPUT_NAME) for name, content in cases.items()}
    with_manifest |= {name: (model.SerializeToString(), "x", "y") for name, model in _wrong_outputs().items()}
    for name, (content, inputs, outputs) in with_manifest.items():
        place = folder / f"manifest-{zlib.crc32(name.encode())}"
        path = written(place / "model.onnx", content)
        manifest = Manifest(sha256_file(path), len(content), "onnx", "float32", inputs, (None, 3, SIDE, SIDE), outputs,
                            Preprocessing(SIDE, SIDE), CLASSES, 18)  # fmt: skip
        Artifact(path, manifest).save_manifest()
        arguments = ["evaluate", str(path), "--evalset", str(images)]
        valid = name in VALID_FOR_ONNX_RUNTIME
        yield Case(f"with a manifest: {name}", place, arguments, "model.onnx", content + b" and its manifest", valid)


def _odd_graphs(good: bytes) -> dict[str, onnx.ModelProto]:
    def changed(change: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
        model = onnx.load_from_string(good)
        change(model)
        return model

    def outside(where: str) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            tensor = model.graph.initializer[0]
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=where)

        return change

    def opset(version: int, domain: str = "") -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            del model.opset_import[:]
            model.opset_import.append(helper.make_opsetid(domain, version))

        return change

    def shape(values: list[int | str]) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            old = model.graph.input[0]
            kind = old.type.tensor_type.elem_type
            model.graph.input[0].CopyFrom(helper.make_tensor_value_info(old.name, kind, values))

        return change

    def first(**fields: Any) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            for name, value in fields.items():
                setattr(model.graph.node[0], name, value)

        return change

    graphs = {
        "external data outside the folder": changed(outside("../../../../etc/passwd")),
        "external data at an absolute path": changed(outside("/etc/passwd")),
        "external data that is missing": changed(outside("weights.bin")),
        "external data at a device": changed(outside("/dev/zero")),
        "opset 1": changed(opset(1)),
        "opset 6": changed(opset(6)),
        "opset 999": changed(opset(999)),
        "no opset": changed(lambda model: model.ClearField("opset_import")),
        "an unknown domain": changed(opset(1, "evil.example")),
        "an unknown operator": changed(first(op_type="LaunchMissiles")),
        "an operator of another domain": changed(first(domain="evil.example")),
        "a graph without nodes": changed(lambda model: model.graph.ClearField("node")),
        "a graph without outputs": changed(lambda model: model.graph.ClearField("output")),
        "a graph without inputs": changed(lambda model: model.graph.ClearField("input")),
        "no weights": changed(lambda model: model.graph.ClearField("initializer")),
        "four dynamic sides": changed(shape(["n", "c", "h", "w"])),
        "five sides": changed(shape([1, 3, SIDE, SIDE, 2])),
        "two channels": changed(shape([1, 2, SIDE, SIDE])),
        "a negative side": changed(shape([1, 3, -5, SIDE])),
        "a huge side": changed(shape([1, 3, 2**40, SIDE])),
        "a node that reads itself": changed(
            lambda model: model.graph.node[0].input.__setitem__(0, model.graph.node[0].output[0])
        ),
        "a version of IR from the future": changed(lambda model: setattr(model, "ir_version", 9999)),
        "version 0 of IR": changed(lambda model: setattr(model, "ir_version", 0)),
        "two graphs' names for one tensor": changed(lambda model: model.graph.node.append(model.graph.node[0])),
        "weights that are no numbers": changed(_nan_weights),
    }
    return {**graphs, **_no_classifiers()}


def _nan_weights(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    values = np.full(tuple(tensor.dims), np.nan, np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _no_classifiers() -> dict[str, onnx.ModelProto]:
    def graph(nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], *weights: Any) -> onnx.ModelProto:
        graph_proto = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
        return helper.make_model(graph_proto, opset_imports=[helper.make_opsetid("", 18)])

    float32, image = TensorProto.FLOAT, [None, 3, SIDE, SIDE]
    x = helper.make_tensor_value_info("x", float32, image)
    other = helper.make_tensor_value_info("x2", float32, image)
    y = helper.make_tensor_value_info("y", float32, image)
    flat = helper.make_tensor_value_info("y", float32, [None, 3 * SIDE * SIDE])
    text = helper.make_tensor_value_info("x", TensorProto.STRING, [None, 3])
    whole = helper.make_tensor_value_info("x", TensorProto.INT64, image)
    relu = helper.make_node("Relu", ["x"], ["y"])
    return {
        "images as output": graph([relu], [x], [y]),
        "two inputs": graph([helper.make_node("Add", ["x", "x2"], ["y"])], [x, other], [y]),
        "nothing to quantize": graph([helper.make_node("Flatten", ["x"], ["y"])], [x], [flat]),
        "strings as input": graph([helper.make_node("Identity", ["x"], ["y"])], [text],
                             [helper.make_tensor_value_info("y", TensorProto.STRING, [None, 3])]),
        "integers as input": graph([helper.make_node("Identity", ["x"], ["y"])], [whole],
                                     [helper.make_tensor_value_info("y", TensorProto.INT64, image)]),
        "a loop without end": graph(
            [helper.make_node("Constant", [], ["n"], value=numpy_helper.from_array(np.asarray(2**60), "n")),
             helper.make_node("Flatten", ["x"], ["y"])], [x], [flat]),
    }  # fmt: skip


def _wrong_outputs() -> dict[str, onnx.ModelProto]:
    """Return graphs with the right names and shapes and wrong outputs."""

    def graph(
        nodes: list[tuple[str, list[str], str, dict[str, Any]]], constants: dict[str, Any],
        kind: int = TensorProto.FLOAT, shape: tuple[Any, ...] = ("n", "c"),
    ) -> onnx.ModelProto:  # fmt: skip
        graph_proto = helper.make_graph(
            [helper.make_node(op, inputs, [output], **attributes) for op, inputs, output, attributes in nodes], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
            [helper.make_tensor_value_info("y", kind, shape)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )  # fmt: skip
        return helper.make_model(graph_proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    flat, three = ("Flatten", ["x"], "f", {}), ("Gather", ["f", "i"], "g", {"axis": 1})
    first = {"i": np.arange(3)}
    return {
        "one row for all images": graph([flat, three, ("Slice", ["g", "z", "o", "z"], "y", {})],
                                        {**first, "z": np.array([0]), "o": np.array([1])}, shape=("m", "c")),
        "a class too many": graph([flat, ("Gather", ["f", "i"], "y", {"axis": 1})], {"i": np.arange(4)}),
        "a picture": graph([("Identity", ["x"], "y", {})], {}, shape=("n", "c", "h", "w")),
        "NaN": graph([flat, three, ("Mul", ["g", "nan"], "y", {})], {**first, "nan": np.float32("nan")}),
        "texts": graph([flat, three, ("Cast", ["g"], "y", {"to": TensorProto.STRING})], first, TensorProto.STRING),
        "whole numbers": graph([flat, three, ("Cast", ["g"], "y", {"to": TensorProto.INT64})], first,
                               TensorProto.INT64),
        "float64": graph([flat, three, ("Cast", ["g"], "y", {"to": TensorProto.DOUBLE})], first, TensorProto.DOUBLE),
        "a shape that fails at run time": graph([("Reshape", ["x", "s"], "y", {})],
                                                             {"s": np.array([7, -1])}),
        "a class that is not there": graph(
            [flat, ("ArgMax", ["f"], "a", {"axis": 1, "keepdims": 0}), ("Mul", ["a", "k"], "j", {}),
             ("Gather", ["f", "j"], "y", {"axis": 1})], {"k": np.array(10_000)}),
    }  # fmt: skip
