"""Attention for tests: the least that an encoder-decoder needs of one."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore import nn


class Dot(nn.Module):
    """Mix keys by softmax of their products with queries, over each row's length."""

    def __call__(self, queries: np.ndarray, keys: np.ndarray, lengths: Any = None) -> np.ndarray:
        return self._mix(queries, keys, lengths)[0]

    def forward(self, queries: np.ndarray, keys: np.ndarray, lengths: Any = None) -> np.ndarray:
        mixed, shares = self._mix(queries, keys, lengths)
        self._kept = (queries, keys, shares)
        return mixed

    def _mix(self, queries: np.ndarray, keys: np.ndarray, lengths: Any) -> tuple:
        ends = np.full(keys.shape[1], len(keys)) if lengths is None else np.asarray(lengths)
        scores = np.einsum("tnf,snf->tns", queries, keys)
        scores = np.where(np.arange(len(keys)) < ends[:, None], scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        return np.einsum("tns,snf->tnf", shares, keys), shares

    def backward(self, dmixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        queries, keys, shares = self._take_kept()
        dshares = np.einsum("tnf,snf->tns", dmixed, keys)
        dscores = shares * (dshares - (shares * dshares).sum(axis=2, keepdims=True))
        dkeys = np.einsum("tns,tnf->snf", shares, dmixed)
        dkeys += np.einsum("tns,tnf->snf", dscores, queries)
        return np.einsum("tns,snf->tnf", dscores, keys), dkeys
