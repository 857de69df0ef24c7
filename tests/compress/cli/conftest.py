"""A small data set and a recipe for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import make_images

RECIPE: dict[str, Any] = {
    "preprocessing": {"resize": 16, "crop": 16},
    "model": {"arch": "mobilenet_v2", "width": 0.25},
    "stages": [{"stage": "train", "epochs": 1, "batch_size": 4, "warmup_epochs": 0}],
}


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Two classes of ten images."""
    make_images(tmp_path / "flowers" / "rose", 10)
    make_images(tmp_path / "flowers" / "tulip", 10, 10)
    return tmp_path / "flowers"


@pytest.fixture
def recipe(tmp_path: Path, flowers: Path) -> Path:
    """A recipe that trains on the flowers."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"data": {"name": "imagefolder", "root": str(flowers)}, **RECIPE}))
    return path
