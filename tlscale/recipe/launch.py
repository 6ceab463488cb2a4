"""What a user may write about starting a run on a cluster: `launch` in a recipe, and a site profile.

Values end up in batch scripts, so each is held to the characters that it can need. Free text (paths, values
of variables) may hold anything printable and is quoted where it is used; `%` and line breaks, which Slurm
and its scripts read as their own, are refused everywhere.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from tlscale.recipe.base import Frozen

Positive = Annotated[int, Field(gt=0)]
SECRET = re.compile(r"TOKEN(?!IZ)|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
TIME = re.compile(r"(?:(\d{1,4})-)?(\d{1,4}):(\d{1,2})(?::(\d{1,2}))?")


def plain(text: str) -> str:
    """`text`, if it is printable, on one line and free of `%`.

    Raises:
        ValueError: it is not.
    """
    if not text or not text.isprintable() or "%" in text or text.startswith("-"):
        raise ValueError(
            f"must be printable text on one line, without % and not beginning with -; not {text[:40]!r}"
        )
    return text


def _made_of(pattern: str, example: str) -> AfterValidator:
    allowed = re.compile(pattern)

    def check(text: str) -> str:
        if not allowed.fullmatch(text):
            raise ValueError(f"must look like {example}; not {text[:40]!r}")
        return text

    return AfterValidator(check)


def seconds(text: str) -> int:
    """Seconds of a time such as 4h, 90m, 12:00:00 or 2-00:00:00, as Slurm reads the last two.

    Raises:
        ValueError: it is none of these, or no time at all.
    """
    found = 0
    if text[:-1].isdecimal() and text[-1:] in UNITS:
        found = int(text[:-1]) * UNITS[text[-1]]
    elif match := TIME.fullmatch(text):
        days, first, second, third = (int(part or 0) for part in match.groups())
        hours = days or match[1] is not None or match[4] is not None
        found = days * 86400 + (first * 3600 + second * 60 + third if hours else first * 60 + second)
    if found <= 0:
        raise ValueError(f"must look like 4h, 90m, 12:00:00 or 2-00:00:00; not {text[:40]!r}")
    return found


def _time(text: str) -> str:
    seconds(text)
    return text


Name = Annotated[str, _made_of(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", "gpu-long: letters, digits, . _ + -")]
Names = Annotated[str, _made_of(r"[A-Za-z0-9_][A-Za-z0-9_.+,-]*", "gpu or gpu,gpu-long")]
Nodes = Annotated[str, _made_of(r"[A-Za-z0-9][A-Za-z0-9_.,\[\]-]*", "node07 or node[01-04,09]")]
Features = Annotated[
    str, _made_of(r"[A-Za-z0-9_\[(][A-Za-z0-9_.+:,&|*()\[\]-]*", "a100&infiniband or [rack1|rack2]")
]
Memory = Annotated[str, _made_of(r"[1-9]\d*[KMGT]?", "64G")]
Module = Annotated[str, _made_of(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]*", "cuda/12.4")]
Gpu = Annotated[str, _made_of(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "a100")]
Time = Annotated[str, AfterValidator(_time)]
Plain = Annotated[str, AfterValidator(plain)]


class Slurm(Frozen):
    """A Slurm job. A site profile has the same keys; the recipe wins over it, the command over both."""

    nodes: Positive = Field(1, description="Machines.")
    gpus_per_node: Annotated[int, Field(ge=0)] = Field(0, description="GPUs on each; 0 trains on CPUs.")
    gpu_type: Gpu | None = Field(None, description="Kind of GPU, as the cluster names it.")
    gpu_memory: Annotated[float, Field(gt=0)] | None = Field(
        None, description="GB of each GPU, for a plan made where there is none."
    )
    processes_per_node: Positive | None = Field(
        None, description="Processes on each machine; by default one for each GPU, or one."
    )
    cpus_per_process: Positive | None = Field(None, description="CPU cores for each process.")
    memory: Memory | None = Field(None, description="Memory of each machine, such as 64G.")
    time: Time | None = Field(
        None, description="Time limit of one try, such as 4h; the job comes back after it."
    )
    partition: Names | None = Field(None, description="Partition, or several with commas.")
    account: Name | None = Field(None, description="Account that is charged.")
    qos: Name | None = Field(None, description="Quality of service.")
    reservation: Name | None = Field(None, description="Reservation.")
    constraint: Features | None = Field(None, description="Features that the machines must have.")
    exclude: Nodes | None = Field(None, description="Machines not to use.")
    exclusive: bool = Field(False, description="Whole machines, shared with nobody.")
    modules: tuple[Module, ...] = Field((), description="Environment modules to load first.")
    container: Plain | None = Field(None, description="Image of a container to run in.")
    container_runtime: Literal["pyxis", "apptainer"] = Field(
        "pyxis", description="What runs the container: pyxis with enroot, or apptainer."
    )
    mounts: tuple[Plain, ...] = Field((), description="Folders the container sees, as FROM:TO.")
    environment: dict[str, Plain] = Field(
        default_factory=dict, description="Variables of the job, such as NCCL_SOCKET_IFNAME. No secrets."
    )
    scratch: Plain | None = Field(None, description="Fast local folder, for temporary files and caches.")
    python: Plain | None = Field(
        None, description="Python on the machines; by default the one that submits."
    )
    offline: bool = Field(
        True, description="Keep the Hub out of the job; tlscale prefetch fills the cache."
    )
    preflight: bool = Field(
        True, description="Examine every machine before each try, and leave out those that fail."
    )
    min_free_gb: Annotated[float, Field(ge=0)] = Field(
        1.0, description="GB that must be free in the run directory and in scratch."
    )
    save_seconds: Annotated[int, Field(ge=10, le=3600)] = Field(
        120, description="Seconds before the time limit at which the job saves and comes back."
    )
    tries_without_progress: Positive = Field(
        3, description="Give up after so many tries in a row that got no further."
    )
    at_once: Positive | None = Field(None, description="Of several seeds, run at most so many at a time.")

    @field_validator("environment")
    @classmethod
    def _no_secrets(cls, given: dict[str, str]) -> dict[str, str]:
        for name in given:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r} is no name of a variable")
            if SECRET.search(name):
                raise ValueError(
                    f"{name} looks like a secret, which must not lie in a file; export it where you "
                    "submit, and the job gets it from there"
                )
        return given

    @property
    def processes(self) -> int:
        """Processes on each machine."""
        return self.processes_per_node or self.gpus_per_node or 1


class Launch(Frozen):
    """How a run is started."""

    slurm: Slurm | None = Field(None, description="For tlscale submit.")
