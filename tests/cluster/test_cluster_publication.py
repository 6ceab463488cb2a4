"""A recipe that says where to publish, on a cluster: asked before it is submitted, done by its last job."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cluster.kit import ENDED, Cluster, wait_for
from tests.hub import kit
from tests.hub.server import serving

pytestmark = pytest.mark.long

CANARY = "hf_canaryCANARYcanary0123456789"
LAUNCH = {"slurm": {"environment": {"OMP_NUM_THREADS": "1"}, "preflight": False}}


def test_the_last_job_publishes(slurm: Cluster) -> None:
    work = slurm.folder / "work"
    host = slurm.machines.address(slurm.machines.host)
    with serving(slurm.folder / "hub", tokens={CANARY: "write"}, host=host) as hub:
        kit.with_base(hub, work / "base", token=CANARY)
        # by `hf auth login`: of a job's environment Slurm keeps a copy
        theirs = {name: value for name, value in slurm.env.items() if not name.startswith("HF_")}
        env = {**theirs, **kit.environment(hub, work / "home", token=None), "PATH": slurm.env["PATH"]}
        (work / "home").mkdir(exist_ok=True)
        (work / "home" / "token").write_text(CANARY)

        def tlscale(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "tlscale", *arguments]
            done = subprocess.run(command, env=env, cwd=work, capture_output=True, text=True, check=False)
            assert done.returncode == code, done.stdout + done.stderr
            return done

        elsewhere = str(kit.recipe(work, publish={"to": "elsewhere/colours"}, launch=LAUNCH))
        assert (
            "may not publish for elsewhere" in tlscale("submit", elsewhere, "--time", "10m", code=2).stderr
        )
        assert slurm.run("squeue", "-h") == ""
        assert not (work / "runs").exists()

        file = str(kit.recipe(work, publish={"to": "lab/colours"}, launch=LAUNCH))
        # jobs run with the Hub out of reach, all but the one that publishes
        assert "run `tlscale prefetch" in tlscale("submit", file, "--time", "10m", code=2).stderr
        assert not (work / "runs").exists()
        assert "fetched" in tlscale("prefetch", file).stdout
        told = tlscale("submit", file, "--time", "10m", "--json")
        jobs = json.loads(told.stdout.splitlines()[-1])["jobs"]
        assert list(jobs) == ["train", "report", "push"]
        wait_for(lambda: slurm.state(jobs["push"]) in ENDED, 400, "the last job")
        logs = work / "runs" / "colours" / "logs"
        said = "".join(path.read_text() for path in sorted(logs.glob("slurm-*.log")))
        assert slurm.state(jobs["push"]) == "COMPLETED", said
        assert f"published {hub.address}/lab/colours" in said
        assert hub.store.log("lab/colours")[-1].startswith("colours: adapter")
        assert hub.store.repositories["lab/colours"].private
        for path in slurm.folder.rglob("*"):
            if path.is_file() and path.name != "token" and not path.is_symlink():
                assert CANARY.encode() not in path.read_bytes(), path
