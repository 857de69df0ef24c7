"""What a board does with a bundle: `python run.pyz doctor | verify | bench | predict IMAGE …`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtimes import environment
from runtimes.console import SilentConsole
from runtimes.errors import CompressError, InputError, UnavailableError
from runtimes.target import runtime_names

OLDEST_PYTHON = (3, 10)
LABELS_SHOWN = 5


class _ErrorConsole(SilentConsole):
    """Console that writes messages to standard error and shows no progress."""

    def say(self, line: str) -> None:
        """Write one line."""
        print(line, file=sys.stderr)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 it could not or the answers are not the same, 2 something given is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return
    try:
        if given.command is not _doctor and importlib.util.find_spec("numpy") is None:
            raise UnavailableError("needs numpy: pip install numpy")
        given.command(given)
    except CompressError as error:
        print(f"run.pyz: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("run.pyz", description="Run, check and measure the model beside this file.")
    parser.set_defaults(command=None)
    here = Path(sys.argv[0]).resolve().parent
    commands = parser.add_subparsers(title="commands")
    for name, command, about in (
        ("doctor", _doctor, "say what this machine has, and what is missing"),
        ("verify", _verify, "compare all files' sha256 and the answers with those where the bundle was made"),
        ("bench", _bench, "measure latency, and accuracy on the sample"),
        ("predict", _predict, "print labels and probabilities of images"),
    ):
        sub = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        sub.set_defaults(command=command)
        if command is not _doctor:
            sub.add_argument("--bundle", type=Path, default=here, help="folder of bundle.json; that of this file")
            sub.add_argument("--threads", type=int, help="another number than the target's")
        if command in (_verify, _bench):
            sub.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
        if command is _predict:
            sub.add_argument("images", nargs="+", type=Path, metavar="IMAGE",
                             help="a picture (needs Pillow), or .npy with uint8 (height, width, 3)")  # fmt: skip
    return parser


def _doctor(given: argparse.Namespace) -> None:
    machine = environment.describe()
    lines = [
        ("python", machine.python),
        ("system", machine.system),
        ("processor", f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB"),
        ("instruction set", machine.instruction_set),
        ("numpy", machine.versions.get("numpy", "missing: pip install numpy")),
    ]
    if "numpy" in machine.versions:  # without it no runtime can be asked for its package
        lines += _runtimes()
    pillow = importlib.util.find_spec("PIL") is not None
    lines.append(("pictures", "decoded with Pillow" if pillow else "only .npy; for files: pip install pillow"))
    for subject, finding in lines:
        print(f"{subject:<18} {finding}")


def _runtimes() -> Iterator[tuple[str, str]]:
    from runtimes.session import package_of

    for name in runtime_names():
        package = package_of(name)
        if package is not None:
            found = environment.package_versions((package,))
            yield f"runtime {name}", f"{package} {found[package]}" if found else f"missing: {package}"


def _verify(given: argparse.Namespace) -> None:
    from runtimes import bundle

    opened = _opened(given)
    found = bundle.verify(opened)
    if given.json:
        _write(given.json, bundle.to_json(found))
    print(f"all files are as they were bundled; {opened.artifact.path.name} on {opened.target.runtime}:")
    print(f"top-1 agreement {found.agreement:.4f} on {found.images} images, largest logit difference "
          f"{found.max_logit_difference:.3g} (allowed {found.allowed_difference:.3g})")  # fmt: skip
    if found.undecided:
        print(f"{found.undecided} images were too near to call where the bundle was made")
    bundle.require_passed(found)
    print("verified")


def _bench(given: argparse.Namespace) -> None:
    from runtimes import bundle, conditions
    from runtimes.clock import Timing
    from runtimes.measure import measure

    opened = _opened(given)
    bundle.require_kernels(opened)
    (found,) = measure([opened.artifact], opened.target, opened.sample, Timing(), SilentConsole())
    if given.json:
        _write(given.json, found.to_json())
    print(f"{opened.artifact.path.name} on {opened.target.runtime}, {opened.target.threads} threads, "
          f"batch {opened.target.batch}")  # fmt: skip
    for name, value in (("p50", found.latency_ms_p50), ("p90", found.latency_ms_p90), ("p99", found.latency_ms_p99)):
        print(f"{name:<10} {'-' if value is None else f'{value:.3f}':>10} ms")
    if found.device_ms_p50 is not None:
        print(f"{'on device':<10} {found.device_ms_p50:>10.3f} ms of p50, by CUDA events; the rest is the launch")
    print(f"{'speed':<10} {found.throughput_images_per_s:>10.1f} images/s")
    if found.accuracy:
        print(f"{'top-1':<10} {100 * found.accuracy.top1:>10.2f} % of {found.accuracy.images} sample images")
    for line in conditions.lines([found]):
        print(line)


def _predict(given: argparse.Namespace) -> None:
    import numpy as np

    from runtimes import bundle, images
    from runtimes.session import load

    opened = _opened(given)
    bundle.require_kernels(opened)
    manifest = opened.artifact.manifest
    session = load(opened.artifact, opened.target)
    try:
        for path in given.images:
            pixels = images.read(path, manifest.preprocessing)[None]
            batch = np.repeat(pixels, opened.target.batch, axis=0)
            logits = manifest.logits(session.run(manifest.prepare(batch))[:1])[0].astype(np.float64)
            shares = np.exp(logits - logits.max())
            shares /= shares.sum()
            best = np.argsort(-shares, kind="stable")[:LABELS_SHOWN]
            print(f"{path}: " + ", ".join(f"{manifest.labels[one]} {100 * shares[one]:.1f} %" for one in best))
    finally:
        session.close()


def _opened(given: argparse.Namespace) -> Any:
    from dataclasses import replace

    from runtimes import bundle

    opened = bundle.load(given.bundle)
    try:
        opened = replace(opened, target=replace(opened.target, threads=given.threads or opened.target.threads))
    except ValueError as error:
        raise InputError(f"--threads: {error}") from error
    return bundle.with_engine(opened, _ErrorConsole())


def _write(path: Path, content: dict[str, Any]) -> None:
    from runtimes.files import write_text

    write_text(path, json.dumps(content, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
