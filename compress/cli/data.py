"""The commands `compress data …`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import rich_click as click

from compress.images import checks, shards
from compress.process.console import Terminal
from compress.process.table import print_table
from compress.recipe import named_data, plugins

LISTED = 20  # names of a kind that are printed


@click.group("data")
def data() -> None:
    """Check data sets and copy them into shards.

    Example: compress data check /data/imagenet
    """


@data.command()
@click.argument("root", metavar="ROOT|NAME:ROOT")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, with the count of every class.")
def check(root: str, as_json: bool) -> None:
    """Decode every image; count classes, unreadable and CMYK images, and what is in a wrong place.

    ROOT is an ImageNet: its folders, official tar files or shards. Other data sets are named, as in
    imagefolder:/data/flowers.

    Example: compress data check /data/imagenet
    """
    with Terminal() as terminal:
        found = checks.inspect(_contents(root), terminal)
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    for table in checks.tables(found):
        print_table(table)
    _print_names("in a wrong place", found.problems)
    _print_names("unreadable, set aside in a run", tuple(f"{name}: {reason}" for name, reason in found.unreadable))
    _print_names("CMYK, read as RGB", found.cmyk)


@data.command()
@click.argument("root")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--images-per-shard", default=2000, show_default=True, type=click.IntRange(1, 1_000_000))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the order.")
def shard(root: str, out: Path, images_per_shard: int, seed: int) -> None:
    """Copy an ImageNet into WebDataset shards, unchanged, in an order drawn by the seed; goes on where it stopped.

    Example: compress data shard /data/imagenet /data/shards
    """
    with Terminal() as terminal:
        counts = shards.write_shards(root, out, images_per_shard, seed, terminal)
    click.echo(f"wrote {', '.join(f'{count} shards of {split}' for split, count in counts.items())} to {out}")


def _contents(named: str) -> checks.Contents:
    """Return the data set `NAME:ROOT`, or the ImageNet in `ROOT`."""
    name, _, root = named.partition(":")
    if name not in plugins.names("data"):
        return checks.imagenet_contents(named)
    return checks.imagenet_contents(root) if name == "imagenet" else checks.contents(named_data.load(named))


def _print_names(title: str, lines: tuple[str, ...]) -> None:
    click.echo(f"{title}: {len(lines) or 'none'}")
    for line in lines[:LISTED]:
        click.echo(f"  {line}")
    if len(lines) > LISTED:
        click.echo(f"  … and {len(lines) - LISTED} more; all with --json")
