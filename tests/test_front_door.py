"""`import vfnet_edu as vf`: every public name is there, and nothing heavy is imported before it is used."""

import ast
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import vfnet_edu as vf
from vfnet_edu import widgets
from vfnet_edu.__main__ import VERBS, dispatch
from vfnet_edu.doctor import import_pair, old_packages
from vfnet_edu.doctor import main as doctor
from vfnet_edu.runtime.errors import Exit, UserError


@pytest.mark.parametrize("name", vf.__all__)
def test_names(name):
    assert getattr(vf, name) is not None


@pytest.mark.parametrize("door", [vf, widgets], ids=lambda door: door.__name__)
def test_a_type_checker_sees_the_same_names(door):
    body = ast.parse(Path(door.__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    seen = {a.asname: node.module for node in body if isinstance(node, ast.ImportFrom) for a in node.names}
    homes = {name: f"{door.__name__}.{module}" for name, module in door._HOME.items()}
    assert seen == homes | dict.fromkeys(getattr(door, "_MODULES", ()), "vfnet_edu")


def test_one_word_one_meaning():
    """`import vfnet_edu.NAME` would replace the function or class of that name by the module."""
    modules = {module.name for module in pkgutil.iter_modules(vf.__path__)}
    assert modules >= {"train", "models", "weights"} and not modules & vf._HOME.keys()


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'vfnet_r51'"):
        vf.vfnet_r51  # noqa: B018


def test_import_is_light():
    code = "import sys, vfnet_edu, vfnet_edu.doctor; print({'torch', 'triton', 'cv2', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_doctor(capsys):
    doctor([])
    out = capsys.readouterr().out
    assert "self-test" in out and "torch " in out and old_packages() == []


def test_doctor_names_the_remedy_for_a_mismatch(monkeypatch):
    """What a torchvision built for another torch raises when it is imported."""

    class Broken:
        def find_spec(self, name, *_):
            if name == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist")

    for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(UserError, match="torchvision::nms.*pip install --force-reinstall torch torchvision"):
        import_pair()


def test_verbs(capsys):
    dispatch([])
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)
    with pytest.raises(UserError) as caught:
        dispatch(["tarin"])
    assert caught.value.code == Exit.USAGE
    scripts = entry_points(group="console_scripts")
    if "vfnet-edu" in scripts.names:
        assert scripts["vfnet-edu"].value == "vfnet_edu.__main__:main"
