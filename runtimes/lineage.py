"""Typed records of the steps that made a model file, as its manifest lists them, oldest first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal, TypeVar

from runtimes.files import Json, json_key, read_object

Found = TypeVar("Found", bound="Record")
NodeKind = Literal["integer", "float", "conversion"]
JSON_KEY_FROM: dict[str, str] = {"json": "from"}  # `from` is a keyword of Python
JSON_KEY_ENGINE: dict[str, str] = {"json": "engine"}  # the key that manifests have had from the start


@dataclass(frozen=True)
class Parity:
    """Comparison of two files' outputs for the same images.

    images: number of images. agreement: share of images with the same top-1 class, for detectors the mAP of boxes, for
    segmentations the share of equal pixels; None where it would say nothing. sqnr_db: 10 log10(signal power / noise
    power) of the logits, of several outputs the smallest; None where they are identical. outputs_sqnr_db: of each
    output by name; None for classifiers.
    """

    images: int
    agreement: float | None
    max_logit_difference: float
    sqnr_db: float | None
    outputs_sqnr_db: dict[str, float | None] | None = None


@dataclass(frozen=True)
class CalibrationSettings:
    """Method of choosing activation ranges. percentile: used by the method `percentile` only."""

    method: str
    percentile: float | None = None


@dataclass(frozen=True)
class Attempt:
    """One attempt in the search for a quantized model, evaluated on held-out images or, without any, on all images.

    sqnr_db: of the outputs against float32's. agreement: as in `Parity`; None without held-out images.
    """

    step: str
    sqnr_db: float
    agreement: float | None
    kept: bool


@dataclass(frozen=True)
class QuantizedLayer:
    """A Conv or Gemm of a quantized file.

    op: operator, `depthwise Conv` apart. outputs: output channels. sqnr_db: of the layer's output with the errors of
    all layers before it, None where the output stays float. The rest is None for float32 layers. weight_bits: 7 where
    no weight needs the eighth. limited_channels: output channels whose scale was widened so that no two products can
    overflow 16 bits. neighbours_limited: whether the scheme limits pairs of weights of this layer.
    """

    name: str
    op: str
    outputs: int
    sqnr_db: float | None
    precision: str
    weight_bits: int | None = None
    limited_channels: int | None = None
    neighbours_limited: bool | None = None


@dataclass(frozen=True)
class RevertedOperator:
    """An operator that was reverted to float, since the file would not be accurate enough otherwise.

    op: its ONNX type. sqnr_db: of the outputs with only this operator quantized. integer_ms, float_ms: time of its
    kernel before and after; None where it was not profiled.
    """

    name: str
    op: str
    sqnr_db: float
    integer_ms: float | None = None
    float_ms: float | None = None


@dataclass(frozen=True)
class KernelProbe:
    """Saturation of a machine's integer kernels with 8-bit weights, and with limited weights.

    dense: convolutions over all channels, 1 x 1 and 3 x 3; depthwise: those over one channel; gemm: matrix products.
    limited: weights that `export.layers` limits.
    """

    dense_saturates: bool
    depthwise_saturates: bool
    gemm_saturates: bool
    limited_is_exact: bool


@dataclass(frozen=True)
class Speedup:
    """Ratio of two latencies with its one-sided confidence bounds; above 1 the new file is faster."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RuntimeNode:
    """One operator as the runtime executes it.

    layer: name of the file's Conv or Gemm that it computes, None for other operators. time_ms: median over runs, by
    ONNX Runtime's profiler, which slows small operators; the sum is more than the latency of a call.
    """

    name: str
    op: str
    kind: NodeKind
    layer: str | None
    time_ms: float


@dataclass(frozen=True)
class EngineLayer:
    """A Conv or Gemm of the ONNX file in a TensorRT engine. kernel: the builder's name; inputs: their types."""

    name: str
    kernel: str
    inputs: tuple[str, ...]

    @property
    def is_int8(self) -> bool:
        """True if the kernel multiplies integers."""
        return bool(self.inputs) and set(self.inputs) == {"Int8"}


@dataclass(frozen=True)
class Record:
    """One step that made a file: in JSON an object whose `step` is the kind and whose other keys are the fields.

    A field with the default None is omitted from the JSON if it is None.
    """

    step: ClassVar[str]

    def to_json(self) -> Json:
        """Return the JSON object for a manifest."""
        return {"step": self.step, **_object_of(self)}

    @classmethod
    def from_json(cls: type[Found], content: Json) -> Found:
        """Rebuild from the JSON object of a manifest; raises ValueError for missing, unknown or wrong fields."""
        return read_object(cls, {name: value for name, value in content.items() if name != "step"})


@dataclass(frozen=True)
class NetworkRecord(Record):
    """The network's architecture: the recipe's section `model`."""

    step = "network"
    settings: Json

    def to_json(self) -> Json:
        """Return the JSON object for a manifest."""
        return {"step": self.step, **self.settings}

    @classmethod
    def from_json(cls, content: Json) -> NetworkRecord:
        """Rebuild from the JSON object of a manifest."""
        return cls({name: value for name, value in content.items() if name != "step"})


@dataclass(frozen=True)
class StageRecord(Record):
    """A stage of the recipe: its settings, in which `stage` is its name (train, distill, prune, qat, …).

    In JSON, the setting `step` of the stage `prune` overwrites the key `step`; a record with the key `stage` is
    therefore a StageRecord.
    """

    settings: Json

    def to_json(self) -> Json:
        """Return the JSON object for a manifest."""
        return {"step": self.settings["stage"], **self.settings}

    @classmethod
    def from_json(cls, content: Json) -> StageRecord:
        """Rebuild from the JSON object of a manifest."""
        return cls({name: value for name, value in content.items() if name != "step" or value != content["stage"]})


@dataclass(frozen=True)
class ExportRecord(Record):
    """The export from PyTorch to ONNX."""

    step = "export"
    parity_with_torch: Parity


@dataclass(frozen=True)
class GivenRecord(Record):
    """An ONNX file that another tool exported. file: its name, without a folder."""

    step = "given"
    file: str
    sha256: str


@dataclass(frozen=True)
class SelfContainedRecord(Record):
    """Normalisation or softmax added to the graph. parity_with_plain: with the file without them."""

    step = "self-contained"
    parity_with_plain: Parity


@dataclass(frozen=True)
class QuantizeRecord(Record):
    """The quantization to INT8. Fields from `calibration` on are None for the method nncf.

    from_sha256: of the float32 file. method: compress or nncf. held_out_images: 0 where there were too few images to
    hold some out. float_ops: number of operators left in float, by type. ranges: calibrated or learned. probe,
    speedup_p50: of the machine that quantized; None for the scheme of another processor. reverted: operators in float
    for the sake of accuracy. reverting_ms: what they add to the latency, p50; None where it was not measured.
    """

    step = "quantize"
    from_sha256: str = field(metadata=JSON_KEY_FROM)
    method: str = field(metadata=JSON_KEY_ENGINE)
    calibration_images: int
    calibration_sha256: str
    calibration: CalibrationSettings | None = None
    held_out_images: int | None = None
    attempts: tuple[Attempt, ...] | None = None
    float_ops: dict[str, int] | None = None
    layers: tuple[QuantizedLayer, ...] | None = None
    ranges: str | None = None
    probe: KernelProbe | None = None
    speedup_p50: Speedup | None = None
    reverted: tuple[RevertedOperator, ...] | None = None
    reverting_ms: float | None = None


@dataclass(frozen=True)
class VerifyRecord(Record):
    """The comparison of the INT8 file with the float32 file.

    runs: executed operators of both files, by precision; None if the scheme is for another processor.
    """

    step = "verify"
    parity_with_float32: Parity
    runs: dict[str, tuple[RuntimeNode, ...]] | None = None


@dataclass(frozen=True)
class Float16Record(Record):
    """The conversion to float16. parity_with_given: with the file that it was made from."""

    step = "float16"
    from_sha256: str = field(metadata=JSON_KEY_FROM)
    parity_with_given: Parity


@dataclass(frozen=True)
class LitertRecord(Record):
    """The conversion from ONNX to LiteRT."""

    step = "litert"
    parity_with_onnx: Parity


@dataclass(frozen=True)
class BuildRecord(Record):
    """The build of a TensorRT engine.

    from_sha256: of the ONNX file. package: tensorrt or tensorrt_rtx, with its version. compute_capability: of the GPU,
    as in "8.6". batch: smallest, usual and largest batch. dla: core of the deep learning accelerator, None for the GPU.
    layers: the weighted ones, empty if the builder does not list them.
    """

    step = "build"
    from_sha256: str = field(metadata=JSON_KEY_FROM)
    package: str
    version: str
    compute_capability: str
    batch: tuple[int, int, int]
    dla: int | None
    layers: tuple[EngineLayer, ...]


@dataclass(frozen=True)
class OtherRecord(Record):
    """A record of an unknown kind or form, as other versions may write. content: the object as it was read."""

    content: Json

    def to_json(self) -> Json:
        """Return the object as it was read."""
        return dict(self.content)

    @classmethod
    def from_json(cls, content: Json) -> OtherRecord:
        """Keep the object of a manifest."""
        return cls(dict(content))


KINDS: dict[str, type[Record]] = {
    kind.step: kind
    for kind in (
        NetworkRecord, ExportRecord, GivenRecord, SelfContainedRecord, QuantizeRecord, VerifyRecord, Float16Record,
        LitertRecord, BuildRecord,
    )
}  # fmt: skip


def read_lineage(objects: object) -> tuple[Record, ...]:
    """Return the records of a manifest's JSON list; raises ValueError for other values."""
    if not isinstance(objects, (list, tuple)):
        raise ValueError("lineage is not a list")
    return tuple(read_record(content) for content in objects)


def read_record(content: object) -> Record:
    """Return the record of a JSON object, an OtherRecord if no type fits; raises ValueError without a `step`."""
    if not isinstance(content, dict) or "step" not in content:
        raise ValueError("lineage holds something other than objects with a step")
    if isinstance(content.get("stage"), str):
        return StageRecord.from_json(content)
    if not isinstance(content["step"], str):
        raise ValueError("lineage holds something other than objects with a step")
    kind = KINDS.get(content["step"], OtherRecord)
    try:
        return kind.from_json(content)
    except ValueError:
        return OtherRecord.from_json(content)


def find_record(lineage: Iterable[Record], kind: type[Found]) -> Found | None:
    """Return the first record of a kind, None where there is none."""
    return next((record for record in lineage if isinstance(record, kind)), None)


def _object_of(record: Any) -> dict[str, Any]:
    values = ((declared, getattr(record, declared.name)) for declared in fields(record))
    return {
        json_key(declared): _plain(value)
        for declared, value in values
        if value is not None or declared.default is MISSING
    }


def _plain(value: Any) -> Any:
    """Return a field's value as JSON."""
    if is_dataclass(value):
        return _object_of(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
