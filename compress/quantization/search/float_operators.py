"""Propose operators that stay float because that is faster: minimum cuts of the graph by measured kernel times.

Some integer kernels are slower than their float ones, and conversions between both take time. The cheapest division of
a graph into integer and float operators is a minimum cut (Stone, IEEE Transactions on Software Engineering, 1977). Its
costs are estimates, so that the latency of the whole file decides whether a proposal is taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import NodeProto

from compress.quantization.float_layers import latencies, run_on_zeros
from compress.quantization.search.costs import kernel_times
from export.layers import layers_of
from export.plan import QuantizationPlan, moves_values
from export.quantize import Quantized
from export.rewrites.hard_sigmoids import with_hard_sigmoids
from runtimes.artifact import Artifact
from runtimes.target import Target

# Time of a conversion with the transpose and the reordering beside it, on x86. There is a proposal for each factor.
CONVERSION_MS, CONVERSION_MS_PER_VALUE = 0.012, 3e-7
FACTORS = (1.0, 3.0)
MIN_GAIN = 0.01  # share of the latency: less is not worth an attempt
MAX_FLOAT_WEIGHTS = 0.1  # share of all weights: an INT8 file has a third of float32's size at most
PRICES = 24  # tried in turn
INTEGER, FLOAT = "integer", "float"  # source and sink of the cut
STEPS_PER_MS, NEVER = 1e5, 10**9  # capacities are integers

Propose = Callable[[onnx.ModelProto, Quantized], list[frozenset[str]]]
Edges = dict[tuple[str, str], float]  # capacity in ms by start and end


@dataclass(frozen=True)
class Times:
    """Milliseconds by name: of each operator's kernel in both kinds, and of the conversion of each tensor.

    A kernel that the runtime fuses with another has none.
    """

    integer: Mapping[str, float]
    in_float: Mapping[str, float]
    conversion: Mapping[str, float]

    def gain_ms(self, names: Iterable[str]) -> float:
        """Return the time that float kernels of these operators save, without conversions."""
        return sum(self.integer.get(name, 0.0) - self.in_float.get(name, 0.0) for name in names)


def no_proposals(model: onnx.ModelProto, quantized: Quantized) -> list[frozenset[str]]:
    """Return none, for targets whose latency cannot be measured here."""
    return []


def by_kernel_times(float32: Artifact, target: Target) -> Propose:
    """Return a function that proposes operators of a float32 graph to keep float, as sets of names.

    It gets the graph and its quantized form. float32: artifact with the same inputs and outputs.
    """

    def propose(model: onnx.ModelProto, quantized: Quantized) -> list[frozenset[str]]:
        graphs = quantized.model, _as_executed(model)
        measured = latencies(float32, target, *graphs, lambda first, second: True)
        integer, in_float = (_adding_up_to(latency.latency_ms_p50, kernel_times(float32, target, graph))
                             for graph, latency in zip(graphs, measured, strict=True))  # fmt: skip
        sizes = {name: value.size for name, value in run_on_zeros(model, _tensors(model, quantized.plan)).items()}
        sets = []
        for factor in FACTORS:
            conversion = {name: factor * (CONVERSION_MS + CONVERSION_MS_PER_VALUE * size)
                          for name, size in sizes.items()}  # fmt: skip
            times = Times(integer, in_float, conversion)
            names = faster_in_float(model, quantized, times)
            if times.gain_ms(names) > MIN_GAIN * measured[0].latency_ms_p50:
                sets.append(names)
        return list(dict.fromkeys(sets))

    return propose


def faster_in_float(
    model: onnx.ModelProto, quantized: Quantized, times: Times, max_weights: float = MAX_FLOAT_WEIGHTS
) -> frozenset[str]:
    """Return the names of the integer operators that should be float, with at most a share of all weights.

    The share is kept by a price in ms of each float weight, the lowest that suffices (a Lagrange multiplier, Everett,
    Operations Research 11, 1963).
    """
    weights = {name: layer.weight.size for name, layer in layers_of(model).items()}
    highest = sum(times.integer.values()) or 1.0  # for one weight: no float layer saves more
    for price_ms in (0.0, *np.geomspace(highest / (100 * sum(weights.values())), highest, PRICES)):
        costs = {name: times.in_float.get(name, 0.0) + price_ms * weights.get(name, 0)
                 for name in {*times.in_float, *weights}}  # fmt: skip
        names = cheapest(model, quantized.plan, replace(times, in_float=costs))
        if sum(weights[name] for name in names & weights.keys()) <= max_weights * sum(weights.values()):
            return names
    return frozenset()


def cheapest(model: onnx.ModelProto, plan: QuantizationPlan, times: Times) -> frozenset[str]:
    """Return the names of the operators that are float in the cheapest division of a graph."""
    operators = _operators(model, plan)
    edges: Edges = defaultdict(float)
    for name in operators:
        edges[INTEGER, f"operator {name}"] += times.in_float.get(name, 0.0)
        edges[f"operator {name}", FLOAT] += times.integer.get(name, 0.0)
    for tensor, (source, readers) in _tensors(model, plan).items():
        cost = times.conversion.get(tensor, 0.0)
        edges[source, f"float {tensor}"] += cost
        edges[f"integer {tensor}", source] += cost
        for reader in readers:
            edges[f"float {tensor}", reader] = edges[reader, f"integer {tensor}"] = float("inf")
    in_float = _float_side(edges)
    return frozenset(name for name in operators if f"operator {name}" in in_float)


def _operators(model: onnx.ModelProto, plan: QuantizationPlan) -> list[str]:
    """Return the names of the operators that could be float instead: also pools, which move integers."""
    pools = {node.name for node in model.graph.node if node.op_type == "MaxPool" and node.output[0] in plan.range_of}
    return [node.name for node in model.graph.node if node.name in plan.integer_nodes | pools]


def _tensors(model: onnx.ModelProto, plan: QuantizationPlan) -> dict[str, tuple[str, set[str]]]:
    """Return the tensors that may need conversion: each with the vertex that writes it, and those that read it.

    Operators that move, clamp or rescale integers lie between; they are of the kind of what they read. All other
    operators that are float anyway, and the inputs and outputs of the graph, are the vertex FLOAT.
    """
    operators = set(_operators(model, plan))
    constants = {tensor.name for tensor in model.graph.initializer}
    written_by = {name: FLOAT for value in model.graph.input if (name := value.name) not in constants}
    origin = {name: name for name in written_by}
    read_by: dict[str, set[str]] = defaultdict(set)
    for node in model.graph.node:
        reads = [name for name in node.input if name in origin]
        if node.name not in operators and _passes_on(node, plan) and reads:
            origin.update((name, origin[reads[0]]) for name in node.output)
            continue
        vertex = f"operator {node.name}" if node.name in operators else FLOAT
        for name in reads:
            read_by[origin[name]].add(vertex)
        origin.update((name, name) for name in node.output)
        written_by.update((name, vertex) for name in node.output)
    for value in model.graph.output:
        read_by[origin[value.name]].add(FLOAT)
    return {name: (written_by[name], readers) for name, readers in read_by.items()
            if {written_by[name], *readers} != {FLOAT}}  # fmt: skip


def _passes_on(node: NodeProto, plan: QuantizationPlan) -> bool:
    return moves_values(node) or node.output[0] in plan.clamps or node.output[0] in plan.rescaled


def _float_side(edges: Edges) -> set[str]:
    """Return the vertices of the sink's side of a minimum cut from INTEGER to FLOAT, the smallest if there are several.

    These are the vertices from which a path with free capacity leads to the sink (Ford and Fulkerson, 1956).
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    names = list(dict.fromkeys(name for edge in edges for name in edge))
    index = {name: position for position, name in enumerate(names)}
    steps = [int(min(round(capacity * STEPS_PER_MS), NEVER)) if capacity < NEVER else NEVER
             for capacity in edges.values()]  # fmt: skip
    starts, ends = ([index[name] for name in side] for side in zip(*edges, strict=True))
    shape = len(names), len(names)
    capacities = csr_matrix((np.asarray(steps, np.int32), (starts, ends)), shape)
    flow = maximum_flow(capacities, index[INTEGER], index[FLOAT]).flow
    free = (capacities - flow).T.tocsr()
    free.eliminate_zeros()
    reached = breadth_first_order(free, index[FLOAT], return_predecessors=False)
    return {names[position] for position in reached}


def _adding_up_to(latency_ms: float, times: Mapping[str, float]) -> dict[str, float]:
    """Return kernel times scaled to a latency, which includes the time between kernels."""
    factor = latency_ms / max(sum(times.values()), 1e-9)
    return {name: factor * time for name, time in times.items()}


def _as_executed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 graph with the float kernels that `insert_qdq` writes."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in result.graph.initializer}
    nodes = with_hard_sigmoids(model.graph.node, constants, {value.name for value in model.graph.output})
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result
