"""The `tlscale` command: parses arguments, calls one function, turns errors into exit codes.

Nothing heavy is imported before a command needs it; `--help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tlscale.cli import cluster, sharing
from tlscale.errors import INTERRUPTED, ExitCode, TlscaleError, UsageError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
HANDLERS = {
    "eval": "evaluate", "plugins": "show_plugins", "tasks": "show_tasks", "status": "show",
}  # fmt: skip
EXIT_CODES = """exit codes:
  0  done
  1  the run failed
  2  the command line, the recipe or the data can't be meant
  3  the plan does not fit into the device's memory
  4  the verdict is neither POSITIVE nor EQUIVALENT (run, eval and report with --gate)
  5  a saved result did not pass verification, or a ledger its audit
  75  stopped by a signal, with everything saved; the same command goes on
  130  stopped by Ctrl-C
"""


def _parsed(words: Sequence[str], passed_on: Sequence[str]) -> argparse.Namespace:
    """The arguments; settings may stand after options too, where argparse no longer looks for them."""
    whole = parser()
    arguments, left = whole.parse_known_args(words, argparse.Namespace(passed_on=passed_on))
    strange = [word for word in left if word.startswith("-") or "=" not in word]
    if strange or (left and not hasattr(arguments, "overrides")):
        whole.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        arguments.overrides = [*arguments.overrides, *left]
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the process's exit code."""
    words, passed_on = _divided(sys.argv[1:] if argv is None else argv)
    arguments = _parsed(words, passed_on)
    module, _, function = arguments.handler.partition(":")
    handler: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(module), function)
    try:
        return int(handler(arguments))
    except TlscaleError as error:
        print(error, file=sys.stderr)
        if isinstance(error, UsageError):
            print("\nNothing was run.", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return int(ExitCode.OK)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"{where}{error.strerror or error}", file=sys.stderr)
        return int(ExitCode.RUN_FAILED)


def _divided(words: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """The words for `tlscale submit`, and those after `--`, which are for sbatch."""
    if words[:1] != ["submit"] or "--" not in words:
        return words, ()
    place = words.index("--")
    return words[:place], tuple(words[place + 1 :])


def parser() -> argparse.ArgumentParser:
    """The whole command-line surface."""
    top = argparse.ArgumentParser(
        prog="tlscale",
        description="Fine-tuning and transfer learning, from one recipe to a verified result.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _init(commands)
    _check(commands)
    made = _recipe_command(commands, "plan", "what a run would do, and the memory it needs", "inspect")
    made.add_argument("--offline", action="store_true", help="read the Hub's cache only")
    made = _recipe_command(
        commands, "run", "plan, train, score and verify; resumes an unfinished run", "execute"
    )
    made.add_argument("--dry-run", action="store_true", help="print the commands that would run")
    made.add_argument("--gate", action="store_true", help="exit 4 unless POSITIVE or EQUIVALENT")
    made.add_argument("--offline", action="store_true", help="read the Hub's cache only")
    made.add_argument(
        "--resume-changed", action="store_true", help="go on with a run though its recipe has changed"
    )
    _probe(commands)
    _search(commands)
    _advise(commands)
    _eval(commands)
    made = _command(
        commands,
        "verify",
        "prove that a run's saved result is whole, moved, and loads to the same logits",
        "execute",
    )
    made.add_argument("run_dir", metavar="RUN", help="a run directory, or hub:ORG/NAME")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    made = _command(commands, "report", "judge a run: verdict.json, report.html and report.md", "judge")
    made.add_argument("run_dir", metavar="RUN", help="a run directory, or the folder of its seeds")
    made.add_argument("--json", action="store_true", help="print the verdict as one JSON object")
    made.add_argument("--gate", action="store_true", help="exit 4 unless POSITIVE or EQUIVALENT")
    made = _command(commands, "compare", "pair any two runs item by item", "judge")
    made.add_argument("run_a", metavar="RUN_A", help="the run to compare with")
    made.add_argument("run_b", metavar="RUN_B", help="the run in question")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    _use(commands)
    _ledger(commands)
    cluster.add(commands, _command, _recipe_command)
    sharing.add(commands, _command)
    _about(commands)
    return top


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from tlscale import __version__

        print(f"tlscale {__version__}")
        parser.exit()


def _command(commands: Commands, name: str, text: str, room: str) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    made.set_defaults(handler=f"tlscale.cli.{room}:{HANDLERS.get(name, name)}")
    return made


def _recipe_command(commands: Commands, name: str, text: str, room: str) -> argparse.ArgumentParser:
    made = _command(commands, name, text, room)
    made.add_argument("recipe", metavar="RECIPE", help="a recipe file")
    made.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings over the recipe's, e.g. train.learning_rate=1e-4",
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def _check(commands: Commands) -> None:
    made = _recipe_command(
        commands, "check", "find everything wrong in a recipe and its data; nothing is run", "doctor"
    )
    made.add_argument("--no-data", action="store_true", help="look at the recipe alone")
    made.add_argument(
        "--examples", type=_positive, metavar="N", help="show N of each role as the model gets them"
    )
    made.add_argument("--offline", action="store_true", help="read the Hub's cache only")


def _probe(commands: Commands) -> None:
    made = _recipe_command(
        commands,
        "probe",
        "rank bases for a task by frozen features, or language models by how they read",
        "probe",
    )
    made.add_argument(
        "--models", metavar="A,B", help="bases, each NAME or NAME@REVISION; by default the recipe's"
    )
    made.add_argument("--layers", action="store_true", help="every layer, not only the last")
    made.add_argument(
        "--gradients", action="store_true", help="rank the base's blocks instead, by the task's pull"
    )
    made.add_argument(
        "--alignment", action="store_true", help="what pictures prepared in other ways would cost"
    )
    made.add_argument("--poolings", metavar="A,B", default="auto", help="of auto, mean, cls and last")
    made.add_argument(
        "--rows", type=_positive, metavar="N", default=2000, help="rows of each role; by default 2000"
    )
    made.add_argument("--offline", action="store_true", help="read the Hub's cache only")


def _eval(commands: Commands) -> None:
    made = _command(commands, "eval", "score a run again, or any model on evaluation tasks", "evaluate")
    made.add_argument("model", metavar="MODEL_OR_RUN", help="a run, folder, Hub id or address")
    made.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="settings, e.g. model.quantization=nf4"
    )
    made.add_argument("--tasks", metavar="A,B", help="see tlscale tasks; without: a run's own suites")
    made.add_argument("--shots", metavar="K,K", help="examples before each question; by default 0")
    made.add_argument("--limit", type=_positive, metavar="N", help="score at most so many items of each")
    made.add_argument("--predictor", metavar="NAME", help="who answers; by default what fits the model")
    made.add_argument("--chat", action="store_true", help="prompts as turns of the model's chat template")
    made.add_argument("--data-dir", metavar="FOLDER", help="local files; by default $TLSCALE_DATA")
    made.add_argument("-o", "--output", metavar="FOLDER", help="where scores go; by default evals/NAME")
    made.add_argument("--offline", action="store_true", help="read the Hub's cache only")
    made.add_argument("--gate", action="store_true", help="exit 4 unless POSITIVE or EQUIVALENT")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    made = _command(commands, "tasks", "list evaluation tasks, or show one with an example", "tasks")
    made.add_argument("names", nargs="*", metavar="TASK", help="a task's name or YAML file")
    made.add_argument("--shots", metavar="K", default="0", help="examples before the question")
    made.add_argument("--data-dir", metavar="FOLDER", help="local files; by default $TLSCALE_DATA")
    made.add_argument("--json", action="store_true", help="print one JSON array")


def _search(commands: Commands) -> None:
    made = _recipe_command(
        commands, "sweep", "search a recipe's settings by its validation rows; resumes", "sweep"
    )
    made.add_argument("--trials", type=_positive, metavar="N", help="settings to try; by default 20")
    made.add_argument(
        "--set", action="append", metavar="SPACE", help="KEY=low..high, KEY=log:low..high or KEY=a,b,c"
    )
    made.add_argument("--dry-run", action="store_true", help="say what would be searched")
    made.add_argument("--offline", action="store_true", help="read the Hub's cache only")


def _advise(commands: Commands) -> None:
    made = _recipe_command(commands, "advise", "which strategy suits a recipe's data, and why", "advise")
    made.add_argument(
        "--race", type=_positive, metavar="SECONDS", help="train the first few for so long in all"
    )
    made.add_argument("--offline", action="store_true", help="read the Hub's cache only")


def _init(commands: Commands) -> None:
    made = _command(commands, "init", "write a commented recipe for a job", "start")
    made.add_argument("job", nargs="?", metavar="JOB", help="which job; without it, the jobs are listed")
    made.add_argument("-o", "--output", metavar="FILE", help="where to write it; by default JOB.yaml")


def _soup(commands: Commands) -> None:
    made = _command(
        commands, "soup", "mix runs' results, or one with its base, if any mixture is better", "soup"
    )
    made.add_argument("run_dirs", nargs="+", metavar="RUN", help="run directories of one base")
    made.add_argument("-o", "--output", metavar="FOLDER", required=True, help="a new folder")
    made.add_argument("--method", choices=("mean", "ties", "dare"), default="mean", help="for several runs")
    made.add_argument(
        "--alpha",
        metavar="A,B",
        default="0.25,0.5,0.75",
        help="for one run: shares of the way from its base",
    )
    made.add_argument(
        "--density", metavar="D", default="0.2", help="share of entries that ties and dare keep"
    )
    made.add_argument("--json", action="store_true", help="print one JSON object")


def _use(commands: Commands) -> None:
    made = _command(commands, "merge", "write the final adapter and its base as one checkpoint", "use")
    made.add_argument("run_dir", metavar="RUN", help="a run directory")
    made.add_argument("-o", "--output", metavar="FOLDER", help="a new folder; by default RUN/merged")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    _soup(commands)
    made = _command(commands, "predict", "ask a run's result: one text, a file, or lines of stdin", "use")
    made.add_argument("run_dir", metavar="RUN", help="a run directory")
    made.add_argument("text", nargs="?", metavar="TEXT", help="the input; for image models, a path")
    made.add_argument("--file", metavar="FILE", help="ask for each row of a data file")
    made.add_argument("--column", metavar="NAME", help="its column; by default the recipe's")
    made.add_argument("--max-new-tokens", type=_positive, metavar="N", help="longest continuation")
    made.add_argument("--json", action="store_true", help="print one JSON object for each input")


def _ledger(commands: Commands) -> None:
    for name, text in (
        ("audit", "prove that every epoch took every example exactly once"),
        ("replay", "repeat a step whose loss or gradient was not finite, row by row"),
    ):
        made = _command(commands, name, text, "audit")
        made.add_argument("run_dir", metavar="RUN", help="a run directory")
        made.add_argument("--json", action="store_true", help="print JSON")


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def _about(commands: Commands) -> None:
    made = _command(commands, "plugins", "list strategies, tasks, heads, objectives and launchers", "about")
    made.add_argument("--json", action="store_true", help="print a JSON array")
    made = _command(commands, "env", "versions and hardware, for bug reports", "about")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    made = _command(commands, "schema", "print the JSON Schema of recipes or of verdict.json", "about")
    made.add_argument(
        "of", nargs="?", choices=("recipe", "verdict"), default="recipe", help="which of them"
    )
    made = _command(commands, "completion", "print a completion script for your shell", "completion")
    made.add_argument("shell", metavar="SHELL", choices=("bash", "zsh"), help="bash or zsh")
