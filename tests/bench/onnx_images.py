"""Images of `bench_onnx.py`, each set with calibration and evaluation images.

cells: the images of the package elpv-dataset in four classes: mono or poly, and busbars across or, in the half that is
turned, upright. Any network learns these in a minute, with clear answers. Whether a cell is defective is harder: after
a short training, 6 % of the answers change with noise of 22 dB (with random weights, more), which says nothing about
INT8.
photographs: those of the folder $PHOTOS, without labels. faces: those of $FACES, which show people; by default $PHOTOS.
lines, pages: text without labels, drawn with Pillow's font and those of DejaVu that are installed, in several sizes and
colours, on noisy paper, on photographs as paper, and a little turned; lines also upside down, pages in all four
orientations.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx_networks import ROOT, Domain, images_name
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from compress.data import elpv
from compress.images.samples import Sample
from runtimes.errors import UnavailableError
from runtimes.files import replacing

CALIBRATION_IMAGES, DRAWN_IMAGES = 96, 384
TYPES = ("mono", "poly")
PHOTOS = Path(os.environ.get("PHOTOS") or ROOT / "../shared/natural")
FACES = Path(os.environ.get("FACES") or PHOTOS)
MIN_PHOTOS = 80
WORDS = """
    quantize network image value layer weight small fast edge board report page line text north south river house green
    paper light stone seven Total 2026 No. 14.50 (a) Invoice DATE
""".split()  # noqa: SIM905  # a list would take thirty lines
FONTS = sorted(Path("/usr/share/fonts").glob("**/DejaVu*.ttf"))  # beside Pillow's own

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Images:
    """Images of one size. calibration: folder of PNG files. judged, train: uint8 (N, H, W, 3).

    labels, train_labels: (N,), None for images without classes.
    """

    calibration: Path
    judged: Pixels
    labels: npt.NDArray[np.int64] | None = None
    train: Pixels | None = None
    train_labels: npt.NDArray[np.int64] | None = None


def images(folder: Path, domain: Domain, size: tuple[int, int]) -> Images:
    """Return the images of a domain, written below `folder` on first use; raise UnavailableError without any."""
    place = folder / images_name(domain, size)
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place):
        if not (place / "judged.npy").exists():
            _write_cells(place, size) if domain == "cells" else _write_unlabelled(place, domain, size)
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in place.glob("*.npy")}
    return Images(place / "calibration", **arrays)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _write_cells(folder: Path, size: tuple[int, int]) -> None:
    data = elpv.load(elpv.Config())
    types = _types(data.train[0])
    for name, samples in (("train", data.train), ("judged", data.test)):
        turned = np.random.default_rng(len(samples)).permutation(len(samples)) % 2
        pixels = np.stack([_cell(sample, size, int(turn)) for sample, turn in zip(samples, turned, strict=True)])
        labels = np.array([types[sample.name] * 2 for sample in samples]) + turned
        if name == "train":
            _write_calibration(folder, pixels)
        _write(folder / ("labels.npy" if name == "judged" else "train_labels.npy"), labels)
        _write(folder / f"{name}.npy", pixels)  # judged.npy is last and marks the set as complete


def _types(sample: Sample) -> dict[str, int]:
    """Return the type of each cell of the data set that a sample is in: 0 for mono, 1 for poly."""
    assert isinstance(sample.source, Path)
    root = sample.source.parents[len(Path(sample.name).parts) - 1]
    lines = (line.split() for line in (root / "labels.csv").read_text().splitlines() if line.strip())
    return {name: TYPES.index(kind) for name, _, kind in lines}


def _cell(sample: Sample, size: tuple[int, int], turns: int) -> Pixels:
    assert isinstance(sample.source, Path)
    image = Image.open(sample.source).convert("RGB").resize(size[::-1], Image.Resampling.BOX)
    return np.rot90(np.asarray(image), turns)


def _write_unlabelled(folder: Path, domain: Domain, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    if domain in ("photographs", "faces"):
        opened = _photographs(PHOTOS if domain == "photographs" else FACES)
        pixels = np.stack([np.asarray(opened[index].resize(size[::-1], Image.Resampling.BILINEAR))
                           for index in rng.permutation(len(opened))])  # fmt: skip
    else:
        draw, papers = (_line if domain == "lines" else _page), _papers(size)
        pixels = np.stack([np.asarray(draw(rng, papers, size)) for _ in range(DRAWN_IMAGES)])
    count = min(CALIBRATION_IMAGES, len(pixels) // 2)
    _write_calibration(folder, pixels[:count])
    _write(folder / "judged.npy", pixels[count:])


def _photographs(folder: Path) -> list[Image.Image]:
    paths = sorted(folder.glob("*.jpg"))
    if len(paths) < MIN_PHOTOS:
        raise UnavailableError(
            f"{folder}: has {len(paths)} photographs; set PHOTOS or FACES to a folder of {MIN_PHOTOS}"
        )
    return [Image.open(path).convert("RGB") for path in paths]


def _papers(size: tuple[int, int]) -> list[Pixels]:
    """Return photographs as light as paper; none without a folder of photographs."""
    side = max(size)
    papers = (Image.open(path).convert("RGB").resize((side, side)) for path in sorted(PHOTOS.glob("*.jpg"))[:60])
    return [(170 + np.asarray(paper)[: size[0], : size[1]].astype(np.float32) / 3).astype(np.uint8) for paper in papers]


def _line(rng: np.random.Generator, papers: list[Pixels], size: tuple[int, int]) -> Image.Image:
    """Draw a line of text, half of them upside down."""
    text, font = " ".join(rng.choice(WORDS, 3)), _font(rng, int(size[0] * rng.uniform(0.4, 0.75)))
    image, colour = _paper(rng, papers, size)
    ImageDraw.Draw(image).text((rng.integers(2, 12), size[0] // 2), text, colour, font, anchor="lm")
    return _aged(rng, image, 2.0).rotate(180 * int(rng.integers(2)))


def _page(rng: np.random.Generator, papers: list[Pixels], size: tuple[int, int]) -> Image.Image:
    """Draw lines of text, turned by a multiple of 90 degrees."""
    height = int(size[0] * rng.uniform(0.05, 0.12))
    image, colour = _paper(rng, papers, size)
    font, top = _font(rng, height), int(rng.integers(4, 20))
    while top < size[0] - height:
        words = rng.choice(WORDS, int(rng.integers(3, 9)))  # lines of a paragraph end at different places
        ImageDraw.Draw(image).text((10, top), " ".join(words), colour, font)
        top += int(height * rng.choice((1.4, 1.4, 1.4, 2.6)))
    return _aged(rng, image, 3.0).rotate(90 * int(rng.integers(4)))


def _font(rng: np.random.Generator, height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    index = int(rng.integers(len(FONTS) + 1))
    return ImageFont.truetype(FONTS[index], height) if index < len(FONTS) else ImageFont.load_default(height)


def _paper(
    rng: np.random.Generator, papers: list[Pixels], size: tuple[int, int]
) -> tuple[Image.Image, tuple[int, ...]]:
    """Return paper, a third of them photographs, and the colour of its ink."""
    colour = tuple(int(part) for part in rng.integers(0, 90, 3))
    if papers and rng.random() < 1 / 3:
        return Image.fromarray(papers[int(rng.integers(len(papers)))].copy()), colour
    return Image.fromarray(np.full((*size, 3), rng.integers(170, 250, 3), np.uint8)), colour


def _aged(rng: np.random.Generator, image: Image.Image, degrees: float) -> Image.Image:
    """Turn a little, blur half of the images, add noise."""
    corner = image.getpixel((0, 0))
    image = image.rotate(rng.uniform(-degrees, degrees), Image.Resampling.BILINEAR, fillcolor=corner)
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    values = np.asarray(image).astype(np.float32) + rng.normal(0, rng.uniform(0, 10), (*image.size[::-1], 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _write_calibration(folder: Path, pixels: Pixels) -> None:
    (folder / "calibration").mkdir(exist_ok=True)
    for index in np.linspace(0, len(pixels) - 1, CALIBRATION_IMAGES).astype(int):
        Image.fromarray(pixels[index]).save(folder / "calibration" / f"{index:04}.png")


def _write(path: Path, array: npt.NDArray[np.generic]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)


if __name__ == "__main__":  # onnx_images.py FOLDER DOMAIN HEIGHT WIDTH
    try:
        images(Path(sys.argv[1]), sys.argv[2], (int(sys.argv[3]), int(sys.argv[4])))  # type: ignore[arg-type]
    except UnavailableError as error:
        sys.exit(str(error))
