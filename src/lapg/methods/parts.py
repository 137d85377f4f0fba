"""A choice of a part, as a configuration writes it down: a name, and options by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, init=False, repr=False)
class Part:
    """A part by its name, with its options: ``Part("periodic", period=40)``. In TOML: a table of ``name`` and the options.

    Without a name it is the part that there is otherwise, the method's or the default, with these options changed: ``Part(threshold=30.0)``.

    Attributes:
      name: a built-in part's (`lapg list`), or your own factory: the function itself, or MODULE:NAME.
      options: keyword arguments of the factory, plain data; a part in a part is a `Part` as well.
    """

    name: Any
    options: dict[str, Any]

    def __init__(self, name: Any = None, /, **options: Any) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "options", options)

    def __repr__(self) -> str:
        words = [] if self.name is None else [repr(self.name)]
        return f"Part({', '.join([*words, *(f'{name}={value!r}' for name, value in self.options.items())])})"

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return self.name is not None or bool(self.options)


def merged(below: Part, above: Part) -> Part:
    """``below`` as ``above`` changes it: wholly where that has another name, else in the options that it names, those of parts in parts included."""
    if above.name not in (None, below.name):
        return above
    options = dict(below.options)
    for name, value in above.options.items():
        old = options.get(name)
        options[name] = merged(old, value) if isinstance(value, Part) and isinstance(old, Part) else value
    return Part(below.name, **options)


def as_table(part: Part) -> dict[str, Any]:
    """The part as plain data, one table: its name, if it has one, and its options."""
    named = {} if part.name is None else {"name": part.name}
    return named | {name: as_table(value) if isinstance(value, Part) else value for name, value in part.options.items()}


def from_table(table: Mapping[str, Any]) -> Part:
    """The part that such a table is of; tables in it stay what they are."""
    return Part(table.get("name"), **{name: value for name, value in table.items() if name != "name"})
