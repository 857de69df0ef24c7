"""Fixtures of the host's tests: images on disk, a small data set, a stage's context, packages and files of --code."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packages import install
from PIL import Image

from compress.data import synthetic
from compress.images import samples
from compress.images.samples import Data, Sample
from compress.recipe import own_code, plugins
from compress.training.context import Context
from runtimes.console import SilentConsole
from runtimes.files import Json
from runtimes.preprocessing import Preprocessing

MakeContext = Callable[..., Context]


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Return a function that writes one small image and creates its folders."""

    def write(path: Path, size: tuple[int, int] = (8, 8), colour: tuple[int, int, int] = (200, 100, 50)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)
        return path

    return write


@pytest.fixture
def make_tree(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes `root/<folder>/<index>.png` for each folder and its number of images."""

    def make(root: str, folders: dict[str, int]) -> Path:
        for folder, count in folders.items():
            (tmp_path / root / folder).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                write_image(tmp_path / root / folder / f"{index}.png")
        return tmp_path / root

    return make


@pytest.fixture
def damaged(tmp_path: Path) -> Data:
    """Return 10 train images of which 2 are unreadable, 2 of val, and 4 of test of which 1 is unreadable."""

    def sample(name: str, good: bool, label: int) -> Sample:
        file = tmp_path / f"{name}.png"
        if good:
            pixels = hashlib.sha256(name.encode()).digest() * 6  # 8 x 8 of three colours
            Image.frombytes("RGB", (8, 8), pixels).save(file)
        else:
            file.write_bytes(b"\x89PNG broken")
        return Sample(name, file, label)

    return Data(
        ("a", "b"),
        train=tuple(sample(f"train{index}", index not in (3, 7), index % 2) for index in range(10)),
        val=tuple(sample(f"val{index}", True, index % 2) for index in range(2)),
        test=tuple(sample(f"test{index}", index != 2, index % 2) for index in range(4)),
    )


@pytest.fixture(scope="session")
def stripes() -> Data:
    """Return 3 classes of 20 synthetic images."""
    return synthetic.load(synthetic.Config(images_per_class=20, size=32, noise=12))


@pytest.fixture(scope="session")
def small() -> Preprocessing:
    """Return the preprocessing of `stripes`."""
    return Preprocessing(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def make_context(tmp_path: Path, stripes: Data, small: Preprocessing) -> MakeContext:
    """Return a function that creates a stage's context for `stripes`, in a separate folder."""

    def make(name: str = "0-train", **changes: object) -> Context:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        prepared = {
            split: samples.write_evalset(
                tmp_path / f"images-{split}", stripes.split(split), stripes.classes, small, SilentConsole()
            )
            for split in ("train", "val")
        }
        fields = {
            "name": name,
            "classes": stripes.classes,
            "train": stripes.train,
            "preprocessing": small,
            "seed": 0,
            "device": "cpu",
            "folder": folder,
            "target": None,
            "teacher": lambda network: None,
            "prepared": prepared.__getitem__,
            "subset": lambda split, count: prepared[split].spread(count),
            "track": lambda epoch, values: None,
            "console": SilentConsole(),
        }
        return Context(**{**fields, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Limit torch to one thread, which is faster for tiny networks and makes sums reproducible."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Give a function that installs a package; sys.path and sys.modules are restored."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before, origins = set(sys.modules), dict(plugins._origins)

    def make(files: dict[str, str], points: Json, name: str = "acme-nets", version: str = "1.2") -> None:
        install(folder, name, version, files, points)

    yield make
    plugins._origins.clear()
    plugins._origins.update(origins)
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(folder)):
            del sys.modules[module]


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Give a function that writes a file and names it as --code does."""

    def make(text: str, name: str = "my_net.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        own_code.use([path])
        return path

    yield make
    own_code.use(())
