from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compress.recipe import strict_yaml
from runtimes.errors import InputError

text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text
contents = st.dictionaries(
    text,
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=12
    ),
    max_size=5,
)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file that Hypothesis may write again and again."""
    return tmp_path_factory.mktemp("yaml") / "r.yaml"


def read(path: Path, content: str | bytes) -> dict[Any, Any]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return strict_yaml.read(path)


@settings(max_examples=150)
@given(content=contents)
def test_what_yaml_writes_is_read_back(scratch: Path, content: dict[str, Any]) -> None:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    assert read(scratch, yaml.dump(content, Dumper=Plain, allow_unicode=True)) == content


@settings(max_examples=300)
@given(content=st.text("ab1 \n:-?![]{}&*#|>'\"%@,\t.~=<", max_size=30))
@example("? [a]\n: 1\n")
def test_any_text_is_a_mapping_or_an_input_error(scratch: Path, content: str) -> None:
    try:
        result: Any = read(scratch, content)
    except InputError as error:
        result = str(error)
    assert isinstance(result, dict) or (result.startswith(f"{scratch}: ") and "\n" not in result)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "not valid YAML in line 3: duplicate key 'a'"),
        ("x:\n  - {c: 1, d: 2, c: 3}\n", "not valid YAML in line 2: duplicate key 'c'"),
        ("a: &one [1]\nb: *one\n", "not valid YAML in line 2: aliases (*name) are not allowed"),
        ("a: &one {x: 1}\nb:\n  <<: *one\n", "not valid YAML in line 3: aliases (*name) are not allowed"),
        (
            "a: 1\nb: !!python/object/apply:os.system [ls]\n",
            "not valid YAML in line 2: tags (!name) are not allowed",
        ),
        ("a: !secret 1\n", "not valid YAML in line 1: tags (!name) are not allowed"),
        ("a: 1\n\tb: 2\n", "not valid YAML in line 2: found character '\\t' that cannot start any token"),
        ("a: [1\nb: 2\n", "not valid YAML in line 2: expected ',' or ']', but got ':'"),
        ("a: 1\n---\nb: 2\n", "not valid YAML in line 2: but found another document"),
        ("a: " + "[" * 5000, "not valid YAML: maximum recursion depth exceeded"),
        ("", "must be a mapping of keys to values; see: compress list recipes"),
        ("- a\n", "must be a mapping of keys to values; see: compress list recipes"),
        ("just words", "must be a mapping of keys to values; see: compress list recipes"),
        ("a: 1\n" + "#" * (1 << 20), "larger than 1 MiB; see: compress list recipes"),
    ],
)
def test_a_problem_is_reported_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path / "r.yaml", content)
    assert str(caught.value).startswith(f"{tmp_path}/r.yaml: {message}")


def test_a_tag_with_code_is_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    with pytest.raises(InputError):
        read(
            tmp_path / "r.yaml",
            f"a: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{marker}']]",
        )
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        "? [a, b]\n: 1\n",
        "a: {[b]: 1}\n",
        "a: !!map [b]\n",
        "a: !!bool maybe\n",
        "a: !!str 1\n",
        "a: !!binary aGk=\n",
    ],
)
def test_keys_that_are_no_scalars_and_tags_are_refused_with_the_line(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="line 1"):
        read(tmp_path / "r.yaml", content)


def test_a_file_that_is_no_text_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"r\.yaml: can't be read as UTF-8 text \("):
        read(tmp_path / "r.yaml", b"name: \xe9\n")


def test_a_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, not a file"):
        strict_yaml.read(tmp_path)


def test_a_missing_file_points_to_the_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^.*none\.yaml: no such file; see: compress list recipes$"):
        strict_yaml.read(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"^.*none\.yaml: no such file; see: compress list sweeps$"):
        strict_yaml.read(tmp_path / "none.yaml", "sweeps")


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("a.b=2", {"a": {"b": 2}, "list": [{"c": 1}, 5]}),
        ("a=null", {"a": None, "list": [{"c": 1}, 5]}),
        ("a=", {"a": None, "list": [{"c": 1}, 5]}),
        ("a=x=y", {"a": "x=y", "list": [{"c": 1}, 5]}),
        ("new.deep.key=[1, two]", {"a": {"b": 1}, "list": [{"c": 1}, 5], "new": {"deep": {"key": [1, "two"]}}}),
        ("list.0.c=true", {"a": {"b": 1}, "list": [{"c": True}, 5]}),
        ("list.1={d: 1}", {"a": {"b": 1}, "list": [{"c": 1}, {"d": 1}]}),
        ("list=[]", {"a": {"b": 1}, "list": []}),
    ],
)
def test_an_assignment_changes_one_value(assignment: str, expected: dict[str, Any]) -> None:
    content: dict[Any, Any] = {"a": {"b": 1}, "list": [{"c": 1}, 5]}
    strict_yaml.override(content, assignment)
    assert content == expected


def test_an_assignment_removes_the_other_name_of_the_key() -> None:
    content: dict[Any, Any] = {"quantize": {"method": "compress", "images": 3}}
    strict_yaml.override(content, "quantize.engine=nncf", "method")
    assert content == {"quantize": {"engine": "nncf", "images": 3}}


def test_an_assignment_makes_a_section_that_was_null() -> None:
    content: dict[Any, Any] = {"quantize": None}
    strict_yaml.override(content, "quantize.method=nncf")
    assert content == {"quantize": {"method": "nncf"}}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a", "must be key=value, for example --set stages.0.epochs=3"),
        ("=1", "must be key=value, for example --set stages.0.epochs=3"),
        ("list.2=1", "'2' must be an index from 0 to 1"),
        ("list.2.c=1", "'2' must be an index from 0 to 1"),
        ("list.-1=1", "'-1' must be an index from 0 to 1"),
        ("list.first=1", "'first' must be an index from 0 to 1"),
        ("list.²=1", "'²' must be an index from 0 to 1"),
        ("list.99999999=1", "'99999999' must be an index from 0 to 1"),
        ("a.b.c=1", "the value 1 has no key 'c'"),
        ("list.1.x=1", "the value 5 has no key 'x'"),
        ("a=[1", "not valid YAML in line 1: expected ',' or ']', but got '<stream end>'"),
        ("a=*b", "not valid YAML in line 1: aliases (*name) are not allowed"),
        ("a={b: 1, b: 2}", "not valid YAML in line 1: duplicate key 'b'"),
    ],
)
def test_a_wrong_assignment_is_quoted(assignment: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        strict_yaml.override({"a": {"b": 1}, "list": [{"c": 1}, 5]}, assignment)
    assert str(caught.value) == f"--set {assignment}: {message}"


def test_an_index_into_an_empty_list_is_not_offered_one() -> None:
    with pytest.raises(InputError) as caught:
        strict_yaml.override({"stages": []}, "stages.0.epochs=1")
    assert "-1" not in str(caught.value)
