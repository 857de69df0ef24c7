"""Examples for bundles: programs in Python and C++ that use the model in an application."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from runtimes.artifact import Artifact

FOLDER = "examples"  # in a bundle
SOURCES = Path(__file__).parent / FOLDER
FILES = ("CMakeLists.txt", "README.txt", "predict.cpp", "predict.py")
HEADER = "model.h"


def examples(artifact: Artifact) -> dict[str, bytes]:
    """Return the example programs by file name in the bundle.

    None for files that ONNX Runtime does not run, and for networks that take no picture files.
    """
    if artifact.manifest.format != "onnx" or artifact.manifest.preprocessing.channels == "array":
        return {}
    sources = {f"{FOLDER}/{name}": (SOURCES / name).read_bytes() for name in FILES}
    return {**sources, f"{FOLDER}/{HEADER}": header(artifact).encode()}


def header(artifact: Artifact) -> str:
    """Return a C++ header with those parts of the manifest that an application needs."""
    manifest = artifact.manifest
    preprocessing, options = manifest.preprocessing, manifest.session_options.items()
    lines = {
        "std::string file": _text(artifact.path.name),
        "char* const input": _text(manifest.input_name),
        "char* const output": _text(manifest.output_name),
        "int batch": str(manifest.input_shape[0] or 1),
        "int resized_height": str(preprocessing.resized[0]),
        "int resized_width": str(preprocessing.resized[1]),
        "int height": str(preprocessing.height),
        "int width": str(preprocessing.width),
        "std::string channels": _text(preprocessing.channels),
        "std::string interpolation": _text(preprocessing.interpolation),
        "std::vector<float> mean": _list(map(repr, preprocessing.mean)),
        "std::vector<float> std": _list(map(repr, preprocessing.std)),
        "bool takes_pixels": "true" if manifest.input_dtype == "uint8" else "false",
        "bool channels_first": "true" if manifest.input_layout == "NCHW" else "false",
        "float threshold": "0" if manifest.output == "logits" else "0.5",
        "std::vector<std::string> labels": _list(map(_text, manifest.labels)),
        "std::vector<std::pair<std::string, std::string>> session_options": _list(
            _list(map(_text, option)) for option in options
        ),
    }
    constants = "\n".join(f"const {name} = {value};" for name, value in lines.items())
    return f"""// The model of this bundle; written by compress bundle from its manifest.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace model {{
{constants}
}}  // namespace model
"""


def _text(value: str) -> str:
    """Return a string literal of C++ in UTF-8; the escapes of JSON are those of C++."""
    return json.dumps(value, ensure_ascii=False).replace("?", "\\?")  # ??= would be a trigraph


def _list(values: Iterable[str]) -> str:
    return f"{{{', '.join(values)}}}"
