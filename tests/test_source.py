import inspect

import pytest

import vfnet_edu as vf
from vfnet_edu.models.heads.vfnet import VFNetHead
from vfnet_edu.runtime.errors import UserError


def test_show_prints_the_source_with_its_place(capsys):
    vf.show(vf.varifocal_loss)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("# vfnet_edu/losses.py, line ")
    assert "\n".join(rest) == inspect.getsource(vf.varifocal_loss).rstrip()


def test_methods_are_moved_to_the_margin(capsys):
    vf.show(VFNetHead.refined_box)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("def refined_box(") and lines[2].startswith("    ")


def test_what_has_no_source():
    for thing in (len, 3, vf.recipes.vfnet_tiny()):
        with pytest.raises(UserError, match="no Python source"):
            vf.show(thing)
