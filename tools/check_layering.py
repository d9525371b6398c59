"""Checks that the house stands: python -> src -> cpp, never the other way.

* ``cpp/`` knows nothing of Python; ``src/`` is the only folder that includes Python's or pybind11's headers.
* ``python/`` imports nothing compiled but ``wiesel._core`` and the Cython modules built from ``src/*.pyx``.
* Optional packages are imported inside functions, never when a module of wiesel loads.
* OpenMP is named in one file, ``-m`` flags in one file, and kernel sources include nothing but what the style allows.

    python tools/check_layering.py
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTIONAL = {"PIL", "matplotlib", "rich", "sklearn", "safetensors", "torch", "onnx", "onnxruntime", "mpi4py", "scipy"}
KERNEL_INCLUDES = re.compile(r'#include\s+(<(stddef|stdint|string|immintrin|arm_neon)\.h>|"(simd|kernels|base|ops/kinds)[./])')


def sources(folder: str, *suffixes: str) -> Iterator[Path]:
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix in suffixes and path.is_file():
            yield path


def cpp_problems() -> Iterator[str]:
    for path in sources("cpp", ".h", ".cc", ".c", ".inc"):
        name = path.relative_to(ROOT)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r'#include\s+[<"](Python\.h|pybind11|numpy/)', line):
                yield f"{name}:{number}: cpp/ includes Python's headers"
            if re.search(r'#include\s+"\.\./\.\./src', line):
                yield f"{name}:{number}: cpp/ includes src/"
            if path.name != "threads.cc" and re.search(r"#pragma\s+omp|<omp\.h>|\bomp_[a-z_]+\(", line):
                yield f"{name}:{number}: OpenMP belongs in cpp/runtime/threads.cc"
            kernel = "kernels/" in str(name) and path.suffix == ".cc" and path.name != "dispatch.cc"
            if kernel and line.startswith("#include") and not KERNEL_INCLUDES.match(line):
                yield f"{name}:{number}: a kernel source may not include {line.split(maxsplit=1)[1]}"
            if re.search(r"\b(printf|puts|abort|exit)\s*\(", line.split("//")[0]) and "snprintf" not in line:
                yield f"{name}:{number}: the library never prints or aborts"


def cmake_problems() -> Iterator[str]:
    for path in [*ROOT.glob("CMakeLists.txt"), *ROOT.glob("[cst]*/**/CMakeLists.txt"), *ROOT.glob("cpp/**/*.cmake")]:
        if path.name == "isa.cmake":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"[\s\"]-m(arch|avx|fma|sse|tune|cpu)", line):
                yield f"{path.relative_to(ROOT)}:{number}: -m flags belong in cpp/kernels/isa.cmake"


def compiled_modules() -> set[str]:
    return {"wiesel._core"} | {f"wiesel.data._{path.stem.lstrip('_')}" for path in sources("src", ".pyx")}


def python_problems() -> Iterator[str]:
    allowed = compiled_modules()
    for path in sources("python/wiesel", ".py"):
        name = path.relative_to(ROOT)
        tree = ast.parse(path.read_text(), str(name))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                targets = [f"{node.module}.{alias.name}" for alias in node.names] if node.module else []
            else:
                continue
            for target in targets:
                parts = target.split(".")
                if parts[0] == "wiesel" and any(p.startswith("_") and not p.startswith("__") for p in parts):
                    dotted = [".".join(parts[:i]) for i in range(2, len(parts) + 1)]
                    private = [d for d in dotted if d.rsplit(".", 1)[1].startswith("_")]
                    if private and private[0] not in allowed and not (ROOT / "python" / (private[0].replace(".", "/") + ".py")).exists():
                        known_function = (ROOT / "python" / ("/".join(private[0].split(".")[:-1]) + ".py")).exists()
                        if not known_function:
                            yield f"{name}:{node.lineno}: imports {target}, which is not a known compiled module"
        for node in tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                first = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                if first and first.split(".")[0] in OPTIONAL:
                    yield f"{name}:{node.lineno}: {first} is optional; import it where it is first needed"


def main() -> int:
    problems = [*cpp_problems(), *cmake_problems(), *python_problems()]
    for problem in problems:
        print(problem)
    print(f"layering: {len(problems)} problem(s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
