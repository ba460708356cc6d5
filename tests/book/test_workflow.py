"""The workflow that publishes the book does what the README says, from main alone, and may do no more than it must."""

import re

import pytest
from built import ROOT

yaml = pytest.importorskip("yaml")
FOLDER = ROOT / ".github/workflows"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="not a checkout: no workflows here")


@pytest.fixture(scope="module")
def book():
    return yaml.safe_load((FOLDER / "book.yml").read_text(encoding="utf-8"))


def actions(text: str) -> dict[str, str]:
    """The actions of a workflow and the version of each."""
    found = re.findall(r"uses: ([\w./-]+)@(\S+)", text)
    assert len(set(found)) == len(dict(found)), "one action, two versions"
    return dict(found)


def test_it_builds_as_a_reader_does(book):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"<!-- book -->\s*```bash\n(.+?)\n```", readme, re.DOTALL)
    steps = book["jobs"]["build"]["steps"]
    assert [s["run"] for s in steps if "run" in s] == [command]
    assert [s["with"]["path"] for s in steps if "upload-pages-artifact" in s.get("uses", "")] == ["book/_build/html"]


def test_only_main_is_published_and_one_job_may(book):
    assert book[True] == {"push": {"branches": ["main"]}, "workflow_dispatch": None}  # YAML reads `on` as true
    build, publish = book["jobs"]["build"], book["jobs"]["publish"]
    assert build["if"] == "github.ref == 'refs/heads/main'" and publish["needs"] == "build"
    assert book["permissions"] == {"contents": "read"} and "permissions" not in build
    assert publish["permissions"] == {"pages": "write", "id-token": "write"}
    assert publish["environment"]["name"] == "github-pages"


def test_versions_agree_and_are_major_ones():
    texts = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.yml")}
    everywhere = actions("\n".join(texts.values()))
    assert all(re.fullmatch(r"v\d+", version) for version in everywhere.values())
    assert set(actions(texts["book.yml"])) == {
        f"actions/{name}"
        for name in ("checkout", "setup-python", "configure-pages", "upload-pages-artifact", "deploy-pages")
    }


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yml")), ids=lambda p: p.name)
def test_what_a_step_refers_to_exists(path):
    """`needs` names a job, and `steps.ID` a step of the same job."""
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    for job in jobs.values():
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(jobs)
        assert all(("run" in step) != ("uses" in step) for step in job["steps"]) and "timeout-minutes" in job
        ids = {step["id"] for step in job["steps"] if "id" in step}
        assert set(re.findall(r"steps\.([\w-]+)\.", str(job))) <= ids
