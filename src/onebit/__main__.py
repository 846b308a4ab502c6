"""`python -m onebit` is the `onebit` command, for shells that do not have it on PATH."""

from __future__ import annotations

import sys

from onebit.cli import main

sys.exit(main())
