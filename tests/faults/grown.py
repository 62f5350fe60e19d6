"""What a mirror has imported and made once it has served for a moment: for the process that others
are forked of (nursery.py). Frozen classes make their methods when they are first used."""

from __future__ import annotations

import contextlib
import sys

import mirror.app
import mirror.cli.serving
import mirror.server.admin.application  # noqa: F401 - mirror.app imports it when it serves

for name, module in list(sys.modules.items()):
    for made in list(vars(module).values()) if name.startswith("mirror.") else ():
        if isinstance(made, type) and "__dataclass_params__" in vars(made):
            with contextlib.suppress(Exception):  # it has no such field
                made.__init__(object.__new__(made), _none_of_its_fields=None)
