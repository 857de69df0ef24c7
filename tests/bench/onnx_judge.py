"""Compare an INT8 file of `bench_onnx.py` with its float32 file, in plain ONNX Runtime sessions.

With --ort, the float32 file is also quantized by ONNX Runtime, with the same images: U8S8, per channel, min-max, after
its own preparation (`quant_pre_process`). The comparison uses nothing of this package, so that no fault of it can hide.
Writes JSON.

    python onnx_judge.py NETWORK FLOAT32.onnx INT8.onnx IMAGES OUT.json [--ort]
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx_boxes import mean_average_precision
from onnx_images import Images, Pixels, images
from onnx_networks import MEAN, NETWORKS, STD, Answers, File, Network
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

from runtimes.files import write_json

BATCH, CALIBRATION_BATCH = 16, 8
TIMED_S, TIMED_IMAGES, RUNS_PER_BLOCK, MIN_BLOCKS = 4.0, 8, 3, 10
IDENTICAL = 1e-6  # noise below this share of the signal is float32 rounding

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """A file compared with float32. outputs_db: signal-to-noise ratio of each output; sqnr_db: the smallest.

    agreement: share of equal classes, characters or pixels; of boxes their mAP. top1: None without labels.
    """

    sqnr_db: float
    outputs_db: tuple[float, ...]
    agreement: float | None
    top1: float | None
    size_bytes: int


def main() -> None:
    """Quantize with ONNX Runtime if asked for, compare the answers, measure the latencies."""
    name, float32, int8, folder, out = sys.argv[1], *map(Path, sys.argv[2:6])
    logging.disable(logging.WARNING)
    network = NETWORKS[name]
    data = images(folder, network.domain, network.size)
    answers: Answers = network.answers if isinstance(network, File) else "classes"
    files, result = {"float32": float32, "int8": int8}, {}
    if "--ort" in sys.argv:
        peer = int8.with_name("ort.onnx")
        try:
            _quantize_with_ort(float32, peer, _calibration(network, data))
            files["ort"] = peer
        except Exception as failure:  # noqa: BLE001  # its failures are results, too
            result["ort_failed"] = f"{type(failure).__name__}: {str(failure).strip().splitlines()[0][:200]}"
    outputs = {key: _outputs(path, network, data.judged) for key, path in files.items()}
    for key in files:
        judged = _judge(outputs["float32"], outputs[key], answers, data.labels)
        result[key] = {**vars(judged), "size_bytes": files[key].stat().st_size}
    for key, latency_ms in _latencies_ms(list(files.values()), network, data.judged).items():
        result[next(name for name, path in files.items() if path == key)]["latency_ms_p50"] = latency_ms
    write_json(out, result)


def prepared(network: Network, pixels: Pixels) -> Float32:
    """Return the input (N, C, H, W) of a network for uint8 (N, H, W, 3) images."""
    mean, std = (network.mean, network.std) if isinstance(network, File) else (MEAN, STD)
    channels = network.channels if isinstance(network, File) else "rgb"
    if channels == "grey":
        pixels = np.stack([np.asarray(Image.fromarray(each).convert("L"))[..., None] for each in pixels])
    values = (pixels[..., :: -1 if channels == "bgr" else 1].astype(np.float32) / 255 - np.float32(mean)) / np.float32(
        std
    )
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def _calibration(network: Network, data: Images) -> Float32:
    files = sorted(data.calibration.glob("*.png"))
    return prepared(network, np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files]))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, values: Float32, batch: int) -> None:
        self._batches = iter({name: values[start : start + batch]} for start in range(0, len(values), batch))

    def get_next(self) -> dict[str, Float32] | None:
        return next(self._batches, None)


def _quantize_with_ort(float32: Path, out: Path, values: Float32) -> None:
    source, prepared_file = float32.resolve(), out.resolve().with_name("ort-prepared.onnx")
    with contextlib.chdir(prepared_file.parent):  # where it leaves temporary files
        try:
            quant_pre_process(source, prepared_file)
        except Exception:  # noqa: BLE001  # its symbolic shape inference fails for many graphs and can be left out
            quant_pre_process(source, prepared_file, skip_symbolic_shape=True)
    name, batch = _input(_session(float32))
    quantize_static(
        prepared_file, out, _Reader(name, values, batch or CALIBRATION_BATCH), quant_format=QuantFormat.QDQ,
        per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    _session(out)


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _input(session: ort.InferenceSession) -> tuple[str, int | None]:
    """Return the name of the input and its batch, None for any."""
    value = session.get_inputs()[0]
    return value.name, value.shape[0] if isinstance(value.shape[0], int) and value.shape[0] > 0 else None


def _outputs(path: Path, network: Network, pixels: Pixels) -> list[Float32]:
    session = _session(path)
    name, batch = _input(session)
    size = batch or BATCH
    rows = [session.run(None, {name: prepared(network, pixels[start : start + size])})
            for start in range(0, len(pixels) // size * size if batch else len(pixels), size)]  # fmt: skip
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def _judge(
    reference: list[Float32], outputs: list[Float32], answers: Answers, labels: npt.NDArray[np.int64] | None
) -> Judged:
    ratios = tuple(_sqnr_db(*pair) for pair in zip(reference, outputs, strict=True))
    agreement = top1 = None
    if answers == "mask":
        agreement = float(np.mean((reference[0] > 0.5) == (outputs[0] > 0.5)))
    elif answers == "boxes":
        agreement = mean_average_precision(reference, outputs)
    else:
        first, second = (each[0].reshape(len(each[0]), *each[0].shape[1:]).argmax(_class_axis(answers))
                         for each in (reference, outputs))  # fmt: skip
        agreement = float(np.mean(first == second))
        top1 = None if labels is None else float(np.mean(second.ravel() == labels[: len(second)]))
    return Judged(min(ratios), ratios, agreement, top1, 0)


def _class_axis(answers: Answers) -> int:
    return 1 if answers == "classes" else -1


def _sqnr_db(reference: Float32, output: Float32) -> float:
    """Return the mean length of an image's outputs / the mean length of their error, in dB; -100 for NaN or infinity.

    A mean of squares would depend on the few images with the largest outputs.
    """
    signal, noise = (np.linalg.norm(each.reshape(len(each), -1).astype(np.float64), axis=1).mean()
                     for each in (reference, reference.astype(np.float64) - output))  # fmt: skip
    if not math.isfinite(noise):
        return -100.0
    return 20 * math.log10(max(signal, 1e-30) / max(noise, signal * IDENTICAL, 1e-30))


def _latencies_ms(paths: list[Path], network: Network, pixels: Pixels) -> dict[Path, float]:
    """Return the median milliseconds of each file, one thread and one batch, the files interleaved."""
    sessions = [_session(path) for path in paths]
    name, batch = _input(sessions[0])
    inputs = [{name: prepared(network, pixels[index : index + (batch or 1)])} for index in range(TIMED_IMAGES)]
    times: list[list[float]] = [[] for _ in paths]
    end, block = time.perf_counter() + TIMED_S, 0
    while block < MIN_BLOCKS or time.perf_counter() < end:
        for turn in range(len(sessions)):
            index = (block + turn) % len(sessions)
            sessions[index].run(None, inputs[0])
            for run in range(RUNS_PER_BLOCK):
                start = time.perf_counter()
                sessions[index].run(None, inputs[(block + run) % TIMED_IMAGES])
                times[index].append(1000 * (time.perf_counter() - start))
        block += 1
    return {path: float(np.median(values)) for path, values in zip(paths, times, strict=True)}


if __name__ == "__main__":
    main()
