"""Scripts that complete a command line in bash, zsh and fish, made from a description of the commands.

A word is completed to a command, an option, the value of an option, a key as in `data.resolution=`, the value of a
key (also inside a list, `+experiments=[webdataset,`), or a path. The scripts are complete: no Python runs on a TAB.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hpcdata.base.command import Parser

PROGRAM = "hpcdata"


@dataclass(frozen=True, kw_only=True)
class Option:
    names: tuple[str, ...]
    """`--output`, `-o`."""
    text: str
    takes_value: bool
    values: tuple[str, ...] = ()
    """All that are allowed; empty: a path, or anything."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """What stands before `=` in an argument, and what may follow."""

    name: str
    text: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Command:
    name: str
    text: str
    options: tuple[Option, ...]
    values: tuple[str, ...] = ()
    """Of its first argument."""
    keys: tuple[Key, ...] = ()


def describe(name: str, text: str, parser: Parser, keys: Sequence[Key] = ()) -> Command:
    options: list[Option] = []
    values: tuple[str, ...] = ()
    for action in parser._actions:
        choices = tuple(map(str, action.choices or ()))
        if not action.option_strings:
            values += choices
            continue
        names = tuple(name for name in action.option_strings if name != "-h")
        help_ = (action.help or "").replace("%(default)s", str(action.default))
        options.append(Option(names=names, text=help_, takes_value=action.nargs != 0, values=choices))
    return Command(name=name, text=text, options=tuple(options), values=values, keys=tuple(keys))


def bash(commands: Sequence[Command]) -> str:
    return _BASH.format(
        program=PROGRAM,
        commands=" ".join(command.name for command in commands),
        after=_cases(_after_options(commands), lambda words: _set(words) if words else "files=1"),
        options=_cases((command.name, _names(command)) for command in commands),
        keys=_cases(_keys(commands)),
        values=_cases(_key_values(commands)),
        first=_cases((command.name, command.values) for command in commands if command.values),
    )


def zsh(commands: Sequence[Command]) -> str:
    listed = " ".join(_quote(f"{command.name}:{command.text}") for command in commands)
    options = (
        (command.name, [f"{name}:{option.text}" for option in command.options for name in option.names])
        for command in commands
    )
    return _ZSH.format(
        program=PROGRAM,
        commands=listed,
        after=_cases(_after_options(commands), lambda words: f"compadd -- {_listed(words)}" if words else "_files"),
        options=_cases(options, lambda words: f"found=({_listed(words)})"),
        keys=_cases(_keys(commands), lambda words: f"compadd -S '' -- {_listed(words)}"),
        values=_cases(_key_values(commands), lambda words: f"compset -P '*[[,]'; compadd -- {_listed(words)}; return"),
        first=_cases(
            ((command.name, command.values) for command in commands if command.values),
            lambda words: f"compadd -- {_listed(words)}; return",
        ),
    )


def fish(commands: Sequence[Command]) -> str:
    lines = [f"complete -c {PROGRAM} -n __fish_use_subcommand -f"]
    for command in commands:
        lines.append(f"complete -c {PROGRAM} -n __fish_use_subcommand -a {command.name} -d {_fish(command.text)}")
    for command in commands:
        begin = f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {command.name}'"
        lines += [f"{begin}{_fish_option(option)}" for option in command.options]
        if command.values:
            lines.append(f"{begin} -f -a {_fish(' '.join(command.values))}")
        for key in command.keys:
            words = [f"{key.name}={value}" for value in key.values or ("",)]
            lines.append(f"{begin} -a {_fish(' '.join(words))} -d {_fish(key.text)}")
    return "\n".join([*lines, ""])


SHELLS: dict[str, Callable[[Sequence[Command]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}


def _after_options(commands: Sequence[Command]) -> Iterator[tuple[str, Sequence[str]]]:
    """`command --option` -> the values that may follow."""
    for command in commands:
        for option in command.options:
            if option.takes_value:
                for name in option.names:
                    yield f"{command.name} {name}", option.values


def _names(command: Command) -> list[str]:
    return [name for option in command.options for name in option.names]


def _keys(commands: Sequence[Command]) -> Iterator[tuple[str, Sequence[str]]]:
    return ((command.name, [f"{key.name}=" for key in command.keys]) for command in commands if command.keys)


def _key_values(commands: Sequence[Command]) -> Iterator[tuple[str, Sequence[str]]]:
    known = {key.name: key.values for command in commands for key in command.keys if key.values}
    return iter(known.items())


def _set(words: Sequence[str]) -> str:
    return f"words={_quote(' '.join(words))}"


def _listed(words: Sequence[str]) -> str:
    return " ".join(map(_quote, words))


def _cases(rows: Iterator[tuple[str, Sequence[str]]], action: Callable[[Sequence[str]], str] = _set) -> str:
    """The lines of a `case` statement of bash and zsh."""
    return "\n".join(f"        {_quote(name)}) {action(words)} ;;" for name, words in rows) or "        '') ;;"


def _quote(text: str) -> str:
    return shlex.quote(text)


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_option(option: Option) -> str:
    names = "".join(f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in option.names)
    value = f" -x -a {_fish(' '.join(option.values))}" if option.values else " -r" if option.takes_value else ""
    return f"{names}{value} -d {_fish(option.text)}"


_BASH = """# Completes {program} in bash:   source <({program} completion bash)
_{program}() {{
    local line=${{COMP_LINE:0:COMP_POINT}} current before previous command key head part words='' files='' reply
    current=${{line##*[[:space:]]}}
    before=${{line%"$current"}}
    before=${{before%"${{before##*[![:space:]]}}"}}
    previous=${{before##*[[:space:]]}}
    command=${{COMP_WORDS[1]}}
    head='' part=$current
    if [[ $before != *[[:space:]]* ]]; then
        words='{commands} --help --version'
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        return
    fi
    case "$command $previous" in
{after}
    esac
    if [[ -n $words || -n $files ]]; then
        :
    elif [[ $current == -* ]]; then
        case $command in
{options}
        esac
    elif [[ $current == *=* ]]; then
        key=${{current%%=*}}
        head=$key= part=${{current#*=}}
        case $key in
{values}
        esac
        if [[ -z $words ]]; then
            files=1
        elif [[ $part == *[[,]* ]]; then
            head+=${{part%"${{part##*[[,]}}"}} part=${{part##*[[,]}}
        fi
    else
        files=1
        case $command in
{first}
        esac
        if [[ -n $words ]]; then
            files=''
        else
            case $command in
{keys}
            esac
            [[ -z $words ]] || compopt -o nospace 2>/dev/null
        fi
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$part")
    if [[ -n $files ]] && ((${{#COMPREPLY[@]}} == 0)); then
        compopt -o filenames +o nospace 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$part")
    fi
    # readline takes what follows = : and quotes for a word of its own
    head+=x
    head=${{head##*[=:\\'\\"]}}
    for reply in "${{!COMPREPLY[@]}}"; do
        COMPREPLY[reply]=${{head%x}}${{COMPREPLY[reply]}}
    done
}}
complete -F _{program} {program}
"""

_ZSH = """#compdef {program}
# Completes {program} in zsh, after compinit:   source <({program} completion zsh)
_{program}() {{
    local -a found
    local command=$words[2] previous=$words[CURRENT-1] current=$words[CURRENT] key
    if ((CURRENT == 2)); then
        found=({commands})
        _describe command found
        return
    fi
    case "$command $previous" in
{after}
    *) ;;
    esac
    if ((compstate[nmatches])); then
        return
    fi
    if [[ $current == -* ]]; then
        case $command in
{options}
        esac
        _describe -o option found
        return
    fi
    if [[ $current == *=* ]]; then
        key=${{current%%=*}}
        compset -P '*='
        case $key in
{values}
        esac
        _files
        return
    fi
    case $command in
{first}
    esac
    case $command in
{keys}
    esac
    _files
}}
if [[ $funcstack[1] == _{program} ]]; then
    _{program} "$@"
else
    compdef _{program} {program}
fi
"""
