"""Where the repository and the real micrographs are."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SLIDEMILL_DATA", ROOT.parent / "shared" / "data"))
