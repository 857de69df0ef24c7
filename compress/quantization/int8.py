"""Quantize a float32 artifact to an INT8 artifact and record the result in its manifest."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx

from compress.quantization import nncf_method, post_training
from compress.quantization.config import MIN_IMAGES, CalibrationConfig
from compress.quantization.float_layers import by_latency, by_multiplications, latency_ratio, runs_here
from compress.quantization.inspection import executed_operators
from compress.quantization.layer_report import describe_layers
from compress.quantization.probe import probe
from compress.quantization.request import QuantizationRequest
from compress.quantization.search.costs import with_costs
from compress.quantization.search.float_operators import by_kernel_times, no_proposals
from export.parity import compare
from export.rewrites.hard_activations import rewrite_hard_activations
from export.rewrites.integer_form import integer_form
from export.scheme import EXACT_KERNELS, Scheme, summed_exactly
from runtimes import environment
from runtimes.artifact import Artifact
from runtimes.errors import CompressError
from runtimes.evalset import EvalSet
from runtimes.files import write_bytes
from runtimes.lineage import (
    CalibrationSettings,
    KernelProbe,
    Parity,
    QuantizeRecord,
    RuntimeNode,
    Speedup,
    VerifyRecord,
)
from runtimes.measure import compare_answers, evaluate
from runtimes.outputs.kinds import CLASSIFIERS
from runtimes.target import Target

PARITY_IMAGES = 64


def make_int8(float32: Artifact, target: Target, request: QuantizationRequest, path: Path) -> Artifact:
    """Quantize a float32 artifact in standard form and write it, with its manifest, to `path`.

    target: threads and batch of latency measurements; they take place if the scheme fits this machine.
    Integer sums cannot saturate without notice: the method `compress` limits weights where the scheme requires it, and
    files of NNCF carry the session option with which ONNX Runtime uses exact kernels.
    Raises InputError for a model that cannot be quantized.
    """
    model, images, scheme, settings = onnx.load(float32.path), request.images, request.scheme, request.settings
    record = QuantizeRecord(float32.manifest.sha256, settings.method, len(images), images.sha256)
    options: dict[str, str] = {}
    if settings.method == "nncf":
        if settings.calibration != CalibrationConfig():
            request.console.say("quantize.calibration is ignored: the method nncf chooses its own ranges")
        quantized = nncf_method.quantize(model, images)
        options = EXACT_KERNELS if scheme.name == "x86-avx2" else {}
    else:
        quantized, details = _quantize(float32, target, request, model)
        record = replace(record, **details)
    write_bytes(path, quantized.SerializeToString())
    artifact = float32.derive(
        path,
        record,
        precision="int8",
        scheme="nncf" if settings.method == "nncf" else scheme.name,
        session_options=options,
        versions=environment.package_versions(),
    )
    parity = _parity(float32, artifact, runs_here(scheme), images.head(PARITY_IMAGES))
    runs: dict[str, tuple[RuntimeNode, ...]] | None = None
    if runs_here(scheme):
        runs = {file.manifest.precision: executed_operators(file, target) for file in (float32, artifact)}
    artifact = artifact.with_record(VerifyRecord(parity, runs))
    artifact.save_manifest()
    return artifact


def _quantize(
    float32: Artifact, target: Target, request: QuantizationRequest, model: onnx.ModelProto
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Return the INT8 model of the method `compress` and the fields of its record."""
    scheme = request.scheme
    graph = _rewritten(model, request) if scheme.placement == "every-operator" else model
    compare_speed = by_latency(float32, target) if runs_here(scheme) else by_multiplications(graph, scheme)
    propose = by_kernel_times(float32, target) if runs_here(scheme) else no_proposals
    best, search = post_training.quantize(graph, request, compare_speed, float32.manifest.kind, propose)
    details: dict[str, Any] = {
        "calibration": CalibrationSettings(**asdict(request.settings.calibration)),
        "held_out_images": len(search.held_out) if search.held_out else 0,
        "attempts": tuple(search.attempts),
        "float_ops": best.quantized.float_ops,
        "layers": tuple(describe_layers(best, search)),
        "reverted": search.reverted or None,
        "ranges": "calibrated" if request.learned is None else "learned",
    }
    if runs_here(scheme):
        details["probe"] = _probe(scheme)
        ratio = latency_ratio(float32, target, model, best.quantized.model)
        details["speedup_p50"] = Speedup(ratio.value, ratio.low, ratio.high)
        if search.before_reverting:
            before, after = search.before_reverting.quantized.model, best.quantized.model
            costs = with_costs(search.reverted, float32, target, before, after)
            details["reverted"], details["reverting_ms"] = costs
        if ratio.high < 1:
            request.console.say(
                f"INT8 is slower than float32 on this machine: {ratio.value:.2f}x its speed ({ratio.low:.2f} to "
                f"{ratio.high:.2f}); use the float32 file"
            )
    return best.quantized.model, details


def _rewritten(model: onnx.ModelProto, request: QuantizationRequest) -> onnx.ModelProto:
    """Return the graph with operators that have integer kernels.

    Learned ranges are of tensors and weights that the other rewrites would change.
    """
    return integer_form(model) if request.learned is None else rewrite_hard_activations(model)


def _probe(scheme: Scheme) -> KernelProbe:
    """Probe this machine's kernels; raise CompressError if they saturate where the scheme relies on exact sums."""
    result = probe()
    exact = result.limited_is_exact and not result.depthwise_saturates
    if scheme.sums == "exact":
        exact = exact and not (result.dense_saturates or result.gemm_saturates)
    if not exact:
        raise CompressError(f"the kernels of this machine saturate with the scheme {scheme.name}; use target: generic")
    return result


def _parity(float32: Artifact, int8: Artifact, here: bool, images: EvalSet) -> Parity:
    """Compare both files in ONNX Runtime, with exact sums if the scheme is for another processor.

    Of fewer images than are needed to hold some out, all belong to the fit: their agreement says nothing.
    """
    target = Target("parity", threads=2, batch=float32.manifest.input_shape[0] or 1)
    quantized = int8 if here else summed_exactly(int8)
    if float32.manifest.kind in CLASSIFIERS and not float32.manifest.more_outputs:
        parity = compare(evaluate(float32, target, images), evaluate(quantized, target, images))
    else:
        parity = compare_answers(float32, quantized, target, images).parity()
    return parity if len(images) >= MIN_IMAGES else replace(parity, agreement=None)
