"""Read word vectors from the two formats of word2vec."""

from __future__ import annotations

import gzip
import os
import zlib
from typing import BinaryIO

import numpy as np

from rnncore.checks import Array, flag
from rnncore.errors import FormatError

Path = str | os.PathLike[str]

LONGEST_WORD = 10_000
LONGEST_NUMBER = 64
MOST_NUMBERS = 1_000_000  # of a word, so that a line has an end in sight
_GZIP, _BEST_RATIO = b"\x1f\x8b", 1100  # deflate makes at most 1032 bytes of one


def read_word2vec(
    path: Path, *, binary: bool | None = None, errors: str = "strict"
) -> tuple[list[str], Array]:
    r"""Read words and their vectors, as the word2vec program and gensim write them.

    Both formats start with a line of two integers: how many words, how many numbers each. In a text
    file a line holds a word and its numbers with spaces between; in a binary one a word and a space
    are followed by float32 numbers, low byte first. Either may be compressed by gzip.

    Parameters
    ----------
    path : path-like
        The file.
    binary : bool, optional
        Which format it is; found out from its first word if None.
    errors : str
        What becomes of words that are not UTF-8, as ``bytes.decode`` takes it; by default they are
        an error.

    Returns
    -------
    words : list of str
        In the order of the file.
    vectors : ndarray (words, numbers) of float32
        For ``Embedding.from_vectors``.

    Raises
    ------
    FormatError
        If the file is truncated, has too much, or breaks the format anywhere.
    OSError
        If it cannot be read.

    References
    ----------
    Mikolov et al., Efficient estimation of word representations in vector space, 2013.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "vectors.txt")
    >>> with open(path, "w") as file:
    ...     _ = file.write("2 3\nking 1 0 0.5\nqueen 0 1 0.5\n")
    >>> words, vectors = read_word2vec(path)
    >>> words, vectors.tolist()
    (['king', 'queen'], [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])
    """
    chosen = None if binary is None else flag("binary", binary)
    name = os.fspath(path)
    with open(path, "rb") as file:
        most = os.fstat(file.fileno()).st_size
        compressed = file.read(2) == _GZIP
        file.seek(0)
        try:
            if not compressed:
                return _Reader(name, file, most, errors).read(chosen)
            with gzip.GzipFile(fileobj=file) as inner:
                # A GzipFile reads, peeks and seeks as a file does.
                return _Reader(name, inner, most * _BEST_RATIO, errors).read(chosen)  # type: ignore[arg-type]
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FormatError(f"{name}: damaged gzip data: {error}") from error


class _Reader:
    """Read one open file of at most so many bytes; nothing larger than these is ever allocated."""

    def __init__(self, name: str, file: BinaryIO, most: int, errors: str) -> None:
        self.name, self.file, self.most, self.errors = name, file, most, errors
        self.count, self.width = 0, 0

    def read(self, binary: bool | None) -> tuple[list[str], Array]:
        """Return the words and the vectors."""
        self._read_header()
        if binary is None:
            binary = not self._looks_like_text()
        self._refuse_too_many(4 * self.width + 1 if binary else 2 * self.width + 1)
        words: list[str] = []
        rows = bytearray()  # grows with what is there, not with what the header says
        for _ in range(self.count):
            word, row = self._read_binary() if binary else self._read_text()
            words.append(word)
            rows += row.tobytes()
        if self.file.read(LONGEST_WORD).strip():
            raise self._wrong(f"expected its end after {self.count} words, got more")
        return words, np.frombuffer(rows, np.float32).reshape(self.count, self.width)

    def _wrong(self, problem: str) -> FormatError:
        return FormatError(f"{self.name}: {problem}")

    def _read_header(self) -> None:
        line = self.file.readline(LONGEST_NUMBER)
        fields = line.split()
        if not line.endswith(b"\n") or len(fields) != 2 or not all(map(bytes.isdigit, fields)):
            raise self._wrong(f"expected a first line of two integers, got {line[:40]!r}")
        self.count, self.width = map(int, fields)
        if not 1 <= self.width <= MOST_NUMBERS:
            raise self._wrong(f"expected 1 to {MOST_NUMBERS} numbers a word, got {self.width}")

    def _refuse_too_many(self, bytes_of_a_word: int) -> None:
        if self.count * bytes_of_a_word > self.most:
            raise self._wrong(
                f"expected {self.count} words of {self.width} numbers, got too few bytes for them"
            )

    def _looks_like_text(self) -> bool:
        start = self.file.tell()
        line = self._line()
        self.file.seek(start)
        return not self.count or self._numbers(line.split()[1:]) is not None

    def _line(self) -> bytes:
        return self.file.readline(LONGEST_WORD + (LONGEST_NUMBER + 1) * self.width)

    def _numbers(self, fields: list[bytes]) -> Array | None:
        if len(fields) != self.width:
            return None
        try:
            with np.errstate(over="ignore"):
                return np.array([float(field) for field in fields]).astype(np.float32)
        except ValueError:
            return None

    def _read_text(self) -> tuple[str, Array]:
        line = self._line()
        fields = line.split()
        row = self._numbers(fields[1:])
        if row is None:
            raise self._wrong(f"expected a word and {self.width} numbers, got {line[:40]!r}")
        return self._decode(fields[0]), row

    def _read_binary(self) -> tuple[str, Array]:
        word = bytearray()
        while (character := self.file.read(1)) != b" ":
            if not character or len(word) >= LONGEST_WORD:
                raise self._wrong(f"expected a word and a space, got {bytes(word[:40])!r}")
            if word or character != b"\n":  # the program ends vectors with a line break, gensim not
                word += character
        data = self.file.read(4 * self.width)
        if len(data) < 4 * self.width:
            raise self._wrong(f"expected {4 * self.width} bytes of numbers, got {len(data)}")
        return self._decode(bytes(word)), np.frombuffer(data, "<f4").astype(np.float32)

    def _decode(self, word: bytes) -> str:
        try:
            return word.decode("utf-8", self.errors)
        except UnicodeDecodeError as error:
            raise self._wrong(f"expected words in UTF-8, got {word[:40]!r}") from error
