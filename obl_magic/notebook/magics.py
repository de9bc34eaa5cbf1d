"""The magics: options become plain arguments of one call. Decides nothing, shows only what it is handed."""

from __future__ import annotations

import ast
import inspect
import keyword
import linecache
import re
from types import FunctionType
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class
from IPython.core.magic_arguments import MagicArgumentParser, argument, magic_arguments

from obl_magic.api.run import run
from obl_magic.api.study import ablate, search
from obl_magic.capture.function_source import read_cell
from obl_magic.errors import OblError, UsageProblem
from obl_magic.notebook import commands
from obl_magic.notebook.options import Offers, as_text, completions, given, meant, typed
from obl_magic.options import OPTIONS
from obl_magic.server.server import SERVER
from obl_magic.values import CellSource


def _all_options(magic: Any) -> Any:
    """A magic that takes every option of the table."""
    for option in reversed(OPTIONS):
        names, told = typed(option, [] if option.action == "append" else option.default)
        magic = argument(*names, **told)(magic)
    return magic


@magics_class
class ObliviousMagics(Magics):
    """``%%oblivious`` runs a training function; ``%oblivious`` looks after runs."""

    @magic_arguments()
    @_all_options
    @argument(
        "words",
        nargs="*",
        help="as %%oblivious (one line): runs, attach [RUN], logs RUN --rank K, stop [RUN], "
        "server status, restart or off, export RUN FILE, doctor",
    )
    @argument("--rank", type=int, default=0, help="whose log, for %%oblivious logs: --rank 1")
    @argument("--keep", type=int, help="so many of the newest stay, for %%oblivious prune: --keep 20")
    @argument(
        "--older", type=float, help="remove what began so many days ago, for %%oblivious prune: --older 30"
    )
    @argument(
        "--dry-run", action="store_true", help="only say what %%oblivious prune would remove: --dry-run"
    )
    @line_cell_magic
    def oblivious(self, line: str, cell: str | None = None) -> Any:
        """Run the training function of this cell, unchanged, on N MPI ranks.

        The function is the cell's last top-level ``def`` (or --function). Example::

            %%oblivious --workers 2
            def train(lr=0.01):
                model = make_model()
                model.compile(keras.optimizers.Adam(lr), "mse")
                model.fit(x, y, batch_size=64, epochs=5)
                return model

        Returns a Run: .value, .metrics, .logs(rank), .status, .dir. With --search a Study: .trials, .best; with
        --ablate an AblationResult: .table.
        """
        __tracebackhide__ = True
        try:
            options = _parse(self.oblivious.parser, line)
            options.line = line
            if cell is None and not options.function and not options.words and line.strip():
                raise _without_function("%oblivious", line, self._newest_function)
            if cell is None and not options.function:
                return commands.line_magic(
                    options.words, options.rank, self._shell.user_ns, options.workers, options.engine,
                    options.keep, options.older, options.dry_run, options.hosts,
                )  # fmt: skip
            return self._run(options, cell)
        except UsageProblem as error:
            raise UsageError(str(error)) from None
        except OblError as error:
            if getattr(error, "run", None) is not None or getattr(error, "study", None) is not None:
                raise
            raise UsageError(str(error)) from None

    @property
    def _shell(self) -> InteractiveShell:
        assert self.shell is not None
        return self.shell

    @property
    def _newest_function(self) -> str:
        """The name of the function that the notebook has defined last, or an example of one."""
        mine = [
            name
            for name, value in self._shell.user_ns.items()
            if isinstance(value, FunctionType) and not name.startswith("_")
        ]
        return mine[-1] if mine else "train"

    def _run(self, options: Any, cell: str | None) -> Any:
        __tracebackhide__ = True
        if options.words:
            raise UsageProblem(
                f"{' '.join(options.words)!r} in %%oblivious",
                "options that begin with --",
                "%%oblivious --workers 2",
            )
        if options.keep is not None or options.older is not None or options.dry_run:
            raise UsageProblem(
                "--keep, --older or --dry-run with a function",
                "%oblivious prune, on a line of its own",
                "%oblivious prune --keep 20 --dry-run",
            )
        if options.out is not None and (not options.out.isidentifier() or keyword.iskeyword(options.out)):
            raise UsageProblem(f"--out {options.out}", "a Python name", "--out run")
        arguments = dict(commands.argument_value(text) for text in options.arg)
        _refuse_await(cell or "")
        name = options.function or _last_function(cell or "")
        if name is None:
            raise _without_function("%%oblivious", options.line, self._newest_function)
        kind = commands.kind_of(options)
        commands.check_before_the_cell(options.workers, options.engine)
        if cell is not None and cell.strip():
            _execute(self._shell, _as_typed(options.line, cell))
        function = self._shell.user_ns.get(name)
        if function is None:
            raise UsageProblem(
                f"--function {name}", "a function of this notebook", "define it in a cell first"
            )
        return self._conduct(kind, function, options, arguments)

    def _conduct(self, kind: str, function: Any, options: Any, arguments: dict[str, Any]) -> Any:
        __tracebackhide__ = True
        try:
            finished = _CONDUCTS[kind](
                function, options, self._shell.user_ns,
                {"args": arguments, "namespace": self._shell.user_ns, "cells": self._cell},
            )  # fmt: skip
        except BaseException as error:
            held = getattr(error, "run", None) or getattr(error, "study", None)
            if options.out and held is not None:
                self._shell.user_ns[options.out] = held
            raise
        if options.out:
            self._shell.user_ns[options.out] = finished
        return finished

    def _cell(self, filename: str) -> CellSource | None:
        """The cell behind a code object's file name, labelled as its prompt."""
        text = "".join(linecache.getlines(filename))
        number = getattr(self._shell.compile, "_filename_map", {}).get(filename)
        if number is None:
            return read_cell(filename)
        return CellSource(filename, f"In [{number}]", text)


def _run(function: Any, options: Any, names: dict[str, Any], notebook: dict[str, Any]) -> Any:
    __tracebackhide__ = True

    return run(function, **given("run", options), **notebook)


def _search(function: Any, options: Any, names: dict[str, Any], notebook: dict[str, Any]) -> Any:
    __tracebackhide__ = True

    space = commands.spec_of("space", options.search, options.space, names)
    return search(function, space, out=options.out or "", **given("search", options), **notebook)


def _ablate(function: Any, options: Any, names: dict[str, Any], notebook: dict[str, Any]) -> Any:
    __tracebackhide__ = True

    study = commands.spec_of("study", options.ablate, options.study, names)
    return ablate(function, study, out=options.out or "", **given("ablate", options), **notebook)


_CONDUCTS = {"run": _run, "search": _search, "ablate": _ablate}


def _parse(parser: MagicArgumentParser, line: str) -> Any:
    try:
        return parser.parse_argstring(line)
    except (UsageError, ValueError) as error:  # shlex raises the latter for an open quotation
        raise UsageProblem(
            f"%%oblivious {line.strip()} ({error})",
            "the options that %%oblivious? lists",
            f"%%oblivious {meant(str(error)) or '--workers 2'}",
        ) from None


def _without_function(magic: str, line: str, newest: str) -> UsageProblem:
    """Of a magic that does not say what to run; all that was typed is in what to do."""
    typed = f"{magic} {line.strip()}".strip()
    return UsageProblem(
        "a cell without a def" if magic == "%%oblivious" else f"{typed}, on a line of its own",
        "a training function in the cell, or --function NAME",
        f"{typed} --function {newest}",
    )


def _last_function(cell: str) -> str | None:
    """The name of a cell's last top-level ``def``; None where there is none."""
    if re.match(r"\s*%%", cell):  # of another cell magic, which executes what is below it: %%time
        return _last_function(cell.lstrip().partition("\n")[2])
    try:
        tree = ast.parse(cell)
    except SyntaxError:
        return _last_function_among_magics(cell)
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    waits = [node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)]
    if waits and not names:
        raise UsageProblem(
            f"the async def {waits[-1]}",
            "a function that returns its value when it is called",
            f"def started(): return asyncio.run({waits[-1]}())",
        )
    return names[-1] if names else None


def _last_function_among_magics(cell: str) -> str | None:
    """As :func:`_last_function`, for a cell that is Python only after IPython has transformed it."""
    from IPython.core.inputtransformer2 import TransformerManager

    transformed = TransformerManager().transform_cell(cell)
    try:
        ast.parse(transformed)
    except SyntaxError:
        return ""  # executing the cell will say what is wrong with it, in the user's own line
    return _last_function(transformed)


def _refuse_await(cell: str) -> None:
    """Raises UsageProblem for a cell that waits at its top level: the kernel's loop runs this very magic."""
    try:
        todo: list[ast.AST] = list(ast.parse(cell).body)
    except SyntaxError:
        return
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.Await, ast.AsyncFor, ast.AsyncWith)):
            raise UsageProblem(
                f"await at the top of the cell (line {node.lineno + 1})",
                "a cell that is executed without waiting",
                "await it in a cell of its own",
            )
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            todo.extend(ast.iter_child_nodes(node))


def _as_typed(line: str, cell: str) -> str:
    """The cell with the magic's own line as a comment, so that its lines have the numbers that the user sees.

    IPython drops empty first lines, so that none would do; and it would not know a second cell magic below a comment.
    """
    if re.match(r"\s*%%", cell):
        return cell
    indent = re.match(r"(?:[ \t]*\n)*([ \t]*)", cell)
    comment = " ".join(["# %%oblivious", *line.split()])  # an expanded {expr} may have brought line ends
    return f"{indent[1] if indent else ''}{comment}\n{cell}"


def _execute(shell: InteractiveShell, cell: str) -> None:
    """Executes the cell as any cell is; what it raises is shown once, as an ordinary cell's would be."""
    __tracebackhide__ = True
    shown, syntax, count = shell.showtraceback, shell.showsyntaxerror, shell.execution_count
    vars(shell).update(showtraceback=_nothing, showsyntaxerror=_nothing)
    shell.execution_count = _number_of_this_cell(shell)
    try:
        result = shell.run_cell(cell, store_history=False)
    finally:
        vars(shell).update(showtraceback=shown, showsyntaxerror=syntax)
        shell.execution_count = count
    result.raise_error()


def _nothing(*_: Any, **__: Any) -> None:
    """Stands in for the shell's own display of an error that will be shown by the outer cell."""


def _number_of_this_cell(shell: InteractiveShell) -> int:
    """The prompt of the cell being executed; newer IPythons count on before they execute."""
    return max(getattr(shell.compile, "_filename_map", {}).values(), default=shell.execution_count)


def _in_groups(magic: Any) -> None:
    """What ``%%oblivious?`` shows: the sentence, then the options in groups rather than by the alphabet."""
    said = (magic.__doc__ or "").partition("positional arguments:")[0]
    said = inspect.cleandoc(said[said.find("Run the training") :])
    known = {option.flag for option in OPTIONS}
    lines = [f"Of %oblivious, one line ({', '.join(commands.WORDS)}):"]
    for action in magic.parser._actions:
        if action.option_strings and not known & {*action.option_strings, "--help"}:
            lines += [f"  {action.option_strings[-1]}", f"      {action.help.replace('%%', '%')}"]
    magic.__doc__ = "\n\n".join([said, as_text(), "\n".join(lines)])


_in_groups(ObliviousMagics.oblivious)


def load(shell: InteractiveShell) -> None:
    """Registers the magics in a shell."""
    unload(shell)
    shell.register_magics(ObliviousMagics)
    shell.input_transformers_cleanup.append(_body_for_a_lonely_magic)
    shell.Completer.custom_matchers.append(_offered(shell))
    shell.events.register("post_run_cell", _look_after_the_server)
    SERVER.warm()


def _look_after_the_server(result: Any) -> None:
    """What a cell has set or imported, the next world finds."""
    SERVER.renew()


def _offered(shell: InteractiveShell) -> Any:
    @context_matcher()
    def oblivious_options(context: CompletionContext) -> SimpleMatcherResult:
        """What may follow in a line of the magic, and there nothing else: no Python name, no file."""
        line = context.text_until_cursor
        words = completions(line, _there_is(shell)) if re.match(r"%%?oblivious\s", line) else []
        return {
            "completions": [SimpleCompletion(word, type="magic") for word in words],
            "suppress": bool(words),
            "matched_fragment": line.rpartition(" ")[2],
        }

    return oblivious_options


def _there_is(shell: InteractiveShell) -> Offers:
    """What the notebook and its folder have that may be named."""
    mine = {name: value for name, value in shell.user_ns.items() if not name.startswith("_")}
    return Offers(
        words=commands.WORDS,
        functions=tuple(name for name, value in mine.items() if isinstance(value, FunctionType)),
        runs=(*(name for name, value in mine.items() if commands.is_held(value)), *commands.newest_ids()),
        values=tuple(name for name, value in mine.items() if isinstance(value, dict)),
    )


def unload(shell: InteractiveShell) -> None:
    """Takes the magics out of a shell."""
    for kind in ("cell", "line"):
        shell.magics_manager.magics[kind].pop("oblivious", None)
    shell.Completer.custom_matchers[:] = [
        matcher for matcher in shell.Completer.custom_matchers if matcher.__name__ != "oblivious_options"
    ]
    if _look_after_the_server in shell.events.callbacks["post_run_cell"]:
        shell.events.unregister("post_run_cell", _look_after_the_server)
    SERVER.end()
    if _body_for_a_lonely_magic in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(_body_for_a_lonely_magic)


def _body_for_a_lonely_magic(cell_lines: list[str]) -> list[str]:
    """IPython refuses a cell magic without a body; ``%%oblivious --function NAME`` alone needs none."""
    if cell_lines and cell_lines[0].startswith("%%oblivious") and not "".join(cell_lines[1:]).strip():
        return [cell_lines[0].rstrip("\n") + "\n", "\n"]
    return cell_lines
