"""Selectors by name, with options that may come from a command line or a form."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

from cdal.selectors.badge import BADGE
from cdal.selectors.bald import BALD, Committee, MCDropout
from cdal.selectors.cd_greedy import CDGreedy
from cdal.selectors.cdal_cs import CDALCS
from cdal.selectors.cdal_rl import CDALRL
from cdal.selectors.cereals import Cereals
from cdal.selectors.core_set import CoreSet
from cdal.selectors.drop_query import DropQuery
from cdal.selectors.learning_loss import LearningLoss
from cdal.selectors.prob_cover import ProbCover
from cdal.selectors.random import Random
from cdal.selectors.rbal import Rbal
from cdal.selectors.selection import Companion, Opinions, Selector
from cdal.selectors.suggestive_annotation import SuggestiveAnnotation
from cdal.selectors.typiclust import TypiClust
from cdal.selectors.uncertainty import Entropy, LeastConfidence, Margin
from cdal.selectors.vaal import VAAL

SELECTORS: Mapping[str, type[Selector]] = types.MappingProxyType(
    {
        selector.name: selector
        for selector in (
            CDALCS,
            CDALRL,
            CDGreedy,
            Random,
            Entropy,
            Margin,
            LeastConfidence,
            CoreSet,
            TypiClust,
            ProbCover,
            BALD,
            MCDropout,
            Committee,
            SuggestiveAnnotation,
            DropQuery,
            BADGE,
            LearningLoss,
            VAAL,
            Cereals,
            Rbal,
        )
    }
)
"""All selectors by name."""


def opinions_of(name: str) -> Opinions | None:
    """Whose opinions about the images a selector compares; None if it compares none."""
    found: Opinions | None = getattr(SELECTORS[name], "opinions", None)
    return found


def companion_of(name: str) -> Companion | None:
    """What must be trained beside the task network for a selector; None if nothing."""
    found: Companion | None = getattr(SELECTORS[name], "companion", None)
    return found


def arrays_read(name: str) -> frozenset[str] | None:
    """The arrays of a pool that a selector reads; None if that may be any."""
    found: frozenset[str] | None = getattr(SELECTORS[name], "reads", None)
    return found


def is_quick(name: str) -> bool:
    """Whether a selector ranks a large pool in seconds, by what the model has said already."""
    return bool(getattr(SELECTORS[name], "quick", False))


class OptionError(ValueError):
    """The selector is unknown, or an option is unknown or has an impossible value."""


def make_selector(name: str, options: Mapping[str, object] | None = None) -> Selector:
    """Make a selector from its name and options.

    Args:
        name: a key of ``SELECTORS``.
        options: values for its fields; strings are read as the field's type.

    Raises:
        OptionError: the message names what is unknown or impossible, and what is allowed.
    """
    selector = SELECTORS.get(name)
    if selector is None:
        known = ", ".join(sorted(SELECTORS))
        raise OptionError(f'unknown selector "{name}"; choose one of {known}')
    allowed = option_types(selector)
    values = {}
    for option, value in (options or {}).items():
        if option not in allowed:
            raise OptionError(f'{name} has no option "{option}"; {_options_of(allowed)}')
        try:
            values[option] = _read(value, allowed[option])
        except (TypeError, ValueError, OverflowError):
            wanted = _describe(allowed[option])
            given = f'"{value}"' if isinstance(value, str) else repr(value)
            raise OptionError(
                f'option "{option}" of {name} must be {wanted}, not {given}'
            ) from None
    try:
        return selector(**values)
    except ValueError as error:
        raise OptionError(f"{name}: {error}") from error


def _options_of(allowed: Collection[str]) -> str:
    if not allowed:
        return "it has no options"
    names = ", ".join(f'"{name}"' for name in allowed)
    return f"its only option is {names}" if len(allowed) == 1 else f"its options are {names}"


def option_types(selector: type[Selector]) -> dict[str, object]:
    """Return a selector's options with their types."""
    hints = get_type_hints(selector)
    return {field.name: hints[field.name] for field in fields(selector)}  # type: ignore[arg-type]


def _read(value: object, wanted: object) -> object:
    """Read a value as the wanted type, or raise TypeError or ValueError."""
    origin, args = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return args[[str(arg) for arg in args].index(str(value))]
    if origin in (Union, types.UnionType):  # a type or None: no other union is used
        return None if value is None or value == "none" else _read(value, args[0])
    if origin is tuple:
        parts = value.split("+") if isinstance(value, str) else value
        if not isinstance(parts, Sequence) or not parts:
            raise TypeError(value)
        return tuple(_read(part, args[0]) for part in parts)
    if wanted in (int, float) and not isinstance(value, bool):
        return _read_number(value, float if wanted is float else int)
    if wanted is Path and isinstance(value, str | Path):
        return Path(value)
    if wanted is str and isinstance(value, str):
        return value
    raise TypeError(value)


def _read_number(value: object, wanted: type[int] | type[float]) -> int | float:
    if not isinstance(value, str | int | float):
        raise TypeError(value)
    number = wanted(value)
    if isinstance(value, float) and number != value:
        raise ValueError(value)
    return number


def _describe(wanted: object) -> str:
    origin, args = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return " or ".join(f'"{arg}"' for arg in args)
    if origin in (Union, types.UnionType):
        return f"{_describe(args[0])} or none"
    if origin is tuple:
        return f"{_describe(args[0])}, or several joined by +"
    named: dict[object, str] = {int: "a whole number", float: "a number", Path: "a path"}
    return named.get(wanted, "text")
