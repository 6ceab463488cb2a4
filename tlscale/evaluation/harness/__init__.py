"""Both ways across to lm-evaluation-harness: its tasks on our scorer, and our scorer as a model of its own.

Needs the extra `lm-eval`. Its task definitions may hold Python code (`!function`), which runs with the
rights of whoever starts the evaluation: run only tasks that you would run as a program.
"""
