"""`python -m alignfirst` is the `alignfirst` command."""

from alignfirst.cli import main

if __name__ == "__main__":
    main()
