"""Builds the compiled modules of `ext/*.pyx` into `rtb/_ext`.

`RTB_CHECKED=1` builds with bounds checks.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

HERE = Path(__file__).parent
CHECKED = os.environ.get("RTB_CHECKED") == "1"

extensions = [
    Extension(
        f"rtb._ext.{source.stem}",
        [str(source.relative_to(HERE))],
        include_dirs=["ext"],
        depends=[str(header.relative_to(HERE)) for header in (HERE / "ext").glob("*.h")],
        extra_compile_args=["-O1", "-g"] if CHECKED else ["-O3", "-g0", "-fno-math-errno"],
    )
    for source in sorted((HERE / "ext").glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        include_path=["ext"],
        build_dir="build/checked" if CHECKED else "build/cython",
        force=CHECKED,
        compiler_directives={
            "language_level": 3,
            "boundscheck": CHECKED,
            "wraparound": False,
            "initializedcheck": CHECKED,
            "cdivision": False,
            "embedsignature": True,
        },
    )
)
