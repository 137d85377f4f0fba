"""Disks that lose power, fill up or decay: what a power cut may leave of a run directory, and ways to damage a file."""

import os
import stat
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Moment:
    """What the disk knows of a folder at one moment.

    Attributes:
      names: path below the folder → file, as the last sync of its own folder left them.
      pending: (path, file or None) of every name that came or went since, in order.
      synced: file → content at its last sync.
      now: file → content as processes see it.
    """

    names: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[str, int | None]] = field(default_factory=list)
    synced: dict[int, bytes] = field(default_factory=dict)
    now: dict[int, bytes] = field(default_factory=dict)


class Disk:
    """Watches a folder while this process writes there, and keeps the moments at which the power may fail.

    A rename counts as one name that comes and one that goes, each of which may or may not have reached the disk, unless the folder was synced since.
    Content that was not synced may be missing, cut short, or zeros.
    """

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        self.folder, self.moments = folder, list[Moment]()
        self._disk, self._seen, self._ids, self._count = Moment(), dict[str, int](), dict[int, int](), 0
        for name in ("replace", "rename", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))
        monkeypatch.setattr(os, "fsync", self._watched(os.fsync, self._fsync))

    def _watched(self, call: Callable[..., Any], then: Callable[[Any], None] | None = None) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            self._look()
            result = call(*arguments, **options)
            if then is not None:
                then(arguments[0])
            self._look()
            return result

        return watched

    def _look(self) -> None:
        """Takes in what has changed since the last look, and keeps the moment."""
        files = [file for file in self.folder.rglob("*") if file.is_file()] if self.folder.is_dir() else []
        nodes = {str(file.relative_to(self.folder)): file.stat().st_ino for file in files}
        self._ids = {node: file for node, file in self._ids.items() if node in nodes.values()}
        for node in nodes.values():
            if node not in self._ids:
                self._count += 1
                self._ids[node] = self._count
        seen = {name: self._ids[node] for name, node in nodes.items()}
        gone = [(name, None) for name in self._seen if name not in seen]
        self._disk.pending += gone + [(name, file) for name, file in seen.items() if self._seen.get(name) != file]
        self._disk.now |= {seen[str(file.relative_to(self.folder))]: file.read_bytes() for file in files}
        self._seen = seen
        self.moments.append(deepcopy(self._disk))

    def _fsync(self, handle: int) -> None:
        status = os.fstat(handle)
        if not stat.S_ISDIR(status.st_mode):
            if status.st_ino in self._ids:
                file = self._ids[status.st_ino]
                self._disk.synced[file] = self._disk.now[file]
            return
        for folder in (self.folder, *self.folder.rglob("*")) if self.folder.is_dir() else ():
            if folder.is_dir() and folder.stat().st_ino == status.st_ino:
                below = folder.relative_to(self.folder)
                mine = [entry for entry in self._disk.pending if Path(entry[0]).parent == below]
                self._disk.pending = [entry for entry in self._disk.pending if entry not in mine]
                _apply(self._disk.names, mine)


def _apply(names: dict[str, int], entries: list[tuple[str, int | None]]) -> None:
    for name, file in entries:
        names.pop(name, None)
        if file is not None:
            names[name] = file


def after_power_cut(moment: Moment, random: np.random.Generator, folder: Path) -> None:
    """Makes ``folder`` one of the states in which the disk may come back."""
    names = dict(moment.names)
    _apply(names, [entry for entry in moment.pending if random.random() < 0.5])
    for name, file in names.items():
        synced, now = moment.synced.get(file), moment.now[file]
        content = now
        if synced != now:
            cut = int(random.integers(len(now) + 1))
            torn = [b"", now[:cut], now[:cut] + bytes(len(now) - cut), now, *([synced] if synced is not None else [])]
            content = torn[random.integers(len(torn))]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _flip(content: bytes, place: float) -> bytes:
    changed = bytearray(content)
    changed[int(place * (len(content) - 1))] ^= 1 << 4
    return bytes(changed)


DAMAGE: dict[str, Callable[[bytes, bytes], bytes | None]] = {
    "bit at start": lambda own, other: _flip(own, 0),
    "bit in middle": lambda own, other: _flip(own, 0.5),
    "bit at end": lambda own, other: _flip(own, 1),
    "cut to 0": lambda own, other: b"",
    "cut to half": lambda own, other: own[: len(own) // 2],
    "cut by 1": lambda own, other: own[:-1],
    "zeroed tail": lambda own, other: own[: len(own) // 2] + bytes(len(own) - len(own) // 2),
    "junk after": lambda own, other: own + b"junk" * 100,
    "another run's": lambda own, other: other,
    "deleted": lambda own, other: None,
}
"""Way → what becomes of a file's content, given that of another run's file of the same name; None is no file."""
