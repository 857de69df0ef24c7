"""Commands of run.pyz that need NumPy: verify, bench and predict."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtimes import bundle, conditions, environment, images
from runtimes.bundle import Bundle
from runtimes.clock import Timing
from runtimes.console import SilentConsole
from runtimes.errors import InputError
from runtimes.files import Json, write_text
from runtimes.measure import infer, measure
from runtimes.preprocessing import Preprocessing
from runtimes.session import load, package_of
from runtimes.target import runtime_names

LABELS_SHOWN = 5


class ErrorConsole(SilentConsole):
    """Console that writes messages to standard error and shows no progress."""

    def say(self, line: str) -> None:
        """Write one line."""
        print(line, file=sys.stderr)


def runtimes_here() -> Iterator[tuple[str, str]]:
    """Yield for each runtime that needs a package a subject and the package's version, or that it is missing."""
    for name in runtime_names():
        package = package_of(name)
        if package is not None:
            versions = environment.package_versions((package,))
            yield f"runtime {name}", f"{package} {versions[package]}" if versions else f"missing: {package}"


def verify(options: argparse.Namespace) -> None:
    """Compare the outputs on the sample with the golden logits; raise CompressError where they differ too much."""
    opened = _open(options)
    verification = bundle.verify(opened)
    if options.json:
        _write(options.json, bundle.to_json(verification))
    print(f"all files are unchanged; {opened.artifact.path.name} on {opened.target.runtime}:")
    print(f"top-1 agreement {verification.agreement:.4f} on {verification.images} images, largest logit difference "
          f"{verification.max_logit_difference:.3g} (allowed {verification.allowed_difference:.3g})")  # fmt: skip
    if verification.undecided:
        print(f"{verification.undecided} images have two golden logits that are too close to tell the classes apart")
    bundle.require_passed(verification)
    print("verified")


def bench(options: argparse.Namespace) -> None:
    """Print latency and conditions of the measurement, and accuracy on the sample."""
    opened = _open(options)
    bundle.require_kernels(opened)
    (measurement,) = measure([opened.artifact], opened.target, opened.sample, Timing(), SilentConsole())
    if options.json:
        _write(options.json, measurement.to_json())
    print(f"{opened.artifact.path.name} on {opened.target.runtime}, {opened.target.threads} threads, "
          f"batch {opened.target.batch}")  # fmt: skip
    for name, latency_ms in (
        ("p50", measurement.latency_ms_p50), ("p90", measurement.latency_ms_p90), ("p99", measurement.latency_ms_p99)
    ):  # fmt: skip
        print(f"{name:<10} {'-' if latency_ms is None else f'{latency_ms:.3f}':>10} ms")
    if measurement.device_ms_p50 is not None:
        print(f"{'on device':<10} {measurement.device_ms_p50:>10.3f} ms of p50, by CUDA events; the rest is the launch")
    print(f"{'speed':<10} {measurement.throughput_images_per_s:>10.1f} images/s")
    if measurement.accuracy:
        accuracy = measurement.accuracy
        print(f"{'top-1':<10} {100 * accuracy.top1:>10.2f} % of {accuracy.images} sample images")
    for line in conditions.lines([measurement]):
        print(line)


def predict(options: argparse.Namespace) -> None:
    """Print the most probable labels of images; raise InputError at the end if some can't be read."""
    opened = _open(options)
    bundle.require_kernels(opened)
    manifest = opened.artifact.manifest
    session = load(opened.artifact, opened.target)
    unreadable: list[str] = []
    try:
        for path in options.images:
            try:
                pixels = _read(path, manifest.preprocessing)[None]
            except images.UnreadableImageError as error:
                unreadable.append(str(error))
                continue
            logits = infer(session, opened.artifact, opened.target, pixels)[0].astype(np.float64)
            probabilities = np.exp(logits - logits.max())
            probabilities /= probabilities.sum()
            best = np.argsort(-probabilities, kind="stable")[:LABELS_SHOWN]
            print(f"{path}: " + ", ".join(f"{manifest.labels[k]} {100 * probabilities[k]:.1f} %" for k in best))
    finally:
        session.close()
    if unreadable:
        more = f", and {len(unreadable) - 1} more of {len(options.images)} images" if len(unreadable) > 1 else ""
        raise InputError(f"{unreadable[0]}{more}")


def _read(path: Path, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    if path.is_dir():
        raise images.UnreadableImageError(f"{path}: is a folder; give the paths of images, as in {path}/*.jpg")
    return images.read(path, preprocessing)


def _open(options: argparse.Namespace) -> Bundle:
    """Open the bundle with the given number of threads; build its engine where the target needs one."""
    opened = bundle.load(options.bundle)
    try:
        threads = opened.target.threads if options.threads is None else options.threads
        opened = replace(opened, target=replace(opened.target, threads=threads))
    except ValueError as error:
        raise InputError(f"--threads: {error}") from error
    return bundle.with_engine(opened, ErrorConsole())


def _write(path: Path, content: Json) -> None:
    write_text(path, json.dumps(content, allow_nan=False) + "\n")
