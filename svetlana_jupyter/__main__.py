"""Entry point of ``python -m svetlana_jupyter``."""

import sys

from svetlana_jupyter.cli import main

if __name__ == "__main__":
    sys.exit(main())
