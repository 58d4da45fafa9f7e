"""Payloads: Python objects to bytes and back, in MsgPack and JSON.

Both encode what `DjangoJSONEncoder` encodes (dates, times, durations, Decimal, UUID, lazy strings) to the same strings.
"""

from __future__ import annotations

import sys

from msgpack import Packer, unpackb

from .errors import MoltInternalError, MoltInvalidInput

TYPE_CHECKING = False  # see molt_accel/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

MSGPACK, JSON, RAW, ARROW = 1, 2, 3, 4
NUMBERS: Mapping[str, int] = {"msgpack": MSGPACK, "json": JSON, "raw": RAW, "arrow": ARROW}
NAMES: Mapping[int, str] = {number: name for name, number in NUMBERS.items()}

_KEPT_BYTES = 1 << 20
"""A packer keeps the memory of the largest payload it ever wrote: one that wrote more than this is dropped."""

_packers: list[Packer] = []  # a packer serves one thread at a time; list.pop and append are atomic
_json: tuple[Callable[[Any], str], Callable[[bytes], Any]] | None = None  # imported when first needed


def number(codec: str) -> int:
    """The codec's number on the wire; an unknown name is a ValueError that lists the known ones."""
    try:
        return NUMBERS[codec]
    except KeyError:
        raise ValueError(f"unknown codec {codec!r}. hint: one of {', '.join(NUMBERS)}") from None


def pack(value: Any, what: str = "payload") -> bytes:
    """`value` as MsgPack. `what` names it in the error."""
    try:
        packer = _packers.pop()
    except IndexError:
        packer = Packer(default=plain, buf_size=4096)
    try:
        data = packer.pack(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as reason:
        raise _refusal(value, what, "MsgPack", reason) from None
    if len(data) <= _KEPT_BYTES:
        _packers.append(packer)
    return data


def unpack(data: bytes) -> Any:
    """The value of a MsgPack answer."""
    try:
        return unpackb(data, strict_map_key=False)
    except ValueError as reason:
        raise MoltInternalError(f"an answer of {len(data)} bytes is not MsgPack: {reason!r}") from None


def _load_json() -> tuple[Callable[[Any], str], Callable[[bytes], Any]]:
    global _json
    import json

    encoder = json.JSONEncoder(default=plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    _json = encoder.encode, json.loads
    return _json


def to_json(value: Any, what: str = "payload") -> bytes:
    """`value` as compact JSON in UTF-8. NaN and infinities are refused: JSON has no word for them."""
    try:
        return (_json or _load_json())[0](value).encode()
    except (TypeError, ValueError, RecursionError) as reason:  # ValueError: NaN, a circle, a lone surrogate
        raise _refusal(value, what, "JSON", reason) from None


def from_json(data: bytes) -> Any:
    """The value of a JSON answer."""
    try:
        return (_json or _load_json())[1](data)
    except ValueError as reason:
        raise MoltInternalError(f"an answer of {len(data)} bytes is not JSON: {reason}") from None


def encode(codec: int, payload: Any) -> bytes | Any:
    """The bytes of a payload in any codec but Arrow: a bytes object, or for raw what `memoryview` takes."""
    if codec == MSGPACK:
        return pack(payload)
    if codec == JSON:
        return payload if isinstance(payload, bytes) else to_json(payload)
    if isinstance(payload, bytes):
        return payload
    try:
        return memoryview(payload).cast("B")
    except TypeError:
        raise MoltInvalidInput(
            f"codec 'raw' takes bytes, not {_type_name(payload)}. hint: codec='msgpack' encodes Python objects"
        ) from None


def decode(codec: int, data: bytes) -> Any:
    """The value of an answer in any codec but Arrow."""
    if codec == MSGPACK:
        return unpack(data)
    if codec == JSON:
        return from_json(data)
    return data


def plain(value: Any) -> Any:
    """What stands for `value` on the wire when MsgPack and JSON have no form of their own for it."""
    for module, name, form in _FORMS:
        loaded = sys.modules.get(module)  # a value of that type can only exist once its module is imported
        if loaded is not None and isinstance(value, getattr(loaded, name)):
            return form(value)
    if isinstance(value, int):
        raise OverflowError(f"{value:.3e} does not fit 64 bits")
    raise TypeError(f"{_type_name(value)} has no form on the wire")


def _datetime(value: Any) -> str:
    text = value.isoformat()
    if value.microsecond:
        text = text[:23] + text[26:]
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def _time(value: Any) -> str:
    if value.tzinfo is not None and value.tzinfo.utcoffset(value) is not None:
        raise ValueError("a time with a time zone has no form in JSON")
    text = value.isoformat()
    return text[:12] if value.microsecond else text


def _timedelta(value: Any) -> str:
    sign, value = ("-", -value) if value.days < 0 else ("", value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{value.microseconds:06d}" if value.microseconds else ""
    return f"{sign}P{value.days}DT{hours:02d}H{minutes:02d}M{seconds:02d}{fraction}S"


# Order matters: a datetime is a date too. The strings are those of django.core.serializers.json.DjangoJSONEncoder.
_FORMS: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("decimal", "Decimal", str),
    ("datetime", "datetime", _datetime),
    ("datetime", "date", lambda value: value.isoformat()),
    ("datetime", "time", _time),
    ("datetime", "timedelta", _timedelta),
    ("uuid", "UUID", str),
    ("django.utils.functional", "Promise", str),
)


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _refusal(value: Any, what: str, codec: str, reason: Exception) -> MoltInvalidInput:
    encoder = _try_json if codec == "JSON" else _try_msgpack
    place, culprit, reason = _culprit(value, what, encoder, reason)
    return MoltInvalidInput(f"{place} cannot be encoded as {codec}: {_type_name(culprit)}: {reason}")


def _try_json(value: Any) -> None:
    import json

    json.dumps(value, default=plain, ensure_ascii=False, allow_nan=False).encode()


def _try_msgpack(value: Any) -> None:
    Packer(default=plain).pack(value)


def _culprit(value: Any, place: str, encoder: Callable[[Any], None], reason: Exception) -> tuple[str, Any, Exception]:
    """Goes down to the smallest part that fails alone. Runs only after a failure, so it may encode parts again."""
    for _ in range(64):  # deeper is either a circle or no place that a reader could use
        for part_place, part, probe in _parts(value, place):
            try:
                encoder(probe)
            except (TypeError, ValueError, OverflowError, RecursionError) as part_reason:
                place, value, reason = part_place, part, part_reason
                break
        else:
            break
    return place, value, reason


def _parts(value: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """What `value` is made of: where, what, and the object to encode for a try."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"key {key!r} of {place}", key, {key: None}
            yield f"{place}[{key!r}]", part, part
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield f"{place}[{index}]", part, part
