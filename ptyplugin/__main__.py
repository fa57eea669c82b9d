"""python -m ptyplugin: the same as the command."""

from ptyplugin.cli import main

if __name__ == "__main__":
    main()
