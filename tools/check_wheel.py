"""Checks a built wheel: at most 8 MB, 25 MB installed, one run-time dependency, no foreign symbols, no static TLS.

python tools/check_wheel.py dist/wiesel-*.whl
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MB = 1 << 20


def problems_of(wheel: Path) -> list[str]:
    problems = []
    if wheel.stat().st_size > 8 * MB:
        problems.append(f"the wheel has {wheel.stat().st_size / MB:.1f} MB; at most 8 are allowed")
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        installed = sum(info.file_size for info in archive.infolist())
        if installed > 25 * MB:
            problems.append(f"{installed / MB:.1f} MB installed; at most 25 are allowed")
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        requirements = [line for line in archive.read(metadata).decode().splitlines() if line.startswith("Requires-Dist:")]
        needed = [line for line in requirements if "extra ==" not in line]
        if len(needed) != 1 or "numpy" not in needed[0]:
            problems.append(f"the one run-time dependency is NumPy, found {needed}")
        for name in archive.namelist():
            if not name.endswith(".so"):
                continue
            library = archive.extract(name, folder)
            dynamic = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True).stdout
            if "STATIC_TLS" in dynamic:
                problems.append(f"{name} needs static TLS")
            symbols = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
            exported = [line.split()[-1] for line in symbols.splitlines()]
            foreign = [s for s in exported if not re.match(r"PyInit_|_init$|_fini$|__bss_start$|_edata$|_end$|__pyx_module_is_main", s)]
            if foreign:
                problems.append(f"{name} exports {', '.join(foreign[:5])}")
    print(f"{wheel.name}: {wheel.stat().st_size / MB:.2f} MB, {installed / MB:.2f} MB installed")
    return problems


def main() -> int:
    problems = [p for argument in sys.argv[1:] for p in problems_of(Path(argument))]
    for problem in problems:
        print(problem)
    return 1 if problems or len(sys.argv) < 2 else 0


if __name__ == "__main__":
    sys.exit(main())
