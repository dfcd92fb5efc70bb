import sys

from tagger.cli import main

if __name__ == "__main__":  # and not in the processes that the demo starts
    sys.exit(main())
