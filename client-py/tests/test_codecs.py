"""Payloads to bytes: what DjangoJSONEncoder encodes, to the same strings, and errors that name the place."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal

import msgpack
import pytest
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.translation import gettext_lazy

from molt_accel import MoltInternalError, MoltInvalidInput, codecs

EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))
LIKE_DJANGO = [
    dt.datetime(2026, 2, 3, 4, 5, 6),
    dt.datetime(2026, 2, 3, 4, 5, 6, 123456),
    dt.datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=dt.UTC),
    dt.datetime(2026, 2, 3, 4, 5, 6, 999999, tzinfo=EAST),
    dt.date(1999, 12, 31),
    dt.time(23, 59, 1),
    dt.time(23, 59, 1, 123456),
    dt.timedelta(0),
    dt.timedelta(days=-3, hours=5, microseconds=4),
    dt.timedelta(days=400, seconds=86399, microseconds=1),
    Decimal("12.340"),
    Decimal("-1E+30"),
    uuid.UUID(int=7),
    gettext_lazy("Hello"),
]


@pytest.mark.parametrize("value", LIKE_DJANGO, ids=repr)
def test_both_codecs_write_what_djangos_encoder_writes(value: object) -> None:
    wanted = json.loads(json.dumps({"deep": [value]}, cls=DjangoJSONEncoder))
    assert json.loads(codecs.to_json({"deep": [value]})) == wanted
    assert msgpack.unpackb(codecs.pack({"deep": [value]})) == wanted


@pytest.mark.parametrize(
    "value",
    [None, True, -(2**63), 2**64 - 1, 1.5, "Grüße \U0001f600", b"\x00\xff", [1, (2, 3)], {"a": {"b": []}}, {1: 2}],
)
def test_msgpack_there_and_back(value: object) -> None:
    back = codecs.decode(codecs.MSGPACK, codecs.encode(codecs.MSGPACK, value))
    assert back == (json.loads(json.dumps(value)) if isinstance(value, list) else value)


def test_json_is_compact_utf8_and_takes_encoded_bytes_as_they_are() -> None:
    assert codecs.encode(codecs.JSON, {"ü": [1, None]}) == '{"ü":[1,null]}'.encode()
    assert codecs.encode(codecs.JSON, b"{not even json") == b"{not even json"


@pytest.mark.parametrize(
    ("codec", "value", "place", "kind"),
    [
        ("msgpack", {"orders": [{}, {"tags": {1, 2}}]}, "payload['orders'][1]['tags']", "set"),
        ("json", {"orders": [{}, {"tags": {1, 2}}]}, "payload['orders'][1]['tags']", "set"),
        ("json", {"price": [1.0, float("nan")]}, "payload['price'][1]", "float"),
        ("msgpack", [2**70], "payload[0]", "int"),
        ("json", {"name": "\ud800"}, "payload['name']", "str"),
        ("msgpack", {"name": "\ud800"}, "payload['name']", "str"),
        ("json", [dt.time(1, tzinfo=dt.UTC)], "payload[0]", "datetime.time"),
        ("json", {"a": {(1, 2): 3}}, "key (1, 2) of payload['a']", "tuple"),
        ("msgpack", {"a": {frozenset(): 3}}, "key frozenset() of payload['a']", "frozenset"),
    ],
)
def test_what_cannot_be_encoded_is_named_with_its_place(codec: str, value: object, place: str, kind: str) -> None:
    with pytest.raises(MoltInvalidInput) as refused:
        codecs.encode(codecs.number(codec), value)
    codec_name = {"json": "JSON", "msgpack": "MsgPack"}[codec]
    assert str(refused.value).startswith(f"{place} cannot be encoded as {codec_name}: {kind}: ")


@pytest.mark.parametrize("codec", ["json", "msgpack"])
def test_a_circle_and_a_depth_bomb_are_refused(codec: str) -> None:
    circle: list[object] = []
    circle.append(circle)
    bomb: list[object] = []
    for _ in range(100_000):
        bomb = [bomb]
    for value in (circle, bomb):
        with pytest.raises(MoltInvalidInput, match="cannot be encoded"):
            codecs.encode(codecs.number(codec), value)


def test_encoding_works_again_after_a_refusal_and_inside_a_hook() -> None:
    class Sly(dt.tzinfo):
        """Encodes something while it is being encoded."""

        def utcoffset(self, when: object) -> dt.timedelta:
            assert codecs.pack([1, 2]) == b"\x92\x01\x02"
            return dt.timedelta(0)

    with pytest.raises(MoltInvalidInput):
        codecs.pack([1, object()])
    assert msgpack.unpackb(codecs.pack(["a", dt.datetime(2026, 1, 1, tzinfo=Sly()), "b"])) == [
        "a",
        "2026-01-01T00:00:00Z",
        "b",
    ]


def test_raw_takes_any_buffer_and_nothing_else() -> None:
    for value in (b"ab", bytearray(b"ab"), memoryview(b"ab")):
        assert bytes(codecs.encode(codecs.RAW, value)) == b"ab"
    with pytest.raises(MoltInvalidInput, match=r"takes bytes, not dict\. hint: codec='msgpack'"):
        codecs.encode(codecs.RAW, {})


def test_an_unknown_codec_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'yaml'\. hint: one of msgpack, json, raw, arrow"):
        codecs.number("yaml")


@pytest.mark.parametrize("codec", [codecs.MSGPACK, codecs.JSON])
def test_an_answer_that_cannot_be_decoded_is_an_internal_error(codec: int) -> None:
    with pytest.raises(MoltInternalError, match="an answer of 2 bytes is not"):
        codecs.decode(codec, b"\xc1{")
