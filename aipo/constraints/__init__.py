"""Instructions that code can check: what may be asked of a text, who checks it, and prompts made of it.

No constraint counts words or characters, so a longer sentence, item or value is worth as much as a short one.
"""

from aipo.constraints.constraint import Constraint, constraints_of, meta_of, share_met
from aipo.constraints.drawing import Task, draw_tasks

VERSION = "1"
"""Counts changes of the prompts' texts and of the checks. It enters fingerprints."""

__all__ = ["VERSION", "Constraint", "Task", "constraints_of", "draw_tasks", "meta_of", "share_met"]
