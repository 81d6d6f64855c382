"""A YAML file is read as the library reads it, or refused in one line, however much it stands for."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import ConfigError
from pipeline.settings.schema import parse_settings
from pipeline.settings.yaml_file import check_yaml, read_yaml

LISTS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
MAPPINGS = "a0: &a0 {b: x}\n" + "".join(
    f"a{n}: &a{n} {{{', '.join(f'k{key}: *a{n - 1}' for key in range(10))}}}\n" for n in range(1, 12)
)
plain = st.none() | st.booleans() | st.integers() | st.text("abc: &*[]{}", max_size=5)


@given(
    st.dictionaries(
        st.text("ab", min_size=1), st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(plain, inner))
    )
)
def test_what_yaml_writes_is_accepted(content):
    check_yaml(yaml.safe_dump(content))


def test_anchors_stand_for_their_values(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &x {b: [1, 2]}\nc: *x\nd: {<<: *x, e: 3}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": {"b": [1, 2], "e": 3}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LISTS + "models: *a11", "line .: its anchors stand for over 100000 values"),
        (MAPPINGS + "models: *a11", "line .: its anchors stand for over 100000 values"),
        ("models: " + "[" * 5000 + "]" * 5000, "line 1: nested more than 50 levels deep"),
        ("models: " + "{a: " * 5000 + "}" * 5000, "line 1: nested more than 50 levels deep"),
        ("a: 1\nmodels: &m {a: *m}", "line 2: 'm' refers to what it is part of"),
        ("? [a]\n: b", "line 1: a list or mapping cannot be a key"),
        ("{a: {{b: 1}: 2}}", "line 1: a list or mapping cannot be a key"),
        ("a: 1\n\tb: 2", "line 2: found character"),
        ("a: {b: 1}\nc: 2\na: {d: 1}", "line 3: 'a' is there twice; correct it"),
        ("a:\n  b: 1\n  c: {b: 2}\n  b: 3", "line 4: 'b' is there twice; correct it"),
        (f"{'a' * 900}: 1\n{'a' * 900}: 2", "line 2: 'a{50}...' is there twice"),
        ("- a", "no keys at its top level"),
        (b"\x00\xff", "not UTF-8 text at byte 1; save it as UTF-8"),
        (b"a: \x00", ".*special characters are not allowed"),
    ],
)
def test_what_cannot_be_a_configuration_is_one_short_line(tmp_path, text, reason):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=f"config.yaml: {reason}") as caught:
        read_yaml(path)
    assert len(str(caught.value)) < 300


def test_a_wrong_value_is_shown_in_part():
    value = ["x"]
    for _ in range(30):
        value = [value, value]
    with pytest.raises(ConfigError, match="models: Input should be a valid dictionary, got") as caught:
        parse_settings({"models": value}, source="config.yaml")
    assert len(str(caught.value)) < 300
