"""`tlscale completion`: a shell's completion script, written from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from tlscale.errors import ExitCode
from tlscale.recipe.templates import JOBS

# What a positional argument or an option's value is, by the name that help prints for it.
RECIPES, FOLDERS, FILES = "recipes", "folders", "files"
KINDS = {
    "RECIPE": RECIPES,
    "RUN": FOLDERS,
    "MODEL_OR_RUN": FOLDERS,
    "RUN_A": FOLDERS,
    "RUN_B": FOLDERS,
    "FOLDER": FOLDERS,
    "FILE": FILES,
    "SCRIPT": FILES,
}

BY_NAME = """\
_tlscale_names() {
    compgen -d -- "$2"
    case $1 in
        files) compgen -f -- "$2" | while IFS= read -r name; do
            [[ ! -d $name ]] && printf '%s\\n' "$name"
        done ;;
        recipes) compgen -f -- "$2" | while IFS= read -r name; do
            [[ ! -d $name && ( $name == *.yaml || $name == *.yml ) ]] && printf '%s\\n' "$name"
        done ;;
    esac
}
_tlscale_files() {
    local name
    COMPREPLY=()
    while IFS= read -r name; do COMPREPLY+=("$name"); done < <(_tlscale_names "$@")
    # quotes what needs it, and puts a slash behind folders
    compopt -o filenames 2>/dev/null
}
"""


@dataclass(frozen=True)
class Word:
    """An option or positional: its spellings, what it takes (`None`: nothing), its choices, its help."""

    names: tuple[str, ...]
    takes: str | None
    choices: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Command:
    """One command of the parser."""

    name: str
    text: str
    options: tuple[Word, ...]
    positionals: tuple[Word, ...]


def completion(arguments: argparse.Namespace) -> int:
    """Prints the script of the named shell."""
    from tlscale.cli import parser

    print({"bash": bash, "zsh": zsh}[arguments.shell](commands(parser())), end="")
    return int(ExitCode.OK)


def commands(top: argparse.ArgumentParser) -> tuple[Command, ...]:
    """The commands that `top` knows, in its order."""
    (choice,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    helps = {action.dest: action.help or "" for action in choice._choices_actions}
    found = []
    for name, made in choice.choices.items():
        words = [_word(action) for action in made._actions]
        options = tuple(word for word in words if word.names)
        positionals = tuple(word for word in words if not word.names)
        found.append(Command(name, helps.get(name, ""), options, positionals))
    return tuple(found)


def _word(action: argparse.Action) -> Word:
    takes = None if action.nargs == 0 else str(action.metavar or action.dest.upper())
    choices = tuple(map(str, action.choices or ()))
    return Word(tuple(action.option_strings), takes, choices, action.help or "")


def bash(found: tuple[Command, ...]) -> str:
    """For `source <(tlscale completion bash)`."""
    cases = "\n".join(_bash_case(command) for command in found)
    names = " ".join(command.name for command in found)
    return f"""\
# bash completion of tlscale: source <(tlscale completion bash)
{BY_NAME}_tlscale() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command=${{COMP_WORDS[1]}} place=0 options kinds value word
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "{names} --help --version" -- "$current"))
        return
    fi
    case $command in
{cases}
    *) return ;;
    esac
    # an option's value is not an argument of its own
    local before=
    for word in "${{COMP_WORDS[@]:2:COMP_CWORD-2}}"; do
        [[ $word == -* || ( $before == -* && -n ${{takes[$before]-}} ) ]] || place=$((place + 1))
        before=$word
    done
    value=${{kinds[$place]-none}}
    if [[ $previous == -* && -n ${{takes[$previous]-}} ]]; then value=${{takes[$previous]}}
    elif [[ $current == -* ]]; then value="words:$options"
    fi
    case $value in
        words:*) COMPREPLY=($(compgen -W "${{value#words:}}" -- "$current")) ;;
        recipes|folders|files) _tlscale_files "$value" "$current" ;;
        *) COMPREPLY=() ;;
    esac
}}
complete -F _tlscale tlscale
"""


def _bash_case(command: Command) -> str:
    options = " ".join(name for word in command.options for name in word.names)
    kinds = " ".join(f"'{_kind(word)}'" for word in command.positionals)
    takes = " ".join(
        f"[{name}]='{_kind(word)}'" for word in command.options if word.takes for name in word.names
    )
    return (
        f"    {command.name})\n        options='{options}'; kinds=({kinds})\n"
        f"        local -A takes=({takes}) ;;"
    )


def _kind(word: Word) -> str:
    if _choices(word):
        return "words:" + " ".join(_choices(word))
    return KINDS.get(word.takes or "", "none")


def zsh(found: tuple[Command, ...]) -> str:
    """For a file named `_tlscale` in a folder of `$fpath`, or `source <(tlscale completion zsh)`."""
    listed = "\n".join(f"        {_quoted(f'{c.name}:{c.text}')}" for c in found)
    cases = "\n".join(_zsh_case(command) for command in found)
    return f"""\
#compdef tlscale
# zsh completion of tlscale: source <(tlscale completion zsh)
_tlscale() {{
    local -a commands
    commands=(
{listed}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
{cases}
    esac
}}
compdef _tlscale tlscale
"""


def _zsh_case(command: Command) -> str:
    specs = [
        *_zsh_options(command),
        *(f"{index}:{w.takes}:{_action(w)}" for index, w in _numbered(command)),
    ]
    arguments = " \\\n            ".join(_quoted(spec) for spec in specs)
    return f"        {command.name})\n            _arguments \\\n            {arguments} ;;"


def _zsh_options(command: Command) -> Iterator[str]:
    for word in command.options:
        text = word.text.replace("[", "(").replace("]", ")").replace(":", r"\:")
        value = f":{word.takes}:{_action(word)}" if word.takes else ""
        yield from (f"{name}[{text}]{value}" for name in word.names)


def _numbered(command: Command) -> Iterator[tuple[str, Word]]:
    for index, word in enumerate(command.positionals, start=1):
        yield ("*" if word.takes == "KEY=VALUE" else str(index)), word


def _action(word: Word) -> str:
    if _choices(word):
        return f"({' '.join(_choices(word))})"
    shown = {RECIPES: '_files -g "*.(yaml|yml)"', FOLDERS: "_files -/", FILES: "_files"}
    return shown.get(_kind(word), " ")


def _choices(word: Word) -> tuple[str, ...]:
    return tuple(JOBS) if word.takes == "JOB" else word.choices


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
