"""The WSGI entry point: `gunicorn --bind :9090 --workers 1 --threads 8 --timeout 0 _wsgi:app`."""

import argparse

from label_studio_ml.api import init_app
from model import CDALModel, hear_event

app = init_app(model_class=CDALModel)
app.before_request(hear_event)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="CDAL by label-studio-ml's server")
    parser.add_argument("-p", "--port", type=int, default=9090)
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args()
    app.run(host=arguments.host, port=arguments.port)
