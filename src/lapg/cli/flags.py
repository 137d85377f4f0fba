"""Flags made from the parts that are chosen: their factories' signatures and docstrings."""

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

import tyro

from lapg.experiments.config import PARTS, Config, from_dict
from lapg.methods import KINDS, PREFERRED, REGISTRY, Part, resolve, settings, signature_of
from lapg.methods.making import nested_kind
from lapg.methods.registry import ASKED, DEFAULTS
from lapg.methods.signatures import REQUIRED, Option
from lapg.runtimes import REMOTE


def _switched(words: list[str]) -> bool | None:
    known = {"": True, "True": True, "False": False, "None": None}
    word = " ".join(words).capitalize()
    if word not in known:
        raise ValueError(f"must be True or False, or nothing for True, got {word}.")
    return known[word]


Switch = Annotated[
    bool | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[True|False]",
        instance_from_str=_switched,
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A flag that may stand alone and then says True."""


def named_by(arguments: Sequence[str], default: Config) -> Config:
    """The configuration with the names that are among a command's arguments: of the method, and of parts (``--trigger.name periodic``).

    Raises:
      ValueError: there is no such part.
    """
    words = [
        part for argument in arguments for part in (argument.split("=", 1) if "--" in argument[:2] else [argument])
    ]
    data: dict[str, Any] = {}
    for flag, value in itertools.pairwise(words):
        if flag == "--method":
            data["method"] = value
        elif match := re.fullmatch(r"--([\w.-]+)\.name", flag):
            *tables, last = match[1].replace("-", "_").split(".")
            if (tables or [last])[0] in PARTS:
                table = data
                for one in [*tables, last]:
                    table = table.setdefault(one, {})
                table["name"] = value
    return from_dict(data, default)


FIRST = ("problem", "policy", "estimator", "method")
"""Shown before all others."""


def flags_of(config: Config, *, everything: bool = True) -> Any:
    """An instance of a dataclass made for this configuration, whose fields are its flags: a dataclass in it for each part, with its name and options.

    Args:
      everything: whether --help has the parts that neither the configuration nor its method names, and the settings of a cluster that is not used.
    """
    words, parts = _words(Config), config.parts
    fields = []
    for item in sorted(dataclasses.fields(Config), key=lambda item: item.name not in FIRST):
        value = getattr(config, item.name)
        hint: Any = item.type
        if isinstance(value, Part):
            value = flags_of_part(item.name, _shown(config, item.name, parts), words[item.name])
            hint = type(value)
        hidden = not everything and not _is_shown(item.name, config)
        fields.append(_field(item.name, hint, value, words.get(item.name, ""), hidden=hidden))
    return dataclasses.make_dataclass("Settings", fields, frozen=True)()


def _is_shown(name: str, config: Config) -> bool:
    """Whether a setting is in a short --help: not a part that nobody has named, nor a cluster that is not used."""
    if name == "cluster":
        return config.runtime in REMOTE
    if name not in PARTS or name in (*FIRST, "optimiser"):
        return True
    preset = getattr(resolve("method", config.method), name, None)
    return bool(preset) or getattr(config, name) != getattr(Config(), name)


def from_flags(flags: Any, config: Config) -> Config:
    """The configuration with the flags that were given: those that say something else than it does."""
    parts, changes = config.parts, dict[str, Any]()
    for item in dataclasses.fields(Config):
        value, current = getattr(flags, item.name), getattr(config, item.name)
        if isinstance(current, Part):
            value = part_from_flags(item.name, _shown(config, item.name, parts), value)
            if value:
                changes[item.name] = value
        elif value != current:
            changes[item.name] = value
    return config.but(**changes) if changes else config


def _shown(config: Config, kind: str, parts: Mapping[str, Part]) -> Part:
    """The part whose options are flags; without a name where that depends on the problem."""
    value = getattr(config, kind)
    chosen = kind in (*KINDS, *PREFERRED) and bool(getattr(resolve("method", config.method), kind))
    return value if kind in ASKED and value.name is None and not chosen else parts.get(kind, value)


def flags_of_part(kind: str, part: Part, about: str = "") -> Any:
    """A part's name and options as fields; nested ones with the parts that they are.

    Args:
      about: what is said of a part without a name.
    """
    left = part.name is None
    called = ASKED[kind] if left else part.name
    found, others = signature_of(kind, called), ", ".join(name for name in REGISTRY[kind] if name != part.name)
    about = f"{about if left else found.summary} Another one: {others}, or your own as MODULE:NAME."
    fields = [_field("name", str | None if left else str, part.name, about)]
    values = part.options if left else settings(kind, part)
    fields += _options(found.options, values, optional=left)
    return dataclasses.make_dataclass(kind, fields, frozen=True)()


def flags_of_options(options: Mapping[str, Option]) -> Any:
    """Options alone as the fields of an instance of a dataclass, of a factory whose kind of part is not known."""
    values = {name: option.default for name, option in options.items()}
    return dataclasses.make_dataclass("options", _options(options, values), frozen=True)()


def _options(options: Mapping[str, Option], values: Mapping[str, Any], *, optional: bool = False) -> list[Any]:
    fields = []
    for name, option in options.items():
        inside, value = nested_kind(option), values.get(name)
        if inside is not None:
            made = flags_of_part(inside, value if isinstance(value, Part) else Part(DEFAULTS[inside]))
            fields.append(_field(name, type(made), made, option.help))
        elif (hint := _flag(option)) is not None:
            hint = hint | None if optional and hint is not Switch else hint
            fields.append(_field(name, hint, None if value is REQUIRED else value, option.help))
    return fields


def part_from_flags(kind: str, part: Part, flags: Any) -> Part:
    """The options of a part whose flags say something else than it does."""
    values = part.options if part.name is None else settings(kind, part)
    options, found = dict[str, Any](), signature_of(kind, part.name or ASKED[kind]).options
    for item in dataclasses.fields(flags):
        value, current = getattr(flags, item.name), values.get(item.name)
        if (inside := nested_kind(found.get(item.name))) is not None:
            inner = part_from_flags(inside, current if isinstance(current, Part) else Part(DEFAULTS[inside]), value)
            if inner:
                options[item.name] = inner
        elif item.name != "name" and value != current:
            options[item.name] = value
    return Part(None, **options)


def _flag(option: Option) -> Any:
    """The type of an option's flag; None where none can be typed."""
    kinds: list[Any] = [
        choice for choice in option.choices if choice not in (dict, Any) and get_origin(choice) is not Annotated
    ]
    kinds = [choice for choice in kinds if not (get_origin(choice) is tuple and get_args(choice)[0] is Any)]
    if not [kind for kind in kinds if kind is not type(None)]:
        if option.choices != (Any,):
            return None
        kinds = [bool, int, float, str]  # of an argument without a type
    if bool in kinds and len(kinds) <= 2:
        return Switch
    hint = None if option.default is REQUIRED else kinds[0]
    for kind in kinds if hint is None else kinds[1:]:
        hint = kind | None if hint is None else hint | kind
    return hint


def _field(name: str, hint: Any, default: Any, words: str, *, hidden: bool = False) -> Any:
    hint = tyro.conf.Suppress[hint] if hidden else hint
    return name, Annotated[hint, tyro.conf.arg(help=words or None)], dataclasses.field(default=default)


def _words(kind: type) -> dict[str, str]:
    """The strings below the fields of a dataclass and of those that it comes from."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in itertools.pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                value = text.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[field.target.id] = value.value
    return found
