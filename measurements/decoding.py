"""Memory and time that decoding takes per pixel, by format; see `cdal/backend/images/decode.py`.

    python measurements/decoding.py [--side 8900]

Each image is decoded in a process of its own, whose peak of memory is read.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from io import BytesIO

from PIL import Image

CASES = {
    "JPEG": ("JPEG", "RGB"),
    "PNG": ("PNG", "RGB"),
    "PNG, palette": ("PNG", "P"),
    "PNG, transparent": ("PNG", "RGBA"),
    "WebP": ("WEBP", "RGB"),
    "TIFF": ("TIFF", "RGB"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=8900, help="of the square image, in pixels")
    parser.add_argument("--case", choices=CASES, help="measure this one in this process")
    given = parser.parse_args()
    if given.case is not None:
        sys.stdout.write(json.dumps(measure(given.case, given.side)))
        return
    for case in CASES:
        command = [sys.executable, __file__, "--side", str(given.side), "--case", case]
        ran = subprocess.run(command, capture_output=True, check=True, text=True)
        found = json.loads(ran.stdout)
        sys.stdout.write(
            f"{case:20} {found['file'] / 1000:8.0f} kB  {found['memory'] / 1e6:6.0f} MB  "
            f"{found['memory'] / given.side**2:5.1f} bytes per pixel, at most "
            f"{found['foretold'] / given.side**2:.0f} foretold  {found['seconds']:5.1f} s\n"
        )


def measure(case: str, side: int) -> dict[str, float]:
    """Decode one image of one colour; its file, its peak of memory and what was foretold."""
    from cdal.backend.images.decode import decode, memory_to_decode

    format_, mode = CASES[case]
    made = subprocess.run(
        [sys.executable, "-c", MAKE, mode, str(side), format_], capture_output=True, check=True
    )
    file = made.stdout
    with Image.open(BytesIO(file)) as image:
        image.verify()
    before = _peak()
    begun = time.perf_counter()
    decode(file)
    seconds = time.perf_counter() - begun
    return {
        "file": len(file),
        "memory": _peak() - before,
        "foretold": memory_to_decode(file) or 0,
        "seconds": seconds,
    }


MAKE = """
import sys
from io import BytesIO
from PIL import Image
file = BytesIO()
Image.new(sys.argv[1], (int(sys.argv[2]),) * 2).save(file, sys.argv[3])
sys.stdout.buffer.write(file.getvalue())
"""


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
