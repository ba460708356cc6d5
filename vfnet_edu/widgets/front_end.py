"""The front ends of the explorers: one JavaScript file each, behind the helpers they share.

They are plain modules without dependencies.  JupyterLab runs them through anywidget, in step with Python; the built
book runs the same text without a kernel (``book/_static/anyhost.js``).
"""

import base64
import io
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
STYLE = (HERE / "common.css").read_text(encoding="utf-8")
LIBRARIES = {  # what stands between common.js and the explorer
    "detector": ("vfnet", "scene"),
    "own_scene": ("vfnet", "scene", "switches", "average_precision"),
    "oracle": ("switches",),
    "nms": ("vfnet", "scene"),
    "ranked_list": ("average_precision",),
    "planner": ("plan",),
    "recipe_calculator": ("plan",),
}


def script(name: str) -> str:
    """The text of ``name.js`` after ``common.js`` and its LIBRARIES: one module, as anywidget and node want it."""
    files = ("common", *LIBRARIES.get(name, ()), name)
    return "\n".join((HERE / f"{file}.js").read_text(encoding="utf-8") for file in files)


def data_url(picture: Image.Image, form: str, **options) -> str:
    """A picture inside a URL, so that the page asks for no file; `form` is "PNG" or "JPEG", `options` are Pillow's."""
    packed = io.BytesIO()
    picture.save(packed, form, **options)
    return f"data:image/{form.lower()};base64," + base64.b64encode(packed.getvalue()).decode()
