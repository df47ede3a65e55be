#!/usr/bin/env python3
"""doxygen.py REPOSITORY BUILD: the preset docs makes every page of the reference, without a warning.

Skipped (77) where Doxygen or its theme is not installed.
"""
import pathlib
import shutil
import subprocess
import sys

THEME = pathlib.Path("/usr/share/doxygen-awesome-css/doxygen-awesome.css")


def output_of(command, folder):
    run = subprocess.run(command, cwd=folder, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if run.returncode:
        print(run.stdout)
        sys.exit(1)
    return run.stdout


def main():
    repository, build = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    if shutil.which("doxygen") is None or not THEME.is_file():
        print("doxygen or doxygen-awesome-css is not installed")
        sys.exit(77)
    shutil.rmtree(build, ignore_errors=True)
    output_of(["cmake", "--preset", "docs", "-B", str(build)], repository)
    output = output_of(["cmake", "--build", str(build), "--target", "docs"], repository)
    warnings = [line for line in output.splitlines() if "warning:" in line or "error:" in line]
    pages = {path.stem for path in (repository / ".docs/pages").rglob("*.md")}
    html = "".join(path.name for path in (build / "html").glob("*.html"))
    missing = [page for page in pages if page not in html]
    print("\n".join(warnings + [f"no page of {page}.md" for page in missing] + [f"{len(warnings)} warnings"]))
    sys.exit(bool(warnings or missing))


if __name__ == "__main__":
    main()
