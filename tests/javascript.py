"""How the tests run the explorers' JavaScript: with node, which must be there on a CI machine."""

import json
import os
import shutil
import subprocess

import pytest

from vfnet_edu.widgets.front_end import script


def in_node(explorer: str, expression: str, data=None):
    """The value (or what a promise promises) of a JavaScript expression that sees `data` and the explorer's module.

    Without node the test is skipped; where CI=true it fails, for there nobody would notice.
    """
    if shutil.which("node") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("node is not installed")
    call = f"((data) => ({expression}))({json.dumps(data)})"
    program = f"{script(explorer)}\nconsole.log(JSON.stringify(await {call}));"
    command = ["node", "--input-type=module"]
    done = subprocess.run(command, input=program, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
