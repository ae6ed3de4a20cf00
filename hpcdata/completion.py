"""Completion: prints the script that lets a shell complete commands, options, keys and paths at TAB.

    source <(hpcdata completion bash)                           in ~/.bashrc
    source <(hpcdata completion zsh)                            in ~/.zshrc, after compinit
    hpcdata completion fish > ~/.config/fish/completions/hpcdata.fish

Make it again after an update of hpcdata.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hpcdata.base.command import Options, Parser

if TYPE_CHECKING:
    from hpcdata.base.completion import Command, Key

_LINES = ("launch", "preflight")
"""Commands whose arguments are a whole configuration."""


def parser() -> Parser:
    parser = Parser("completion", __doc__)
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="for which shell")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return parser().run(arguments, _print)


def _print(options: Options) -> int:
    from hpcdata.base.completion import SHELLS

    print(SHELLS[options.shell](list(_commands())), end="")
    return 0


def _commands() -> Iterator[Command]:
    import importlib

    from hpcdata.__main__ import commands
    from hpcdata.base.completion import describe

    for name, text in commands().items():
        parser: Parser = importlib.import_module(f"hpcdata.{name.replace('-', '_')}").parser()
        keys = [*_groups(name), *_keys(only_transient=name == "resume")]
        takes_keys = any(action.dest == "overrides" for action in parser._actions)
        yield describe(name, text, parser, keys if takes_keys else ())


def _groups(command: str) -> Iterator[Key]:
    """`cluster=` and `+experiments=`, with what is in conf/."""
    from hpcdata.base.completion import Key
    from hpcdata.config.compose import config_folder
    from hpcdata.config.presets import preset_folders

    own = config_folder()
    folders = [own, *preset_folders(own=own)]

    def names(group: str) -> tuple[str, ...]:
        return tuple(sorted(path.stem for folder in folders for path in (folder / group).glob("*.yaml")))

    yield Key(name="cluster", text="where tasks run", values=names("cluster"))
    if command in _LINES:
        yield Key(name="+experiments", text="settings that belong together", values=names("experiments"))


def _keys(*, only_transient: bool) -> Iterator[Key]:
    import typing

    from hpcdata.base.completion import Key
    from hpcdata.config import schema
    from hpcdata.config.help import descriptions
    from hpcdata.config.values import key_types

    texts, types = descriptions(), key_types()
    for name, _, is_semantic in schema.leaves(schema.RunConfig()):
        if not (is_semantic and only_transient):
            hint = types[name]
            literals = [hint, *typing.get_args(hint)]
            values = [
                v for item in literals if typing.get_origin(item) is typing.Literal for v in typing.get_args(item)
            ]
            values += ["true", "false"] if bool in literals else []
            yield Key(name=name, text=texts[name].partition(". ")[0], values=tuple(values))


if __name__ == "__main__":
    sys.exit(main())
