"""`python -m pgproxy`: the same as the command `pgproxy`."""

from pgproxy.cli import main

main()
