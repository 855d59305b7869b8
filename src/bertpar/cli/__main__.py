"""`python -m bertpar.cli`: the command line where its console script is not on PATH."""

from bertpar.cli import main

if __name__ == "__main__":
    main()
