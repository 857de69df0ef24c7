"""What benchmarks of many networks share: options, and rows that are stored as they come, so that a run continues."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from onnx_processes import Processes


class AnyRow(Protocol):
    """A data class with the result of one network."""

    network: str
    outcome: str


RowType = TypeVar("RowType", bound=AnyRow)


@dataclass(frozen=True)
class Table(Generic[RowType]):
    """How rows are read and printed."""

    row: Callable[..., RowType]
    header: str
    line: Callable[[RowType], str]


def parser_for(description: str, folder: Path, networks: Collection[str]) -> argparse.ArgumentParser:
    """Return a parser with the common options."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--networks", default=",".join(networks), help="names, separated by commas; default: all")
    parser.add_argument("--again", nargs="?", const="all", default="", metavar="NAMES",
                        help="repeat these networks or outcomes, separated by commas; alone: all")  # fmt: skip
    parser.add_argument("--folder", type=Path, default=folder, help="for results, files and logs")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="networks at the same time")
    parser.add_argument("--time-scale", type=float, default=1.0, help="factor of the limits of time, for busy machines")
    return parser


def parsed(parser: argparse.ArgumentParser, networks: Collection[str]) -> argparse.Namespace:
    """Return the options with the names as a list, and an existing folder; unknown names are an error."""
    options = parser.parse_args()
    options.networks, options.folder = options.networks.split(","), options.folder.resolve()
    unknown = sorted(set(options.networks) - set(networks))
    if unknown:
        parser.error(f"--networks: unknown {', '.join(unknown)}; choose from {', '.join(networks)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


def rows_of(
    options: argparse.Namespace, table: Table[RowType], measure: Callable[[str], RowType], processes: Processes
) -> list[RowType]:
    """Measure the networks that have no row, or that are to be repeated; print and return the rows of all."""
    results, lock = options.folder / "results.jsonl", threading.Lock()
    rows = read(results, table.row)
    due = [name for name in options.networks if _is_due(rows.get(name), options.again)]

    def add(name: str) -> None:
        row = measure(name)
        with lock:
            rows[name] = row
            with results.open("a") as stream:
                stream.write(json.dumps(_as_json(row)) + "\n")
            print(table.line(row), flush=True)

    print(table.header, flush=True)
    with ThreadPoolExecutor(options.workers) as pool:
        futures = [pool.submit(add, name) for name in due]
        try:
            for future in futures:
                future.result()
        except BaseException:
            processes.stop()
            pool.shutdown(cancel_futures=True)
            raise
    shown = [rows[name] for name in options.networks if name in rows]
    if len(due) < len(shown):
        print(f"\nwith the rows of earlier runs\n{table.header}")
        print("\n".join(table.line(row) for row in shown))
    return shown


def read(path: Path, row_type: Callable[..., RowType]) -> dict[str, RowType]:
    """Return the last row of each network; a line that a stop cut off is skipped."""
    rows = {}
    for text in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            row = row_type(**json.loads(text))
            rows[row.network] = row
    return rows


def stoppable(main: Callable[[], None]) -> None:
    """Run a benchmark; say after a signal that the same command continues."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(f"{Path(sys.argv[0]).stem}: stopped; the same command continues")


def _as_json(row: Any) -> dict[str, Any]:  # Any: a data class
    return asdict(row)


def _is_due(row: AnyRow | None, again: str) -> bool:
    return row is None or again == "all" or bool({row.outcome, row.network} & set(again.split(",")))
