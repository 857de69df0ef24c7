"""Weights in repositories of the Hugging Face Hub: `hf:OWNER/NAME`, or `hf:OWNER/NAME/FILE`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from runtimes.errors import InputError, UnavailableError

HUB = "hf:"
PREFERRED = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
OF_TRAINING = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state.pth")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
EXAMPLE = "hf:timm/mobilenetv4_conv_small.e2400_r224_in1k"
MAX_LISTED = 4


@dataclass(frozen=True)
class Place:
    """A repository, and the path of the file in it if the recipe names one."""

    repository: str
    file: str | None

    @classmethod
    def of(cls, weights: str) -> Place:
        """Read `hf:OWNER/NAME` or `hf:OWNER/NAME/FILE`; raises InputError for anything else."""
        owner, _, rest = weights.removeprefix(HUB).partition("/")
        name, _, file = rest.partition("/")
        if not NAME.fullmatch(owner) or not NAME.fullmatch(name) or ".." in PurePosixPath(file).parts:
            raise InputError(f"weights: {weights}: must be hf:OWNER/NAME or hf:OWNER/NAME/FILE, as in {EXAMPLE}")
        return cls(f"{owner}/{name}", file or None)

    def choose(self, files: Iterable[str]) -> str:
        """Return the file of weights among those of the repository: safetensors before files of torch.

        Raises InputError if there is none, or if several could be meant.
        """
        known = list(files)
        if self.file is not None:
            if self.file not in known:
                raise InputError(f"has no file {self.file}; it has {_listed(_weights(known)) or 'no weights'}")
            return self.file
        for ends in ((".safetensors",), SUFFIXES):
            candidates = [file for file in _weights(known) if file.endswith(ends)]
            preferred = [file for file in PREFERRED if file in candidates]
            if preferred or len(candidates) == 1:
                return [*preferred, *candidates][0]
            if candidates:
                raise InputError(
                    f"holds several files of weights: {_listed(candidates)}; choose one, as in "
                    f"{HUB}{self.repository}/{candidates[0]}"
                )
        raise InputError("holds no file of weights (.safetensors, .bin, .pth, .pt or .ckpt)")


def cached(weights: str) -> Path | None:
    """Return the file if an earlier download left it in the cache of huggingface_hub; never uses the network."""
    place = Place.of(weights)
    folder = Path(_client().constants.HF_HUB_CACHE) / f"models--{place.repository.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text().strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / commit
    files = [path.relative_to(snapshot).as_posix() for path in sorted(snapshot.rglob("*")) if path.is_file()]
    try:
        return snapshot / place.choose(files)
    except InputError:
        return None


def require(weights: str) -> None:
    """Raise an error unless the file is in the cache or can be downloaded; downloads nothing but a list of names."""
    if cached(weights) is None:
        _choice(weights)


def download(weights: str) -> Path:
    """Return the file, downloaded into the cache of huggingface_hub.

    Raises InputError for an unknown repository and for one without exactly one file of weights, UnavailableError
    without the package or the network.
    """
    place, file = Place.of(weights), _choice(weights)
    hub = _client()
    try:
        return Path(hub.hf_hub_download(place.repository, file))
    except network_errors() as error:
        raise _unavailable(weights, error) from error


def network_errors() -> tuple[type[BaseException], ...]:
    """Return the errors of huggingface_hub for a request that fails; none but OSError without the package."""
    try:
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        return (OSError,)
    return (OSError, *HfHubHTTPError.__bases__)  # with the HTTP library's own base class, which differs by version


def _choice(weights: str) -> str:
    """Return the name of the file in the repository."""
    place, hub = Place.of(weights), _client()
    try:
        files = [file.rfilename for file in hub.HfApi().model_info(place.repository).siblings or ()]  # without retries
    except hub.errors.GatedRepoError as error:
        raise UnavailableError(
            f"weights: {weights}: is a gated repository; ask for access on the hub, then run: hf auth login"
        ) from error
    except hub.errors.RepositoryNotFoundError as error:
        raise InputError(
            f"weights: {weights}: the Hugging Face hub has no such repository, or it is private; check the name, or "
            "run: hf auth login"
        ) from error
    except network_errors() as error:
        raise _unavailable(weights, error) from error
    try:
        return place.choose(files)
    except InputError as error:
        raise InputError(f"weights: {weights}: {error}") from None


def _unavailable(weights: str, error: BaseException) -> UnavailableError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return UnavailableError(
        f"weights: {weights}: is not in the cache and can't be downloaded ({reason}); download it where there is a "
        "network and give the path of the file"
    )


def _client() -> Any:  # Any: the module huggingface_hub
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise UnavailableError("weights: hf: needs a package: pip install huggingface_hub") from error
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs each of its retries
    return huggingface_hub


def _weights(files: Iterable[str]) -> list[str]:
    return [file for file in files if file.endswith(SUFFIXES) and PurePosixPath(file).name not in OF_TRAINING]


def _listed(files: list[str]) -> str:
    return ", ".join([*files[:MAX_LISTED], *(["…"] if len(files) > MAX_LISTED else [])])
