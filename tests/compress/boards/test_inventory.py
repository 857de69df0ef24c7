"""Inventories of boards, and addresses on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.boards.inventory import Board, find_board, read
from runtimes.errors import InputError


def test_a_board_is_an_address_or_a_name_of_the_inventory(tmp_path: Path) -> None:
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
def test_each_problem_of_an_inventory_is_named(tmp_path: Path, inventory: str, message: str) -> None:
    path = tmp_path / "boards.yaml"
    path.write_text(inventory)
    with pytest.raises(InputError) as caught:
        find_board("orin", path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("name", ["me@host:0", "me@host:70000", "me@host:x", "@host", "me@", "host"])
def test_a_name_that_is_no_address_is_an_error(name: str) -> None:
    with pytest.raises(InputError, match="is not a board: give user@host or user@host:port"):
        find_board(name, None)


def test_the_boards_of_an_inventory_have_defaults(tmp_path: Path) -> None:
    path = tmp_path / "boards.yaml"
    path.write_text("pi: {host: 192.168.1.20}\n7: {host: b, port: 2222}\n")
    boards = read(path)
    assert list(boards) == ["pi", "7"]
    assert boards["pi"] == Board(host="192.168.1.20", user=None, port=22, python="python3", folder="compress-bundles")
    assert boards["7"].port == 2222


def test_a_missing_inventory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"boards\.yaml: no such file"):
        find_board("pi", tmp_path / "boards.yaml")


def test_a_name_of_the_inventory_comes_before_an_address(tmp_path: Path) -> None:
    path = tmp_path / "boards.yaml"
    path.write_text("me@lab: {host: 10.0.0.8}\n")
    assert find_board("me@lab", path).host == "10.0.0.8"
    assert find_board("me@other", path) == Board(host="other", user="me")
