"""Messages for flags that are missing, unknown, or have values that they cannot take."""

import re
from collections.abc import Collection

from absl import flags

from thermo_ebm.errors import UserError

# What absl says of a value, and what a user reads.
_REASONS = (
    (r"invalid literal for int\(\) with base 10: .*", "must be an integer"),
    (r"could not convert string to float: .*", "must be a number"),
    (r"\S+ is not integer >= (\S+)", r"must be an integer of at least \1"),
    (r"\S+ is not an integer in the range \[(\S+), (\S+)\]", r"must be an integer from \1 to \2"),
    (r"\S+ is not a positive integer", "must be a positive integer"),
    (r"\S+ is not a non-negative integer", "must be 0 or a positive integer"),
    (r"\S+ is not number >= (\S+)", r"must be at least \1"),
    (r"\S+ is not a positive number", "must be positive"),
    (r"value should be one of <(.*)>", r"must be one of \1"),
    (r"Non-boolean argument to boolean flag", "must be true or false"),
)


def explain(error: flags.Error) -> str:
    """The message of an error in flags, on one line; missing flags are named together."""
    missing, others = [], []
    for line in str(error).strip().splitlines():
        if absent := re.fullmatch(r"flag --(\w+)=None: .* value other than None\.", line):
            missing.append(f"--{absent[1]}")
        elif value := re.fullmatch(r"flag (--[^=]+=.*?): (.*)", line):
            others.append(f"{value[1]}: {_reason(value[2])}")
        else:
            others.append(" ".join(line.split()))
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        others.insert(0, f"{' and '.join(missing)} {verb} missing; --help describes all flags")
    return "; ".join(others)


def unknown(error: flags.UnrecognizedFlagError) -> str:
    """The message for a flag that does not exist, with similar flags that do."""
    similar = re.search(r"Did you mean: (.*?) ?\?", str(error))
    names = [f"--{name.strip()}" for name in similar[1].split(",")] if similar else []
    advice = f"did you mean {' or '.join(names)}?" if names else "--help describes all flags"
    return f"--{error.flagname}: there is no such flag; {advice}"


def integers(name: str) -> list[int]:
    """The values of a list flag as integers; none where the flag is not given.

    Raises:
      UserError: a value is no integer.
    """
    values = flags.FLAGS[name].value or []
    try:
        return [int(value) for value in values]
    except ValueError as error:
        raise UserError(f"--{name}={','.join(values)}: must be integers, such as 8,16") from error


def choices(name: str, possible: Collection[str]) -> list[str]:
    """The values of a list flag that may have some values alone; none where it is not given.

    Raises:
      UserError: it has another value.
    """
    values = flags.FLAGS[name].value or []
    for value in values:
        if value not in possible:
            raise UserError(f"--{name}={value}: must be one or more of {', '.join(possible)}")
    return list(values)


def _reason(text: str) -> str:
    for pattern, reason in _REASONS:
        if re.fullmatch(pattern, text):
            return re.sub(pattern, reason, text).replace("|", ", ")
    return " ".join(text.split())
