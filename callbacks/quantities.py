"""Numbers with their units: from a value somewhere in the documents to metres or electronvolts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ptyplugin.callbacks.documents import DataKey, Reading
from ptyplugin.callbacks.fields import number
from ptyplugin.model import LENGTH_UNITS_M, Axis, ProfileError, Quantity


def metres_per_step(axis: Axis, data_key: DataKey) -> float:
    """What one unit of this motor's readback is in metres, with the axis' sign.

    Raises:
        ProfileError: neither profile nor data key name a unit, or an unknown one.
    """
    return axis.sign * unit_factor(axis.unit or data_key.units, LENGTH_UNITS_M, f"the position {axis.key!r}")


def unit_factor(unit: str | None, factors: Mapping[str, float], what: str) -> float:
    """Factor from this unit to the stored one.

    Raises:
        ProfileError: no unit, or one that is not in ``factors``.
    """
    known = ", ".join(factors)
    if unit is None:
        raise ProfileError(f"{what} comes without a unit: give its unit in the profile, one of {known}.")
    if unit.strip() not in factors:
        raise ProfileError(f"{what} comes in the unit {unit!r}, which is not known: give its unit in the profile, one of {known}.")
    return factors[unit.strip()]


def in_stored_unit(
    quantity: Quantity,
    name: str,
    factors: Mapping[str, float],
    start: Mapping[str, object],
    configuration: Mapping[str, Reading],
    readings: Mapping[str, Reading],
) -> float:
    """The number of a profile's quantity, in metres or electronvolts as ``factors`` say.

    name: key of the quantity in the profile, for messages

    Raises:
        ProfileError: the documents do not have it, it is no finite number, or its unit is not known.
    """
    if quantity.value is not None:
        return quantity.value * unit_factor(quantity.unit, factors, name)
    if quantity.start is not None:
        place = f"{name} (key {quantity.start!r} of the start document)"
        found = Reading(start[quantity.start], None) if quantity.start in start else None
        seen: Iterable[str] = start
    elif quantity.configuration is not None:
        place = f"{name} (configuration key {quantity.configuration!r})"
        found, seen = configuration.get(quantity.configuration), configuration
    else:
        place = f"{name} (data key {quantity.reading!r})"
        found, seen = readings.get(str(quantity.reading)), readings
    if found is None:
        others = f" (found: {', '.join(sorted(seen))})" if seen else ""
        raise ProfileError(f"{place} is not in the documents of this run{others}: correct the key in the profile, or record it.")
    value = number(found.value)
    if not math.isfinite(value):
        raise ProfileError(f"{place} is {found.value!r:.80}, which is no finite number: record it as one.")
    return value * unit_factor(quantity.unit or found.units, factors, place)
