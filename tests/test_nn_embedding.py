"""Embedding in its three forms, and word vectors from files."""

from __future__ import annotations

import copy
import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from modules import assert_close, drawn

from rnncore import FormatError, nn, train

VECTORS = np.array([[1.0, 0.5], [-2.0, 0.25], [3.0, 1e-3]], np.float32)
WORDS = ["the", "naïve", "東京"]


def test_padding_has_zeros_and_no_gradient_as_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    ours = nn.Embedding(6, 3, padding_idx=-4, dtype="float64", seed=0)
    assert ours.padding_idx == 2
    assert not ours.params["weight"][2].any()
    assert ours.params["weight"][1].all()
    theirs = torch.nn.Embedding(6, 3, padding_idx=-4, dtype=torch.float64)
    theirs.load_state_dict({"weight": torch.from_numpy(ours.state_dict()["weight"])})
    x, dy = np.array([[2, 5, 2], [1, 2, 5]]), drawn(2, 3, 3)
    y = theirs(torch.from_numpy(x))
    y.backward(torch.from_numpy(dy))
    assert_close(ours.forward(x), y)
    ours.backward(dy)
    assert_close(ours.grads["weight"], theirs.weight.grad)
    assert not ours.grads["weight"][2].any()


def test_given_vectors_that_are_trained_have_a_gradient() -> None:
    table = nn.Embedding.from_vectors(VECTORS, freeze=False, padding_idx=0)
    np.testing.assert_array_equal(table.params["weight"], VECTORS)
    table.params["weight"][1] = 7
    assert VECTORS[1, 0] == -2  # a copy
    table.forward(np.array([0, 2, 2]))
    table.backward(np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(table.grads["weight"], [[0, 0], [0, 0], [2, 2]])


def test_frozen_vectors_stay_out_of_training_but_in_the_state() -> None:
    table = nn.Embedding.from_vectors(VECTORS)
    np.testing.assert_array_equal(table.forward(np.array([[2], [0]])), VECTORS[[[2], [0]]])
    assert table.backward(np.ones((2, 1, 2), np.float32)) is None
    assert dict(table.params) == dict(table.grads) == {}
    assert table.num_parameters == 0
    np.testing.assert_array_equal(table.state_dict()["weight"], VECTORS)
    table.load_state_dict({"weight": 2 * VECTORS})
    np.testing.assert_array_equal(table(np.array([1])), 2 * VECTORS[[1]])
    table.load_state_dict({})  # they may be left out
    with pytest.raises(ValueError, match=r"weight: expected \(3, 2\), got \(2, 2\)"):
        table.load_state_dict({"weight": VECTORS[:2]})
    other = pickle.loads(pickle.dumps(table))
    np.testing.assert_array_equal(other.weight, 2 * VECTORS)


def test_a_step_of_decay_leaves_frozen_vectors_alone() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding.from_vectors(VECTORS)
            self.output = nn.Linear(2, 3, seed=0)

    model = Model()
    assert set(model.params) == {"output.weight", "output.bias"}
    assert set(model.state_dict()) == {"embedding.weight", "output.weight", "output.bias"}
    before = model.output.weight.copy()
    train.AdamW(model, lr=0.1, weight_decay=0.5).step()
    assert (model.output.weight != before).all()
    np.testing.assert_array_equal(model.embedding.weight, VECTORS)
    other = Model()
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.output.weight, model.output.weight)


def test_vectors_keep_float64_and_other_types_become_float32() -> None:
    assert nn.Embedding.from_vectors(np.ones((2, 3))).dtype == "float64"
    assert nn.Embedding.from_vectors(np.ones((2, 3), np.float16)).dtype == "float32"
    assert nn.Embedding.from_vectors(np.ones((2, 3), np.int8), dtype="float64").dtype == "float64"
    with pytest.raises(ValueError, match="vectors: expected"):
        nn.Embedding.from_vectors(np.ones(3))
    with pytest.raises(TypeError, match="vectors: expected real numbers"):
        nn.Embedding.from_vectors(np.ones((2, 3), bool))


def test_one_hot_has_no_weights() -> None:
    table = nn.Embedding.one_hot(4, padding_idx=3, dtype="float64")
    x = np.array([[0, 3], [2, 1]])
    expected = np.eye(4)[x]
    expected[0, 1] = 0
    np.testing.assert_array_equal(table.forward(x), expected)
    np.testing.assert_array_equal(table(x), expected)
    assert table.backward(expected) is None
    assert dict(table.params) == table.state_dict() == {}
    assert repr(table) == "Embedding(4, 4, padding_idx=3, one-hot, dtype='float64')"
    assert table(np.int64(2)).tolist() == [0, 0, 1, 0]
    assert table(np.zeros((0, 2), int)).shape == (0, 2, 4)
    np.testing.assert_array_equal(copy.deepcopy(table)(x), expected)


@pytest.mark.parametrize("wrong", [6, -7])
def test_padding_outside_the_table_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match="padding_idx: expected"):
        nn.Embedding(6, 3, wrong)


# --- files ----------------------------------------------------------------------------------------


def text_file() -> bytes:
    lines = [f"{len(WORDS)} 2"]
    lines += [f"{w} {' '.join(map(str, v))}" for w, v in zip(WORDS, VECTORS.tolist(), strict=True)]
    return ("\n".join(lines) + "\n").encode()


def binary_file(end: bytes = b"\n") -> bytes:
    entries = [w.encode() + b" " + v.astype("<f4").tobytes() + end
               for w, v in zip(WORDS, VECTORS, strict=True)]  # fmt: skip
    return f"{len(WORDS)} 2\n".encode() + b"".join(entries)


GOOD = {"text": text_file(), "binary": binary_file(), "gensim": binary_file(b"")}


def written(folder: Path, data: bytes) -> Path:
    path = folder / "vectors"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("compressed", [False, True])
def test_both_formats_of_word2vec_are_read(tmp_path: Path, kind: str, compressed: bool) -> None:
    path = written(tmp_path, gzip.compress(GOOD[kind]) if compressed else GOOD[kind])
    for binary in (None, kind != "text"):
        words, vectors = nn.read_word2vec(path, binary=binary)
        assert words == WORDS
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, VECTORS)
    words, _ = nn.read_word2vec(str(path))
    table = nn.Embedding.from_vectors(vectors)
    np.testing.assert_array_equal(table(np.array([words.index("東京")])), VECTORS[[2]])


@pytest.mark.parametrize("kind", GOOD)
def test_every_truncated_file_is_refused(tmp_path: Path, kind: str) -> None:
    whole = GOOD[kind]
    loses_a_number = len(whole) - (kind != "gensim")
    for length in range(loses_a_number):
        if kind == "text" and length > whole.rindex(b" "):
            continue  # the last number is shorter, but a number
        with pytest.raises(FormatError, match="vectors: "):
            nn.read_word2vec(written(tmp_path, whole[:length]))
    with pytest.raises(FormatError):
        nn.read_word2vec(written(tmp_path, gzip.compress(whole)[:-9]))


HOSTILE = {
    "no header": b"hello world\n",
    "negative": b"-1 2\n",
    "no numbers": b"2 0\na\nb\n",
    "more words than bytes": b"99999999999999 2\na 1 2\n",
    "wider than the file": b"1 99999999999999\na 1 2\n",
    "huge integers": b"9" * 50 + b" 2\n",
    "header without an end": b"1" * 4000,
    "too many numbers": b"1 2\na 1 2 3\n",
    "not numbers": b"2 2\na 1 2\nb 1 x\n",
    "more words than said": b"1 2\na 1 2\nb 1 2\n",
    "not UTF-8": b"1 2\n\xff\xfe 1 2\n",
    "a word without an end": b"1 2\n" + b"a" * 20_000,
    "damaged gzip": gzip.compress(text_file())[:20] + bytes(40),
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("compressed", [False, True])
def test_hostile_files_are_format_errors(tmp_path: Path, name: str, compressed: bool) -> None:
    data = gzip.compress(HOSTILE[name]) if compressed else HOSTILE[name]
    with pytest.raises(FormatError):
        nn.read_word2vec(written(tmp_path, data))


def test_random_bytes_are_format_errors_or_words(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for kind in GOOD:
        for _ in range(300):
            data = bytearray(GOOD[kind])
            for place in draw.integers(0, len(data), 3):
                data[place] = draw.integers(0, 256)
            try:
                words, vectors = nn.read_word2vec(written(tmp_path, bytes(data)))
            except FormatError:
                continue
            assert len(words) == len(vectors)


def test_words_that_are_not_utf8_can_be_replaced(tmp_path: Path) -> None:
    path = written(tmp_path, b"1 2\n\xffa 1 2\n")
    assert nn.read_word2vec(path, errors="replace")[0] == ["\ufffda"]
    assert nn.read_word2vec(written(tmp_path, b"0 2\n"))[1].shape == (0, 2)
    with pytest.raises(FileNotFoundError):
        nn.read_word2vec(tmp_path / "absent")
