"""A reader of pickles that can build nothing but plain containers and what it is handed.

Python's own unpickler imports and calls whatever a file names, and allocates what a file claims.
This one is a small stack machine over the opcodes that weight files use: there is no import, no
attribute and no call in it but those of the caller's table, dictionary keys are strings only (a
nested tuple can take forever to hash), and an unknown opcode ends the reading.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Machine(NamedTuple):
    """The state of the reader: what a pickle can see and change."""

    stacks: list[list[Any]]  # the stack since each MARK; the last one is in use
    memo: dict[int, Any]  # values by the number the pickle gave them
    allowed: Mapping[str, Any]  # "module name" -> the value that stands for that global
    persistent: Callable[[Any], Any]  # persistent id -> value


_MAX_OPCODES = 10**6  # of one pickle; a network's has some dozens for each of its tensors
_MAX_ARGUMENTS = 16  # of one call; a tensor's has seven
_PUSH_ARGUMENT = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"})
_PUSH_CONSTANT: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLE_LENGTH: Mapping[str, int] = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def load(
    stream: io.BytesIO, allowed: Mapping[str, Any], persistent: Callable[[Any], Any]
) -> object:
    """Reads one pickle (protocol 2) and leaves the stream behind it.

    Args:
      stream: the bytes, all in memory, so that a claimed length cannot allocate anything.
      allowed: the value for each global, by its `"module name"`; the callable ones may be called.
      persistent: turns a persistent id, built of plain values, into a value.

    Returns:
      The object: None, bool, int, str, tuple, list, dict, or what `allowed` and `persistent` made.

    Raises:
      ValueError: for a global not in `allowed`, an opcode this reader lacks, more opcodes than any
        weight file has, or a broken pickle.
    """
    machine = Machine([[]], {}, allowed, persistent)
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number == _MAX_OPCODES:  # each can take a hundred bytes, whatever the file's size
                raise ValueError(f"a pickle of more than {_MAX_OPCODES} opcodes")
            if opcode.name == "STOP":
                return machine.stacks[-1].pop()
            _execute(machine, opcode.name, argument)
    except (IndexError, KeyError, TypeError, OverflowError) as error:
        # Not what the error says: that can be of any size or depth, as the file's values are.
        raise ValueError(f"a broken pickle: {type(error).__name__}") from error
    raise ValueError("a pickle without an end")


def _execute(machine: Machine, name: str, argument: Any) -> None:
    stack = machine.stacks[-1]
    if name in _PUSH_ARGUMENT:
        stack.append(argument)
    elif name in _PUSH_CONSTANT:
        stack.append(_PUSH_CONSTANT[name])
    elif name in _TUPLE_LENGTH:
        start = len(stack) - _TUPLE_LENGTH[name]
        if start < 0:
            raise ValueError("a broken pickle: too few values for a tuple")
        stack[start:] = [tuple(stack[start:])]
    elif name in _OPERATIONS:
        _OPERATIONS[name](machine, argument)
    else:
        raise ValueError(f"pickle opcode {name} has no place in a weight file")


def _mark(machine: Machine, argument: Any) -> None:
    machine.stacks.append([])


def _since_mark(machine: Machine) -> list[Any]:
    items = machine.stacks.pop()
    if not machine.stacks:
        raise ValueError("a broken pickle: no mark")
    return items


def _tuple(machine: Machine, argument: Any) -> None:
    items = _since_mark(machine)
    machine.stacks[-1].append(tuple(items))


def _append(machine: Machine, argument: Any) -> None:
    _extend(machine, [machine.stacks[-1].pop()])


def _appends(machine: Machine, argument: Any) -> None:
    _extend(machine, _since_mark(machine))


def _extend(machine: Machine, items: list[Any]) -> None:
    target = machine.stacks[-1][-1]
    if not isinstance(target, list):
        raise ValueError("a broken pickle: appends to something that is not a list")
    target.extend(items)


def _set_item(machine: Machine, argument: Any) -> None:
    value, key = machine.stacks[-1].pop(), machine.stacks[-1].pop()
    _update(machine, [key, value])


def _set_items(machine: Machine, argument: Any) -> None:
    _update(machine, _since_mark(machine))


def _update(machine: Machine, items: list[Any]) -> None:
    target = machine.stacks[-1][-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError("a broken pickle: sets items of something that is not a dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str):
            raise ValueError("a dictionary key that is not a string")
        target[key] = value


def _put(machine: Machine, argument: Any) -> None:
    machine.memo[argument] = machine.stacks[-1][-1]


def _get(machine: Machine, argument: Any) -> None:
    machine.stacks[-1].append(machine.memo[argument])


def _global(machine: Machine, argument: Any) -> None:
    if argument not in machine.allowed:
        name = ascii(argument[:80])  # always a string, but of any length
        raise ValueError(f"refuses the global {name}, which a weight file does not need")
    machine.stacks[-1].append(machine.allowed[argument])


def _reduce(machine: Machine, argument: Any) -> None:
    arguments, function = machine.stacks[-1].pop(), machine.stacks[-1].pop()
    if not callable(function) or not isinstance(arguments, tuple):
        raise ValueError("a broken pickle: calls something that is not a function")
    if len(arguments) > _MAX_ARGUMENTS:  # copied by each call, of which there can be many
        raise ValueError("a broken pickle: a call with too many arguments")
    machine.stacks[-1].append(function(*arguments))


def _build(machine: Machine, argument: Any) -> None:
    # Attributes are dropped: a state dict's only one is its table of module versions.
    machine.stacks[-1].pop()
    if not isinstance(machine.stacks[-1][-1], dict):
        raise ValueError("a broken pickle: sets attributes of something that is not a dictionary")


def _persistent(machine: Machine, argument: Any) -> None:
    machine.stacks[-1].append(machine.persistent(machine.stacks[-1].pop()))


_OPERATIONS: Mapping[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda machine, argument: None,
    "MARK": _mark,
    "TUPLE": _tuple,
    "EMPTY_LIST": lambda machine, argument: machine.stacks[-1].append([]),
    "APPEND": _append,
    "APPENDS": _appends,
    "EMPTY_DICT": lambda machine, argument: machine.stacks[-1].append({}),
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GLOBAL": _global,
    "REDUCE": _reduce,
    "BUILD": _build,
    "BINPERSID": _persistent,
}
