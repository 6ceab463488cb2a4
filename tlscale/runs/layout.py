"""Every path inside a run directory, named once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class RunLayout:
    """The paths of the run in `root`; nothing here touches the disk."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    def earlier_plan(self, fingerprint: str) -> Path:
        """A plan that the run began with, before its recipe was changed."""
        return self.root / "plans" / f"{fingerprint}.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def measurements(self) -> Path:
        return self.root / "measurements.jsonl"

    @property
    def standing(self) -> RunLayout:
        """Where the scores after each of several stages are, in files that are named as a run's are."""
        return RunLayout(self.root / "standing")

    @property
    def trackers(self) -> Path:
        return self.root / "trackers"

    @property
    def done(self) -> Path:
        return self.root / "DONE"

    @property
    def failed(self) -> Path:
        return self.root / "FAILED"

    @property
    def stopped(self) -> Path:
        """A run that was asked to stop, and did at a step's end: who asked, where it stands; JSON."""
        return self.root / "STOPPED"

    @property
    def stop(self) -> Path:
        """Asks a run to stop as a signal does, from any machine that sees the run directory."""
        return self.root / "STOP"

    @property
    def attempt(self) -> Path:
        """The name of the newest try on a cluster; processes of another one must not write any more."""
        return self.root / "attempt"

    @property
    def attempts(self) -> Path:
        """When each try on a cluster began and ended, where, and how far the run was."""
        return self.root / "attempts.jsonl"

    @property
    def slurm(self) -> Path:
        """The batch scripts, and the numbers of the jobs."""
        return self.root / "slurm"

    @property
    def job(self) -> Path:
        """The numbers of the jobs that were submitted last for this run, and what they are for."""
        return self.slurm / "job.json"

    def batch_script(self, name: str) -> Path:
        return self.slurm / f"{name}.sbatch"

    def job_log(self, name: str) -> Path:
        """Everything that a job's processes said, each line tagged with its rank."""
        return self.root / "logs" / f"slurm-{name}.log"

    def examinations(self, attempt: str) -> Path:
        """What each machine said of itself before a try."""
        return self.slurm / "preflight" / attempt

    @property
    def result(self) -> Path:
        """The file that names the last stage's artifact, relative to the run directory."""
        return self.root / "result.json"

    @property
    def inspection(self) -> Path:
        """What the examples look like to the model, for `tlscale check --examples`."""
        return self.root / "inspection.json"

    @property
    def probe(self) -> Path:
        """What `tlscale probe` found: sources of features, ranked."""
        return self.root / "probe.json"

    @property
    def gradients(self) -> Path:
        """What `tlscale probe --gradients` found: blocks of the base, ranked."""
        return self.root / "gradients.json"

    @property
    def evidence(self) -> Path:
        """What `tlscale advise` saw of a task."""
        return self.root / "evidence.json"

    @property
    def advice(self) -> Path:
        """What `tlscale advise` makes of it."""
        return self.root / "advice.json"

    @property
    def advised(self) -> Path:
        """The recipe with the advised strategy, to be run."""
        return self.root / "advised.yaml"

    @property
    def race(self) -> Path:
        """The folder of a race between proposals."""
        return self.root / "race"

    @property
    def examples(self) -> Path:
        """The tokenized rows of every role, which can always be made again."""
        return self.root / "examples"

    def outcomes(self, arm: str, suite: str) -> Path:
        """Per-example outcomes of one evaluation, one JSON object a line."""
        return self.root / "outcomes" / f"{arm}-{suite}.jsonl"

    @property
    def answers(self) -> Path:
        """What a language model answered so far, for evaluations that were killed to go on from."""
        return self.root / "answers"

    def log(self, rank: int) -> Path:
        return self.root / "logs" / f"rank-{rank}.log"

    def stack(self, rank: int) -> Path:
        """Where a rank was when it was asked, as `faulthandler` prints it."""
        return self.root / "logs" / f"rank-{rank}.stack"

    @property
    def pulses(self) -> Path:
        """Of a run that is going on: one small file a rank, with its process and where it is."""
        return self.root / "pulses"

    def pulse(self, rank: int) -> Path:
        return self.pulses / f"rank-{rank}.json"

    def ledger(self, stage: str) -> Path:
        """What each rank was given in every step of a stage, one file for each rank and attempt."""
        return self.root / "ledger" / stage

    def reckoned(self, stage: str) -> Path:
        """Weights and difficulties of a stage's training rows, reckoned once before it began."""
        return self.root / "reckoned" / f"{stage}.json"

    def replay(self, stage: str) -> Path:
        """Steps whose numbers went wrong, with what is needed to repeat them."""
        return self.root / "replay" / stage

    def checkpoints(self, stage: str) -> Path:
        return self.root / "checkpoints" / stage

    def artifact(self, stage: str) -> Path:
        """Where a stage's verified result lies: an adapter, a head or a full checkpoint."""
        return self.root / "stages" / stage

    def arm(self, name: str) -> Path:
        """The run directory of a trained control arm."""
        return self.root / "arms" / name

    @property
    def verdict(self) -> Path:
        return self.root / "verdict.json"

    @property
    def adapter(self) -> Path:
        """The run's final artifact."""
        return self.root / "adapter"

    @property
    def merged(self) -> Path:
        """The final adapter inside its base, as `tlscale merge` writes it unless told otherwise."""
        return self.root / "merged"

    @property
    def publication(self) -> Path:
        """The files that `tlscale push` sends to the Hub, and no others."""
        return self.root / "publication"

    @property
    def prepared(self) -> Path:
        """What publishing needed a model for: recorded outputs, and the merged checkpoint if asked for."""
        return self.root / "publication.work"

    @property
    def published(self) -> Path:
        """Where the run was published, one JSON object a line."""
        return self.root / "published.jsonl"
