"""Makes this folder's figures from the report of a run.

    python3 docs/figures/make.py RUN_FOLDER

layers.svg  the report's two charts on the layers, on a light panel, so that it reads on light and dark pages
report.png  the report's first screen, taken by a headless Chromium (left out where there is none)
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
WIDTH, TITLE, CHART = 960, 60, 600


def layers(page: str) -> str:
    panels = []
    for column, name in enumerate(["Coding rate", "Sparsity"]):
        found = re.search(rf'<svg[^>]*viewBox="0 0 {WIDTH} {CHART}"[^>]*aria-label="{name}".*?</svg>', page, re.S)
        if not found:
            sys.exit(f"the report has no chart `{name}` of {WIDTH} x {CHART}")
        chart = re.sub(r"^<svg[^>]*>", "", found.group()).removesuffix("</svg>")
        panels.append(
            f'<g transform="translate({20 + column * (WIDTH + 40)} 20)">'
            f'<text x="0" y="32" font-size="30" font-weight="600" fill="currentColor">{name}</text>'
            f'<g transform="translate(0 {TITLE})">{chart}</g></g>'
        )
    width, height = 2 * WIDTH + 80, CHART + TITLE + 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Coding rate and sparsity, layer by layer" font-family="system-ui,sans-serif" color="#1c1e21">'
        f'<rect width="{width}" height="{height}" rx="12" fill="#fff"/>{"".join(panels)}</svg>\n'
    )


def screenshot(report: pathlib.Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        print("no Chromium: report.png is left as it is")
        return
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        target = [f"--screenshot={HERE / 'report.png'}", "--window-size=1100,1440", report.resolve().as_uri()]
        subprocess.run([browser, *flags, *target], check=True, stderr=subprocess.DEVNULL)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    report = pathlib.Path(sys.argv[1]) / "report.html"
    (HERE / "layers.svg").write_text(layers(report.read_text()))
    screenshot(report)


if __name__ == "__main__":
    main()
