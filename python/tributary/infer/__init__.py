"""A description drafted from the data alone: keys, links, times, stypes, leak suspects and first tasks.

Files become tables (`files`), columns are counted (`profile`), and names (`words`) and values are weighed against each
other (`keys`, `links`, `times`, `stypes`, `leaks`, `tasks`); `draft` puts it together. Every choice comes with a score,
a reason and what was rejected (`proposal`). Described in `documentation/your_own_database.md`.
"""

from tributary.infer.declared import Declared, DeclaredTable
from tributary.infer.draft import Draft, draft
from tributary.infer.leaks import Suspect, leak_suspects
from tributary.infer.profile import Profiler
from tributary.infer.proposal import Candidate, Proposal
from tributary.infer.tasks import TaskDraft

__all__ = [
    "Candidate",
    "Declared",
    "DeclaredTable",
    "Draft",
    "Profiler",
    "Proposal",
    "Suspect",
    "TaskDraft",
    "draft",
    "leak_suspects",
]
