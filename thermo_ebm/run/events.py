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
from absl import logging

from thermo_ebm import files

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

DAMAGED = (
    "damaged_events"  # beside the folder of events, which is the only one that TensorBoard reads
)


def open_events(folder: str | os.PathLike[str], resumed_step: int | None = None) -> "EventsWriter":
    """Opens a new TensorBoard event file in `folder`, which is created if needed.

    Earlier files that are damaged are repaired; the damaged originals are kept in `damaged_events`.

    Args:
      folder: the repetition's `tensorboard/`.
      resumed_step: the step of the checkpoint from which training continues: TensorBoard then
        ignores later steps in earlier files. None at a start: earlier files are ignored.
    """
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    for file in sorted(path.glob("events.out.tfevents.*")):
        _mend(file)
    # The suffix keeps two openings within a second apart, and their names in order.
    writer = EventsWriter(str(path / "events"), f".{time.time_ns()}")
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


def _mend(path: Path) -> None:
    """Moves a truncated or damaged file away, and writes its undamaged records in its place.

    TensorBoard shows nothing of a file after the damaged place.
    """
    content = path.read_bytes()
    whole = _whole_records(content)
    if whole == len(content):
        return
    aside = path.parent.parent / DAMAGED / path.name.replace("tfevents", "damaged")
    aside.parent.mkdir(exist_ok=True)
    logging.warning(
        "%s is damaged after %d of its %d bytes: those are kept, the original file is in %s",
        *(path, whole, len(content), aside),
    )
    files.write_bytes(aside, content)
    files.write_bytes(path, content[:whole])


def _whole_records(content: bytes) -> int:
    """The length of the complete and undamaged records at the beginning of an event file.

    A record is its length (8 bytes), a checksum of that (4), the data and a checksum of them (4).
    """
    from tensorboardX.record_writer import masked_crc32c

    end = 0
    while len(content) >= end + 12:
        head, checksum = content[end : end + 8], content[end + 8 : end + 12]
        length = int.from_bytes(head, "little")
        data = content[end + 12 : end + 12 + length]
        after = content[end + 12 + length : end + 16 + length]
        sums = [masked_crc32c(part).to_bytes(4, "little") for part in (head, data)]
        if sums != [checksum, after]:
            break
        end += 16 + length
    return end


def _write_summary(events: "EventsWriter", step: int, value: Any) -> None:
    from tensorboardX.proto import event_pb2

    events.write_event(event_pb2.Event(wall_time=time.time(), step=step, summary=value))
