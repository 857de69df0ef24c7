"""Train a network of `bench_onnx.py` once and export it in four forms: two exporters, dynamic or fixed batch.

Writes weights.safetensors, one ONNX file per form, and forms.json into the folder of the network. Forms whose standard
form has the same structure are the same to `compress quantize`; forms.json names their twin.

    python onnx_export.py NETWORK FOLDER IMAGES
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import timm
import torch
import torchvision
from onnx import NodeProto, TensorProto, TensorShapeProto, ValueInfoProto, numpy_helper, shape_inference
from onnx_images import Images, images
from onnx_networks import NETWORKS, Trained
from safetensors.torch import load_model, save_model
from timm.utils.model import reparameterize_model
from torch import nn

from export.standard_form import standard_form
from runtimes.files import replacing, write_json

CLASSES = 4
BATCH, WEIGHT_DECAY, WARMUP = 32, 0.02, 20
LEARNED, SMOOTHING = 0.1, 0.95  # smoothed loss at which the last epoch begins, with a falling learning rate
STATISTICS_BATCHES = 24  # that BatchNorm's statistics are measured on after training
FORMS = ("dynamo-dynamic", "script-dynamic", "dynamo-fixed", "script-fixed")  # the first is compared with ONNX Runtime
OPSETS = {"dynamo": 18, "script": 17}
SHAPING_OPS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
SMALL = 64  # elements of constants whose values are part of the structure, if they are integers
SMALLEST, PARITY = 1e-6, 1e-3  # largest error of an exported file, as a share of the largest output


def main() -> None:
    """Train, export, compare the forms."""
    name, folder, image_folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    network = NETWORKS[name]
    assert isinstance(network, Trained)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = _trained(network, folder / "weights.safetensors", image_folder)
    forms: dict[str, dict[str, str]] = {}
    for form in FORMS:
        forms[form] = _export(model, network.side, form, folder / f"{form}.onnx")
        write_json(folder / "forms.json", forms)
    for form, entry in forms.items():
        if not entry:
            entry |= _twin(form, forms, folder)
            write_json(folder / "forms.json", forms)


def _trained(network: Trained, path: Path, image_folder: Path) -> nn.Module:
    model = _create(network)
    side = network.train_side or network.side
    if not path.exists():
        _train(model, images(image_folder, "cells", (side, side)), network)
        with replacing(path) as temporary:
            save_model(model, str(temporary))
    load_model(model, str(path))
    return reparameterize_model(model.eval())


def _create(network: Trained) -> nn.Module:
    library, _, name = network.name.rpartition("/")
    if library:
        options: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
        return torchvision.models.get_model(name, num_classes=CLASSES, **options)
    options = {"img_size": network.side} if network.sized else {}
    return timm.create_model(name, num_classes=CLASSES, **options)


def _train(model: nn.Module, data: Images, network: Trained) -> None:
    """Train with mirrored images until most are known, at most for some epochs; then measure BatchNorm's statistics."""
    assert data.train is not None
    assert data.train_labels is not None
    pixels, labels = torch.from_numpy(np.array(data.train)).permute(0, 3, 1, 2), torch.from_numpy(data.train_labels + 0)
    epoch = len(pixels) // BATCH
    last = (network.max_epochs - 1) * epoch  # step at which the last epoch begins
    optimizer = torch.optim.AdamW(model.parameters(), network.rate, weight_decay=WEIGHT_DECAY)
    smoothed, step = 1.0, 0
    model.train()
    while step < last + epoch:
        factor = min((step + 1) / WARMUP, (last + epoch - step) / epoch, 1.0)
        optimizer.param_groups[0]["lr"] = network.rate * factor
        chosen = torch.randint(len(pixels), (BATCH,))
        flips = [axis for axis in (2, 3) if torch.rand(()) < 0.5]
        batch = torch.flip(_normalized(pixels[chosen]), flips)
        loss = nn.functional.cross_entropy(model(batch), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * loss.item()
        step += 1
        if smoothed < LEARNED:
            last = min(last, step)
        if step % 20 == 0:
            print(f"step {step}, loss {smoothed:.3f}", flush=True)
    _measure_statistics(model, pixels)


def _measure_statistics(model: nn.Module, pixels: torch.Tensor) -> None:
    """Replace BatchNorm's running statistics, which a short training leaves behind, by averages over some batches."""
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # average over all batches
            module.train()
    with torch.no_grad():
        for _ in range(STATISTICS_BATCHES):
            model(_normalized(pixels[torch.randint(len(pixels), (BATCH,))]))
    model.eval()


def _normalized(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels.float() / 255 - 0.5) / 0.5


def _export(model: nn.Module, side: int, form: str, path: Path) -> dict[str, str]:
    """Export one form; return why the exporter failed, nothing if it did not."""
    exporter, batch = form.split("-")
    is_dynamo, is_dynamic = exporter == "dynamo", batch == "dynamic"
    example = torch.rand(2 if is_dynamic else 1, 3, side, side)
    options: dict[str, Any] = {}
    if is_dynamic:
        options = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if is_dynamo else \
            {"dynamic_axes": {"images": {0: "batch"}, "logits": {0: "batch"}}}  # fmt: skip
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(
                model, (example,), path, dynamo=is_dynamo, opset_version=OPSETS[exporter], external_data=False,
                input_names=["images"], output_names=["logits"], verbose=False, **options,
            )  # fmt: skip
        with torch.no_grad():
            expected = model(example).numpy()
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        error = np.abs(session.run(None, {"images": example.numpy()})[0] - expected).max() / max(
            np.abs(expected).max(), SMALLEST
        )
    except Exception as failure:  # noqa: BLE001  # exporters raise anything
        path.unlink(missing_ok=True)
        return {"failed": f"{type(failure).__name__}: {str(failure).strip().splitlines()[0][:200]}"}
    return {} if error < PARITY else {"failed": f"the exported file differs from PyTorch by {error:.1e}"}


def _twin(form: str, forms: dict[str, dict[str, str]], folder: Path) -> dict[str, str]:
    """Return the structure of a form, and the earlier form with the same structure if there is one."""
    try:
        structure = structure_of(standard_form(onnx.load(folder / f"{form}.onnx")))
    except Exception as failure:  # noqa: BLE001  # the command line will say what is wrong
        return {"structure": f"{type(failure).__name__}: {str(failure)[:200]}"}
    twins = [other for other, entry in forms.items() if entry.get("structure") == structure]
    return {"structure": structure} | ({"twin": twins[0]} if twins else {})


def structure_of(model: onnx.ModelProto) -> str:
    """Return a digest of batch, operators, attributes, connections and small integers, without names and float values.

    Operators that only give a shape are the same if the shapes of their outputs are.
    """
    inferred = shape_inference.infer_shapes(model).graph
    shapes = {value.name: _shape(value) for value in (*inferred.value_info, *inferred.output)}
    digests = {value.name: f"{value.type.tensor_type.shape.dim[0].dim_value} images" for value in model.graph.input}
    digests |= {tensor.name: _constant(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        inputs = [digests.get(name, "") for name in node.input]
        attributes = sorted(_attributes(node))
        inputs = sorted(inputs) if node.op_type in ("Add", "Mul") else inputs
        description: object = (node.op_type, inputs, attributes)
        if node.op_type in SHAPING_OPS and shapes.get(node.output[0]):
            description = ("shape", inputs[0], shapes[node.output[0]])
        for index, name in enumerate(node.output):
            digests[name] = _sha256(repr((index, description)))
    return _sha256(repr([digests[value.name] for value in model.graph.output]))


def _shape(value: ValueInfoProto) -> list[int] | None:
    """Return the sizes after the batch; None if one of them is unknown, or if the batch is merged with another axis."""
    first, *sizes = value.type.tensor_type.shape.dim or [TensorShapeProto.Dimension()]
    is_batch = first.dim_value in (0, 1)  # 0: unknown
    known = [size.dim_value for size in sizes]
    return known if is_batch and all(known) else None


def _constant(tensor: TensorProto) -> str:
    array = numpy_helper.to_array(tensor)
    values = array.tolist() if array.size <= SMALL and array.dtype.kind in "iub" else \
        f"{float(array):.2e}" if array.size == 1 and not array.shape else ""  # fmt: skip
    return repr((tensor.data_type, array.shape, values))


def _attributes(node: NodeProto) -> Iterator[str]:
    """Yield the attributes of a node that do not have their default."""
    declared = onnx.defs.get_schema(node.op_type, max_inclusive_version=OPSETS["dynamo"]).attributes
    for attribute in node.attribute:
        default = declared[attribute.name].default_value
        if attribute.SerializeToString() != default.SerializeToString():
            yield attribute.SerializeToString(deterministic=True).hex()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
