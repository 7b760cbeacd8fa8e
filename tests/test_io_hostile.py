"""Files that are damaged, or made to do harm: every one is a FormatError, and quickly so."""

from __future__ import annotations

import hashlib
import io as bytes_io
import json
import pickle
import re
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnncore.errors import FormatError
from rnncore.io import load_tensors, save_tensors

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file_of(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """Put a file together; a header that is not bytes yet becomes JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def refuse(path: Path, content: bytes, match: str | None = None) -> None:
    path.write_bytes(content)
    before = time.monotonic()
    with pytest.raises(FormatError, match=match):
        load_tensors(path)
    assert time.monotonic() - before < 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.safetensors"


@pytest.fixture
def ours(path: Path) -> bytes:
    """Return a small file of ours, as bytes."""
    arrays = {"w": np.arange(6, dtype="float32").reshape(2, 3), "n": np.array([True, False])}
    save_tensors(path, arrays, {"step": "3"})
    return path.read_bytes()


def test_a_file_cut_at_any_byte_is_refused(path: Path, ours: bytes) -> None:
    for size in range(len(ours)):
        refuse(path, ours[:size])


def test_any_single_flipped_bit_is_found(path: Path, ours: bytes) -> None:
    for bit in range(8 * len(ours)):
        damaged = bytearray(ours)
        damaged[bit // 8] ^= 1 << (bit % 8)
        refuse(path, bytes(damaged))


def test_bytes_after_the_end_are_refused(path: Path, ours: bytes) -> None:
    refuse(path, ours + b"\0", match="the file has")


def test_the_digest_is_sha256_of_all_other_bytes(ours: bytes) -> None:
    found = re.search(rb'"rnncore.digest":"([0-9a-f]{64})"', ours)
    assert found is not None
    zeroed = ours[: found.start(1)] + b"0" * 64 + ours[found.end(1) :]
    assert hashlib.sha256(zeroed).hexdigest().encode() == found[1]


@pytest.mark.parametrize("size", [0, 1, 54, 55, 56, 63, 64, 65, 119, 1000])
def test_the_digest_is_right_at_every_block_boundary(path: Path, size: int) -> None:
    save_tensors(path, {"w": np.arange(size).astype("uint8")})
    test_the_digest_is_sha256_of_all_other_bytes(path.read_bytes())


@pytest.mark.parametrize("length", [0, 1, 7, 2**31, 2**63, 2**64 - 1, 100_000_001])
def test_a_wrong_header_length_is_refused(path: Path, length: int) -> None:
    refuse(path, file_of({"w": F32}, bytes(8), length=length))


def test_a_header_above_the_cap_is_refused_before_it_is_read(path: Path) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 200_000_000))
        file.truncate(300_000_000)  # sparse: no disk is used
    with pytest.raises(FormatError, match="at most 100000000"):
        load_tensors(path)


@pytest.mark.parametrize("spans", [[(0, 8), (4, 12)], [(0, 8), (12, 20)], [(8, 16)], [(8, 0)]])
def test_overlaps_holes_and_reversed_spans_are_refused(
    path: Path, spans: list[tuple[int, int]]
) -> None:
    header = {f"w{i}": F32 | {"data_offsets": list(span)} for i, span in enumerate(spans)}
    refuse(path, file_of(header, bytes(20)), match="expected to begin|the file has|shape and dtype")


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [3]},
        {"shape": [2**32, 2**32]},
        {"shape": [2**62, 4]},
        {"shape": [0, 2**62, 2**62]},
        {"shape": [-2]},
        {"shape": [2.0]},
        {"shape": ["2"]},
        {"shape": 2},
        {"shape": None},
        {"shape": [1] * 100 + [2]},
        {"shape": [True, 2]},
        {"dtype": "F64"},
        {"dtype": "O"},
        {"dtype": "f32"},
        {"dtype": None},
        {"dtype": "F8_E4M3"},
        {"data_offsets": [0]},
        {"data_offsets": [0, 8, 8]},
        {"data_offsets": [0, 2**64]},
        {"data_offsets": [0, 2**63]},
        {"data_offsets": [-8, 8]},
        {"data_offsets": [0, 16]},
        {"more": 1},
    ],
)
def test_a_tensor_that_cannot_be_is_refused(path: Path, change: dict[str, object]) -> None:
    path.write_bytes(file_of({"w": F32}, bytes(8)))
    assert load_tensors(path)[0]["w"].shape == (2,)
    refuse(path, file_of({"w": F32 | change}, bytes(8)))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"}",
        b"{}x",
        b" {}",
        b"{,}",
        b'{"a"}',
        b"{'a': 1}",
        b'{"a": {}}',
        b'{"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},}',
        b'{"a": {"dtype": "F32", "shape": [00], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [0e0], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0], "shape": [0]}}',
        b'{"__metadata__": {"a": 1}}',
        b'{"__metadata__": {"a": "1", "a": "2"}}',
        b'{"__metadata__": []}',
        b'{"__metadata__": {"a": "\x01"}}',
        b'{"__metadata__": {"a": "\\x41"}}',
        b'{"__metadata__": {"a": "\\ud800"}}',
        b'{"__metadata__": {"a": "\\ud800\\u0041"}}',
        b'{"__metadata__": {"a": "\\udc00"}}',
        b'{"__metadata__": {"a": "\\u00g0"}}',
        b'{"__metadata__": {"a": "',
        b'{"__metadata__": {"a": "\\',
        b'{"__metadata__": {"rnncore.digest": "0"}}',
        b'{"__metadata__": {"rnncore.format": "1"}}',
        b'{"__metadata__": {"rnncore.digest": "' + b"0" * 64 + b'"}}',
        b'{"__metadata__": {"a": "\xff"}}',
        b'{"__metadata__": {"a": "\xc0\x80"}}',
        b'{"__metadata__": {"a": "\xed\xa0\x80"}}',
        b'{"__metadata__": {"a": "\xf4\x90\x80\x80"}}',
        b'{"__metadata__": {"a": "\xe2\x82',
    ],
)
def test_a_header_that_is_not_the_formats_json_is_refused(path: Path, text: bytes) -> None:
    refuse(path, file_of(text))


def test_a_name_that_occurs_twice_is_refused(path: Path) -> None:
    one = b'"w": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}'
    escaped = one.replace(b'"w"', b'"\\u0077"')
    refuse(path, file_of(b"{" + one + b"," + one + b"}"), match="occurs twice")
    refuse(path, file_of(b"{" + one + b"," + escaped + b"}"), match="occurs twice")


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_refused_without_recursion(path: Path, opening: bytes) -> None:
    refuse(path, file_of(b'{"a": ' + opening * 100_000))


def test_a_million_names_are_read_or_refused_in_bounded_time(path: Path) -> None:
    entry = '"{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    text = "{" + ",".join(entry.format(i) for i in range(300_000)) + "}"
    path.write_bytes(file_of(text.encode()))
    before = time.monotonic()
    assert len(load_tensors(path)[0]) == 300_000
    assert time.monotonic() - before < 20
    refuse(path, file_of(b"{" + b'"a":{},' * 1_000_000 + b"}"))


def test_booleans_other_than_0_and_1_are_refused(path: Path) -> None:
    header = {"b": {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}}
    path.write_bytes(file_of(header, b"\x01\x00"))
    assert load_tensors(path)[0]["b"].tolist() == [True, False]
    refuse(path, file_of(header, b"\x01\x02"), match="neither 0 nor 1")


def test_pickles_and_archives_are_refused(path: Path) -> None:
    refuse(path, pickle.dumps({"w": [1, 2, 3]}))
    archive = bytes_io.BytesIO()
    np.savez(archive, w=np.array([{}, []], dtype=object))
    refuse(path, archive.getvalue())


def test_an_unknown_format_of_ours_names_both_versions(path: Path, ours: bytes) -> None:
    text = ours.replace(b'"rnncore.format":"1"', b'"rnncore.format":"2"')
    found = re.search(rb'"rnncore.digest":"([0-9a-f]{64})"', text)
    assert found is not None
    zeroed = text[: found.start(1)] + b"0" * 64 + text[found.end(1) :]
    digest = hashlib.sha256(zeroed).hexdigest().encode()
    refuse(path, text.replace(found[1], digest), match="format '2', this version reads '1'")


EDITS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=6
)


@given(edits=EDITS)
def test_edited_foreign_files_load_or_are_refused(
    edits: list[tuple[int, int, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    header = {"__metadata__": {"k": "v\n"}, "a": F32, "b": F32 | {"data_offsets": [8, 16]}}
    content = bytearray(file_of(header, bytes(16)))
    for at, removed, added in edits:
        at %= len(content) + 1
        content[at : at + removed] = added
    path = tmp_path_factory.getbasetemp() / "edited.safetensors"
    path.write_bytes(content)
    try:
        tensors, _ = load_tensors(path)
    except FormatError:
        return
    assert sum(array.nbytes for array in tensors.values()) <= len(content)
