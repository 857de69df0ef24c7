"""The entry point: says what to install where only the board's part is there."""

from __future__ import annotations

import importlib.util
import sys

from compress.process.signals import one_line_when_asked_to_end


def main() -> None:
    """Run the command line."""
    missing = [name for name in ("rich_click", "pydantic", "yaml") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"compress: the command line needs {', '.join(missing)}: pip install -e '.[host]'")
    with one_line_when_asked_to_end():
        from compress.cli.main import main as run

        run()


if __name__ == "__main__":
    main()
