"""`python -m dfd_train.reproduce`."""

import sys

from dfd_train.reproduce.command import main

sys.exit(main())
