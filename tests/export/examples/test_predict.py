"""The examples of a bundle print the class that run.pyz prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from export.bundle import write_bundle
from runtimes import evalset
from runtimes.artifact import Artifact, InputDtype, InputLayout, Manifest
from runtimes.files import sha256_file
from runtimes.preprocessing import Preprocessing
from runtimes.target import Target

LABELS = ('dark "red"', "grün", "blue??=")
MakeBundle = Callable[..., Path]


def brightest_channel(manifest: Manifest, path: Path) -> None:
    """Write a classifier whose logits are the means of the first three channels; of one, it and its negative."""
    kind = TensorProto.UINT8 if manifest.input_dtype == "uint8" else TensorProto.FLOAT
    axes = np.array([2, 3] if manifest.input_layout == "NCHW" else [1, 2])
    channels = manifest.preprocessing.channel_count
    matrix = np.array([[1, -1, 0]]) if channels == 1 else np.eye(channels, 3)
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "matrix"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, manifest.file_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [manifest.input_shape[0], 3])],
        [numpy_helper.from_array(axes, "axes"), numpy_helper.from_array(matrix.astype(np.float32), "matrix")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


@pytest.fixture
def bundle(tmp_path: Path) -> MakeBundle:
    """Return a function that writes a bundle of a classifier, unpacks it and returns its folder."""

    def make(
        dtype: InputDtype = "float32", layout: InputLayout = "NCHW", batch: int | None = None, **preprocessing: Any
    ) -> Path:
        prepared = Preprocessing(**{"resize": 30, "crop": 24, **preprocessing})
        path = tmp_path / "model.onnx"
        height, width, channels = prepared.image_shape
        manifest = Manifest(
            "", 0, "onnx", "float32", "x", (batch, channels, height, width), "y", prepared, LABELS,
            session_options={"session.intra_op.allow_spinning": "0"}, input_layout=layout, input_dtype=dtype,
        )  # fmt: skip
        brightest_channel(manifest, path)
        artifact = Artifact(path, replace(manifest, sha256=sha256_file(path), size_bytes=path.stat().st_size))
        artifact.save_manifest()
        images = np.random.default_rng(0).integers(0, 256, (3, *prepared.image_shape), np.uint8)
        names = tuple("abc")
        sample = evalset.write(tmp_path / "sample", images, np.zeros(3, np.int64), names, LABELS, prepared)
        write_bundle(artifact, Target("here", batch=batch or 1), tmp_path / "sample", sample, tmp_path / "out.tar")
        with tarfile.open(tmp_path / "out.tar") as archive:
            archive.extractall(tmp_path / "bundle", filter="data")
        return tmp_path / "bundle"

    return make


def pictures(folder: Path, seed: int) -> list[Path]:
    """Write pictures of several shapes, in which the crop decides the brightest channel."""
    rng = np.random.default_rng(seed)
    paths = []
    for index, (width, height) in enumerate([(24, 24), (30, 41), (97, 53), (33, 200), (300, 71), (19, 23)]):
        coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        paths.append(folder / f"picture{index}.ppm")
        image.save(paths[-1])
    return paths


def printed(command: list[str | Path], pictures: list[Path]) -> list[str]:
    """Return what a program prints for each picture: its path and the first label."""
    lines = []
    for picture in pictures:
        finished = subprocess.run([*command, picture], capture_output=True, encoding="utf-8")
        assert finished.returncode == 0, finished.stderr
        lines.append(finished.stdout)
    return lines


def answers(folder: Path, pictures: list[Path]) -> list[str]:
    """Return the lines that the examples have to print: what run.pyz predicts, without the probabilities."""
    command = [sys.executable, folder / "run.pyz", "predict", *pictures]
    lines = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.splitlines()
    labels = [next(label for label in LABELS if line.partition(": ")[2].startswith(label)) for line in lines]
    assert len(set(labels)) > 1
    return [f"{picture}: {label}\n" for picture, label in zip(pictures, labels, strict=True)]


CASES = [
    {"interpolation": "bilinear"}, {"interpolation": "nearest", "mean": (0.4, 0.5, 0.6), "std": (0.25, 0.25, 0.5)},
    {"interpolation": "bicubic", "dtype": "uint8", "layout": "NHWC"}, {"interpolation": "lanczos", "batch": 4},
    {"resize": 24}, {"crop": (16, 40)}, {"crop": (31, 17), "resize": 17, "layout": "NHWC"},
    {"channels": "bgr", "mean": (0.4, 0.5, 0.6), "std": (0.25, 0.25, 0.5)}, {"channels": "bgr", "dtype": "uint8"},
    {"channels": "grey", "mean": (0.5,), "std": (0.5,)},
    {"channels": "rgba", "mean": (0.5,) * 4, "std": (0.25,) * 4, "layout": "NHWC"},
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_python_example_gives_the_answer_of_the_program(
    bundle: MakeBundle, tmp_path: Path, case: dict[str, Any]
) -> None:
    folder, shown = bundle(**case), pictures(tmp_path, 0)
    assert printed([sys.executable, folder / "examples/predict.py"], shown) == answers(folder, shown)


@pytest.fixture(scope="module")
def onnxruntime_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the headers and the library of ONNX Runtime; skip where a tool or a part is missing.

    The package of pip has the library; the headers come from ONNXRUNTIME_ROOT or from the system.
    """
    for tool in ("cmake", "c++"):
        if not shutil.which(tool):
            pytest.skip(f"needs {tool}")
    roots = [Path(root) for root in (os.environ.get("ONNXRUNTIME_ROOT"), "/usr/local", "/usr") if root]
    headers = [folder for root in roots for folder in (root / "include", root / "include/onnxruntime")
               if (folder / "onnxruntime_cxx_api.h").exists()]  # fmt: skip
    if not headers:
        pytest.skip("needs the headers of ONNX Runtime: set ONNXRUNTIME_ROOT to an unpacked release archive")
    libraries = list((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("the package onnxruntime has no libonnxruntime.so")
    root = tmp_path_factory.mktemp("onnxruntime")
    (root / "include").symlink_to(headers[0])
    (root / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "lib" / name).symlink_to(libraries[0])
    return root


@pytest.mark.parametrize("case", CASES)
def test_the_cpp_example_gives_the_answer_of_the_program(
    bundle: MakeBundle, tmp_path: Path, onnxruntime_root: Path, case: dict[str, Any]
) -> None:
    folder, shown = bundle(**case), pictures(tmp_path, 1)
    built = tmp_path / "build"
    root = f"-DONNXRUNTIME_ROOT={onnxruntime_root}"
    for command in (["cmake", "-S", folder / "examples", "-B", built, root], ["cmake", "--build", built]):
        finished = subprocess.run(command, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stdout + finished.stderr
    assert printed([built / "predict", folder], shown) == answers(folder, shown)
    (tmp_path / "cut.ppm").write_bytes(shown[0].read_bytes()[:-1])
    for name, reason in (("cut.ppm", "ends too early"), ("missing.ppm", "not a binary PPM")):
        failed = subprocess.run([built / "predict", folder, tmp_path / name], capture_output=True, text=True)
        assert failed.returncode == 1
        assert reason in failed.stderr
