"""Write docs/api.md from the proto and its comments, and docs/python.md from the client's docstrings. `--check` only compares."""

from __future__ import annotations

import ast
import inspect
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import import_module, resources
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "client" / "aligner_client"
SERVICE = "aligner/v1/aligner.proto"
Place = tuple[int, ...]
"""Of an element in a file, as descriptor.proto numbers them: messages 4, enums 5, services 6; within a message fields 2."""

_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in FieldDescriptorProto.Type.items()
    if name not in {"TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP"}
}


# ---- the proto


def read_proto() -> tuple[FileDescriptorProto, dict[Place, str]]:
    """The service's file with its rules, and its comments by place."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "api.binpb"
        folders = [f"-I{ROOT / 'protos'}", f"-I{resources.files('grpc_tools') / '_proto'}"]
        if protoc.main(["protoc", *folders, f"--descriptor_set_out={compiled}", "--include_source_info", SERVICE]) != 0:
            raise SystemExit("protoc failed")
        import_module("aligner_client.api.buf.validate.validate_pb2")  # so that the rules are parsed, too
        files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes())
    (file,) = (file for file in files.file if file.name == SERVICE)
    comments = {}
    for location in file.source_code_info.location:
        detached = "\n\n".join(location.leading_detached_comments)
        comments[tuple(location.path)] = inspect.cleandoc(location.leading_comments or detached)
    return file, comments


def proto_page() -> str:
    file, comments = read_proto()
    lines = [
        "# API reference",
        "",
        f"`{file.package}`, from [aligner.proto](../protos/{file.name}); for Python there is a [client](python.md).",
        "",
        "<!-- tools/api_reference.py writes this page -->",
        "",
        "```text",
        comments[(12,)],
        "```",
        "",
    ]
    for at, service in enumerate(file.service):
        lines += [f"## {service.name}", ""]
        for number, method in enumerate(service.method):
            request = f"{'stream ' if method.client_streaming else ''}{_link(method.input_type)}"
            response = f"{'stream ' if method.server_streaming else ''}{_link(method.output_type)}"
            lines += [f"### {method.name}", "", f"{request} → {response}", "", comments[(6, at, 2, number)], ""]
    for at, message in enumerate(file.message_type):
        lines += _message(message, (4, at), comments)
    for at, enum in enumerate(file.enum_type):
        lines += _enum(enum, (5, at), comments)
    return "\n".join(lines).rstrip() + "\n"


def _message(message: DescriptorProto, place: Place, comments: Mapping[Place, str]) -> Iterator[str]:
    yield from (f"## {message.name}", "")
    if comments.get(place):
        yield from (comments[place], "")
    if message.field:
        yield from ("| field | type | |", "|---|---|---|")
    for number, field in enumerate(message.field):
        said = _cell(comments.get((*place, 2, number), ""))
        if rules := _rules(field):
            said = f"{said} `{rules}`".strip()
        if field.HasField("oneof_index") and not field.proto3_optional:
            said = f"{said} One of `{message.oneof_decl[field.oneof_index].name}`.".strip()
        entry = next((inner for inner in message.nested_type if field.type_name.endswith(f".{message.name}.{inner.name}")), None)
        kind = _map(entry) if entry is not None and entry.options.map_entry else _type(field)
        yield f"| {field.number} `{field.name}` | {kind} | {said} |"
    yield ""
    for number, enum in enumerate(message.enum_type):
        yield from _enum(enum, (*place, 4, number), comments)


def _enum(enum: EnumDescriptorProto, place: Place, comments: Mapping[Place, str]) -> Iterator[str]:
    yield from (f"## {enum.name}", "")
    if comments.get(place):
        yield from (comments[place], "")
    yield from ("| value | |", "|---|---|")
    for number, value in enumerate(enum.value):
        yield f"| {value.number} `{value.name}` | {_cell(comments.get((*place, 2, number), ''))} |"
    yield ""


def _type(field: FieldDescriptorProto) -> str:
    name = _TYPES.get(field.type) or _link(field.type_name)
    label = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else "optional " if field.proto3_optional else ""
    return label + name


def _map(entry: DescriptorProto) -> str:
    key, value = entry.field
    return f"map of {_type(key).removeprefix('optional ')} to {_type(value).removeprefix('optional ')}"


def _rules(field: FieldDescriptorProto) -> str:
    rules = descriptor_pool.Default().FindExtensionByName("buf.validate.field")
    given = [value for extension, value in field.options.ListFields() if extension.full_name == rules.full_name]
    return " ".join(text_format.MessageToString(value, as_one_line=True) for value in given).strip().replace("|", r"\|")


def _link(type_name: str) -> str:
    name = type_name.rpartition(".")[2]
    return f"[{name}](#{name.lower()})"


def _cell(comment: str) -> str:
    return " ".join(comment.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", r"\|")


# ---- the client


def client_classes() -> dict[str, ast.ClassDef]:
    """All of the client, by name."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in sorted(CLIENT.rglob("*.py")) if "api" not in path.parts)
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def client_page() -> str:
    classes = client_classes()
    public = import_module("aligner_client").__all__
    lines = [
        "# Python client reference",
        "",
        "What `aligner_client` exports; [command-line.md](command-line.md) has what needs no program.",
        "",
        "<!-- tools/api_reference.py writes this page -->",
        "",
    ]
    for name in (name for name in public if name in classes):
        node = classes[name]
        bases = [ast.unparse(base) for base in node.bases]
        shown = f"class {name}({', '.join(bases)})" if bases else f"class {name}"
        lines += [f"## {name}", "", "```text", shown, *_attributes(node), "```", "", *_docstring(node)]
        for method in _methods(node, classes):
            lines += [f"### {name}.{method.name}", "", "```text", _signature(method), "```", "", *_docstring(method)]
    return "\n".join(lines).rstrip() + "\n"


def _attributes(node: ast.ClassDef) -> Iterator[str]:
    """Fields and members of an enumeration, with what is said of them."""
    for child, after in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
        if not isinstance(child, ast.AnnAssign | ast.Assign) or ast.unparse(child).startswith("_"):
            continue
        yield f"    {ast.unparse(child)}"
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            yield from (f"        {line}" for line in inspect.cleandoc(str(after.value.value)).splitlines())


def _methods(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The public ones with a docstring, those of bases too."""
    seen: set[str] = set()
    todo = [node]
    while todo:
        one = todo.pop(0)
        todo += [classes[base.id] for base in one.bases if isinstance(base, ast.Name) and base.id in classes]
        for child in one.body:
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or not ast.get_docstring(child):
                continue
            if child.name not in seen and (child.name == "__init__" or not child.name.startswith("_")):
                seen.add(child.name)
                yield child


def _signature(method: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """On one line, or with a line for each argument."""
    returns = f" -> {ast.unparse(method.returns)}" if method.returns is not None else ""
    if any(ast.unparse(decorator) == "property" for decorator in method.decorator_list):
        return f"{method.name}{returns}"
    name = f"async {method.name}" if isinstance(method, ast.AsyncFunctionDef) else method.name
    arguments = list(_arguments(method.args))
    whole = f"{name}({', '.join(arguments)}){returns}"
    return whole if len(whole) <= 110 else "\n".join((f"{name}(", *(f"    {one}," for one in arguments), f"){returns}"))


def _arguments(arguments: ast.arguments) -> Iterator[str]:
    """Each as it is written, without `self`."""
    depth, one = 0, ""
    for letter in f"{ast.unparse(arguments)},":
        depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            if one.strip() != "self":
                yield one.strip()
            one = ""
        else:
            one += letter


def _docstring(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    text = ast.get_docstring(node)
    return [text, ""] if text else []


PAGES = {ROOT / "docs" / "api.md": proto_page, ROOT / "docs" / "python.md": client_page}


def main() -> int:
    stale = 0
    for page, write in PAGES.items():
        fresh = write()
        if "--check" in sys.argv[1:]:
            if not page.is_file() or page.read_text(encoding="utf-8") != fresh:
                print(f"{page.relative_to(ROOT)} is stale; run `make docs`", file=sys.stderr)
                stale = 1
        else:
            page.write_text(fresh, encoding="utf-8")
    return stale


if __name__ == "__main__":
    raise SystemExit(main())
