"""Checks what the compiler made: ``python tools/check_objects.py <build folder or extension module>...``

* Each object of ``cpp/kernels`` compiled for an instruction set exports one constant, the table ``wl::<isa>::<family>``; it has no weak
  or unique symbol, no static initialiser, and calls nothing but memcpy, memset and memmove. So no function compiled for a newer
  processor can replace one that every processor runs.
* ``_core`` exports its ``PyInit`` function alone and needs no static TLS, so that it can be loaded late and beside any other module.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ALLOWED_CALLS = {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"}
OBJECT_FOLDER = re.compile(r"wl_kernels_(\w+)\.dir")


def run(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def mangled(isa: str, name: str) -> str:
    return f"_ZN2wl{len(isa)}{isa}{len(name)}{name}E"


def symbols(path: Path, *options: str) -> Iterator[tuple[str, str]]:
    """(name, nm's type letter) of each symbol."""
    for line in run("nm", "-P", *options, path).splitlines():
        name, kind, *_ = line.split()
        yield name, kind


def check_object(path: Path, isa: str) -> Iterator[str]:
    family = path.parent.name
    is_table = path.name.startswith("table.cc")
    families = {mangled(isa, line) for line in kernel_families()}
    expected = mangled(isa, "table" if is_table else family)
    calls = ALLOWED_CALLS | (families if is_table else set())
    exported = set()
    for name, kind in symbols(path):
        if kind in "WwVvu":
            yield f"weak or unique symbol {name}"
        elif kind == "U":
            if name not in calls:
                yield f"calls {name}"
        elif kind.isupper():
            exported.add(name)
            if kind not in "RD":
                yield f"exports {name}, which is no constant (nm says {kind})"
    if exported != {expected}:
        yield f"exports {sorted(exported) or 'nothing'}, not {expected} alone"
    for section in re.findall(r"\.(?:init_array|ctors|preinit_array)\S*", run("readelf", "-SW", path)):
        yield f"has a static initialiser (section {section})"


def kernel_families() -> list[str]:
    text = (Path(__file__).resolve().parents[1] / "cpp/kernels/families.inc").read_text()
    return re.findall(r"^WL_FAMILY\((\w+),", text, re.MULTILINE)


def check_extension(path: Path) -> Iterator[str]:
    exported = {name for name, _ in symbols(path, "-D", "--defined-only")}
    if exported != {"PyInit__core"}:
        yield f"exports {sorted(exported)}, not PyInit__core alone"
    if "STATIC_TLS" in run("readelf", "-dW", path):
        yield "needs static TLS"


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__)
        return 2
    objects, extensions = [], []
    for path in map(Path, arguments):
        found = [path] if path.is_file() else sorted(path.rglob("*.o")) + sorted(path.rglob("_core*.so"))
        for file in found:
            match = OBJECT_FOLDER.search(str(file))
            if match:
                objects.append((file, match[1]))
            elif file.suffix == ".so":
                extensions.append(file)
    problems = [f"{file}: {problem}" for file, isa in objects for problem in check_object(file, isa)]
    problems += [f"{file}: {problem}" for file in extensions for problem in check_extension(file)]
    if not objects and not extensions:
        problems.append(f"nothing to check in {', '.join(arguments)}")
    print(*problems, f"{len(objects)} kernel objects, {len(extensions)} extension modules, {len(problems)} problems", sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
