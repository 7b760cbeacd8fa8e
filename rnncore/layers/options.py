"""Check a layer's constructor arguments, and refuse by name what has no meaning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rnncore import checks, devices
from rnncore.cells import ACTIVATIONS, PLAIN_ACTIVATIONS, carries_c, numpy_dtype

COMMON: dict[str, Any] = {
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "bidirectional": False,
    "stateful": False,
    "dropout": 0.0,
    "variational": False,
    "recurrent_dropout": 0.0,
    "zoneout": 0.0,
    "layer_norm": False,
    "activations": None,
    "clip": None,
    "dtype": "float32",
    "device": "cpu",
    "seed": None,
}
"""The arguments that every layer has beside its two sizes, with their defaults."""


def _nonlinearity(name: str, value: object) -> str:
    return checks.choice(name, value, ("tanh", "relu"))


def _proj_size(name: str, value: object) -> int:
    return checks.size(name, value, minimum=0)


_OWN: dict[str, dict[str, Callable[[str, Any], Any]]] = {
    "rnn": {"nonlinearity": _nonlinearity},
    "lstm": {
        "peephole": checks.flag,
        "coupled": checks.flag,
        "forget_bias": checks.real,
        "proj_size": _proj_size,
    },
    "gru": {"reset_after": checks.flag},
}
"""The arguments of some cells alone, with what checks them."""


def arguments(local: Mapping[str, Any]) -> dict[str, Any]:
    """Return a constructor's arguments from its ``locals()``."""
    return {name: value for name, value in local.items() if name not in ("self", "__class__")}


def resolve(cell: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a layer checked and in plain Python types.

    Parameters
    ----------
    cell : str
        Which cell's layer they are for.
    given : mapping
        Arguments as the caller gave them; those of ``COMMON`` may be left out.

    Raises
    ------
    TypeError, ValueError
        If an argument or a combination makes no sense.
    NotImplementedError
        If a dtype makes sense, but not on this device.
    DeviceError
        If the device is not there.
    """
    _refuse_unknown(cell, given)
    given = {**COMMON, **given}
    done = dict(given)
    for name in ("input_size", "hidden_size", "num_layers"):
        done[name] = checks.size(name, given[name])
    for name in ("bias", "batch_first", "bidirectional", "stateful", "variational", "layer_norm"):
        done[name] = checks.flag(name, given[name])
    for name in ("dropout", "recurrent_dropout"):
        done[name] = checks.probability(name, given[name])
    done["zoneout"] = _zoneout(cell, given["zoneout"])
    done["activations"] = _activations(cell, given["activations"])
    done["clip"] = _clip(given["clip"])
    place = device(given["device"])
    done["dtype"] = dtype(given["dtype"], place)
    done["seed"] = seed(given["seed"])
    for name, check in _OWN.get(cell, {}).items():
        if name in given:
            done[name] = check(name, given[name])
    _refuse_combinations(done, given)
    done["device"] = devices.get(place).name
    if done["dropout"] and done["num_layers"] == 1 and not done["variational"]:
        warnings.warn(
            "dropout: acts on the output of every layer but the last, and there is one layer",
            UserWarning,
            stacklevel=4,
        )
    return done


def dtype(value: object, place: str = "cpu") -> str:
    """Return the name of a dtype that layers may have on the device that `place` names."""
    try:
        name = value if isinstance(value, str) else np.dtype(value).name  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(f"dtype: expected {_dtypes(place)}, got {value!r}") from None
    if value is None:
        raise TypeError(f"dtype: expected {_dtypes(place)}, got None")
    devices.require_dtype(name, place)
    if name not in devices.DTYPES[place.partition(":")[0]]:
        raise ValueError(f"dtype: expected {_dtypes(place)}, got {value!r}")
    numpy_dtype(name)  # bfloat16 needs a package
    return str(name)


def _dtypes(place: str) -> str:
    *most, last = (repr(name) for name in devices.DTYPES[place.partition(":")[0]])
    return f"{', '.join(most)} or {last}"


def device(value: object) -> str:
    """Return the name of a device if it is one, whether it is there or not."""
    if not isinstance(value, str):
        raise TypeError(f"device: expected 'cpu' or 'cuda', got {value!r}")
    kind, colon, ordinal = value.partition(":")
    if value != "cpu" and (kind != "cuda" or (colon and not ordinal.isdecimal())):
        raise ValueError(f"device: expected 'cpu' or 'cuda', got {value!r}")
    return value


def seed(value: object) -> int:
    """Return a seed, a fresh one for None."""
    if value is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    return checks.integer("seed", value, minimum=0)


def seed_after(first: int) -> int:
    """Return another seed that follows from a seed."""
    return int(np.random.SeedSequence([first, 1]).generate_state(1, np.uint64)[0])


def rng_state(value: object) -> tuple[int, int]:
    """Return the seed and the call counter of a layer's ``rng_state``."""
    if not isinstance(value, Mapping):
        raise TypeError(f"rng_state: expected a mapping, got {type(value).__name__}")
    if set(value) != {"seed", "calls"}:
        raise ValueError(f"rng_state: expected 'seed' and 'calls', got {sorted(map(str, value))}")
    calls = checks.integer("rng_state['calls']", value["calls"], minimum=0)
    if calls >= 2**64:
        raise ValueError(f"rng_state['calls']: expected less than 2**64, got {calls}")
    return checks.integer("rng_state['seed']", value["seed"], minimum=0), calls


def zoneout_rates(cell: str, value: float | tuple[float, float]) -> tuple[float, float]:
    """Return ``(p_h, p_c)`` of a checked ``zoneout``; one rate is that of all a cell carries."""
    if isinstance(value, tuple):
        return value
    return value, value if carries_c(cell) else 0.0


def padded_activations(
    chosen: Sequence[Any] | None,
) -> tuple[tuple[str, float, float], ...] | None:
    """Return checked activations as ``(name, alpha, beta)``, 0.0 for what one does not take."""
    if chosen is None:
        return None
    named = [(item,) if isinstance(item, str) else item for item in chosen]
    return tuple((*item, 0.0, 0.0)[:3] for item in named)


def _refuse_unknown(cell: str, given: Mapping[str, Any]) -> None:
    known = ("input_size", "hidden_size", *COMMON, *_OWN.get(cell, {}))
    unknown = [name for name in given if name not in known]
    if unknown:
        raise TypeError(f"{unknown[0]}: expected one of {', '.join(known)}")


def _refuse_combinations(done: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if done["stateful"] and done["bidirectional"]:
        raise ValueError(
            "stateful: has no meaning with bidirectional=True, whose reverse direction "
            "starts at the end of what is still to come"
        )
    if done.get("proj_size", 0) >= done["hidden_size"]:
        raise ValueError(
            f"proj_size: expected less than hidden_size={done['hidden_size']}, "
            f"got {done['proj_size']}"
        )
    if done.get("coupled") and done.get("forget_bias"):
        raise ValueError("forget_bias: has no meaning with coupled=True, which has no forget gate")
    if done.get("forget_bias") and not done["bias"]:
        raise ValueError("forget_bias: has no meaning with bias=False")
    if given["activations"] is not None and done.get("nonlinearity", "tanh") != "tanh":
        raise ValueError("activations: expected nonlinearity='tanh' beside it")


def _zoneout(cell: str, value: object) -> float | tuple[float, float]:
    if not isinstance(value, tuple | list):
        return checks.probability("zoneout", value)
    if not carries_c(cell):
        raise ValueError(f"zoneout: expected one probability, got {value!r}; pairs are the LSTM's")
    if len(value) != 2:
        raise ValueError(f"zoneout: expected a pair (p_h, p_c), got {len(value)} numbers")
    p_h, p_c = (checks.probability(f"zoneout[{i}]", rate) for i, rate in enumerate(value))
    return (p_h, p_c) if p_h or p_c else 0.0


def _activations(cell: str, value: object) -> tuple[Any, ...] | None:
    """Return each activation as its name or, if it takes numbers, a tuple with all of them."""
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"activations: expected a sequence of names, got {value!r}")
    plain = PLAIN_ACTIVATIONS[cell]
    if len(value) != len(plain):
        raise ValueError(f"activations: expected {len(plain)} names, got {len(value)}")
    chosen = tuple(_activation(f"activations[{i}]", item) for i, item in enumerate(value))
    return None if chosen == plain else chosen


def _activation(place: str, item: object) -> Any:
    name, *numbers = item if isinstance(item, tuple | list) and item else (item,)
    defaults = ACTIVATIONS[checks.choice(place, name, tuple(ACTIVATIONS))]
    if len(numbers) > len(defaults):
        takes = f"at most {len(defaults)}" if defaults else "no"
        raise ValueError(f"{place}: {name} takes {takes} numbers, got {len(numbers)}")
    chosen = [checks.real(place, number) for number in numbers]
    return (name, *chosen, *defaults[len(chosen) :]) if defaults else name


def _clip(value: object) -> float | None:
    if value is None:
        return None
    bound = checks.real("clip", value)
    if bound <= 0.0:
        raise ValueError(f"clip: expected a number above 0, got {bound}")
    return bound
