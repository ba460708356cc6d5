"""Reads `tests/golden`: outputs of the authors' code (mmdet 2.10 with their changes) and of mmdet 3.3; float32.

No weights are stored: every parameter is a function of its name and shape (:func:`draw`), so that both sides can make
the same ones.  An array recorded by both versions has a plain name; where they truly differ it is `v2.<name>` (the
authors) and `v3.<name>`.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "golden"
RECIPE = json.loads((FOLDER / "recipe.json").read_text())


class Recording:
    """One .npz file; `rec["name"]` is a tensor, the authors' version where there are two."""

    def __init__(self, name: str):
        self.data = np.load(FOLDER / f"{name}.npz")
        self.names = set(self.data.files)

    def __contains__(self, name: str) -> bool:
        return name in self.names or f"v2.{name}" in self.names

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.get(name, "v2")

    def get(self, name: str, version: str) -> torch.Tensor:
        array = self.data[name if name in self.names else f"{version}.{name}"]
        if array.dtype == np.int32:
            array = array.astype(np.int64)
        return torch.from_numpy(np.array(array))

    def text(self, name: str) -> list[str]:
        return [str(x) for x in np.atleast_1d(self.data[name])]

    def levels(self, name: str) -> list[torch.Tensor]:
        """`name_0`, `name_1`, ... as far as they go"""
        found = []
        while f"{name}_{len(found)}" in self:
            found.append(self[f"{name}_{len(found)}"])
        return found


def keys(variant: str) -> dict:
    return json.loads((FOLDER / f"keys_{variant}.json").read_text())


def uniform(key: str, shape) -> np.ndarray:
    """Uniform in [-1, 1), float64, a function of the key."""
    return 2 * np.random.RandomState(zlib.crc32(key.encode("ascii"))).random_sample(tuple(shape)) - 1


def _first(table: str, key: str, default: float) -> float:
    return next((value for suffix, value in RECIPE[table] if key.endswith(suffix)), default)


def draw(key: str, shape) -> torch.Tensor:
    """The parameter that both sides give to `key` (the authors' name)."""
    last = key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    u = uniform(key, shape)
    if last == "running_mean":
        value = 0.1 * u
    elif last == "running_var":
        value = 1 + 0.25 * u
    elif last == "scale":
        value = 1 + 0.1 * u
    elif last == "moment_transfer":
        value = 0.1 * u
    elif last == "bias":
        value = 0.1 * u + _first("bias_mean", key, 0.0)
    elif len(shape) == 1:
        value = 0.8 + 0.2 * u
    else:
        fan_in = int(np.prod(shape[1:]))
        value = _first("weight_gain", key, 1.0) * np.sqrt(3) / np.sqrt(fan_in) * u
    return torch.from_numpy(np.asarray(value).astype(np.float32))


def draw_state(variant: str) -> dict[str, torch.Tensor]:
    """The whole state dict of a variant under the authors' names."""
    return {row["key"]: draw(row["key"], row["shape"]) for row in keys(variant)["state"]}


def draw_input(key: str, shape) -> torch.Tensor:
    """A batch that counts as normalised."""
    return torch.from_numpy((np.sqrt(3) * uniform(key, shape)).astype(np.float32))


def dot(tensor: torch.Tensor, name: str) -> float:
    """A signed one-number check that notices permutations, which a norm does not."""
    return float((tensor.detach().double().numpy() * uniform("probe." + name, tensor.shape)).sum())


def close(actual, expected, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    torch.testing.assert_close(
        torch.as_tensor(actual).double(), torch.as_tensor(expected).double(), rtol=rtol, atol=atol, check_dtype=False
    )


def restore(variant_params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A recorded head alone -> a state dict that `from_mmdet` takes"""
    return {f"bbox_head.{k}": v for k, v in variant_params.items()}
