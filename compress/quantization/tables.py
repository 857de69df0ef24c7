"""Text tables of a quantization, from the records in a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from compress.process.table import Table
from runtimes.artifact import Manifest
from runtimes.lineage import (
    Attempt,
    QuantizedLayer,
    QuantizeRecord,
    RevertedOperator,
    RuntimeNode,
    VerifyRecord,
    find_record,
)

LAYER_NAME_WIDTH = 17  # characters at the end of a layer's name; with them, the table has at most 80 columns


def tables(manifest: Manifest) -> list[Table]:
    """Return the tables of attempts, layers and executed operators; none for files quantized by NNCF.

    The executed operators are known only for files that were profiled on the machine that quantized them.
    """
    quantized, verified = find_record(manifest.lineage, QuantizeRecord), find_record(manifest.lineage, VerifyRecord)
    if quantized is None or quantized.layers is None:
        return []
    operators = verified.runs if verified and verified.runs else {}
    judged = f"{quantized.held_out_images} held-out images"
    if not quantized.held_out_images:
        judged = f"the {quantized.calibration_images} images of the fit: nothing is held out"
    title = f"{manifest.scheme or ''}: attempts, judged on {judged}"
    result = [attempt_table(title, quantized.attempts or ())]
    if quantized.reverted:
        result.append(reverted_table(quantized.reverted, quantized.reverting_ms))
    result.append(layer_table(quantized.layers, operators))
    return [*result, operator_table(operators)] if operators else result


def attempt_table(title: str, attempts: Iterable[Attempt]) -> Table:
    """Return a table with one row per attempt of the search."""
    rows = (
        (
            attempt.step,
            f"{attempt.sqnr_db:.1f}",
            "-" if attempt.agreement is None else f"{attempt.agreement:.3f}",
            "yes" if attempt.kept else "no",
        )
        for attempt in attempts
    )
    return Table.of(title, "<attempt|SQNR dB|agreement|kept", rows)


def reverted_table(operators: Iterable[RevertedOperator], reverting_ms: float | None) -> Table:
    """Return a table with one row per operator that was reverted to float for the sake of accuracy.

    SQNR dB: of the outputs when only this operator is quantized. INT8 ms, float ms: time of its kernel, empty if the
    runtime fuses it. The last row is the difference of the latencies, which includes conversions.
    """
    rows = [
        (
            operator.name[-LAYER_NAME_WIDTH:],
            operator.op,
            f"{operator.sqnr_db:.1f}",
            _milliseconds(operator.integer_ms),
            _milliseconds(operator.float_ms),
        )
        for operator in operators
    ]
    if reverting_ms is not None:
        rows.append(("all, with conversions", "", "", "", f"{reverting_ms:+.3f}"))
    return Table.of("reverted to float", "<operator|<kind|SQNR dB|INT8 ms|float ms", rows)


def layer_table(layers: Iterable[QuantizedLayer], operators: Mapping[str, Sequence[RuntimeNode]]) -> Table:
    """Return a table with one row per layer.

    limited: output channels whose weights use less than the full range, so that 16-bit sums cannot overflow.
    SQNR dB: of the layer's output, including the errors of all layers before it.
    ms, float ms: time of the layer's kernel in the INT8 and in the float32 file, empty if not profiled.
    """
    times = {precision: times_by_layer(nodes) for precision, nodes in operators.items()}
    rows = []
    for layer in layers:
        is_int8 = layer.precision == "int8"
        rows.append((
            layer.name[-LAYER_NAME_WIDTH:],
            layer.op.removesuffix(" Conv"),
            str(layer.outputs),
            f"int{layer.weight_bits}" if is_int8 else "float32",
            str(layer.limited_channels) if is_int8 else "",
            "" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f}",
            *(_milliseconds(times.get(precision, {}).get(layer.name)) for precision in ("int8", "float32")),
        ))  # fmt: skip
    return Table.of("layers", "<layer|<kind|out|<weights|limited|SQNR dB|ms|float ms", rows)


def times_by_layer(nodes: Iterable[RuntimeNode]) -> dict[str, float]:
    """Return the milliseconds of each layer's kernel."""
    return {node.layer: node.time_ms for node in nodes if node.layer}


def operator_table(operators: Mapping[str, Sequence[RuntimeNode]]) -> Table:
    """Return a table with one row per file and kind of operator: number and total time of the executed operators."""
    return Table.of("executed operators", "<file|<operators|count|ms|<slowest", _operator_rows(operators))


def _operator_rows(operators: Mapping[str, Sequence[RuntimeNode]]) -> Iterator[tuple[str, ...]]:
    for precision, nodes in operators.items():
        for kind in ("integer", "float", "conversion"):
            of_kind = [node for node in nodes if node.kind == kind]
            if of_kind:
                ms_by_op: dict[str, float] = {}
                for node in of_kind:
                    ms_by_op[node.op] = ms_by_op.get(node.op, 0.0) + node.time_ms
                slowest = ", ".join(sorted(ms_by_op, key=lambda op: -ms_by_op[op])[:3])
                yield precision, kind, str(len(of_kind)), f"{sum(ms_by_op.values()):.2f}", slowest


def _milliseconds(time_ms: float | None) -> str:
    return "" if time_ms is None else f"{time_ms:.3f}"
