"""Inventories of boards, and addresses on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.boards.inventory import Board, find_board
from runtimes.errors import InputError


def test_boards_by_address_and_by_name(tmp_path: Path) -> None:
    assert find_board("pi@10.0.0.7:2222", None) == Board(host="10.0.0.7", user="pi", port=2222)
    (tmp_path / "boards.yaml").write_text("orin: {host: 10.0.0.8, user: me, python: /opt/py/bin/python3}\n")
    assert find_board("orin", tmp_path / "boards.yaml").python == "/opt/py/bin/python3"
    with pytest.raises(InputError, match=r"'nano' is not a board.*has orin"):
        find_board("nano", tmp_path / "boards.yaml")
    (tmp_path / "bad.yaml").write_text("orin: {hots: 10.0.0.8}\npi: {host: x, port: many}\n")
    with pytest.raises(InputError) as caught:
        find_board("orin", tmp_path / "bad.yaml")
    assert len(str(caught.value).splitlines()) >= 3
    assert f"{tmp_path / 'bad.yaml'}: orin.hots" in str(caught.value)


@pytest.mark.parametrize(("inventory", "message"), [
    ("orin: 3", "orin: must be a mapping, for example {host: 10.0.0.8, user: me}"),
    ("orin: {host: a, port: 99999}", "orin.port: must be less than or equal to 65535, not 99999"),
    ("orin: {host: a, shell: bash}", "orin.shell: unknown key; choose from folder, host, identity, port, python, user"),
    ("orin: {}", "orin.host: is required"),
])  # fmt: skip
def test_what_is_wrong_in_an_inventory_is_named(tmp_path: Path, inventory: str, message: str) -> None:
    path = tmp_path / "boards.yaml"
    path.write_text(inventory)
    with pytest.raises(InputError) as caught:
        find_board("orin", path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("name", ["me@host:0", "me@host:70000", "me@host:x", "@host", "me@", "host"])
def test_what_is_no_address_is_told(name: str) -> None:
    with pytest.raises(InputError, match="is not a board: give user@host or user@host:port"):
        find_board(name, None)
