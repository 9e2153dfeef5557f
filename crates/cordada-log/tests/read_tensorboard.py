"""Prints, as JSON, what TensorBoard's own reader finds in a folder of event files.

Usage: read_tensorboard.py FOLDER, or without an argument to see whether the reader is installed.
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

if len(sys.argv) == 2:
    reader = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
    reader.Reload()
    tags = reader.Tags()["scalars"]
    print(
        json.dumps(
            {
                "version": reader.file_version,
                "scalars": {
                    tag: [[point.step, repr(point.value)] for point in reader.Scalars(tag)]
                    for tag in tags
                },
                "wall_time": [point.wall_time for tag in tags for point in reader.Scalars(tag)],
                "descriptions": {
                    tag: reader.SummaryMetadata(tag).summary_description for tag in tags
                },
            }
        )
    )
