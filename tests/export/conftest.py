"""Fixtures of the export tests."""

from __future__ import annotations

import onnx
import onnx_graphs
import pytest


@pytest.fixture
def residual_model() -> onnx.ModelProto:
    return onnx_graphs.residual_model()
