"""Reads, from the text of a program compiled for a TPU, how long the compiler expects it to take.

XLA's TPU compiler notes `"estimated_cycles"` on the operations that it schedules. They are added up
here along the entry computation; the body of a loop counts as often as it runs. The name of an
operation says to which part of the step (`scopes.PARTS`) it belongs; an operation without a name
belongs to the part of the loop around it.

These sums are estimates by the compiler and not measurements: they leave out communication between
chips, copies that the compiler does not cost, and waiting.
"""

import re
from typing import NamedTuple

from thermo_ebm.scopes import part_of

OTHER = "other"  # operations that belong to no part

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
# Operations that run other computations. The cycles of a fusion include those of its computation.
_CONTROL = ("while", "call", "conditional", "async-start")


class Operation(NamedTuple):
    """One operation of a compiled program."""

    name: str
    kind: str  # "fusion", "while", ...
    cycles: int  # the compiler's estimate, without the computations that the operation runs
    path: str  # scopes
    runs: tuple[str, ...]  # names of computations: a loop's body, a conditional's branches
    trips: int  # how often the operation runs them


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
        name: [op for line in body if (op := _read_operation(line, bodies))]
        for name, body in bodies.items()
    }
    return Program(entry.removeprefix("ENTRY "), computations)


def estimated_cycles(program: Program) -> dict[str, int]:
    """The compiler's estimate of one run of the program, in cycles of a chip's clock, by part."""
    return _cycles_of(program, program.entry, OTHER)


def _cycles_of(program: Program, computation: str, part: str) -> dict[str, int]:
    """Cycles of a computation by part; operations without a name belong to `part`."""
    total: dict[str, int] = {}
    for operation in program.computations[computation]:
        operation_part = part_of(operation.path, part)
        inner = [_cycles_of(program, name, operation_part) for name in operation.runs]
        if operation.kind == "conditional":
            inner = [max(inner, key=lambda cycles: sum(cycles.values()))]
        total[operation_part] = total.get(operation_part, 0) + operation.cycles
        for cycles in inner:
            for name, number in cycles.items():
                total[name] = total.get(name, 0) + operation.trips * number
    return total


def _computation_lines(text: str) -> dict[str, list[str]]:
    """The lines of each computation, those of the entry under its name with "ENTRY " in front."""
    computations: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = computations.setdefault(f"{header[1] or ''}{header[2]}", [])
        else:
            current.append(line)
    return computations


def _read_operation(line: str, bodies: dict[str, list[str]]) -> Operation | None:
    if not (head := _OPERATION.match(line)):
        return None
    name, kind = head.groups()
    cycles, path = _CYCLES.search(line), _PATH.search(line)
    runs: tuple[str, ...] = ()
    if kind in _CONTROL:
        names = ", ".join(body or branches for body, branches in _CALLED.findall(line))
        runs = tuple(name.strip(" %") for name in names.split(","))
    trips = 1
    if kind == "while" and (condition := _CONDITION.search(line)):
        trips = _trip_count(name, line, bodies[condition[1]])
    return Operation(
        name, kind, int(cycles[1]) if cycles else 0, path[1] if path else "", runs, trips
    )


def _trip_count(name: str, line: str, condition: list[str]) -> int:
    """How often a loop runs: the count in its line, or the number in its condition."""
    if trips := _TRIPS.search(line):
        return int(trips[1])
    bounds = {int(constant) for row in condition for constant in _CONSTANT.findall(row)}
    if len(bounds) != 1:
        raise ValueError(f"the loop {name} does not say how often it runs")
    return bounds.pop()
