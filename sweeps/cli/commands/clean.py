"""`clean`: what lies in a work folder, and what of it no sweep uses."""

from __future__ import annotations

import argparse

from sweeps.cli.exit_codes import DONE, REFUSED
from sweeps.cli.shared_options import add_work_dir, check_work_dir
from sweeps.formatting import size_text
from sweeps.removal.leftovers import find_leftovers, remove_leftovers
from sweeps.reporting.console import confirmed, say, table_console

DESCRIPTION = "Show what prepared data and caches take, and remove what no sweep uses."
EXAMPLES = """
examples:
  {prog} --dry-run
  {prog}
  {prog} --yes
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `clean`."""
    add_work_dir(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would be removed")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    from rich import box
    from rich.table import Table

    folder = check_work_dir(arguments)
    found = find_leftovers(folder)
    table = Table("what", "size", "used by", "if removed", box=box.SIMPLE_HEAD)
    for one in found:
        users = ", ".join(one.used_by[:3]) + (" ..." if len(one.used_by) > 3 else "")
        table.add_row(one.what, size_text(one.num_bytes), users or "nothing", one.cost)
    if found:
        table_console(heeds_columns=True).print(table)
    unused = [one for one in found if not one.used_by]
    size = size_text(sum(one.num_bytes for one in unused))
    if not unused:
        say(f"{folder} holds nothing that no sweep uses")
        return DONE
    for one in unused:
        say(f"  {one.path}")
    if arguments.dry_run:
        say(f"{size} would be freed")
        return DONE
    if not confirmed(f"Remove these {len(unused)} ({size})?", yes=arguments.yes):
        say("nothing was removed")
        return REFUSED
    say(f"{size_text(remove_leftovers(unused))} freed")
    return DONE
