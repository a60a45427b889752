"""For tests that start the scripts: stop at the import of one module until a signal comes, or have a module missing."""

import os
import sys
import time

PAUSE_AT, MISSING = os.environ.get("TEST_PAUSE_AT"), os.environ.get("TEST_MISSING")


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == PAUSE_AT:
            os.write(2, b"paused\n")
            for _ in range(600):
                time.sleep(0.1)  # a signal just before one long sleep would be noticed at its end only
        if MISSING and name.partition(".")[0] == MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


if PAUSE_AT or MISSING:
    sys.meta_path.insert(0, Finder)
