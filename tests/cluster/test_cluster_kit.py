"""The kit itself: nodes are machines of their own, and nothing stays behind."""

from __future__ import annotations

from tests.cluster.kit import ENDED, Cluster, wait_for


def test_a_job_runs_on_two_machines_with_gpus(slurm: Cluster) -> None:
    output = slurm.folder / "work" / "kit.out"
    said = "srun bash -c 'echo $(hostname) $CUDA_VISIBLE_DEVICES'"
    number = slurm.run(
        "sbatch", "--parsable", "-N2", "--gpus-per-node=2", "-o", str(output), "--wrap", said
    )
    wait_for(lambda: slurm.state(number) in ENDED, 60, "the job")
    assert sorted(output.read_text().splitlines()) == ["n1 0,1", "n2 0,1"]
    assert slurm.processes() == []
