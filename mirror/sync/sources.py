"""Where the names of images are read: arguments, lists, compose files, Kubernetes manifests.

An argument is a file or folder, and no image, where it looks like a path: `-` (standard input), an
ending of YAML or JSON, a `/` at its end, or a `/`, `./`, `../` or `~` at its beginning. A list has
a `@` before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from ..frozen import dataclass
from ..oci.errors import BadRequest, quoted
from ..oci.registries import DOCKER_HUB
from ..oci.wanted import OneImage, parse_wanted
from . import compose, kubernetes, lists
from .documents import MOST_BYTES, NoYaml, Text, read_documents

_ENDINGS = (".yaml", ".yml", ".json")
_MOST_FILES = 10_000
_MOST_IMAGES = 100_000
_STANDARD_INPUT = "standard input"


@dataclass(frozen=True, slots=True)
class Wish:
    """An image that is named somewhere, as it stands there; `platform`: the one that is named with
    it, None for none."""

    image: str
    platform: str | None = None


@dataclass(slots=True)
class Gathered:
    """What was found: each wish once, in order; and in words what is wrong, or passed over."""

    wishes: dict[Wish, None] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Gathering:
    """Reads what it is told to. `variables` are those of compose files; `read_input` gives standard
    input. `patterns`: whether names may be patterns."""

    def __init__(
        self,
        variables: Mapping[str, str],
        read_input: Callable[[], bytes] = bytes,
        *,
        patterns: bool = True,
    ) -> None:
        self.found = Gathered()
        self._variables = variables
        self._read_input = read_input
        self._patterns = patterns
        self._included: set[str] = set()
        self._loaded: dict[str, object] = {}  # by where it really is, whatever path leads there

    def argument(self, text: str) -> None:
        """An image, or what names some."""
        if text.startswith("@"):
            self.list(text[1:])
        elif is_path(text):
            self.file(text)
        else:
            self._wish(quoted(text), text)

    def list(self, path: str) -> None:
        """A list of names."""
        text = self._text(path, lists.MOST_BYTES)
        if text is not None:
            self._names(_shown(path), text)

    def file(self, path: str) -> None:
        """A compose file, Kubernetes manifests, or a folder of such; or from standard input, a
        list, too."""
        place = Path(os.path.expanduser(path))
        if path != "-" and place.is_dir():
            self._folder(place)
            return
        text = self._text(path, MOST_BYTES)
        if text is not None:
            self._documents(path, text, is_folder=False)

    def compose(self, path: str) -> None:
        """A compose file, whatever its name."""
        text = self._text(path, MOST_BYTES)
        document = None if text is None else self._first(path, text)
        if document is None:
            return
        if compose.is_compose(document):
            self._compose(path, document)
        else:
            self._mistake(_shown(path), 1, "no compose file: it has no services")

    def _names(self, shown: str, text: str) -> None:
        for line, name in lists.names(text):
            self._wish(f"{shown}:{line}", name)

    def _folder(self, folder: Path) -> None:
        files = sorted(_files(folder))
        if len(files) > _MOST_FILES:
            self._mistake(str(folder), None, f"more than {_MOST_FILES} files")
            return
        if not files:
            self._mistake(str(folder), None, f"no file that ends in {', '.join(_ENDINGS)}")
        for file in files:
            text = self._text(str(file), MOST_BYTES)
            if text is not None:
                self._documents(str(file), text, is_folder=True)

    def _documents(self, path: str, text: str, *, is_folder: bool) -> None:
        """Whatever these are. What is in a folder may be of no use here."""
        shown = _shown(path)
        try:
            documents = [one for one in read_documents(text) if one is not None]
        except NoYaml as error:
            if path == "-" and _looks_like_list(text):
                self._names(shown, text)
            else:
                self._mistake(shown, error.line, str(error))
            return
        known = False
        for document in documents:
            if compose.is_compose(document):
                known = True
                self._compose(path, document)
            elif kubernetes.is_object(document):
                known = True
                for image in kubernetes.images(document):
                    self._wish(f"{shown}:{image.line}", str(image))
        if known:
            return
        if path == "-" and _looks_like_list(text):
            self._names(shown, text)
        elif is_folder:
            self.found.notes.append(f"{shown}: neither a compose file nor Kubernetes objects")
        elif documents:
            self._mistake(shown, 1, "neither a compose file nor Kubernetes objects")

    def _compose(self, path: str, document: dict[str, Any]) -> None:
        """With what it includes, and what that does, in their order."""
        waiting = [(path, document)]
        while waiting:
            waiting += reversed(self._one_compose(*waiting.pop()))

    def _one_compose(
        self, path: str, document: dict[str, Any]
    ) -> Sequence[tuple[str, dict[str, Any]]]:
        """What it includes that was not read yet."""
        more = []
        variables = {**_beside(path), **self._variables}
        reading = compose.ComposeFile(variables, self._beside_compose)
        for one in reading.images(path, document):
            place = f"{_shown(one.file)}:{one.line}"
            if isinstance(one, compose.ServiceImage):
                self._wish(place, one.image, one.platform)
            elif one.is_mistake:
                self.found.mistakes.append(f"{place}: {one.words}")
            else:
                self.found.notes.append(f"{place}: passed over: {one.words}")
        included = document.get("include")
        for name in _included(included if isinstance(included, list) else []):
            try:
                place, other = self._beside_compose(path, compose.interpolated(name, variables))
            except compose.Unset as error:
                self._mistake(_shown(path), getattr(name, "line", 1), str(error))
                continue
            real = os.path.realpath(place)
            if real not in self._included and compose.is_compose(other):
                self._included.add(real)
                more.append((place, other))
        return more

    def _beside_compose(self, file: str, name: str) -> tuple[str, object]:
        path = str(Path("." if file == "-" else file).parent / os.path.expanduser(name))
        real = os.path.realpath(path)
        try:
            if real not in self._loaded:
                self._loaded[real] = next(iter(read_documents(_read(path, MOST_BYTES))), None)
            return path, self._loaded[real]
        except (OSError, ValueError, NoYaml) as error:
            raise compose.Unset(f"{path} cannot be read: {_reason(error)}") from None

    def _first(self, path: str, text: str) -> object | None:
        try:
            return next(iter(read_documents(text)), {})
        except NoYaml as error:
            self._mistake(_shown(path), error.line, str(error))
            return None

    def _wish(self, place: str, text: str, platform: str | None = None) -> None:
        if len(self.found.wishes) >= _MOST_IMAGES:
            words = f"more than {_MOST_IMAGES} images in all"
            if words not in self.found.mistakes:
                self.found.mistakes.append(words)
            return
        try:
            wanted = parse_wanted(text, DOCKER_HUB)
        except BadRequest as error:
            self.found.mistakes.append(
                error.message if place == quoted(text) else f"{place}: {error.message}"
            )
            return
        if not isinstance(wanted, OneImage) and not self._patterns:
            self.found.mistakes.append(f"{place}: a pattern; name each image")
            return
        self.found.wishes[Wish(text, platform)] = None

    def _mistake(self, place: str, line: int | None, words: str) -> None:
        self.found.mistakes.append(
            f"{place}: {words}" if line is None else f"{place}:{line}: {words}"
        )

    def _text(self, path: str, most: int) -> str | None:
        try:
            return _decoded(self._read_input(), most) if path == "-" else _read(path, most)
        except (OSError, ValueError) as error:
            self._mistake(_shown(path), None, _reason(error))
            return None


def is_path(text: str) -> bool:
    """See the module."""
    return (
        text in ("-", ".", "..")
        or text.lower().endswith(_ENDINGS)
        or text.endswith("/")
        or text.startswith(("/", "./", "../", "~"))
    )


def read_list(path: Path) -> Sequence[tuple[int, str]]:
    """The lines and names of a list. Raises OSError, and ValueError for what is no text.
    Blocking."""
    return list(lists.names(_read(str(path), lists.MOST_BYTES)))


def _read(path: str, most: int) -> str:
    with open(os.path.expanduser(path), "rb") as file:
        return _decoded(file.read(most + 1), most)


def _decoded(data: bytes, most: int) -> str:
    if len(data) > most:
        raise ValueError(f"more than {most >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is no UTF-8 text") from None


def _reason(error: Exception) -> str:
    return (error.strerror or "unreadable").lower() if isinstance(error, OSError) else str(error)


def _shown(path: str) -> str:
    return _STANDARD_INPUT if path == "-" else path


def _files(folder: Path) -> Iterator[Path]:
    """Those of YAML and JSON, none of which is hidden, in order."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(_ENDINGS) and not name.startswith("."):
                yield Path(place) / name


def _looks_like_list(text: str) -> bool:
    """Whether every line that says something is one word."""
    return all(len(name.split()) == 1 for _, name in lists.names(text))


def _beside(path: str) -> dict[str, str]:
    """The variables in the file `.env` beside a compose file (compose-spec, "Interpolation")."""
    try:
        text = _read(str(Path("." if path == "-" else path).parent / ".env"), lists.MOST_BYTES)
    except (OSError, ValueError):
        return {}
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            found[name.strip()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value.partition(" #")[0].rstrip()


def _included(entries: Sequence[object]) -> Iterator[Text]:
    for entry in entries:
        named = entry.get("path") if isinstance(entry, dict) else entry
        for name in named if isinstance(named, list) else [named]:
            if isinstance(name, Text):
                yield name
