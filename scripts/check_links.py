"""Checks that links between Markdown files, and mentions of docs in the code, resolve."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\[\]]*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
MENTION = re.compile(r"\bdocs/[\w/-]+\.(?:md|json)\b")
TEXT = {".md", ".py", ".rs", ".toml", ".js", ".sql", ""}


def anchors(text: str) -> set[str]:
    """What Markdown viewers call the headings: lower case, no punctuation, hyphens for spaces."""
    found: set[str] = set()
    for title in HEADING.findall(FENCE.sub("", text)):
        plain = LINK.sub(lambda link: link[0][1:].partition("]")[0], title)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        names = (f"{slug}-{number}" if number else slug for number in range(len(text)))
        found.add(next(name for name in names if name not in found))
    return found


def problems(page: Path) -> list[str]:
    text = page.read_text(errors="replace")
    found = [
        f"{name}: no such file" for name in MENTION.findall(text) if not (ROOT / name).exists()
    ]
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text)) if page.suffix == ".md" else ""
    for link in LINK.findall(prose):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            found.append(f"{link}: no such file")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
            found.append(f"{link}: no such heading")
    return [f"{page.relative_to(ROOT)}: {problem}" for problem in found]


def main() -> int:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in listed.stdout.splitlines()]
    pages = [file for file in files if file.suffix in TEXT and file.is_file()]
    found = [problem for page in pages for problem in problems(page)]
    print(
        "\n".join(found) or f"{len(pages)} files: every link and every mention of a page resolves"
    )
    return 1 if found or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
