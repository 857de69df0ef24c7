"""`compress quantize`: a file of another exporter and a folder of images become an INT8 file with a manifest."""

from __future__ import annotations

from pathlib import Path

import image_networks
import numpy as np
import onnx
import onnx_graphs
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from compress.cli import main as cli
from compress.quantization import onnx_file
from export.float16 import half_precision
from runtimes.artifact import Artifact
from runtimes.errors import ArtifactError, CompressError, InputError
from runtimes.files import sha256_file
from runtimes.lineage import GivenRecord, VerifyRecord, find_record

SMALL = ("--resize", "10", "--crop", "8", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with `model.onnx` and `photos`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    onnx.save(onnx_graphs.residual_model(channels=3), tmp_path / "model.onnx")
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for index in range(24):
        pixels = np.random.default_rng(index).integers(0, 256, (12, 14, 3), np.uint8)
        place = "more/" if index % 2 else ""
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{place}{index}.png")
    return tmp_path


def quantize(folder: Path, *more: str, model: str = "model.onnx", photos: str = "photos") -> Result:
    arguments = ["quantize", str(folder / model), "--calibration", str(folder / photos), "-o", str(folder / "out.onnx")]
    return CliRunner().invoke(cli.commands, [*arguments, *SMALL, *more])


@pytest.mark.parametrize("target", ["auto", "x86-avx2", "x86-vnni", "arm64", "generic", "tensorrt"])
def test_the_file_runs_in_a_plain_session_and_is_near_float32(folder: Path, target: str) -> None:
    result = quantize(folder, "--target", target)
    assert result.exit_code == 0, result.output
    artifact = Artifact.load(folder / "out.onnx")
    assert artifact.manifest.precision == "int8"
    assert artifact.manifest.session_options == {}
    pixels = np.random.default_rng(9).integers(0, 256, (16, 8, 8, 3), np.uint8)
    images = artifact.manifest.preprocessing.normalize(pixels)
    elsewhere = target in ("x86-vnni", "arm64")  # exact sums are needed, which processors with 16-bit sums do not have
    answers = onnx_graphs.run_model(onnx.load(folder / "out.onnx"), images, wide_sums=elsewhere)
    expected = onnx_graphs.run_model(onnx.load(folder / "model.onnx"), images)
    assert 10 * np.log10(np.sum(expected**2) / np.sum((expected - answers) ** 2)) > 15


def test_the_output_shows_attempts_layers_and_the_path_of_the_file(folder: Path) -> None:
    output = quantize(folder).output
    for expected_text in (
        "nearest rounding",
        "error feedback",
        "depthwise",
        "pointwise",
        "executed operators",
        "speed-up on this machine",
        "wrote ",
    ):
        assert expected_text in output
    manifest = Artifact.load(folder / "out.onnx").manifest
    assert [record.step for record in manifest.lineage] == ["given", "quantize", "verify"]
    assert manifest.lineage[0] == GivenRecord("model.onnx", sha256_file(folder / "model.onnx"))
    assert manifest.labels == ("0", "1", "2", "3", "4")
    assert manifest.preprocessing.crop == 8


@pytest.mark.parametrize(
    ("model", "options", "layout", "dtype", "shape"),
    [
        (image_networks.network(sizes=("N", 3, 8, 20)), ("--crop", "8x20"), "NCHW", "float32", (None, 3, 8, 20)),
        (image_networks.network(sizes=("N", 3, "H", "W")), ("--crop", "12x8"), "NCHW", "float32", (None, 3, 12, 8)),
        (image_networks.network(1, ("N", 1, 8, 8)), ("--mean", "0.5"), "NCHW", "float32", (None, 1, 8, 8)),
        (image_networks.network(4, ("N", 4, 8, 8)), ("--mean", "0.5"), "NCHW", "float32", (None, 4, 8, 8)),
        (image_networks.network(), ("--channels", "bgr"), "NCHW", "float32", (None, 3, 8, 8)),
        (image_networks.network(sizes=(4, 3, 8, 8), batch=4), (), "NCHW", "float32", (4, 3, 8, 8)),
        (image_networks.channels_last(), (), "NHWC", "float32", (None, 3, 8, 8)),
        (image_networks.takes_pixels(), (), "NHWC", "uint8", (None, 3, 8, 8)),
        (image_networks.takes_pixels("NCHW", batch=2), (), "NCHW", "uint8", (2, 3, 8, 8)),
    ],
    ids=["oblong", "open sides", "grey", "rgba", "bgr", "fixed batch", "NHWC", "pixels NHWC", "pixels NCHW"],
)
def test_a_file_keeps_its_kind_of_images(
    folder: Path, model: onnx.ModelProto, options: tuple[str, ...], layout: str, dtype: str, shape: tuple[int, ...]
) -> None:
    onnx.save(model, folder / "model.onnx")
    arguments = ["quantize", str(folder / "model.onnx"), "--calibration", str(folder / "photos"), "--target", "generic"]
    result = CliRunner().invoke(cli.commands, [*arguments, "-o", str(folder / "out.onnx"), *options])
    assert result.exit_code == 0, result.output
    artifact = Artifact.load(folder / "out.onnx")
    manifest = artifact.manifest
    assert (manifest.input_layout, manifest.input_dtype, manifest.input_shape) == (layout, dtype, shape)
    pixels = np.random.default_rng(9).integers(64, 192, (shape[0] or 16, *manifest.preprocessing.image_shape), np.uint8)
    images = manifest.prepare(pixels)
    expected = onnx_graphs.run_model(onnx.load(folder / "model.onnx"), images)
    quantized = onnx_graphs.run_model(onnx.load(folder / "out.onnx"), images, wide_sums=True)
    assert 10 * np.log10(np.sum(expected**2) / np.sum((expected - quantized) ** 2)) > 15
    measured = ["measure", str(folder / "model.onnx"), str(folder / "out.onnx"), "--blocks", "2"]
    result = CliRunner().invoke(cli.commands, [*measured, "--batch", str(shape[0] or 1), *options[-2:]])
    assert result.exit_code == 0, result.output


def test_a_size_that_an_open_network_cannot_take_is_refused_with_its_cure(folder: Path) -> None:
    model = image_networks.network(sizes=("N", 3, "H", "W"))
    del model.graph.node[3]  # the pool: the Gemm then reads 8 channels of 3 x 3 pixels
    model.graph.node[3].input[0] = "d"
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "g")
    values = np.random.default_rng(0).normal(0, 0.1, (72, 5)).astype(np.float32)
    weights.CopyFrom(numpy_helper.from_array(values, "g"))
    onnx.save(model, folder / "model.onnx")
    assert quantize(folder, "--target", "generic").exit_code == 0
    refused = quantize(folder, "--resize", "16", "--crop", "16")
    assert refused.exit_code == 2
    assert "model.onnx: ONNX Runtime" in refused.output
    assert "set --crop to a size that it was trained for, instead of 16" in refused.output


def test_a_network_that_fails_on_two_images_gets_a_fixed_batch(folder: Path) -> None:
    model = image_networks.network()
    flatten = next(node for node in model.graph.node if node.op_type == "Flatten")
    flatten.CopyFrom(helper.make_node("Reshape", [flatten.input[0], "one"], [flatten.output[0]], "flatten"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, -1]), "one"))
    onnx.save(model, folder / "model.onnx")
    result = quantize(folder, "--target", "generic")
    assert result.exit_code == 0, result.output
    assert "model.onnx: runs on one image at a time only, so its batch is fixed at 1" in result.output
    assert Artifact.load(folder / "out.onnx").manifest.input_shape == (1, 3, 8, 8)


def test_outputs_that_do_not_depend_on_the_images_are_kept_and_named(folder: Path) -> None:
    model = image_networks.network()
    anchors = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4)
    model.graph.initializer.append(numpy_helper.from_array(anchors, "anchors"))
    model.graph.output.append(helper.make_tensor_value_info("anchors", TensorProto.FLOAT, [1, 3, 4]))
    onnx.save(model, folder / "model.onnx")
    result = quantize(folder, "--target", "generic")
    assert result.exit_code == 0, result.output
    assert "model.onnx: the output 'anchors' does not depend on the images and is not judged" in result.output
    manifest = Artifact.load(folder / "out.onnx").manifest
    record = find_record(manifest.lineage, VerifyRecord)
    assert (manifest.kind, manifest.more_outputs) == ("classes", ("anchors",))
    assert record is not None
    assert record.parity_with_float32.sqnr_db is not None
    session = onnxruntime.InferenceSession(folder / "out.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(["anchors"], {"x": np.zeros((2, 3, 8, 8), np.float32)})[0], anchors)


def test_integer_weights_of_a_float_network_are_converted_and_said(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "w4")
    integers = np.rint(numpy_helper.to_array(weights) * 100).clip(-127, 127).astype(np.int8)
    weights.CopyFrom(numpy_helper.from_array(integers, "integers"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.01), "scale"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["integers", "scale"], ["w4"]))
    onnx.save(model, folder / "model.onnx")
    result = quantize(folder, "--target", "generic")
    assert result.exit_code == 0, result.output
    assert "model.onnx: its integer weights are converted to float32" in result.output


def test_errors_name_the_model_and_never_a_temporary_copy() -> None:
    with (
        pytest.raises(ArtifactError, match=r"^models/a\.onnx: cannot run$"),
        onnx_file.path_in_errors(Path("models/a.onnx"), Path("/tmp/x/a.onnx")),
    ):
        raise ArtifactError("/tmp/x/a.onnx: cannot run")
    with pytest.raises(InputError, match=r"^a\.onnx: wrong$"), onnx_file.path_in_errors(Path("a.onnx")):
        raise InputError("wrong")
    with pytest.raises(CompressError, match=r"^other$"), onnx_file.path_in_errors(Path("a.onnx")):
        raise CompressError("other")


def test_arrays_calibrate_a_network_of_other_channels(folder: Path) -> None:
    onnx.save(image_networks.network(6, ("N", 6, 8, 8)), folder / "model.onnx")
    arguments = ["quantize", str(folder / "model.onnx"), "-o", str(folder / "out.onnx"), "--calibration"]
    refused = CliRunner().invoke(cli.commands, [*arguments, str(folder / "photos")])
    assert refused.exit_code == 2
    assert "photos: has no .npy files; images of 6 channels are arrays: save each as uint8" in refused.output
    (folder / "arrays").mkdir()
    for index in range(12):
        np.save(folder / "arrays" / f"{index}.npy", np.random.default_rng(index).integers(0, 256, (9, 12, 6), np.uint8))
    result = CliRunner().invoke(cli.commands, [*arguments, str(folder / "arrays"), "--target", "generic"])
    assert result.exit_code == 0, result.output
    assert Artifact.load(folder / "out.onnx").manifest.preprocessing.channels == "array"


def test_the_preprocessing_that_follows_from_the_file_is_said(folder: Path) -> None:
    arguments = ["quantize", str(folder / "model.onnx"), "--calibration", str(folder / "photos"), "-o",
                 str(folder / "out.onnx"), "--target", "generic"]  # fmt: skip
    said = CliRunner().invoke(cli.commands, arguments).output
    assert "preprocessing by default: resize 9, crop 8, bilinear, mean 0.485,0.456,0.406" in said
    said = CliRunner().invoke(cli.commands, [*arguments, "--crop", "8"]).output
    assert "preprocessing: resize 9, crop 8, bilinear, mean 0.485,0.456,0.406" in said


def test_half_precision_is_converted_and_said(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.save(half_precision(model), folder / "model.onnx")
    result = quantize(folder, "--target", "generic")
    assert result.exit_code == 0, result.output
    assert "model.onnx: its float16 tensors are converted to float32" in result.output
    manifest = Artifact.load(folder / "out.onnx").manifest
    assert manifest.lineage[0] == GivenRecord("model.onnx", sha256_file(folder / "model.onnx"))


def test_a_second_call_uses_cached_ranges_and_writes_the_same_file(folder: Path) -> None:
    quantize(folder, "--target", "generic")
    first = (folder / "out.onnx").read_bytes()
    kept = sorted((folder / "cache" / "compress" / "calibration").iterdir())
    assert kept
    assert quantize(folder, "--target", "generic").exit_code == 0
    assert sorted((folder / "cache" / "compress" / "calibration").iterdir()) == kept
    assert (folder / "out.onnx").read_bytes() == first


def test_the_artifact_can_be_measured_and_evaluated(folder: Path) -> None:
    quantize(folder)
    result = CliRunner().invoke(cli.commands, ["measure", str(folder / "out.onnx"), "--blocks", "2"])
    assert result.exit_code == 0, result.output


def test_calibration_files_that_are_left_out_are_counted(folder: Path) -> None:
    (folder / "photos" / "x.heic").write_bytes(b"x")
    (folder / "photos" / "@eaDir").mkdir()
    (folder / "photos" / "@eaDir" / "0.png").write_bytes(b"x")
    (folder / "photos" / "link").symlink_to(folder / "photos" / "more", target_is_directory=True)
    output = quantize(folder).output
    for reason in ("in @eaDir, a folder", "extension .heic", "link to a folder that contains it or is read already"):
        assert f"left out: 1 file: {reason}" in output


def test_the_number_of_images_that_are_used_is_said(folder: Path) -> None:
    assert "calibration images: 12 of 24, evenly spaced" in quantize(folder, "--images", "12").output
    assert "evenly spaced" not in quantize(folder).output


def test_a_damaged_image_is_set_aside_with_a_message(folder: Path) -> None:
    (folder / "photos" / "0.png").write_bytes(b"not an image")
    result = quantize(folder)
    assert result.exit_code == 0, result.output
    assert "set aside" in result.output
    assert "0.png" in result.output


def with_a_map() -> onnx.ModelProto:
    """Return a classifier with the probabilities by name, as scikit-learn's converter writes them."""
    model = image_networks.network()
    model.graph.node.append(helper.make_node("ZipMap", ["y"], ["z"], domain="ai.onnx.ml", classlabels_int64s=range(5)))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    of_one_image = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    model.graph.output[0].CopyFrom(helper.make_value_info("z", helper.make_sequence_type_proto(of_one_image)))
    return model


def test_bad_input_gets_one_line_and_exit_code_2_and_writes_nothing(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "broken.onnx").write_bytes(b"broken")
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "split.onnx", save_as_external_data=True, location="split.data", size_threshold=0)
    (folder / "split.data").unlink()
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "cut.onnx", save_as_external_data=True, location="cut.data", size_threshold=0)
    (folder / "cut.data").write_bytes((folder / "cut.data").read_bytes()[:100])
    model = onnx.load(folder / "model.onnx")
    model.opset_import[0].version = 99
    onnx.save(model, folder / "new.onnx")
    model = image_networks.network(sizes=("N", 3, 8, 20))
    onnx.save(model, folder / "oblong.onnx")
    onnx.save(with_a_map(), folder / "map.onnx")
    model = image_networks.network()
    model.graph.node[1].op_type = "Upsample"
    model.graph.node[1].input.append("b")
    onnx.save(model, folder / "old.onnx")
    model = image_networks.network()
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Softmax", ["before"], ["y"], "mixing", axis=0))
    onnx.save(model, folder / "mixing.onnx")
    quantize(folder, "--target", "generic")
    (folder / "out.onnx").rename(folder / "quantized.onnx")
    cases = {
        "mixing.onnx: the values of 'y' for an image change with": quantize(folder, model="mixing.onnx"),
        "no such file": quantize(folder, model="none.onnx"),
        "is a folder": quantize(folder, model="photos"),
        "not an ONNX file": quantize(folder, model="broken.onnx"),
        "split.onnx: its weights are in split.data, which is missing": quantize(folder, model="split.onnx"),
        "cut.onnx: its file of weights is damaged (": quantize(folder, model="cut.onnx"),
        "new.onnx: has opset 99, and the installed packages support at most ": quantize(folder, model="new.onnx"),
        "oblong.onnx: takes images of 8 x 20 pixels": quantize(folder, model="oblong.onnx"),
        "already quantized": quantize(folder, model="quantized.onnx"),
        "old.onnx: has an operator that its opset no longer has": quantize(folder, model="old.onnx"),
        "map.onnx: its output 'z' is no tensor": quantize(folder, model="map.onnx"),
        "no such folder": quantize(folder, photos="none"),
        "has no images": quantize(folder, photos="empty"),
        "schemes are auto, x86-avx2": quantize(folder, "--target", "avx"),
        "set --crop 8": quantize(folder, "--crop", "9"),
        "0.5,0.5,0.5": quantize(folder, "--mean", "a,b,c"),
        "--mean: give one number, or one for each of 3 channels": quantize(folder, "--mean", "0.5,0.5"),
        "mean in 0 to 1, not 123.675, 116.28, 103.53; ": quantize(folder, "--mean", "123.675,116.28,103.53"),
        "divide by 255 what is meant for 0 to 255: 0.229, 0.224, 0.225": quantize(
            folder, "--std", "58.395,57.12,57.375"
        ),
        "must have an interpolation": quantize(folder, "--interpolation", "cubic"),
    }
    for expected_text, result in cases.items():
        assert result.exit_code == 2, (expected_text, result.output)
        assert expected_text in result.output
        lines = [line for line in result.output.splitlines() if line.startswith("compress:")]
        assert len(lines) == 1, result.output
    assert not (folder / "out.onnx").exists()


def test_files_over_two_gigabytes_are_refused_before_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "large.onnx", save_as_external_data=True, location="large.data", size_threshold=0)
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 1000)
    monkeypatch.setattr(onnx_file, "_loaded", lambda path: pytest.fail("the file was read"))
    result = quantize(folder, model="large.onnx")
    assert result.exit_code == 2
    assert "large.onnx: has 0.0 GB of weights in float32, and an ONNX file holds at most 2.1 GB" in result.output


def test_half_of_the_images_damaged_is_an_error(folder: Path) -> None:
    for index in range(0, 24, 2):
        (folder / "photos" / f"{index}.png").write_bytes(b"not an image")
    result = quantize(folder)
    assert result.exit_code == 2
    assert "12 of 24 calibration images cannot be read, for example " in result.output
    assert "0.png: not a readable image" in result.output


def test_many_damaged_and_odd_images_take_few_lines(folder: Path) -> None:
    for index in range(100):
        (folder / "photos" / f"bad{index}.png").write_bytes(b"not an image")
        Image.new("L", (12, 12), index).save(folder / "photos" / f"flat{index}.png")
    result = quantize(folder)
    assert result.exit_code == 2
    assert result.output.count("set aside: ") == 21
    assert "set aside: 80 more images" in result.output
    assert result.output.count("doubtful: ") == 1


@pytest.mark.parametrize("channels", [1, 5])
def test_a_model_without_3_input_channels_is_refused_with_its_path(folder: Path, channels: int) -> None:
    model = onnx.load(folder / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = channels
    onnx.save(model, folder / "model.onnx")
    result = quantize(folder)
    assert result.exit_code == 2
    (line,) = [line for line in result.output.splitlines() if line.startswith("compress:")]
    assert f"{folder / 'model.onnx'}: " in line


def test_a_folder_with_one_damaged_image_is_refused_with_its_name(folder: Path) -> None:
    (folder / "one").mkdir()
    (folder / "one" / "bad.png").write_bytes(b"not an image")
    result = quantize(folder, photos="one")
    assert result.exit_code == 2
    assert "1 of 1 calibration images cannot be read, for example " in result.output
    assert "bad.png" in result.output


def test_the_model_itself_is_not_overwritten(folder: Path) -> None:
    before = (folder / "model.onnx").read_bytes()
    arguments = ["quantize", str(folder / "model.onnx"), "--calibration", str(folder / "photos")]
    result = CliRunner().invoke(cli.commands, [*arguments, "-o", str(folder / "model.onnx"), *SMALL])
    assert result.exit_code == 2
    assert (folder / "model.onnx").read_bytes() == before


@pytest.mark.parametrize("target", ["x86-avx2", "arm64", "tensorrt"])
def test_a_sigmoid_stands_for_two_classes(folder: Path, target: str) -> None:
    onnx.save(onnx_graphs.binary_model(), folder / "binary.onnx")
    done = quantize(folder, "--target", target, "--min-agreement", "0.5", model="binary.onnx")
    assert done.exit_code == 0, done.output
    manifest = Artifact.load(folder / "out.onnx").manifest
    assert (manifest.labels, manifest.output) == (("0", "1"), "probabilities")
    verified = find_record(manifest.lineage, VerifyRecord)
    assert verified is not None
    assert verified.parity_with_float32.agreement is not None
    assert onnx.load(folder / "out.onnx").graph.output[0].type.tensor_type.shape.dim[1].dim_value in (0, 1)


def test_one_output_without_a_sigmoid_is_quantized_and_not_judged_by_agreement(folder: Path) -> None:
    onnx.save(onnx_graphs.binary_model(sigmoid=False), folder / "regression.onnx")
    refused = quantize(folder, "--min-agreement", "1", model="regression.onnx")
    assert refused.exit_code == 2
    assert "regression.onnx: quantize.min_agreement: the model has one output and no Sigmoid" in refused.stderr
    done = quantize(folder, model="regression.onnx")
    assert done.exit_code == 0, done.output
    assert "no agreement is reported" in done.output
    manifest = Artifact.load(folder / "out.onnx").manifest
    verified = find_record(manifest.lineage, VerifyRecord)
    assert manifest.labels == ("0",)
    assert verified is not None
    assert verified.parity_with_float32.agreement is None


@pytest.mark.parametrize("shape", [(0, 5, 1, 1), (-1,)])
@pytest.mark.parametrize("is_declared", [True, False])
def test_classifiers_may_have_other_ranks(folder: Path, shape: tuple[int, ...], is_declared: bool) -> None:
    """Some exporters declare a shape that the graph does not have."""
    model = onnx_graphs.binary_model() if shape == (-1,) else onnx_graphs.residual_model(channels=3)
    model.graph.node[-1].output[0] = "flat"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(shape, np.int64), "shape"))
    model.graph.node.append(helper.make_node("Reshape", ["flat", "shape"], ["y"], name="reshape"))
    output = model.graph.output[0]
    dimensions = ["N", *shape[1:]] if is_declared else ["N", "C"]
    output.CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, dimensions))
    onnx.save(model, folder / "odd.onnx")
    done = quantize(folder, model="odd.onnx")
    assert done.exit_code == 0, done.output
    manifest = Artifact.load(folder / "out.onnx").manifest
    assert (manifest.kind, len(manifest.labels)) == (("classes", 5) if len(shape) > 1 else ("binary", 2))
