# SPDX-License-Identifier: Apache-2.0
"""Says whether a provider of the compiled modules computes what it should. In a source
tree the shim, and the libraries that `cmake --preset test` builds, are found beside it.
"""

import os
import sys
from pathlib import Path

_TREE = Path(__file__).resolve().parent.parent
if (_TREE / "shim" / "mambarun").is_dir():
    for _folder in ("shim", "shim/standins"):
        sys.path.append(str(_TREE / _folder))  # an installed mambarun goes first
    _built = _TREE / "build" / "test" / "lib"
    if _built.is_dir():
        os.environ.setdefault("MAMBARUN_PATH", str(_built))
