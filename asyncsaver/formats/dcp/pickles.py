"""Reading pickles as plain data: nothing is imported, nothing is called.

Not a subclass of `pickle.Unpickler`, because that one does more than a file may ask for, whatever globals it finds: one
instruction makes its memo as large as it says, another takes memory for bytes that are not there, and a deeply nested tuple used
as a key ends the process. This one knows the instructions that `pickle` writes for the data of PyTorch's checkpoints. Classes and
functions are their names only, and what would be an object is a `Record` of what it would have been made from.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asyncsaver.errors import ManifestError

PERSISTENT = "persistent id"
"""`Record.kind` of what stands outside of the pickle; its only argument says what."""

_MAX_INT_BYTES = 9  # of 64 bits with a sign
_LARGEST_KEY = 2**53  # larger integers can be chosen so that they all have one hash
_ORDERED = "collections:OrderedDict"


@dataclass(frozen=True, slots=True)
class Global:
    """A class, function or constant: ``module:name``."""

    name: str


@dataclass(slots=True, eq=False)
class Record:
    """What would have been an object.

    Attributes:
        kind: ``module:name`` of its class, or of the function that would have been called; or `PERSISTENT`.
        args: of the class or function.
        state: of the object.
    """

    kind: str
    args: tuple[Any, ...]
    state: Any = None


def read_pickle(data: bytes, admits: Callable[[str], bool], where: str) -> Any:
    """Read a pickle. Blocking.

    Takes time and memory in proportion to its length. Containers that a pickle holds twice are one object in the result,
    which may so be much larger when written out, or contain itself.

    Args:
        data: the whole pickle.
        admits: whether a global, as ``module:name``, may be named.
        where: the file, for messages.

    Returns:
        None, bool, int, float, str, bytes, tuple, list, dict (of str, small int and `Record` keys), `Global`, `Record`.

    Raises:
        ManifestError: it names another global, has instructions of another kind, or is damaged.
    """
    return _Machine(data, admits, where).run()


class _Machine:
    def __init__(self, data: bytes, admits: Callable[[str], bool], where: str) -> None:
        self._data = data
        self._at = 0
        self._admits = admits
        self._where = where
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._globals: dict[str, Global] = {}
        # One takes a byte in the file and sixty in memory; but pickle gives each a place in its memo, by a second byte at least.
        self._containers = 100 + len(data) // 2

    def run(self) -> Any:
        handlers, data, stack, memo = self._handlers(), self._data, self._stack, self._memo
        stop, get, long_get, memoize, number, text = b".hj\x94K\x8c"
        at = 0
        try:
            while (code := data[at]) != stop:
                at += 1
                # Most instructions are one of these. What is read past the end shows when there is no next one.
                if code == memoize:
                    memo[len(memo)] = stack[-1]
                elif code == get:
                    stack.append(memo[data[at]])
                    at += 1
                elif code == long_get:
                    stack.append(memo[int.from_bytes(data[at : at + 4], "little")])
                    at += 4
                elif code == number:
                    stack.append(data[at])
                    at += 1
                elif code == text:
                    start = at + 1
                    at = start + data[at]
                    stack.append(data[start:at].decode())
                else:
                    self._at = at
                    handlers[code]()
                    at = self._at
            self._at = at
            if len(stack) != 1 or self._marks:
                raise self._damaged("something is left over at its end")
            return stack[0]
        except (LookupError, struct.error, UnicodeDecodeError) as error:
            self._at = at
            raise self._damaged(f"not a pickle of such a file: {type(error).__name__}") from error

    def _handlers(self) -> dict[int, Callable[[], None]]:
        """What the instructions do, those aside that `run` knows."""
        push = self._push
        named: dict[bytes, Callable[[], None]] = {
            b"\x80": self._protocol, b"\x95": self._frame,
            b"N": lambda: push(None), b"\x88": lambda: push(True), b"\x89": lambda: push(False),
            b"M": lambda: push(self._number("<H", 2)),
            b"J": lambda: push(self._number("<i", 4)), b"G": lambda: push(self._number(">d", 8)), b"\x8a": self._long,
            b"X": lambda: push(self._text("<I", 4)),
            b"\x8d": lambda: push(self._text("<Q", 8)),
            b"C": lambda: push(self._bytes("B", 1)), b"B": lambda: push(self._bytes("<I", 4)),
            b"\x8e": lambda: push(self._bytes("<Q", 8)),
            b"(": lambda: self._marks.append(len(self._stack)), b"0": self._pop, b"1": self._drop,
            b"q": lambda: self._remember(self._number("B", 1)), b"r": lambda: self._remember(self._number("<I", 4)),
            b")": lambda: push(()), b"t": lambda: self._contain(tuple(self._marked())),
            b"\x85": lambda: self._contain(tuple(self._last(1))), b"\x86": lambda: self._contain(tuple(self._last(2))),
            b"\x87": lambda: self._contain(tuple(self._last(3))),
            b"]": lambda: self._contain([]), b"}": lambda: self._contain({}),
            b"a": lambda: self._append(self._last(1)), b"e": lambda: self._append(self._marked()),
            b"s": lambda: self._set(self._last(2)), b"u": lambda: self._set(self._marked()),
            b"c": lambda: self._global(self._line(), self._line()), b"\x93": lambda: self._global(*self._last(2)),
            b"R": self._make, b"\x81": self._make, b"b": self._build,
            b"Q": lambda: self._contain(Record(PERSISTENT, tuple(self._last(1)))),
        }  # fmt: skip
        return {ord(code): handler for code, handler in named.items()}

    def _damaged(self, problem: str) -> ManifestError:
        return ManifestError(f"{self._where}: at byte {self._at}: {problem}", path=self._where)

    # --- its bytes

    def _skip(self, count: int) -> int:
        start = self._at
        if count > len(self._data) - start:
            raise self._damaged("it is cut off")
        self._at = start + count
        return start

    def _frame(self) -> None:
        self._skip(8)  # how much to read ahead: everything is here

    def _number(self, form: str, count: int) -> Any:
        return struct.unpack_from(form, self._data, self._skip(count))[0]

    def _bytes(self, form: str, count: int) -> bytes:
        length = self._number(form, count)
        start = self._skip(length)
        return self._data[start : start + length]

    def _text(self, form: str, count: int) -> str:
        return self._bytes(form, count).decode()

    def _line(self) -> str:
        start = self._at
        self._at = (
            self._data.index(b"\n", start, start + 256) + 1 if b"\n" in self._data[start : start + 256] else start
        )
        if self._at == start:
            raise self._damaged("a name without an end")
        return self._data[start : self._at - 1].decode()

    def _protocol(self) -> None:
        protocol = self._number("B", 1)
        if protocol > 5:
            raise self._damaged(f"protocol {protocol} of pickle is unknown")

    def _long(self) -> None:
        data = self._bytes("B", 1)
        if len(data) > _MAX_INT_BYTES:
            raise self._damaged(f"an integer of {len(data)} bytes")
        self._push(int.from_bytes(data, "little", signed=True))

    # --- its stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _contain(self, value: Any) -> None:
        self._containers -= 1
        if self._containers < 0:
            raise self._damaged("more containers than so few bytes can fill")
        self._stack.append(value)

    def _last(self, count: int) -> list[Any]:
        stack = self._stack
        if len(stack) < count:
            raise self._damaged("something is missing")
        found = stack[-count:]
        del stack[-count:]
        return found

    def _marked(self) -> list[Any]:
        mark = self._marks.pop()
        found = self._stack[mark:]
        del self._stack[mark:]
        return found

    def _pop(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _drop(self) -> None:
        self._marked()

    def _remember(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    # --- its values

    def _append(self, values: list[Any]) -> None:
        into = self._stack[-1]
        if type(into) is not list:
            raise self._damaged(f"items for a {type(into).__name__}")
        into.extend(values)

    def _set(self, pairs: list[Any]) -> None:
        into = self._stack[-1]
        if type(into) is not dict or len(pairs) % 2:
            raise self._damaged(f"{len(pairs)} keys and values for a {type(into).__name__}")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            kind = type(key)
            if kind is not str and kind is not Record and not (kind is int and -_LARGEST_KEY < key < _LARGEST_KEY):
                raise self._damaged(f"a key of type {kind.__name__}, or a large one")
            into[key] = value

    def _global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise self._damaged("a global without a name")
        full = f"{module}:{name}"
        found = self._globals.get(full)
        if found is None:
            if not self._admits(full):
                raise self._damaged(f"it names {full[:200]!a}, which is not among what such a file consists of")
            found = self._globals[full] = Global(full)
        self._stack.append(found)

    def _make(self) -> None:
        args, made = self._stack.pop(), self._stack.pop()
        if type(made) is not Global or type(args) is not tuple:
            raise self._damaged("it calls what is no class or function")
        self._contain({} if made.name == _ORDERED and not args else Record(made.name, args))

    def _build(self) -> None:
        state = self._stack.pop()
        made = self._stack[-1]
        if type(made) is dict and state == {}:
            return  # what an OrderedDict has besides its items: nothing
        if type(made) is not Record or made.state is not None:
            raise self._damaged(f"a state for a {type(made).__name__}")
        made.state = state
