"""TensorBoard events: thin functions over tensorboardX, which needs no TensorFlow.

Events are written synchronously (tensorboardX's own SummaryWriter queues them for a thread), so
that a kill loses nothing that was written, and a full disk raises an error at once. As with
`tables`, write an epoch's events before its checkpoint.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

# What tensorboardX puts before the time in seconds, the host and the suffix.
_PREFIX = "events.out.tfevents."


def open_events(folder: str | os.PathLike[str], resumed_step: int | None = None) -> "EventsWriter":
    """Opens a new TensorBoard event file in `folder`, which is created if needed.

    Args:
      folder: the repetition's `tensorboard/`.
      resumed_step: the step of the checkpoint from which training continues: TensorBoard then
        ignores later steps in earlier files. None at a start: earlier files are ignored.
    """
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    earlier = [file.name for file in path.iterdir() if _seconds(file.name)]
    suffix = f".{time.time_ns()}"  # keeps two openings within a second apart
    writer = EventsWriter(str(path / "events"), suffix)
    (created,) = (file for file in path.iterdir() if file.name.endswith(suffix))
    # TensorBoard reads the files in the order of their names, also where the clock has gone back.
    created.rename(path / _name_after(earlier, created.name))
    first_step = 0 if resumed_step is None else resumed_step + 1
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    writer.write_event(event_pb2.Event(wall_time=time.time(), step=first_step, session_log=start))
    writer.flush()
    return writer


def write_scalars(events: "EventsWriter", step: int, values: Mapping[str, Any]) -> None:
    """Writes the values that are not None as scalars of that step, forced to disk."""
    from tensorboardX import summary

    for name, value in values.items():
        if value is not None:
            _write_summary(events, step, summary.scalar(name, float(value)))
    events.flush()


def write_image(events: "EventsWriter", step: int, name: str, image: np.ndarray) -> None:
    """Writes a uint8 image [height, width, 1 or 3] of that step, forced to the disk."""
    from tensorboardX import summary

    _write_summary(events, step, summary.image(name, np.asarray(image), dataformats="HWC"))
    events.flush()


def close_events(events: "EventsWriter") -> None:
    """Closes the file."""
    events.close()


def _name_after(earlier: list[str], name: str) -> str:
    """`name`, with a later time if that is needed to sort after the `earlier` names."""
    newest = max(earlier, default="")
    if name > newest:
        return name
    seconds, rest = _seconds(newest), name.removeprefix(_PREFIX).partition(".")[2]
    return f"{_PREFIX}{int(seconds) + 1:0{len(seconds)}d}.{rest}"


def _seconds(name: str) -> str:
    """The digits of the time in an event file's name; empty for other files."""
    seconds = name.removeprefix(_PREFIX).partition(".")[0]
    return seconds if name.startswith(_PREFIX) and seconds.isdecimal() else ""


def _write_summary(events: "EventsWriter", step: int, value: Any) -> None:
    from tensorboardX.proto import event_pb2

    events.write_event(event_pb2.Event(wall_time=time.time(), step=step, summary=value))
