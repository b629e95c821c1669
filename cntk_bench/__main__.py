"""`python -m cntk_bench`."""

from cntk_bench.cli import main

main()
