"""List the images in folders; count the files that are left out."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from compress.images.samples import LeftOut
from runtimes.errors import InputError
from runtimes.files import printable
from runtimes.images import extension_of, is_image

# In lower case; besides these, all names that begin with a dot belong to tools.
TOOL_FOLDERS = frozenset({
    "#recycle", "#snapshot", "$recycle.bin", "@__thumb", "@eadir", "@recently-snapshot", "@recycle", "@tmp", "__macosx",
    "__pycache__", "_gsdata_", "_thumbnails", "_thumbs", "lost+found", "network trash folder", "recycler",
    "system volume information", "temporary items", "thumbnails", "~snapshot",
})  # fmt: skip
TOOL_FILES = frozenset({"desktop.ini", "ehthumbs.db", "ehthumbs_vista.db", "picasa.ini", "thumbs.db"})
MAX_REASONS = 20
MAX_COUNTED = 100_000  # files in a folder that is left out

HIDDEN = "hidden, or written by another tool"
BROKEN_LINK = "broken link"
READ_ALREADY = "link to a folder that contains it or is read already"
SPECIAL = "neither a file nor a folder"
OUTSIDE = "image outside the class folders"
NO_EXTENSION = "no extension"

Entry = os.DirEntry[str]
FolderId = tuple[int, int]  # device and inode, the same through all links


class LeftOutFiles:
    """Count of the files that are left out, by reason, with an example of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str, path: str | Path, count: int = 1) -> None:
        """Count files; `path` is one of them."""
        if count:
            self._counts[reason] += count
            self._examples.setdefault(reason, printable(str(path)))

    def update(self, other: LeftOutFiles) -> None:
        """Add the counts of another object."""
        for files in other.all():
            self.add(files.reason, files.example, files.count)

    def all(self) -> tuple[LeftOut, ...]:
        """Return the reasons by descending count; beyond 20, the last one stands for all others."""
        rows = [LeftOut(reason, count, self._examples[reason]) for reason, count in self._counts.most_common()]
        rest = rows[MAX_REASONS:]
        others = [LeftOut("other reasons", sum(row.count for row in rest), rest[0].example)] if rest else []
        return (*rows[:MAX_REASONS], *others)


@dataclass(frozen=True)
class Listing:
    """Folders and images directly in a folder, sorted by name; `left_out` counts everything else."""

    folders: list[Entry]
    images: list[Entry]


class FolderWalk:
    """Reads each folder below `root` once, through links too.

    A link to a folder that was read already is left out, which also ends circles; InputError if a folder belongs to two
    owners, such as two classes.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # not resolved: names follow the links
        self.left_out = LeftOutFiles()
        self.top = listing(str(self.root), self.left_out)
        parents = (self.root, *self.root.resolve().parents)
        self._named: dict[str, str] = {}
        self._owners: dict[FolderId, tuple[str, str]] = {_identity(str(path)): ("", str(path)) for path in parents}

    def images(self, folder: Entry, owner: str, left_out: LeftOutFiles) -> Iterator[str]:
        """Yield the paths of all images in a folder of `top` and its sub-folders, sorted by name."""
        entered = [iter(self._enter(folder, owner, left_out))]
        while entered:
            entry = next(entered[-1], None)
            if entry is None:
                entered.pop()
            elif entry.is_dir():
                entered.append(iter(self._enter(entry, owner, left_out)))
            else:
                yield entry.path

    def all_images(self) -> Iterator[str]:
        """Yield the paths of all images in `root` and its sub-folders, sorted by name."""
        for entry in sorted((*self.top.folders, *self.top.images), key=lambda entry: entry.name):
            if entry.is_dir():
                yield from self.images(entry, "", self.left_out)
            else:
                yield entry.path

    def name(self, path: str) -> str:
        """Return the path relative to `root`, with slashes and in NFC; numbered if another file has that name."""
        relative = path[len(str(self.root)) :].lstrip(os.sep).replace(os.sep, "/")
        if relative.isascii():
            return relative
        composed = in_nfc(relative)
        numbered = (f"{composed} ({number})" for number in count(2))
        return next(name for name in chain([composed], numbered) if self._named.setdefault(name, path) == path)

    def _enter(self, folder: Entry, owner: str, left_out: LeftOutFiles) -> list[Entry]:
        first_owner, first_path = self._owners.setdefault(_identity(folder.path), (owner, folder.path))
        if first_path == folder.path:
            inside = listing(folder.path, left_out)
            return sorted((*inside.folders, *inside.images), key=lambda entry: entry.name)
        if first_owner not in ("", owner):
            raise InputError(
                f"{printable(first_path)} and {printable(folder.path)} are the same folder, so its images would belong "
                f"to '{first_owner}' and to '{owner}'; remove the link"
            )
        left_out.add(READ_ALREADY, folder.path)
        return []


def listing(folder: str, left_out: LeftOutFiles) -> Listing:
    """Return what is directly in a folder; raises InputError if it can't be read."""
    folders, images = [], []
    for entry in _entries(folder):
        is_folder = _is_folder(entry)
        if is_folder and is_tool_folder(entry.name):
            left_out.add(f"in {printable(entry.name)}, a folder of another tool", *count_files(entry.path))
        elif is_folder:
            folders.append(entry)
        elif reason := _why_not_image(entry):
            left_out.add(reason, entry.path)
        else:
            images.append(entry)
    return Listing(folders, images)


def require_whole_links(folder: Path) -> None:
    """Raise InputError for a broken link directly in a folder that may stand for a class or a split."""
    for entry in _entries(str(folder)):
        if not _is_folder(entry) and _why_not_image(entry) == BROKEN_LINK and not extension_of(entry.name):
            raise InputError(f"{printable(entry.path)}: is a broken link to {printable(os.readlink(entry.path))}; "
                             "repair or remove it")  # fmt: skip


def is_tool_folder(name: str) -> bool:
    """Return whether tools create folders of this name, so that its content is no part of a data set."""
    return name.startswith(".") or name.lower() in TOOL_FOLDERS


def count_files(folder: str | Path, used: Sequence[Path] = ()) -> tuple[str, int]:
    """Return the path of one of the files in a folder, and their number, or 100,000 if there are more.

    used: folders in it whose files are not counted.
    Links to folders are not followed: a folder of snapshots may hold all files of a disk many times. A link, and a
    folder that can't be read, count as one file.
    """
    folder = str(folder)
    example, total = folder, 0
    if os.path.islink(folder) or not os.access(folder, os.R_OK | os.X_OK):
        return folder, 1
    for parent, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if not any(_is_at(os.path.join(parent, name), path) for path in used)]
        if names and not total:
            example = os.path.join(parent, min(names))
        total += len(names)
        if total >= MAX_COUNTED:
            return example, MAX_COUNTED
    return example, total


def _is_at(folder: str, path: Path) -> bool:
    """Return whether a folder is the one at a path."""
    return os.path.samefile(folder, path) if os.path.exists(folder) else False


def sub_folders(folder: Entry) -> list[str]:
    """Return the names of the folders directly in a folder, in NFC."""
    entries = _entries(folder.path)
    return sorted(in_nfc(entry.name) for entry in entries if _is_folder(entry) and not is_tool_folder(entry.name))


def has_images(folder: Entry) -> bool:
    """Return whether there are images directly in a folder."""
    return any(not _is_folder(entry) and _why_not_image(entry) is None for entry in _entries(folder.path))


def in_nfc(name: str) -> str:
    """Return the composed Unicode form of a name, which macOS writes decomposed, as text that can be printed."""
    return unicodedata.normalize("NFC", printable(name))


def _entries(folder: str) -> list[Entry]:
    """Return what is in a folder, sorted by name; raises InputError if it can't be read."""
    try:
        with os.scandir(folder) as scan:
            return sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{printable(folder)}: can't be read ({error.strerror or error})") from error


def _is_folder(entry: Entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # for example a link to itself
        return False


def why_no_image(name: str) -> str | None:
    """Return why a file of this name is left out, None for an image."""
    if name.startswith(".") or name.lower() in TOOL_FILES:
        return HIDDEN
    if is_image(name):
        return None
    extension = printable(extension_of(name))
    return f"extension {extension}, which can't be read as an image" if extension else NO_EXTENSION


def _why_not_image(entry: Entry) -> str | None:
    """Return why what is no folder is left out, None for an image."""
    reason = why_no_image(entry.name)
    if reason == HIDDEN:
        return reason
    try:
        is_file = entry.is_file()
    except OSError:
        is_file = False
    if not is_file:
        return BROKEN_LINK if entry.is_symlink() else SPECIAL
    return reason


def _identity(folder: str) -> FolderId:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
