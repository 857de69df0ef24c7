"""Command line of run.pyz on a board: `python run.pyz doctor | verify | bench | predict IMAGE …`."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from runtimes import environment
from runtimes.console import escape_unprintable
from runtimes.errors import CompressError, UnavailableError

COMMANDS = {
    "doctor": "print what this machine has and what is missing",
    "verify": "check the sha256 of all files, and compare the outputs with those of the machine that made the bundle",
    "bench": "measure latency, and accuracy on the sample",
    "predict": "print the most probable labels of images",
}


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit.

    The exit code is 0 on success, 1 where the command failed or the outputs differ, 2 for a wrong argument or file.
    """
    escape_unprintable()
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return
    try:
        if options.command == "doctor":
            _doctor()
        elif not _has("numpy"):
            raise UnavailableError("needs numpy: pip install numpy")
        else:
            from runtimes import board  # needs NumPy, which `doctor` reports as missing

            {"verify": board.verify, "bench": board.bench, "predict": board.predict}[options.command](options)
    except CompressError as error:
        print(f"run.pyz: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("run.pyz", description="Check, measure and run the model beside this file.")
    here = Path(sys.argv[0]).resolve().parent
    commands = parser.add_subparsers(title="commands", dest="command")
    for name, about in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        if name != "doctor":
            command.add_argument("--bundle", type=Path, default=here, metavar="FOLDER",
                                 help="folder with bundle.json; default: the folder of run.pyz")  # fmt: skip
            command.add_argument("--threads", type=int, metavar="N", help="number of threads; default: the target's")
        if name in ("verify", "bench"):
            command.add_argument("--json", type=Path, metavar="FILE", help="also write the result to this file")
        if name == "predict":
            command.add_argument("images", nargs="+", type=Path, metavar="IMAGE",
                                 help="an image file (needs Pillow) or .npy with uint8 (height, width, C)")  # fmt: skip
    return parser


def _doctor() -> None:
    """Print the machine's properties and the installed runtimes; works without NumPy."""
    machine = environment.describe()
    lines = [
        ("python", machine.python),
        ("system", machine.system),
        ("processor", f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB"),
        ("instruction set", machine.instruction_set),
        ("numpy", machine.versions.get("numpy", "missing: pip install numpy")),
    ]
    if _has("numpy"):
        from runtimes import board  # needs NumPy, which `doctor` reports as missing

        lines += board.runtimes_here()
    lines.append(
        ("pictures", "decoded with Pillow" if _has("PIL") else "only .npy; for image files: pip install pillow")
    )
    for subject, finding in lines:
        print(f"{subject:<18} {finding}")


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


if __name__ == "__main__":
    main()
