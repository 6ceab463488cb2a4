"""The composition root inside a job: `python -m tlscale.worker RUN_DIR`."""
