"""Weights that contain code, are damaged, or belong to another network."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from case import SIDE, Case, written
from PIL import Image
from safetensors.numpy import save as safetensors

from compress.models import mobilenet_v2


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch /tmp/compress-was-here",)


def checkpoints(folder: Path) -> Iterator[Case]:
    """Yield weights that contain code, are damaged, or belong to another network."""
    photos = folder / "photos"
    for label in ("a", "b"):
        for index in range(4):
            (photos / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((SIDE, SIDE, 3), 40 * index + 9, np.uint8)).save(photos / label / f"{index}.png")
    network = mobilenet_v2.build(mobilenet_v2.Config(width=0.25), 2)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    for name, (suffix, content) in _weights(tensors).items():
        place = folder / f"case-{zlib.crc32(name.encode())}"
        path = written(place / f"weights{suffix}", content)
        settings = {
            "data": {"name": "imagefolder", "test": str(photos)},
            "preprocessing": {"resize": SIDE, "crop": SIDE},
            "model": {"arch": "mobilenet_v2", "width": 0.25, "weights": str(path)},
        }
        written(place / "recipe.yaml", yaml.safe_dump(settings).encode())
        arguments = ["run", str(place / "recipe.yaml"), "--out", str(place / "run")]
        yield Case(name, place, arguments, path.name, content)


def _weights(tensors: dict[str, Any]) -> dict[str, tuple[str, bytes]]:
    good = safetensors(tensors)
    first = next(iter(tensors))

    def torch_file(content: Any) -> bytes:
        stream = io.BytesIO()
        torch.save(content, stream)
        return stream.getvalue()

    as_torch = torch_file({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()})
    cases = {f"safetensors truncated to {share} %": (".safetensors", good[: len(good) * share // 100])
             for share in (0, 1, 5, 25, 50, 75, 99)}  # fmt: skip
    cases |= {
        f"pth truncated to {share} %": (".pth", as_torch[: len(as_torch) * share // 100]) for share in (0, 1, 5, 50, 99)
    }
    for length in (0, 2**31, 2**63, 2**64 - 1):
        cases[f"a header of {length} bytes"] = (".safetensors", struct.pack("<Q", length) + good[8:])
    headers: dict[str, Any] = {
        "offsets beyond the end": {first: {"dtype": "F32", "shape": [4], "data_offsets": [0, 2**40]}},
        "offsets that run backwards": {first: {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        "a shape of 2**60": {first: {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 4]}},
        "a negative shape": {first: {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        "an unknown type": {first: {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        "a header that is a list": [],
        "overlapping tensors": {
            name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in list(tensors)[:3]
        },
    }
    for name, header in headers.items():
        text = json.dumps(header).encode()
        cases[name] = (".safetensors", struct.pack("<Q", len(text)) + text + bytes(4))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("x/data.pkl", pickle.dumps(Evil()))
        opened.writestr("x/version", "3")
        opened.writestr("x/data/0", bytes(1 << 24))
    nested: Any = {"state": torch.zeros(2)}
    for _ in range(200):
        nested = {"state": nested}
    loop: dict[str, Any] = {"state": torch.zeros(2)}
    loop["again"] = [loop, loop]
    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    head = [name for name in tensors if name.startswith("classifier")]
    wrong = {name: value[..., :1] if value.ndim > 1 else value for name, value in tensors.items()}
    return {
        **cases,
        "a pickle that runs a command": (".pth", pickle.dumps(Evil())),
        "a pickle in torch's archive": (".pt", archive.getvalue()),
        "torch's own pickle of an object": (".pth", torch_file(Evil())),
        "a whole module": (".pth", torch_file(torch.nn.Linear(2, 2))),
        "a list of tensors": (".pth", torch_file([torch.zeros(2)])),
        "strings in place of tensors": (".pth", torch_file({first: "zero"})),
        "nothing": (".safetensors", safetensors({})),
        "an extra tensor": (".safetensors", safetensors({**tensors, "more.weight": np.zeros(3, np.float32)})),
        "a missing tensor": (".safetensors", safetensors({n: v for n, v in tensors.items() if n != first})),
        "other shapes": (".safetensors", safetensors({n: np.ascontiguousarray(v) for n, v in wrong.items()})),
        "other names": (".safetensors", safetensors({f"net.{n}x": v for n, v in list(tensors.items())[1:]})),
        "arguments of a training script": (".pth.tar", torch_file({"state_dict": state, "args": Namespace(lr=1)})),
        "a numpy number": (".ckpt", torch_file({"state_dict": state, "best": np.float64(1)})),
        "very deep mappings": (".ckpt", torch_file(nested)),
        "a mapping in itself": (".bin", torch_file(loop)),
        "two networks": (".PTH", torch_file({"student": state, "teacher": state | {first: state[first] + 1}})),
        "NaN": ("", torch_file(state | {first: state[first] * torch.nan})),
        "8-bit integers": (".th", torch_file(state | {first: state[first].to(torch.int8)})),
        "sparse tensors": (".pt", torch_file(state | {first: state[first].to_sparse()})),
        "tensors without memory": (".pt", torch_file(state | {first: state[first].to("meta")})),
        "another number of classes": (".pth", torch_file(state | {n: torch.cat([state[n]] * 3) for n in head})),
        "no classifier": (".pth", torch_file({n: value for n, value in state.items() if n not in head})),
        "empty names": (".pth", torch_file({"": torch.zeros(2), ".": torch.zeros(2), "..": {"": torch.zeros(1)}})),
        "names with line breaks": (".pth", torch_file({"a\nb": torch.zeros(2), "\x1b[31m": torch.zeros(2)})),
        "a pointer of Git LFS": (".pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "a web page": (".pth", b"<!DOCTYPE html>\n<html></html>"),
        "HDF5": (".ckpt", b"\x89HDF\r\n\x1a\n" + bytes(64)),
        "a text": (".pth", b"weights\n"),
        "JSON": (".safetensors", b"{}"),
    }
