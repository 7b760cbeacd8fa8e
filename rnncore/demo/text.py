"""A text as indices: its alphabet, and its last tenth set aside to validate on."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rnncore.errors import FormatError

PERSUASION_SHA256 = "8061549557aebd2fd6e353d18d9197cb707029112bd52d4d8b174583a925848a"
UNKNOWN = "\N{REPLACEMENT CHARACTER}"

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Text:
    """A text split for training.

    Attributes
    ----------
    name : str
        What messages call it.
    alphabet : str
        The training part's characters in code order, and one more for those it lacks.
    indices : ndarray (length,) of int64
        Places in the alphabet.
    cut : int
        Where the last tenth starts.
    sha256 : str
        Digest of the characters in UTF-8.
    """

    name: str
    alphabet: str
    indices: Indices
    cut: int
    sha256: str

    @property
    def training(self) -> Indices:
        """All but the last tenth."""
        return self.indices[: self.cut]

    @property
    def validation(self) -> Indices:
        """The last tenth, and in front of it the one character that its first is predicted from."""
        return self.indices[self.cut - 1 :]

    def decode(self, indices: Indices | list[int]) -> str:
        """Return the characters of some indices."""
        return "".join(self.alphabet[index] for index in indices)


def persuasion() -> Text:
    """Return *Persuasion* by Jane Austen, which rnncore carries along.

    Raises
    ------
    FormatError
        If the installed file is not what was shipped.

    Examples
    --------
    >>> text = persuasion()
    >>> text.decode(text.indices[:10]), len(text.indices)
    ('Persuasion', 466854)
    """
    packed = resources.files("rnncore.demo").joinpath("data/persuasion.txt.gz").read_bytes()
    try:
        content = gzip.decompress(packed)
    except (OSError, EOFError, ValueError) as error:
        raise FormatError(f"persuasion.txt.gz: damaged ({error}); install rnncore again") from None
    if hashlib.sha256(content).hexdigest() != PERSUASION_SHA256:
        raise FormatError("persuasion.txt.gz: its digest is wrong; install rnncore again")
    return split_text("Persuasion", content.decode("ascii"))


def read_text(path: str | Path, encoding: str = "utf-8-sig") -> Text:
    """Return the text of a file.

    Parameters
    ----------
    path : path
        The file; its line ends become newlines.
    encoding : str
        How it is written; the default is UTF-8 with or without a mark.

    Raises
    ------
    ValueError
        If the file is empty or in another encoding.
    LookupError
        If there is no such encoding.
    OSError
        If it cannot be read.
    """
    try:
        content = Path(path).read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected text in {encoding.removesuffix('-sig')}, got byte "
            f"0x{error.object[error.start]:02x} at offset {error.start}; see --encoding"
        ) from None
    if not content:
        raise ValueError(f"{path}: expected a text, got an empty file")
    return split_text(str(path), content)


def split_text(name: str, content: str) -> Text:
    """Give every character its index and set the last tenth aside."""
    if len(content) < 10:
        raise ValueError(f"{name}: expected at least 10 characters, got {len(content)}")
    codes = np.frombuffer(content.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    cut = codes.size - codes.size // 10
    known = np.unique(codes[:cut])
    places = np.minimum(np.searchsorted(known, codes), known.size - 1)
    indices = np.where(known[places] == codes, places, known.size).astype(np.int64)
    alphabet = "".join(map(chr, known.tolist())) + UNKNOWN
    digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
    return Text(name, alphabet, indices, cut, digest)
