"""Runs the Dockerfile's steps in a fresh Debian root, where there is no container engine.

    python -m tests.container cpu /tmp/root      # as root, on Debian or Ubuntu with debootstrap

The root is what debootstrap makes, with Debian's Python 3.11 in place of the base image's. Each
`RUN` of the target is run in it by chroot, with the `ENV` and `ARG` that stand before it; `COPY`
takes the committed files. At last comes a command of one's own, in place of the target's.

How this machine reaches its package index is no part of the image: variables named `PIP_*`, the
certificates and the name servers are taken along. `--bind FOLDER` shows a folder of this machine,
such as a wheelhouse, in the root. `--arg TORCH_INDEX=URL` sets a build argument.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE = "python:3.11-slim-bookworm"
"""The only image that the Dockerfile may begin from; `_new_root` makes what stands in for it."""
SUITE, PACKAGES = "bookworm", ("python3", "python3-venv", "ca-certificates")
ARCHIVE = "http://deb.debian.org/debian"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHECK = "make --version > /dev/null && .venv/bin/generalist --version && .venv/bin/generalist info"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile, such as RUN, and what stands behind it."""

    instruction: str
    text: str


def read_dockerfile(text: str) -> dict[str, list[Step]]:
    """The steps of each target, those of the targets that it is made from first."""
    joined = re.sub(r"\\\n", " ", "\n".join(s for s in text.splitlines() if s[:1] != "#"))
    targets: dict[str, list[Step]] = {}
    steps: list[Step] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            parent, _, name = rest.partition(" AS ")
            steps = targets[name] = list(targets.get(parent, [Step("FROM", parent)]))
        else:
            steps.append(Step(instruction, " ".join(rest.split())))
    return targets


def environment_of(step: Step, before: Mapping[str, str]) -> dict[str, str]:
    """What an ENV sets, with the variables that were set before it put in."""
    words = dict(word.partition("=")[::2] for word in shlex.split(step.text))
    put = lambda found: before.get(found[1] or found[2], "")  # noqa: E731
    return {name: _VARIABLE.sub(put, value) for name, value in words.items()}


def build(target: str, root: Path, *, arguments: Mapping[str, str], binds: Sequence[Path]) -> None:
    """Run the steps of a target in a new root.

    Raises:
        SystemExit: there is no such target, `root` exists, or a step is not known here.
        subprocess.CalledProcessError: a step failed.
    """
    targets = read_dockerfile((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    if target not in targets:
        raise SystemExit(f"The Dockerfile has no target {target!r}; it has {', '.join(targets)}.")
    if root.exists():
        raise SystemExit(f"{root} exists; name a new folder.")
    folder, variables = (
        "/",
        {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    declared: dict[str, str] = {}
    for step in targets[target]:
        print(f"{step.instruction} {step.text}", flush=True)
        began = time.monotonic()
        if step.instruction == "FROM" and step.text == BASE:
            _new_root(root)
        elif step.instruction == "RUN":
            inside(root, step.text, folder, {**declared, **variables}, binds)
        elif step.instruction == "COPY" and step.text == ". .":
            _copy_committed(root / folder.lstrip("/"))
        elif step.instruction == "WORKDIR":
            folder = step.text
            (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif step.instruction == "ENV":
            variables |= environment_of(step, {**declared, **variables})
        elif step.instruction == "ARG":
            name, _, default = step.text.partition("=")
            declared[name] = arguments.get(name, default)
        elif step.instruction == "CMD":
            assert json.loads(step.text), step.text
        else:
            raise SystemExit(f"This script does not know the step: {step.instruction} {step.text}")
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    (root / "environment.json").write_text(json.dumps({"folder": folder, "variables": variables}))


def inside(
    root: Path, command: str, folder: str, variables: Mapping[str, str], binds: Sequence[Path]
) -> None:
    """Run a command of a shell in the root.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    reached = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    settings = [f"{name}={value}" for name, value in {**reached, **variables}.items()]
    script = f"cd {shlex.quote(folder)} && {command}"
    with _mounted(root, binds):
        chroot = ["chroot", str(root), "/usr/bin/env", "-i", "HOME=/root", *settings]
        subprocess.run([*chroot, "/bin/sh", "-c", script], check=True)


@contextlib.contextmanager
def _mounted(root: Path, binds: Sequence[Path]) -> Iterator[None]:
    """The file systems of the kernel, and folders of this machine, as a container has them."""
    kinds = {"proc": ["-t", "proc", "proc"], "dev": ["--rbind", "--make-rslave", "/dev"]}
    kinds |= {str(bind).lstrip("/"): ["--bind", "-o", "ro", str(bind)] for bind in binds}
    done: list[Path] = []
    try:
        for place, options in kinds.items():
            (root / place).mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", *options, str(root / place)], check=True)
            done.append(root / place)
        yield
    finally:
        for place in reversed(done):
            subprocess.run(["umount", "--recursive", "--lazy", str(place)], check=False)


def _new_root(root: Path) -> None:
    """Debian's smallest system, with its Python under the names that the base image has."""
    make = ["debootstrap", "--variant=minbase", SUITE, str(root), ARCHIVE]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    install = f"apt-get update && apt-get install -y --no-install-recommends {' '.join(PACKAGES)}"
    inside(root, f"({install}) > /dev/null", "/", {"PATH": PATH}, ())
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
    if _CERTIFICATES.exists():
        shutil.copy(_CERTIFICATES, root / str(_CERTIFICATES).lstrip("/"))


def _copy_committed(folder: Path) -> None:
    """The committed files: what `.dockerignore` leaves of a clean clone."""
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "HEAD"], check=True, stdout=subprocess.PIPE
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def main() -> None:
    """Build a target, then run a command in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("root", type=Path)
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--bind", action="append", default=[], type=Path, metavar="FOLDER")
    parser.add_argument("--command", default=CHECK, help="what is run at last")
    given = parser.parse_args()
    arguments = dict(each.partition("=")[::2] for each in given.arg)
    build(given.target, given.root.resolve(), arguments=arguments, binds=given.bind)
    kept = json.loads((given.root / "environment.json").read_text())
    print(f"$ {given.command}", flush=True)
    inside(given.root.resolve(), given.command, kept["folder"], kept["variables"], given.bind)
    print(f"The target {given.target} is built and runs.")


if __name__ == "__main__":
    main()
