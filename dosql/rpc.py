"""What an RPC looks like on its way: arguments and results as JSON, always by value.

Both stubs use these functions, the one inside the host too, so that a call does the same wherever
it comes from. A body is ``{"args": [...], "kwargs": {...}}``, a reply ``{"result": ...}``.

What JSON has no form for travels as in the SQL routes: ``{"$blob": "<base64>"}`` is bytes and
``{"$float": "NaN"}`` (``"Infinity"``, ``"-Infinity"``) a float. A dict that would read as one of
these is wrapped as ``{"$dict": {...}}``. Everything else is msgspec's JSON: a tuple or a set is a
list, a datetime is RFC 3339 text, the keys of a dict are strings, a dataclass, a Struct or a
pydantic model is an object. An annotation turns it back: parameters are converted to what the
method's signature says, results to its return annotation where the caller knows the class.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

import msgspec

from dosql.errors import InternalError, InvalidRequestError

_PLAIN = frozenset({str, int, bool, type(None)})
_BYTES = (bytes, bytearray, memoryview)
_LISTS = (list, tuple, set, frozenset)
_KNOWN = frozenset({float, dict, *_BYTES, *_LISTS})
_TAGS = frozenset({"$blob", "$float", "$dict"})
_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

_encoder = msgspec.json.Encoder()


class _Call(msgspec.Struct, forbid_unknown_fields=True):
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class _Result(msgspec.Struct):
    result: Any


_call_decoder = msgspec.json.Decoder(_Call)
_result_decoder = msgspec.json.Decoder(_Result)


def encode_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """The body of a call.

    Raises:
        InvalidRequestError: ``invalid_arguments``: an argument cannot be sent by value.
    """
    return _encode(_Call(list(args), dict(kwargs)), "An argument", "invalid_arguments")


def decode_call(body: bytes) -> tuple[list[Any], dict[str, Any]]:
    """Arguments as they came, not yet converted; an empty body is a call without any.

    Raises:
        InvalidRequestError: ``invalid_json``, ``invalid_request`` for another shape, or
            ``invalid_arguments`` for a malformed ``$blob`` or ``$float``.
    """
    if not body:
        return [], {}
    try:
        call = _call_decoder.decode(body)
        if b'"$' in body:
            args = [_untagged(value) for value in call.args]
            return args, {name: _untagged(value) for name, value in call.kwargs.items()}
    except msgspec.ValidationError as exc:
        message = f'The body of a call is {{"args": [...], "kwargs": {{...}}}}: {_in_words(exc)}.'
        raise InvalidRequestError(message, code="invalid_request") from exc
    except RecursionError as exc:
        raise InvalidRequestError("The body is nested too deeply.", code="invalid_json") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequestError("The body is not valid JSON.", code="invalid_json") from exc
    except _BadTagError as exc:
        raise InvalidRequestError(f"An argument is {exc}.", code="invalid_arguments") from exc
    return call.args, call.kwargs


def encode_result(value: Any) -> bytes:
    """The body of a reply.

    Raises:
        InvalidRequestError: ``result_not_sendable``: the method returned what cannot be sent.
    """
    return _encode(_Result(value), "The method's result", "result_not_sendable")


def decode_result(body: bytes, annotation: Any = Any) -> Any:
    """The result of a call, converted to ``annotation`` unless that is ``Any``.

    Raises:
        InternalError: ``invalid_reply``: not the reply of an RPC.
        InvalidRequestError: ``result_mismatch``: it does not fit the annotation.
    """
    try:
        value = _result_decoder.decode(body).result
        if b'"$' in body:
            value = _untagged(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _BadTagError) as exc:
        message = "The reply is not that of an RPC; is the URL right?"
        raise InternalError(message, code="invalid_reply") from exc
    return convert(value, annotation, what="The result", code="result_mismatch")


def convert(value: Any, annotation: Any, *, what: str, code: str) -> Any:
    """A decoded value as what an annotation asks for: strict, except that text becomes what JSON
    has no type for (datetime, Decimal, UUID, enum, base64 to bytes).

    Raises:
        InvalidRequestError: with ``code``; the message begins with ``what``, for example
            ``Argument 'amount'``.
    """
    if annotation is Any:
        return value
    try:
        return msgspec.convert(value, annotation, str_keys=True, dec_hook=_from_builtins)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise InvalidRequestError(f"{what} does not fit: {_in_words(exc)}.", code=code) from exc
    except TypeError as exc:
        message = f"{what} is annotated with a type that cannot be sent: {exc}"
        raise InvalidRequestError(message, code=code) from exc


def annotations_of(method: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a method, resolved; its result's is ``"return"``.

    Raises:
        InvalidRequestError: ``invalid_annotation``: one names something that does not exist when
            the program runs, such as an import under ``TYPE_CHECKING``.
    """
    try:
        return get_type_hints(method, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as exc:
        raise InvalidRequestError(
            f"The annotations of {method.__qualname__} cannot be resolved: {exc}. Import what they "
            "name outside of TYPE_CHECKING.",
            code="invalid_annotation",
        ) from exc


def _encode(body: _Call | _Result, what: str, code: str) -> bytes:
    try:
        return _encoder.encode(_tagged(msgspec.structs.asdict(body)))
    except UnicodeEncodeError:
        message = f"{what} holds a lone surrogate, which is not text."
    except RecursionError:
        message = f"{what} is nested too deeply, or holds itself."
    except (TypeError, OverflowError, ValueError) as exc:
        message = f"{what} cannot be sent: {exc}."
    raise InvalidRequestError(message, code=code)


def _tagged(value: Any) -> Any:
    """JSON-ready; containers without anything to tag are handed through untouched."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        if len(value) == 1 and not value.keys().isdisjoint(_TAGS):
            return {"$dict": {key: _tagged(item) for key, item in value.items()}}
        if _PLAIN.issuperset(map(type, value.values())):
            return value
        return {key: _tagged(item) for key, item in value.items()}
    if kind in _LISTS:
        if _PLAIN.issuperset(map(type, value)):
            return value
        return [_tagged(item) for item in value]
    if kind is float:
        return value if math.isfinite(value) else {"$float": _name_of(value)}
    if kind in _BYTES:
        return {"$blob": base64.b64encode(value).decode()}
    plain = msgspec.to_builtins(value, builtin_types=_BYTES, str_keys=True, enc_hook=_to_builtins)
    return _tagged(plain) if type(plain) in _KNOWN else plain


def _name_of(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _untagged(value: Any) -> Any:
    if type(value) is list:
        return [_untagged(item) for item in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        (tag, content), *_ = value.items()
        if tag == "$blob":
            return _blob(content)
        if tag == "$float":
            if type(content) is not str or content not in _FLOATS:
                raise _BadTagError('a "$float" that is not "NaN", "Infinity" or "-Infinity"')
            return _FLOATS[content]
        if tag == "$dict" and type(content) is dict:
            value = content
    return {key: _untagged(item) for key, item in value.items()}


def _blob(content: Any) -> bytes:
    if type(content) is str:
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise _BadTagError('a "$blob" that is not base64')


class _BadTagError(Exception):
    """A tagged value that nobody but us may write, and we do not write it so."""


def _to_builtins(value: Any) -> Any:
    if hasattr(type(value), "__pydantic_serializer__"):
        return value.model_dump()
    if isinstance(value, str):
        return "".join(value)  # a subclass; its own __str__ may say something else
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    name = type(value).__name__
    raise TypeError(f"a value of type {name} has no form that travels; send its fields instead")


def _from_builtins(kind: type[Any], value: Any) -> Any:
    if hasattr(kind, "__pydantic_validator__"):
        return _from_builtins_by_pydantic(kind, value)
    if isinstance(value, kind):
        return value
    raise TypeError(f"{kind.__name__} has no form that travels")


def _from_builtins_by_pydantic(model: Any, value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return model.model_validate(value)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"`{where}`: {first['msg']}" if where else first["msg"]) from exc


def _in_words(exc: Exception) -> str:
    """msgspec's ``- at `$.name` `` without its path syntax."""
    message = re.sub(r"`\$\.?([^`]*)`", r"`\1`", str(exc)).replace("\n", " ")
    return message.removesuffix(" - at ``").removesuffix(".")
