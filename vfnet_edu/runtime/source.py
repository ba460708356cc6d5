"""Show the package's own source where it is being explained."""

import inspect
import textwrap
from pathlib import Path

from vfnet_edu.runtime.errors import UserError


def show(thing) -> None:
    """Display the source of one of our functions, classes or modules, with its file and line.

    In a notebook it is highlighted Python, elsewhere it is printed.

    Raises:
        UserError: `thing` has no Python source, e.g. a built-in function or an instance.
    """
    thing = inspect.unwrap(thing) if callable(thing) else thing
    try:
        lines, first = inspect.getsourcelines(thing)
        path = Path(inspect.getsourcefile(thing) or inspect.getfile(thing))
    except (TypeError, OSError) as error:
        raise UserError(
            f"no Python source for {thing!r:.80}", remedy="give a function, a class or a module, not what it returns"
        ) from error
    inside = path.parts[path.parts.index("vfnet_edu", -5) :] if "vfnet_edu" in path.parts[-5:] else path.parts[-1:]
    where, text = f"{'/'.join(inside)}, line {max(first, 1)}", textwrap.dedent("".join(lines)).rstrip()
    try:
        from IPython import get_ipython
        from IPython.display import Markdown, display
    except ImportError:
        get_ipython = lambda: None  # noqa: E731
    if get_ipython():
        display(Markdown(f"`{where}`\n\n```python\n{text}\n```"))
    else:
        print(f"# {where}\n{text}")
