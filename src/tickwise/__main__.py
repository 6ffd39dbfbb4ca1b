import sys

from tickwise.cli import main

sys.exit(main())
