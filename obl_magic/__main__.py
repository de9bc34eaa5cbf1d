"""``python -m obl_magic``: options to one call. Decides nothing and formats nothing but the last line."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from obl_magic.errors import OblError, UsageProblem
from obl_magic.hosts.places import parse
from obl_magic.notebook.commands import argument_value
from obl_magic.notebook.options import typed
from obl_magic.options import OPTIONS
from obl_magic.setup import doctor as rooms
from obl_magic.setup import install_horovod as building
from obl_magic.setup.hosts import examine


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0 when it worked, 1 when it did not, 2 when the request was wrong.
    """
    options = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except OblError as problem:
        print(f"obl_magic: {problem}", file=sys.stderr)
        return 2 if isinstance(problem, UsageProblem) else 1
    except KeyboardInterrupt:
        print("obl_magic: interrupted", file=sys.stderr)
        return 1


def doctor(options: argparse.Namespace) -> int:
    """Prints what works here, what is missing, and what mends it."""
    checks = rooms.examine() if options.hosts is None else examine(parse(options.hosts))
    print(rooms.table_text(checks))
    return 0 if rooms.is_well(checks) else 1


def install_horovod(options: argparse.Namespace) -> int:
    """Builds Horovod for the TensorFlow that is installed."""
    building.install(gpu=options.gpu, force=options.force)
    return 0


def run(options: argparse.Namespace) -> int:
    """Runs a module's function on N ranks and prints the run."""
    import obl_magic  # the doctor must work without what runs need

    fn = find_function(options.function)
    told = {option.name for option in OPTIONS if option.told} - {"arg"}
    given = {name: value for name, value in vars(options).items() if name in told and value is not None}
    done: Any = obl_magic.run(fn, args=dict(map(argument_value, options.arg)), **given)
    print(done)
    return 0 if done.status == "succeeded" else 1


def find_function(named: str) -> Callable[..., Any]:
    """The function that ``MODULE:FUNCTION`` names; modules beside the current folder are found too.

    Raises:
        UsageProblem: it is not written so, or there is no such module or function.
    """
    module_name, colon, name = named.partition(":")
    if not (module_name and colon and name):
        raise UsageProblem(repr(named), "MODULE:FUNCTION", "python -m obl_magic run train:main --workers 2")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{module_name}.".startswith(f"{missing.name}."):
            raise
        raise UsageProblem(
            f"module {module_name!r}",
            "a module that can be imported here",
            f"check the name, or cd to where {missing.name} is",
        ) from None
    fn = getattr(module, name, None)
    if not callable(fn):
        there = ", ".join(
            sorted(key for key, value in vars(module).items() if _is_own_function(value, module_name))
        )
        raise UsageProblem(
            f"{name!r}", f"a function of {module_name}", f"name one of: {there or 'it has none'}"
        )
    found: Callable[..., Any] = fn
    return found


def _is_own_function(value: object, module_name: str) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module_name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m obl_magic", description="Distribution-oblivious training functions."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add = commands.add_parser(
        "doctor", help="what works here, what is missing, and the command that mends it"
    )
    add.add_argument("--hosts", help="look at these hosts instead, over ssh: --hosts a,b")
    add.set_defaults(command=doctor)

    add = commands.add_parser("install-horovod", help="build Horovod for the installed TensorFlow")
    add.add_argument(
        "--gpu", action="store_true", help="with NCCL; needs CUDA and NCCL (never run on a GPU by us)"
    )
    add.add_argument(
        "--force", action="store_true", help="build again even where a fitting build is installed"
    )
    add.set_defaults(command=install_horovod)

    add = commands.add_parser("run", help="run a function on N ranks, outside a notebook")
    add.add_argument("function", metavar="MODULE:FUNCTION")
    for option in (each for each in OPTIONS if each.told):
        names, told = typed(option, [] if option.action == "append" else None)
        add.add_argument(*names, **told)
    add.set_defaults(command=run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
