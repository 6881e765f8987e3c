"""What the cases of an exercise gave, as values and as bytes.

The bytes are what crosses from the process that runs learner code to the one that judges:
safetensors with a JSON header, never pickle, so reading them runs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

MAX_BYTES = 64 * 1024 * 1024
_MAX_TEXT = 4000
_MAX_LIST = 100_000


class MalformedOutcomes(ValueError):
    """The bytes are not what :func:`encode` writes; the text says what is wrong."""


@dataclass(frozen=True)
class Strange:
    """A value that no case can compare: a numpy array, a sparse tensor, an object."""

    type: str
    shown: str


@dataclass(frozen=True)
class OnDevice:
    """Marks that a tensor lay on another device than its case's inputs."""

    tensor: Tensor
    device: str


@dataclass(frozen=True)
class Failure:
    """Why a case gave no outputs.

    Attributes:
        kind: exception, timeout, skipped, forbidden, or the kind of a Complaint.
        text: one sentence.
        next_step: what to do about it.
        lines: the learner's own lines on the way to the error, outermost first.
    """

    kind: str
    text: str
    next_step: str = ""
    lines: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What one case gave: named outputs, or a failure; and what the code printed."""

    case: str
    outputs: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    printed: str = ""


def simplify(value: Any) -> Any:
    """Turns an output into what can be sent: a tensor, number, text, list, or Strange."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            return Strange(f"tensor ({value.layout}, on {value.device})", "")
        plain = value.detach().as_subclass(Tensor)
        # clone(): what the component does to its result later must not change what was sent.
        local = plain.cpu().resolve_conj().resolve_neg().contiguous().clone()
        return local if value.device.type == "cpu" else OnDevice(local, str(value.device))
    if isinstance(value, float):
        return float(value)  # numpy's own are floats too, with another repr
    if value is None or isinstance(value, bool | int | str):
        return value[:_MAX_TEXT] if isinstance(value, str) else value
    if isinstance(value, list | tuple) and len(value) <= _MAX_LIST:
        return [simplify(item) for item in value]
    return Strange(_type_name(value), _shown(value))


def flatten(outcomes: Sequence[Outcome], tensors: dict[str, Tensor]) -> list[Any]:
    """The outcomes as JSON; their tensors go to ``tensors``."""

    def store(value: Any) -> Any:
        match value:
            case Tensor():
                # Named by its content: what many cases or misconceptions give is kept once.
                key = _digest(value)
                tensors[key] = value.clone()  # safetensors refuses tensors that share memory
                return {"tensor": key}
            case OnDevice(tensor, device):
                return store(tensor) | {"device": device}
            case Strange(type_, shown):
                return {"strange": type_, "shown": shown}
            case list():
                return {"list": [store(item) for item in value]}
            case float():
                # JSON has no NaN or infinity; repr() keeps every bit of the others.
                return {"float": repr(value)}
        return {"value": value}

    return [
        {
            "case": outcome.case,
            "outputs": {name: store(value) for name, value in outcome.outputs.items()},
            "failure": None
            if outcome.failure is None
            else {
                "kind": outcome.failure.kind,
                "text": outcome.failure.text[:_MAX_TEXT],
                "next_step": outcome.failure.next_step[:_MAX_TEXT],
                "lines": [line[:300] for line in outcome.failure.lines[:20]],
            },
            "printed": outcome.printed[:_MAX_TEXT],
        }
        for outcome in outcomes
    ]


def _digest(tensor: Tensor) -> str:
    kind = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    content = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(kind + content).hexdigest()[:12]


def restore(flat: Sequence[Any], tensors: Mapping[str, Tensor]) -> list[Outcome]:
    """The outcomes that :func:`flatten` wrote.

    Raises:
        MalformedOutcomes: something is missing or of another type.
    """

    def load(value: Any) -> Any:
        if "tensor" in value:
            tensor = tensors[value["tensor"]]
            return OnDevice(tensor, str(value["device"])) if "device" in value else tensor
        if "strange" in value:
            return Strange(_said(value["strange"], 200), _said(value["shown"], 200))
        if "list" in value:
            return [load(item) for item in value["list"]]
        if "float" in value:
            return float(value["float"])
        plain = value["value"]
        if plain is not None and not isinstance(plain, bool | int | str):
            raise TypeError(f"unexpected {type(plain).__name__}")
        return _said(plain) if isinstance(plain, str) else plain

    try:
        outcomes = []
        for item in flat:
            failure = item["failure"]
            outcomes.append(
                Outcome(
                    case=_said(item["case"]),
                    outputs={_said(name): load(value) for name, value in item["outputs"].items()},
                    failure=None
                    if failure is None
                    else Failure(
                        _said(failure["kind"], 40),
                        _said(failure["text"]),
                        _said(failure["next_step"]),
                        tuple(_said(line, 300) for line in failure["lines"][:20]),
                    ),
                    printed=_said(item["printed"]),
                )
            )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise MalformedOutcomes(f"The outcomes are malformed ({error!r}).") from error
    return outcomes


def _said(value: Any, length: int = _MAX_TEXT) -> str:
    """Text that was sent: cut as the sender should have, and such that a file can hold it."""
    return str(value)[:length].encode("utf-8", "replace").decode("utf-8")


def encode(exercise_id: str, outcomes: Sequence[Outcome]) -> bytes:
    """The outcomes of one exercise as bytes."""
    tensors: dict[str, Tensor] = {}
    header = json.dumps({"exercise": exercise_id, "outcomes": flatten(outcomes, tensors)})
    return safetensors.torch.save(tensors, {"outcomes": header})


def decode(data: bytes) -> tuple[str, list[Outcome]]:
    """The exercise id and outcomes that :func:`encode` wrote.

    Raises:
        MalformedOutcomes: too long, not safetensors, or not our header.
    """
    if len(data) > MAX_BYTES:
        raise MalformedOutcomes(
            f"The outcomes are {len(data)} bytes long; the limit is {MAX_BYTES}."
        )
    try:
        header = json.loads(read_header(data)["outcomes"])
        tensors = safetensors.torch.load(data)
        return str(header["exercise"]), restore(header["outcomes"], tensors)
    except MalformedOutcomes:
        raise
    except Exception as error:  # safetensors raises its own types, RecursionError included
        raise MalformedOutcomes(f"The outcomes cannot be read ({error}).") from error


def read_header(data: bytes) -> dict[str, str]:
    """The metadata of safetensors bytes (the library reads it from files only).

    Raises:
        ValueError: the bytes are not safetensors.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError("not safetensors, or cut short")
    return dict(json.loads(data[8 : 8 + length]).get("__metadata__", {}))


def _type_name(value: Any) -> str:
    name = type(value).__name__
    module = type(value).__module__
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def _shown(value: Any) -> str:
    # A learner's __repr__ may do anything; types and sizes say enough.
    try:
        return f"of length {len(value)}"
    except Exception:
        return ""
