"""What a long run would stumble over, found in a minute before it.

`run.py` has the order of the checks; `machine.py` looks at packages, devices and the disk, `folder.py` at what the run
folder holds, `labels.py` at the tasks, `step.py` samples batches and takes steps. Nothing is written. Described in
`documentation/training.md`, "Preflight".
"""

from tributary.preflight.check import Check
from tributary.preflight.run import preflight

__all__ = ["Check", "preflight"]
