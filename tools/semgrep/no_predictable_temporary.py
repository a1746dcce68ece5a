"""Planted violations for no_predictable_temporary.yaml."""
import tempfile
from pathlib import Path

# ruleid: no-predictable-temporary
name = tempfile.mktemp()
# ruleid: no-predictable-temporary
open("/tmp/codex.lock", "w")
# ruleid: no-predictable-temporary
Path("/tmp/codex").mkdir()
# ok: no-predictable-temporary
with tempfile.TemporaryDirectory() as directory:
    pass
# ok: no-predictable-temporary
Path("runs/tmp").mkdir()
