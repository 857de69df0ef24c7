"""Load the last network of a run folder as the weights of a recipe, and compare it with the run's float32 file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from compress.networks import weights
from compress.recipe import own_code
from compress.recipe import recipe as recipes
from export.parity import require_same
from runtimes.artifact import Artifact
from runtimes.evalset import load
from runtimes.measure import evaluate
from runtimes.target import Target


def main(recipe: Path, run: Path, code: list[Path]) -> None:
    """Print the largest difference; raise CompressError if it is more than rounding."""
    from compress.training.loop import predict

    own_code.use(code)
    steps = {path.name.rpartition("-")[0]: path for path in (run / "steps").iterdir() if (path / "done.json").exists()}
    last = steps[max(name for name in steps if name[0].isdigit())]  # the stage qat, after fusion
    artifact = Artifact.load(run / "artifacts" / "model-float32.onnx")
    model = recipes.load(recipe, [f"model.weights={last / 'network.safetensors'}"]).model
    network = weights.create(model, len(artifact.manifest.labels), 1)
    images = load(run / "sample")
    parity = require_same(
        predict(network, images, "cpu"), evaluate(artifact, Target("local", threads=1), images), "the loaded network"
    )
    print(json.dumps({"max_logit_difference": parity.max_logit_difference}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
