"""Evaluation tasks: documents, prompts, examples to learn from, and what an answer is worth. Free of torch.

A task is one file with a `TASK` in it, or one YAML file; see docs/add-a-task.md.
"""

from tlscale.evaluation.tasks.task import Document, Rows, Task

__all__ = ["Document", "Rows", "Task"]
