"""The base class of all sections of the configuration, and common types."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

_POWER_OF_TEN = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_LONGEST_NAME = 200  # bytes; file systems allow 255, names of results are longer by a suffix


def _check_place(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError("must be the path of a file or folder")
    return text


ClassName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.+-]*$", max_length=_LONGEST_NAME)]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=_LONGEST_NAME)]
Place = Annotated[str, AfterValidator(_check_place)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Index = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]
Precision = Literal["float32", "tf32", "bfloat16"]  # of prediction


class Section(BaseModel):
    """A section of the configuration: unknown keys and wrong types are refused, values never change.

    ``younger`` are fields that are left out of the dump while they have their default: what was made before there were
    such fields stays up to date.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    younger: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_younger_defaults(self, to_dict: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unset = {name for name in self.younger if getattr(self, name) == fields[name].default}
        return {name: value for name, value in to_dict(self).items() if name not in unset}

    @model_validator(mode="before")
    @classmethod
    def _powers_of_ten_are_numbers(cls, values: Any) -> Any:
        """Read `1e-3` as a number where one can be: YAML 1.1 takes it for text, since it has no point."""
        if not isinstance(values, dict):
            return values
        return {name: _number(value) if name in _numbers_of(cls) else value for name, value in values.items()}


@cache
def _numbers_of(section: type[Section]) -> set[str]:
    return {name for name, field in section.model_fields.items() if "float" in repr(field.annotation)}


def _number(value: Any) -> Any:
    if isinstance(value, str) and _POWER_OF_TEN.fullmatch(value):
        return float(value)
    if isinstance(value, list):
        return [_number(one) for one in value]
    return {name: _number(one) for name, one in value.items()} if isinstance(value, dict) else value
