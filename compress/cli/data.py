"""The commands data check and data shard."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import rich_click as click

from compress.cli import outputs
from compress.cli.parameters import quiet_option
from compress.images import checks, shards
from compress.images.imagenet_layout import looks_like_imagenet
from compress.process.console import Terminal
from compress.process.table import print_table
from compress.recipe import named_data, plugins

MAX_NAMES = 20  # printed per kind


@click.group("data")
def data() -> None:
    """Check data sets and copy them into shards.

    Example: compress data check /data/imagenet
    """


@data.command()
@click.argument("root", metavar="ROOT|NAME:ROOT")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, with the count of every class.")
@quiet_option
def check(root: str, as_json: bool, quiet: bool) -> None:
    """Decode every image and count classes, faulty images and files that are left out.

    Faulty images are unreadable, in CMYK or in the wrong place; copies of test images in other splits, equal images in
    two classes, and images that look like one of another split. Files left by other tools, in other formats or behind
    broken links are left out; they are counted by reason, with an example.

    ROOT is a folder of images, with one folder per class or with train, val and test, or an ImageNet in folders, in the
    official tar files or in shards. NAME:ROOT names the kind of data set itself, for example imagefolder:/data/flowers.

    Example: compress data check /data/flowers
    """
    with Terminal(quiet=quiet) as terminal:
        inspection = checks.inspect(_contents(root), terminal)
    if as_json:
        click.echo(json.dumps(asdict(inspection)))
        return
    for table in checks.tables(inspection):
        print_table(table)
    for note in inspection.notes():
        click.echo(note)
    _print_names("in the wrong place", inspection.problems)
    _print_pairs("unreadable, skipped in a run", inspection.unreadable)
    _print_names("CMYK, read as RGB", inspection.cmyk)
    _print_pairs("odd, read nevertheless", inspection.odd)
    _print_pairs("copies across splits, excluded in a run", inspection.copies)
    _print_names("equal images in different classes", inspection.contradictions)
    _print_names("test images that are copies of other test images", inspection.repeated)
    _print_names("warning: images that look like one of another split", inspection.similar)


@data.command()
@click.argument("root")
@click.argument("out", type=outputs.FOLDER)
@click.option("--images-per-shard", default=2000, show_default=True, type=click.IntRange(1, 1_000_000),
              help="Number of images in each shard.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the order.")
@quiet_option
def shard(root: str, out: Path, images_per_shard: int, seed: int, quiet: bool) -> None:
    """Copy an ImageNet into WebDataset shards, in random order.

    The bytes of the images are not changed. The same command resumes an interrupted copy.

    Example: compress data shard /data/imagenet /data/shards
    """
    with Terminal(quiet=quiet) as terminal:
        counts = shards.write_shards(root, out, images_per_shard, seed, terminal)
    click.echo(f"wrote {', '.join(f'{count} shards of {split}' for split, count in counts.items())} to {out}")


def _contents(named: str) -> checks.Contents:
    """Return the data set `NAME:ROOT`, or the ImageNet or the folder of images in `ROOT`."""
    name, _, root = named.partition(":")
    if name not in plugins.names("data"):
        name, root = "imagenet" if looks_like_imagenet(named) else "imagefolder", named
        named = f"{name}:{root}"
    return checks.imagenet_contents(root) if name == "imagenet" else checks.contents(named_data.load(named))


def _print_pairs(title: str, pairs: tuple[tuple[str, str], ...]) -> None:
    _print_names(title, tuple(f"{name}: {reason}" for name, reason in pairs))


def _print_names(title: str, lines: tuple[str, ...]) -> None:
    click.echo(f"{title}: {len(lines) or 'none'}")
    for line in lines[:MAX_NAMES]:
        click.echo(f"  {line}")
    if len(lines) > MAX_NAMES:
        click.echo(f"  … and {len(lines) - MAX_NAMES} more; --json prints all")
