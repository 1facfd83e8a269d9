"""The command line: `t2ikit --help`. Each command imports what it needs, so that light ones start in under a second."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer

from t2ikit.commands import images, laws, training
from t2ikit.errors import Busy, NotebookFailed, UserError

app = typer.Typer(
    help="Decide which text-to-image diffusion model to train, on which data, for how long, before paying for GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for part in (training, laws, images):
    app.add_typer(part.app)

CLICK_ERROR: type = typer.BadParameter.__mro__[2]  # ClickException, of click or of the copy of it in newer typers


def main(typed: typer.Typer = app) -> None:
    """Run the CLI: exit 0, 2 for a user error, 75 if another process trains the run, 143 after SIGTERM."""
    sys.__stdout__.reconfigure(errors="backslashreplace")  # "∝" into a file on Windows, as stderr has it already
    try:
        code = typed(standalone_mode=False)
    except Busy as error:
        code = fail(error, 75)
    except UserError as error:
        code = fail(error, 2)
    except NotebookFailed as error:
        code = fail(error, 1)
    except CLICK_ERROR as error:
        code = fail(error.format_message(), 2)
    except (typer.Abort, KeyboardInterrupt):
        code = fail("Interrupted: run the same command again to go on.", 130)
    finally:
        drop_unread()
    sys.exit(code)


def command(function: Callable[..., object]) -> None:
    """`function` as a program of its own, with the CLI's exit codes and one-sentence errors."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command()(function)
    main(alone)


def drop_unread() -> None:
    """Flush stdout, into nothing if its reader has stopped (`| head`): at exit Python would complain of it."""
    try:
        sys.__stdout__.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def fail(message: object, code: int) -> int:
    print(f"t2ikit: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
