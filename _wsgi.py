"""The WSGI entry point: `gunicorn --bind :9090 --workers 1 --threads 8 --timeout 0 _wsgi:app`."""

from cdal.backend.commands import application

app = application()
