"""`python -m cntk_bench`."""

import os
import sys

# Python puts the current folder first, where a file named like a library (random.py) would be imported in its
# place; the installed command does not. A checkout that one stands in stays.
_here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if not sys.flags.safe_path and sys.path[0] != _here and not os.path.samefile(sys.path[0] or ".", _here):
    del sys.path[0]

from cntk_bench.cli import console  # noqa: E402

console()
