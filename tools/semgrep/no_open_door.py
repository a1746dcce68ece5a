"""Planted violations for no_open_door.yaml."""
from http.server import HTTPServer

import uvicorn

# ruleid: no-open-door
uvicorn.run(app, host="0.0.0.0", port=8000)
# ruleid: no-open-door
HTTPServer(("", 8000), Handler)
# ruleid: no-open-door
host = "::"
# ok: no-open-door
uvicorn.run(app, host="127.0.0.1", port=8000)
# ok: no-open-door
uvicorn.run(app, host=settings.host, port=8000)
# ok: no-open-door
HTTPServer(("127.0.0.1", 0), Handler)
