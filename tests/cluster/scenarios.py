"""What happens to jobs on clusters, done for real, with the steps that it cost counted.

Each scenario is a function of a fresh cluster and gives an `Outcome`; `python -m tests.cluster.campaign`
runs all of them and prints the table. The number beside each is that of its cluster's machines.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.cluster import chains, examined, losses, stops
from tests.cluster.kit import Cluster
from tests.cluster.outcome import Outcome

SCENARIOS: dict[str, tuple[Callable[[Cluster], Outcome], int]] = {
    "two machines equal one": (chains.two_machines, 2),
    "USR1, requeue, resume": (stops.usr1, 1),
    "USR1 on two machines": (stops.usr1_two_machines, 2),
    "preemption": (stops.preemption, 2),
    "time limit": (stops.time_limit, 1),
    "power-off of a machine": (losses.power_off, 2),
    "network cut of a machine": (losses.network_cut, 3),
    "SIGKILL of a worker": (losses.worker_killed, 1),
    "SIGKILL while the controller is away": (losses.killed_without_controller, 1),
    "no progress at all": (losses.no_progress, 1),
    "restart of the controller": (stops.controller_restart, 1),
    "TERM twice": (stops.double_term, 1),
    "TERM twice to srun too": (stops.double_term_to_srun, 1),
    "stale TERM": (stops.stale_term, 1),
    "scancel, then resume": (stops.scancel, 1),
    "tlscale cancel, then resume": (stops.cancel, 1),
    "a machine fails preflight": (examined.unfit_machine, 3),
    "each way to be unfit": (examined.every_kind, 8),
    "GPUs that can't be seen": (examined.no_gpus, 2),
    "a link of the chain fails": (chains.failing_link, 1),
    "train, score, judge, push": (chains.whole_chain, 1),
    "the gate closes before the push": (chains.gate_closed, 1),
    "array of seeds": (chains.array_of_seeds, 2),
    "array of a sweep": (chains.array_of_a_sweep, 2),
    "module lines": (chains.modules, 1),
    "login node without torch": (chains.login_without_torch, 1),
    "hostile values": (chains.hostile_values, 1),
    "launch/one-machine.sbatch": (stops.one_machine_template, 1),
    "launch/several-machines.sbatch": (stops.several_machines_template, 2),
    "From laptop to cluster, the page": (chains.page, 1),
}
