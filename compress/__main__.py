"""Entry point of the command line; names missing packages of the host installation."""

from __future__ import annotations

import importlib.util
import sys

from compress.process.signals import exit_on_signals


def main() -> None:
    """Run the command line."""
    missing = [name for name in ("rich_click", "pydantic", "yaml") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"compress: the command line needs {', '.join(missing)}: pip install -e '.[host]'")
    with exit_on_signals():
        from compress.cli.main import main as run  # needs the packages that were just looked up

        run()


if __name__ == "__main__":
    main()
