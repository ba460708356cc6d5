"""The front ends of the explorers: one JavaScript file each, behind the helpers they share.

They are plain modules without dependencies.  JupyterLab runs them through anywidget, in step with Python; the built
book runs the same text without a kernel (``book/_static/anyhost.js``).
"""

from pathlib import Path

HERE = Path(__file__).parent
STYLE = (HERE / "common.css").read_text(encoding="utf-8")


def script(name: str) -> str:
    """The text of ``name.js`` with ``common.js`` before it: one module, as anywidget and node want it."""
    return "\n".join((HERE / file).read_text(encoding="utf-8") for file in ("common.js", f"{name}.js"))
