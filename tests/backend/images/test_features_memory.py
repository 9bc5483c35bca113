"""Memory while a backbone looks at many images: what is kept on disk is not kept in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from base64 import b64encode
from io import BytesIO
from pathlib import Path

from PIL import Image

from cdal.models.feature_store import FeatureStore
from cdal.backend.images.inputs import InputReader
from cdal.backend.images.store import AllowedHosts, ImageSource, ImageStore
from cdal.models import make_network
from cdal.models.backbone import DEFAULT_BACKBONE

def picture(number):
    encoded = BytesIO()
    Image.new("RGB", (9, 9), (number % 256, number // 256, 0)).save(encoded, "PNG")
    return "data:image/png;base64," + b64encode(encoded.getvalue()).decode()

def anonymous_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

folder = Path(sys.argv[1])
network = make_network("segmentation", DEFAULT_BACKBONE, ("a", "b"), 96)
reader = InputReader(
    ImageStore(folder / "images", 0, AllowedHosts()),
    FeatureStore(folder / "features", 32 * 2**20),
    ImageSource("http://label-studio.test", dict),
)
for start, end in ((0, 1500), (1500, 5000)):
    items = [(number, picture(number)) for number in range(start, end)]
    seen = 0
    for batch in reader.batches(network, items, lambda *problem: sys.exit(str(problem))):
        seen += len(batch)
    assert seen == end - start
    print(anonymous_kb())
print(sum(file.stat().st_size for file in (folder / "features").glob("*/*")))
"""


@pytest.mark.endurance
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_stays_flat_while_5000_images_are_embedded(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    before, after, stored = map(int, answer.stdout.split())
    # The features of the 3,500 images in between take 113 MB.
    assert after - before < 50_000
    assert stored <= 32 * 2**20
