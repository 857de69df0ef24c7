"""Session, the interface of all runtimes: `run` and `close`."""

from __future__ import annotations

import importlib
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.outputs.kinds import Arrays
from runtimes.target import Target, runtime_names

Images = npt.NDArray[np.float32] | npt.NDArray[np.uint8]


class Session(Protocol):
    """An artifact loaded by a runtime."""

    def run(self, images: Images) -> Arrays:
        """Return all outputs for C-contiguous images, in the manifest's order, both in host memory.

        images: normalised float32 or uint8 pixels, (N, C, H, W) or (N, H, W, C), as the manifest says. The output of a
        classifier is (N, classes) float32 logits or probabilities. The call returns when the outputs are complete, so
        that the time of a call means the same on every runtime.
        """
        ...

    def close(self) -> None:
        """Release the runtime's resources; the session cannot be used afterwards."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """A session whose device has its own clock."""

    def device_ms(self) -> float:
        """Return milliseconds of the last run on the device's clock, both copies included.

        The rest of the latency is launch overhead, which a CUDA graph reduces.
        """
        ...


def load(artifact: Artifact, target: Target) -> Session:
    """Load `artifact` with the target's runtime; there is no fallback to another provider.

    Raises UnavailableError where this machine lacks the runtime or its provider, ArtifactError where the runtime
    rejects the file.
    """
    if target.runtime not in runtime_names():
        raise InputError(f"no runtime {target.runtime!r}; choose one of {', '.join(runtime_names())}")
    session: Session = importlib.import_module(f"runtimes.backends.{target.runtime}").load(artifact, target)
    return session


def package_of(runtime: str) -> str | None:
    """Return the name of the package that a runtime needs, None if it needs none; does not import it."""
    package: str | None = importlib.import_module(f"runtimes.backends.{runtime}").PACKAGE
    return package
