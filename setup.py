"""Build the two extension modules; everything else about the project is in pyproject.toml.

``python setup.py build_ext --inplace`` is the fast loop: it recompiles what changed, headers
included, and nothing else. Switches, all environment variables: RNNCORE_DEBUG=1 (assertions and
symbols), RNNCORE_SANITIZE=address|undefined|thread, RNNCORE_BUILD_JOBS=2.
"""

import os
import platform
import shlex
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import pybind11
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("RNNCORE_DEBUG", "0") not in ("", "0")
SANITIZE = os.environ.get("RNNCORE_SANITIZE", "")
JOBS = int(os.environ.get("RNNCORE_BUILD_JOBS", "2"))
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
MACHINE = MACHINES.get(platform.machine().lower())

# Bits are promised, so the compiler may neither fuse nor reorder: no -ffast-math, no contraction.
# Objects for several instruction sets meet in one module, so no link-time optimisation either.
FLAGS = ["-O3", "-std=c++17", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=off"]
FLAGS += ["-fno-lto", "-pthread", "-Wall", "-Wextra"]
FLAGS += ["-Og", "-g", "-UNDEBUG"] if DEBUG else ["-g0", "-DNDEBUG"]
LINK_FLAGS = ["-pthread"]
if SANITIZE:
    FLAGS += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"]
    LINK_FLAGS += [f"-fsanitize={SANITIZE}"]

# Kernels use no part of the C++ runtime: an inline std function compiled with AVX could be the
# copy that the linker keeps for everyone.
KERNEL_FLAGS = ["-fno-exceptions", "-fno-rtti", "-Wno-ignored-attributes", "-Wno-psabi"]
KERNELS = {"csrc/kernels/isa_baseline.cpp": []}
if MACHINE == "x86_64":
    KERNELS["csrc/kernels/isa_avx2.cpp"] = ["-march=x86-64-v3"]
    AVX512 = ["-march=x86-64-v4", "-mprefer-vector-width=512"]
    KERNELS["csrc/kernels/isa_avx512.cpp"] = AVX512
    KERNELS["csrc/kernels/isa_avx512vnni.cpp"] = [*AVX512, "-mavx512vnni"]

INCLUDES = ["csrc/include", "csrc"]
BINDING_INCLUDES = [*INCLUDES, pybind11.get_include(), sysconfig.get_path("include")]


def prerequisites(depfile):
    """List the files that the compiler read for one object, or None when that is not known."""
    try:
        text = Path(depfile).read_text()
    except OSError:
        return None
    return shlex.split(text.replace("\\\n", " ").partition(":")[2])


def is_stale(obj, depfile, command):
    """Tell whether an object is missing, older than what it was made from, or made otherwise."""
    files = prerequisites(depfile)
    stamp = Path(f"{obj}.command")
    if files is None or not os.path.exists(obj) or not stamp.exists():
        return True
    if stamp.read_text() != command:
        return True
    made = os.stat(obj).st_mtime_ns
    return any(not os.path.exists(f) or os.stat(f).st_mtime_ns > made for f in files)


class BuildExtensions(build_ext):
    """Compile the engine's objects with their own flags each, two at a time, then link."""

    def run(self):
        if platform.system() != "Linux" or MACHINE is None or sys.maxsize < 2**32:
            found = f"{platform.system()} {platform.machine()}, {sys.maxsize.bit_length() + 1} bits"
            sys.exit(f"rnncore builds on 64-bit Linux on x86-64 and aarch64; this is {found}.")
        super().run()

    def build_extension(self, ext):
        # A folder of our own, since pip builds editable installs in a fresh temporary one.
        variant = [sysconfig.get_config_var("SOABI"), "debug" * DEBUG, SANITIZE]
        folder = os.path.join("build", "objects", "-".join(filter(None, variant)))
        if ext.name == "rnncore._rnncore":
            jobs = [
                (source, FLAGS + KERNEL_FLAGS + isa, INCLUDES) for source, isa in KERNELS.items()
            ]
            jobs += [(s, FLAGS, INCLUDES) for s in sorted(glob("csrc/core/*.cpp"))]
            jobs += [(s, FLAGS, BINDING_INCLUDES) for s in sorted(ext.sources)]
        else:
            jobs = [(s, [*FLAGS, "-Wno-unused-parameter"], BINDING_INCLUDES) for s in ext.sources]
        with ThreadPoolExecutor(max(1, JOBS)) as pool:
            objects = list(pool.map(lambda job: self.compile_one(folder, *job), jobs))
        target = self.get_ext_fullpath(ext.name)
        linked = Path("build", "objects", f"{ext.name}.linked")
        if not self.force and os.path.exists(target) and linked.exists():
            made = os.stat(target).st_mtime_ns
            if linked.read_text() == folder and all(os.stat(o).st_mtime_ns < made for o in objects):
                return
        self.compiler.force = True  # its own check knows times alone
        self.compiler.link_shared_object(
            objects, target, extra_postargs=LINK_FLAGS, target_lang="c++", build_temp=folder
        )
        linked.write_text(folder)

    def compile_one(self, folder, source, flags, includes):
        """Compile one source unless its object is up to date; return the object's path."""
        (obj,) = self.compiler.object_filenames([source], output_dir=folder)
        depfile = f"{obj}.d"
        flags = [*flags, "-MMD", "-MF", depfile]
        command = shlex.join([*self.compiler.compiler_so, *includes, *flags])
        if self.force or is_stale(obj, depfile, command):
            os.makedirs(os.path.dirname(obj), exist_ok=True)
            self.compiler.compile(
                [source], output_dir=folder, include_dirs=includes, extra_postargs=flags
            )
            Path(f"{obj}.command").write_text(command)
        return obj


def extensions():
    """Describe both modules: pybind11's holds the engine, Cython's reaches it by a capsule."""
    engine = Extension("rnncore._rnncore", sorted(glob("src/*.cpp")), language="c++")
    stream = [
        Extension(f"rnncore.{Path(source).stem}", [source], language="c++", include_dirs=INCLUDES)
        for source in sorted(glob("src/*.pyx"))
    ]
    directives = {"language_level": 3, "freethreading_compatible": True}
    made = cythonize(stream, build_dir="build/cython", compiler_directives=directives)
    return [engine, *made]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtensions})
