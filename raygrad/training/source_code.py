"""The source code of a user's own ``module:callable``, as one hash of its files.

Of the module's own folder or package: the file, and every file there that it imports, directly or
through others. A package that is installed stands for itself by its version.
"""

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

_INSTALLED = ("site-packages", "dist-packages")


def code_digest(name: str) -> str | None:
    """Returns a hash of the code behind ``module:callable``; None for any other name.

    Args:
        name: A name as `build_network` takes it.
    """
    module = name.partition(":")[0]
    if ":" not in name or (spec := _spec(module)) is None or not spec.origin:
        return None
    path = Path(spec.origin)
    if any(part in _INSTALLED for part in path.parts):
        top = importlib.import_module(module.partition(".")[0])
        return f"version {getattr(top, '__version__', 'unknown')}"
    hasher = hashlib.blake2b(digest_size=16)
    for found, file in sorted(_closure(module, _root(module, path)).items()):
        # Line endings differ between systems, and mean nothing.
        text = file.read_bytes().replace(b"\r\n", b"\n")
        hasher.update(f"{found} {len(text)} ".encode() + text)
    return hasher.hexdigest()


def _root(module: str, path: Path) -> Path:
    """Returns the folder that the module's own neighbours are in."""
    depth = module.count(".") + (path.name == "__init__.py")
    return path.parents[depth]


def _closure(module: str, root: Path) -> dict[str, Path]:
    """Returns the files of a module and of the modules below `root` that it comes to import."""
    found: dict[str, Path] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        # raygrad's own code, which a clone has beside the user's, has versions of its own.
        is_known = name in found or name.partition(".")[0] == "raygrad"
        spec = None if is_known else _spec(name)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            continue
        path = Path(spec.origin)
        if not path.is_relative_to(root) or any(part in _INSTALLED for part in path.parts):
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        todo += _imported(path, package)
        if "." in name:
            todo.append(name.rpartition(".")[0])
    return found


def _imported(path: Path, package: str) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                kept = parts[: len(parts) - node.level + 1]
                base = ".".join([*kept, *([base] if base else [])])
            yield base
            # What is imported of a package may be a module of it.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _spec(module: str) -> ModuleSpec | None:
    if module in sys.modules:
        return getattr(sys.modules[module], "__spec__", None)
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
