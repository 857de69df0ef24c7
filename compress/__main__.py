"""Entry point of the command line; says in one line what the system, Python or installation lacks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from compress.process.signals import exit_on_signals


def main() -> None:
    """Run the command line."""
    if sys.platform == "win32":  # signals, file locks and processes of POSIX
        sys.exit("compress: Windows is supported through WSL only: run wsl --install, then install compress in there")
    if sys.version_info < (3, 11):
        sys.exit(f"compress: needs Python 3.11 to 3.13, this is {sys.version.split()[0]}; boards need a bundle only")
    missing = [name for name in ("rich_click", "pydantic", "yaml") if importlib.util.find_spec(name) is None]
    if missing:
        in_clone = (Path(__file__).parents[1] / "pyproject.toml").exists()
        package = "-e '.[host]'" if in_clone else "'compress-classifiers[host]'"
        sys.exit(f"compress: the command line needs {', '.join(missing)}: pip install {package}")
    with exit_on_signals():
        from compress.cli.main import main as run  # needs the packages that were just looked up

        run()


if __name__ == "__main__":
    main()
