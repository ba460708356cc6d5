"""Recipes as values: frozen dataclasses that can be printed, compared, saved and read back."""

import dataclasses
import typing

from vfnet_edu.runtime.errors import UserError

KIND = "kind"  # the key under which the name of a dataclass is written


@typing.runtime_checkable
class Dataclass(typing.Protocol):
    """What every dataclass has."""

    __dataclass_fields__: typing.ClassVar[dict[str, dataclasses.Field]]


Config = typing.TypeVar("Config", bound=Dataclass)


def flatten(config: Dataclass, prefix: str = "") -> dict[str, object]:
    """{"data.batch_size": 16, ...}: every leaf of a tree of dataclasses, in reading order."""
    leaves = {}
    for f in dataclasses.fields(config):
        value, key = getattr(config, f.name), prefix + f.name
        leaves |= flatten(value, key + ".") if isinstance(value, Dataclass) else {key: value}
    return leaves


def to_text(config: Dataclass, base: Dataclass | None = None) -> str:
    """One `key = value` per line; a star marks what differs from `base`."""
    new, old = flatten(config), flatten(base) if base is not None else {}
    width = max(map(len, new))
    lines = []
    for key, value in new.items():
        changed = base is not None and (key not in old or old[key] != value)
        lines.append(f"{'*' if changed else ' '} {key:<{width}} = {value!r}" + (f"   (was {old.get(key)!r})" * changed))
    return "\n".join(lines)


def difference(new: Dataclass, old: Dataclass) -> dict[str, tuple[object, object]]:
    """Leaves that differ: {"optim.lr": (old, new)}."""
    a, b = flatten(old), flatten(new)
    return {k: (a.get(k), b.get(k)) for k in (a | b) if a.get(k) != b.get(k)}


def to_dict(config: Dataclass) -> dict:
    """Plain dicts, lists, numbers and strings (json, `weights_only` checkpoints); dataclasses carry their name."""
    plain = {KIND: type(config).__name__}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        plain[f.name] = to_dict(value) if isinstance(value, Dataclass) else _plain(value)
    return plain


def from_dict(cls: type[Config], plain: dict, path: str = "") -> Config:
    """The inverse of :func:`to_dict`.

    Raises:
        UserError: an unknown or misshapen setting, named by its dotted path.
    """
    if not isinstance(plain, dict):
        raise UserError(f"setting {path or cls.__name__!r} should be a table, got {plain!r}")
    hints, values = typing.get_type_hints(cls), {}
    names = {f.name for f in dataclasses.fields(cls)}
    for key, value in plain.items():
        if key == KIND:
            continue
        if key not in names:
            raise UserError(
                f"unknown setting {path + key!r}; {cls.__name__} knows {', '.join(sorted(names))}",
                remedy="was the file written by another version of vfnet_edu?",
            )
        values[key] = _read(hints[key], value, path + key)
    return cls(**values)


def _plain(value):
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def _options(hint) -> tuple:
    """The members of a union; the hint itself otherwise."""
    is_union = typing.get_origin(hint) in (typing.Union, type(int | str))
    return typing.get_args(hint) if is_union else (hint,)


def _read(hint, value, path: str):
    for option in _options(hint):
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            if isinstance(value, dict) and value.get(KIND) == option.__name__:
                return from_dict(option, value, path + ".")
            continue
        origin, args = typing.get_origin(option), typing.get_args(option)
        if origin is typing.Literal and value in args:
            return value
        if origin is tuple and isinstance(value, (list, tuple)):
            item = args[:1] * len(value) if args[-1] is Ellipsis else args
            if len(item) == len(value):
                return tuple(_read(h, v, f"{path}[{i}]") for i, (h, v) in enumerate(zip(item, value, strict=True)))
        if option is float and (type(value) is int or type(value) is float):
            return float(value)
        if option is type(None) and value is None:
            return None
        if isinstance(option, type) and origin is None and type(value) is option:
            return value
    raise UserError(f"setting {path!r} should be {hint}, got {value!r}")
