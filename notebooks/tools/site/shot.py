"""Makes docs/race.png, a picture of the race for pages that run no scripts, such as GitHub's.

    make site && python notebooks/tools/site/shot.py

Needs the extra "browser" and Chromium; made anew where the look of the race has changed.
"""

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[3]
TARGET = ROOT / "docs" / "race.png"
STOP = 18  # of VGG-16: compression 1,000, where two of five have fallen apart
HIDE = ".md-header, .controls { display: none !important } .explorer { padding: 0.6rem }"


def shoot() -> bytes:
    """The race over VGG-16, as a PNG of few colours."""
    with sync_playwright() as driver:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto((ROOT / "build/site/explore/race.html").as_uri())
        page.select_option("#network", "vgg16")
        page.fill("#compression", str(STOP))
        page.locator("#compression").blur()
        page.add_style_tag(content=HIDE)
        picture = page.locator(".explorer").screenshot()
        browser.close()
    few = Image.open(io.BytesIO(picture)).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    few.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    TARGET.write_bytes(shoot())
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")
