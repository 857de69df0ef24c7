"""The seam to every inference engine: two verbs wide."""

from __future__ import annotations

import importlib
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.target import Target, runtime_names

Images = npt.NDArray[np.float32] | npt.NDArray[np.uint8]


class Session(Protocol):
    """An artifact that a runtime has loaded."""

    def run(self, images: Images) -> npt.NDArray[np.float32]:
        """Turn C-contiguous images, both in host memory, into `(N, classes)` float32 answers.

        What images are the manifest says: float32 `(N, 3, H, W)`, or uint8 `(N, H, W, 3)`; answers are logits or
        probabilities.

        Returns only when the logits are there, so that a clock around the call means the same on every runtime.
        """
        ...

    def close(self) -> None:
        """Free what the runtime holds; the session is not used afterwards."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """A session whose device has a clock of its own."""

    def device_ms(self) -> float:
        """Return milliseconds of the last run on the device's clock: from the first copy to it to the last copy back.

        What the host's clock says beyond that is the launch, which a CUDA graph makes shorter.
        """
        ...


def load(artifact: Artifact, target: Target) -> Session:
    """Load `artifact` with the target's runtime.

    Raises UnavailableError where the runtime or its provider is not on this machine, ArtifactError where the runtime
    does not take the file. There is no fallback to another provider.
    """
    if target.runtime not in runtime_names():
        raise InputError(f"no runtime {target.runtime!r}; there are {', '.join(runtime_names())}")
    session: Session = importlib.import_module(f"runtimes.backends.{target.runtime}").load(artifact, target)
    return session


def package_of(runtime: str) -> str | None:
    """Return the name of the package that a runtime needs, None where it needs none; the package is not imported."""
    package: str | None = importlib.import_module(f"runtimes.backends.{runtime}").PACKAGE
    return package
