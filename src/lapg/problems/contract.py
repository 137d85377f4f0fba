"""Where other people's code meets ours: what it raises is named, what it returns is checked."""

import contextlib
import functools
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_HOUSE = str(Path(__file__).parents[1])


class EnvironmentFailed(RuntimeError):  # noqa: N818  (who, not what)
    """Code of an environment, or of the factory that makes one, has raised.

    The original exception is the ``__cause__``; ``details`` is its traceback as text, without the lines of lapg, also where an engine has carried
    the error from another process.
    """

    details: str = ""


class Misfit(ValueError):  # noqa: N818
    """An environment has returned what does not fit its spaces or its interface."""


def failed(what: str, error: BaseException) -> Exception:
    """What to raise from ``error``, which came out of other people's code or of what has checked it; ``what`` says where."""
    if isinstance(error, Misfit):
        return Misfit(f"{what}: {error}")
    reason = str(error).strip().partition("\n")[0]
    failure = EnvironmentFailed(f"{what}: {type(error).__name__}{': ' if reason else ''}{reason}")
    told = traceback.TracebackException.from_exception(error)
    told.stack = traceback.StackSummary.from_list([at for at in told.stack if not at.filename.startswith(_HOUSE)])
    failure.details = "".join(told.format())
    return failure


@contextlib.contextmanager
def theirs(what: str, *meant: type[Exception]) -> Iterator[None]:
    """Runs other people's code.

    Args:
      meant: errors that say it all, which stay as they are.
    Raises:
      EnvironmentFailed: it has raised anything else, a call of sys.exit included.
      Misfit: that, with its place.
    """
    try:
        yield
    except (EnvironmentFailed, *meant):
        raise
    except (Exception, SystemExit) as error:
        raise failed(what, error) from error


def guarded(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    """Other people's function that calls lapg: what lapg itself raises in it stays as it is, and anything else becomes `EnvironmentFailed`."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except (Exception, SystemExit) as error:
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if frame.f_code.co_filename.startswith(_HOUSE):
                raise
            raise failed(what, error) from error

    return call


@contextlib.contextmanager
def opened(owner: str, make: Callable[[], Any]) -> Iterator[Any]:
    """An environment to ask for its spaces, closed afterwards.

    Raises:
      EnvironmentFailed: it cannot be made or closed.
    """
    try:
        environment = make()
    except Misfit:  # says it all
        raise
    except (Exception, SystemExit) as error:
        raise failed(f"{owner} could not be made", error) from error
    try:
        yield environment
    finally:
        with theirs(f"{owner} could not be closed"):
            close(environment)


def close(environment: Any) -> None:
    """Closes an environment that can be."""
    getattr(environment, "close", lambda: None)()


def parts(result: Any, call: str, names: tuple[str, ...]) -> tuple[Any, ...]:
    """What a call has returned, if it is as many values as there are names.

    Raises:
      Misfit: it is not.
    """
    if isinstance(result, tuple) and len(result) == len(names):
        return result
    found = f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
    raise Misfit(f"{call} must return {', '.join(names)}, got {found}.")


def started(result: Any) -> tuple[Any, Any]:
    """Observation and info, of what ``reset`` has returned; `parts` says what it raises."""
    observation, info = parts(result, "reset", ("observation", "info"))
    return observation, info


def stepped(result: Any) -> tuple[Any, ...]:
    """Observation, reward, terminated, truncated and info, of what ``step`` has returned; `parts` says what it raises."""
    return parts(result, "step", ("observation", "reward", "terminated", "truncated", "info"))


def number(reward: Any, what: str = "a reward") -> float:
    """A reward as a float: of any real type, a boolean or an array of one element included.

    Raises:
      Misfit: it is not one number.
    """
    if type(reward) is float:
        return reward
    return float(_one(reward, f"{what} must be one number"))


def table(value: Any, what: str) -> Mapping[Any, Any]:
    """A value that has an entry per agent.

    Raises:
      Misfit: it has none.
    """
    if not isinstance(value, Mapping):
        raise Misfit(f"{what} must have an entry per agent, got {_shown(value)}.")
    return value


def flag(value: Any, name: str) -> bool:
    """A flag as a bool: of any type, if its value is true or false, 1 or 0.

    Raises:
      Misfit: it is not.
    """
    if value is True or value is False:
        return value
    found = _one(value, f"{name} must be True or False")
    if found not in (0, 1):
        raise Misfit(f"{name} must be True or False, got {value!r}.")
    return bool(found)


def _one(value: Any, rule: str) -> Any:
    found = np.asarray(value, object if isinstance(value, list | tuple) else None)
    if found.size != 1 or found.dtype.kind not in "biuf":
        raise Misfit(f"{rule}, got {_shown(value)}.")
    return found.item()


def array(value: Any, shape: tuple[int, ...], dtype: Any, what: str) -> np.ndarray:
    """A value as an array of that dtype, if it has that shape.

    Raises:
      Misfit: it has not, or it is not made of numbers.
    """
    try:
        found = np.asarray(value, dtype)
    except (TypeError, ValueError):
        raise Misfit(f"{what} must be made of numbers of shape {shape}, got {_shown(value)}.") from None
    if found.shape != shape:
        raise Misfit(f"{what} must have the shape of its space, {shape}, got {found.shape}; reshape it there.")
    return found


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
