"""lm-evaluation-harness's own command line, with `--model tlscale` among its models."""

from __future__ import annotations

from lm_eval.__main__ import cli_evaluate

from tlscale.plugins import resolve

if __name__ == "__main__":
    resolve("tlscale.evaluation.harness.model:HarnessModel")  # importing it registers it
    cli_evaluate()
