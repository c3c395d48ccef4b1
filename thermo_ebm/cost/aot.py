"""Reads, from the text of a program compiled for a TPU, how long the compiler expects it to take.

XLA's TPU compiler notes `"estimated_cycles"` on the operations that it schedules. They are added up
here along the entry computation, the bodies of loops as often as they run, and belong to the part
of the step (`scopes.PARTS`) that an operation's name says. An operation without a name belongs to
the part of the loop around it.

These sums are estimates by the compiler and not measurements: they leave out communication between
chips, copies that the compiler does not cost, and waiting.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from thermo_ebm.scopes import part_of

OTHER = "other"  # what belongs to no part

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = .*?\s([a-z][a-z0-9\-]*)\(")
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_PATH = re.compile(r'op_name="([^"]*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"?(\d+)')
_CALLED = re.compile(
    r"\b(?:body|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)"
    r"|\bbranch_computations=\{([^}]*)\}"
)
_CONDITION = re.compile(r"\bcondition=%?([\w.\-]+)")
_CONSTANT = re.compile(r"= s32\[\](?:\{[^}]*\})? constant\((\d+)\)")
# Operations that run other computations as they are. A fusion's cycles hold all that is inside.
_CONTROL = ("while", "call", "conditional", "async-start")


class Operation(NamedTuple):
    """One operation of a compiled program."""

    name: str
    kind: str  # "fusion", "while", ...
    cycles: int  # as the compiler estimates, without the computations that it runs
    path: str  # scopes
    runs: tuple[str, ...]  # names of computations: a loop's body, a conditional's branches
    trips: int  # how often it runs them


class Program(NamedTuple):
    """A compiled program."""

    entry: str
    computations: dict[str, list[Operation]]


def read_program(text: str) -> Program:
    """Reads `compiled.as_text()`.

    Raises:
      ValueError: no entry computation, or a loop that does not say how often it runs.
    """
    lines = _computation_lines(text)
    entry = next((name for name in lines if name.startswith("ENTRY ")), None)
    if entry is None:
        raise ValueError("the text has no ENTRY computation")
    bodies = {name.removeprefix("ENTRY "): body for name, body in lines.items()}
    computations = {
        name: [one for line in body if (one := _read_operation(line, bodies))]
        for name, body in bodies.items()
    }
    return Program(entry.removeprefix("ENTRY "), computations)


def estimated_cycles(program: Program) -> dict[str, int]:
    """The compiler's estimate of one run of the program, in cycles of a chip's clock, by part."""
    return _cycles_of(program, program.entry, OTHER)


def _cycles_of(program: Program, computation: str, part: str) -> dict[str, int]:
    """Cycles of a computation that belongs to `part` where its operations do not say more."""
    every = []
    for operation in program.computations[computation]:
        own = part_of(operation.path, part)
        every.append({own: operation.cycles})
        inner = [_cycles_of(program, name, own) for name in operation.runs]
        if operation.kind == "conditional":
            inner = [max(inner, key=lambda cycles: sum(cycles.values()))]
        for cycles in inner:
            every.append({name: operation.trips * number for name, number in cycles.items()})
    return _merged(every)


def _merged(every: Iterable[dict[str, int]]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for cycles in every:
        for part, number in cycles.items():
            merged[part] = merged.get(part, 0) + number
    return merged


def _computation_lines(text: str) -> dict[str, list[str]]:
    """The lines of each computation, the entry's under its name with "ENTRY " in front."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = found.setdefault(f"{header[1] or ''}{header[2]}", [])
        else:
            current.append(line)
    return found


def _read_operation(line: str, bodies: dict[str, list[str]]) -> Operation | None:
    if not (head := _OPERATION.match(line)):
        return None
    name, kind = head.groups()
    cycles, path = _CYCLES.search(line), _PATH.search(line)
    runs: tuple[str, ...] = ()
    if kind in _CONTROL:
        names = ", ".join(one or branches for one, branches in _CALLED.findall(line))
        runs = tuple(name.strip(" %") for name in names.split(","))
    trips = 1
    if kind == "while" and (condition := _CONDITION.search(line)):
        trips = _trip_count(name, line, bodies[condition[1]])
    return Operation(
        name, kind, int(cycles[1]) if cycles else 0, path[1] if path else "", runs, trips
    )


def _trip_count(name: str, line: str, condition: list[str]) -> int:
    """How often a loop runs: its known count, or the number that its condition compares with."""
    if known := _TRIPS.search(line):
        return int(known[1])
    bounds = {int(found[1]) for one in condition if (found := _CONSTANT.search(one))}
    if len(bounds) != 1:
        raise ValueError(f"the loop {name} does not say how often it runs")
    return bounds.pop()
