"""Relational attention: who may look at whom, and the functions that look.

`Relations` holds the ids of a batch that decide it, `attend` multiplies queries with keys; its implementations agree
with `dense` in values and gradients. Parameters live elsewhere (`tributary.model.block`). Described in
`documentation/model.md`.
"""

# Who may look at whom
# Looking
from tributary.model.attention.dispatch import Attend, attention_function, prepared
from tributary.model.attention.links import LINKED_KINDS
from tributary.model.attention.relations import KINDS, Relations, permitted

__all__ = ["KINDS", "LINKED_KINDS", "Attend", "Relations", "attention_function", "permitted", "prepared"]
