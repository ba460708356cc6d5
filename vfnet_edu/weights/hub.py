"""Models that people share on the Hugging Face hub: ``hf:owner/name``, or ``hf:owner/name@revision``.

Only ``best.safetensors`` is ever asked for, which a run folder holds and which cannot hold code.  A branch or a tag can
be moved, a commit cannot: a name that ends with the 40 digits of a commit always stands for the same file.
"""

import errno
import logging
import os
import re
from pathlib import Path

from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.runtime.files import cache_folder
from vfnet_edu.weights.download import MAX_BYTES

log = logging.getLogger(__name__)

PREFIX = "hf:"
FILE = "best.safetensors"
NAME = re.compile(r"hf:(?P<model>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def fetch_from_hub(name: str) -> Path:
    """The weights of a model on the hub, in the cache; without a network what is there already.

    ``$HF_ENDPOINT`` names another hub, ``hf auth login`` opens the private models of the user.

    Args:
        name: ``"hf:owner/name"`` for the newest version, logged with its commit; ``"hf:owner/name@revision"`` for a
            branch, a tag or a commit.

    Raises:
        UserError: huggingface_hub is not installed, no such model, revision or file, no network, or nowhere to write.
    """
    found = NAME.fullmatch(name)
    if not found:
        raise UserError(f"{name}: not the name of a model on the hub", remedy="write hf:owner/name or ...@revision")
    try:
        import huggingface_hub as hub  # an extra
    except ImportError as error:
        raise UserError(f"{name}: huggingface_hub is not installed", remedy="pip install 'vfnet_edu[hub]'") from error
    model, revision = found["model"], found["revision"] or "main"
    where = {"cache_dir": cache_folder() / "hub", "endpoint": os.environ.get("HF_ENDPOINT") or None}
    try:
        size = hub.hf_hub_download(model, FILE, revision=revision, dry_run=True, **where).file_size or 0
        if size <= MAX_BYTES:
            path = Path(hub.hf_hub_download(model, FILE, revision=revision, **where))
            _say_what_it_is(name, model, path.parent.name)
            return path
    except Exception as error:  # its own, those of its HTTP library, which it has changed before, and the system's
        raise _explained(name, model, revision, error) from error
    raise UserError(
        f"{name}: {FILE} has {size / 1e9:.1f} GB, more than the limit of {MAX_BYTES / 1e9:.1f} GB",
        code=Exit.CHECKPOINT,
    )


def _say_what_it_is(name: str, model: str, commit: str) -> None:
    if not name.endswith(f"@{commit}"):
        log.warning("%s is %s%s@%s today: that name always gives this file", name, PREFIX, model, commit)


def _explained(name: str, model: str, revision: str, error: Exception) -> UserError:
    """One line about what went wrong; the more special of their exceptions come first."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        what, remedy = "its owner wants to be asked first", "do so on its page, then `hf auth login`"
    elif isinstance(error, errors.RepositoryNotFoundError):
        what, remedy = "the hub has no such model", "look at the spelling; a private one needs `hf auth login`"
    elif isinstance(error, errors.RevisionNotFoundError):
        what, remedy = f"{model} has no revision {revision!r}", "give a branch, a tag or a whole commit"
    elif isinstance(error, errors.LocalEntryNotFoundError):
        what, remedy = "the hub cannot be reached, and the cache does not hold it", "look at the network, and try again"
    elif isinstance(error, errors.EntryNotFoundError):
        what = f"there is no {FILE} in it"
        remedy = "only models of vfnet_edu are read from the hub, and nothing that is pickled"
    elif isinstance(error, OSError) and error.errno in NO_ROOM:
        what = f"could not write into {cache_folder()}: {error.strerror}"
        remedy = "free some space, or set VFNET_EDU_CACHE to another folder"
        return UserError(f"{name}: {what}", remedy=remedy, code=Exit.STORAGE)
    else:
        lines = str(error).split("\n")
        what, remedy = f"could not download it: {lines[0][:200] or type(error).__name__}", "try again later"
    return UserError(f"{name}: {what}", remedy=remedy, code=Exit.CHECKPOINT)
