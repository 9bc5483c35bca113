"""The WSGI entry point: `gunicorn --bind :9090 --workers 1 --threads 8 --timeout 0 _wsgi:app`.

`python _wsgi.py`, by which people start other ML backends, is `cdal serve`.
"""

import sys

from cdal.backend.commands import application
from cdal.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))

app = application()
