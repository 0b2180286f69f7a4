"""A value: it never changes once it is made, and equals another that says the same.

As a frozen dataclass, by its annotations; but `dataclasses` alone takes longer to import than all of
brownout, and every process that imports a client pays for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, dataclass_transform

if TYPE_CHECKING:
    from inspect import Signature


class _Made:
    """The signature of a value's class, for those who ask: `inspect.signature`, and so `help`."""

    def __get__(self, _: object, made: type[Value]) -> Signature:
        from inspect import Parameter, Signature

        return Signature(
            [
                Parameter(
                    name,
                    Parameter.POSITIONAL_OR_KEYWORD,
                    default=getattr(made, name, Parameter.empty),
                    annotation=made.__annotations__[name],
                )
                for name in made._fields
            ],
            return_annotation="None",
        )


@dataclass_transform(frozen_default=True)
class Value:
    """What a class of values is made of: annotate its fields, with their defaults."""

    _fields: ClassVar[tuple[str, ...]] = ()
    if not TYPE_CHECKING:
        __signature__ = _Made()

    def __init_subclass__(cls) -> None:
        fields = cls.__annotations__.items()
        cls._fields = tuple(name for name, kind in fields if not kind.startswith("ClassVar"))
        setattr(cls, "__match_args__", cls._fields)  # noqa: B010 - what checkers have worked out
        super().__init_subclass__()

    def __init__(self, *given: Any, **named: Any) -> None:
        names, who = self._fields, type(self).__name__
        if len(given) > len(names):
            raise TypeError(
                f"{who}() takes at most {len(names)} arguments, {len(given)} were given"
            )
        fields = dict(zip(names, given, strict=False))
        for name in names[len(given) :]:
            if name in named:
                fields[name] = named.pop(name)
            elif hasattr(type(self), name):
                fields[name] = getattr(type(self), name)
            else:
                raise TypeError(f"{who}() lacks the argument {name!r}")
        for name in named:
            what = "two values for" if name in fields else "an unexpected"
            raise TypeError(f"{who}() got {what} argument {name!r}; it takes {', '.join(names)}")
        self.__dict__.update(fields)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check what was given, where a class has something to check."""

    def __replace__(self, **changes: Any) -> Self:
        """Another that says the same but for `changes`: what `copy.replace` asks for."""
        return type(self)(**{**self.__dict__, **changes})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} can't be changed: make another")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} can't be deleted")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({fields})"
