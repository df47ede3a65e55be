#!/usr/bin/env python3
"""public_names.py INCLUDE [--list]: every public name of the library has a /// comment.

Public is what stands at the scope of the namespaces tandem, tandem::nn and tandem::kernels: functions, classes, enums,
concepts, aliases and constants, in headers that are no definitions (.impl.hpp). A name with several overloads or
specialisations needs one comment, above or behind it. Operators need none. --list prints the names with their headers.
"""
import pathlib
import re
import sys

NAMESPACES = {"tandem", "tandem::nn", "tandem::kernels"}
# Above a declaration, and behind one.
ABOVE, BEHIND = "\x01", "\x02"
TOKEN = re.compile(r'"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'|//[^\n]*|/\*.*?\*/', re.DOTALL)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.MULTILINE)


def plain(text):
    """The text without strings, directives and comments; a mark stands where a /// comment stood."""
    def replace(match):
        token = match.group()
        if token.startswith("///<"):
            return BEHIND
        if token.startswith("///"):
            return ABOVE
        return " " if token.startswith("/") else '""'
    return DIRECTIVE.sub("", TOKEN.sub(replace, text))


def matching(text, start, opening, closing):
    """The position behind the bracket that closes the one at `start`."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] == opening:
            depth += 1
        elif text[at] == closing:
            depth -= 1
            if depth == 0:
                return at + 1
    raise SystemExit(f"a {opening} does not end: {text[start:start + 60]!r}")


def opens_requirement(head):
    """Whether a { behind this begins a requires-expression: behind the word, or behind it and its parameters."""
    word = [match.end() for match in re.finditer(r"\brequires\s*", head)]
    return bool(word) and (word[-1] == len(head) or
                           head[word[-1]] == "(" and not head[matching(head, word[-1], "(", ")"):].strip() and
                           not re.search(r"\)\s*requires\s*$", head[:word[-1]]))


def declarations(text):
    """Pairs of (namespace, declaration without its body) in the order of the text."""
    scopes, at, begin = [], 0, 0
    while at < len(text):
        letter = text[at]
        if letter == "(":
            at = matching(text, at, "(", ")")
        elif letter == "{":
            head = text[begin:at]
            scope = re.search(r"\bnamespace\s+([\w:]*(?:\s*::\s*inline\s+\w+(?:::\w+)*)?)\s*$", head)
            if scope:
                scopes.append(re.sub(r"::inline\s+TANDEM_ABI", "", scope.group(1)) or "detail")
                at = begin = at + 1
                continue
            at = matching(text, at, "{", "}")
            if opens_requirement(head):
                continue
            rest = re.match(r"\s*;", text[at:])
            at += rest.end() if rest else 0
            behind = re.match(f"[ \t]*{BEHIND}", text[at:])
            yield "::".join(scopes), head + (BEHIND if behind else "") + "{"
            begin = at
        elif letter == "}":
            scopes.pop()
            at = begin = at + 1
        elif letter == ";":
            at += 1
            behind = re.match(f"[ \t]*{BEHIND}", text[at:])
            yield "::".join(scopes), text[begin:at] + (BEHIND if behind else "")
            begin = at
        else:
            at += 1


def without_template(head):
    """The declaration without template parameters, their requirements and attributes."""
    head = re.sub(r"\[\[[^\]]*\]\]", " ", head).strip()
    while head.startswith("template"):
        at, depth = head.index("<"), 0
        while True:
            depth += (head[at] == "<") - (head[at] == ">" and head[at - 1] not in "-=")
            at += 1
            if depth == 0:
                break
        head = head[at:].strip()
        if head.startswith("requires"):
            # The clause ends where a declaration's first word stands: behind a bracket and not behind an operator.
            clause = re.match(r"requires\b\s*", head).end()
            if head[clause] == "(":
                head = head[matching(head, clause, "(", ")"):].strip()
                while head.startswith("&&") or head.startswith("||"):
                    head = re.sub(r"^(&&|\|\|)\s*(requires\s*\{[^}]*\}\s*|[^\n(]*\n?)", "", head).strip()
            else:
                head = re.sub(r"^requires\b\s*(requires\s*\{.*?\}|.*?)\s*\n", "", head, count=1, flags=re.DOTALL).strip()
    return head


def name_of(head):
    """What a declaration declares, or nothing where that is not public or no new name."""
    head = without_template(re.sub(f"[{ABOVE}{BEHIND}]", " ", head))
    if re.match(r"(static_assert|friend|extern|using\s+namespace|using\s+[\w:]+\s*;|typedef)", head) or "operator" in head:
        return None
    entity = re.match(r"(?:enum\s+class|enum|class|struct|union)\s+(?:alignas\([^)]*\)\s*)?(\w+)\s*(<)?", head)
    if entity:
        return None if entity.group(2) or not head.rstrip().endswith("{") else entity.group(1)
    entity = re.match(r"(?:concept|using)\s+(\w+)\s*=", head)
    if entity:
        return entity.group(1)
    # A definition outside of its class, and a constant whose type has brackets of its own.
    if re.match(r"[^(]*(>|\b[A-Z]\w*)\s*::\s*\w+\s*\(", head):
        return None
    entity = re.search(r">\s*(\w+)\s*=\s*nullptr", head)
    if entity:
        return entity.group(1)
    # A function, unless an initialiser comes first; a specialisation of a constant is no new name.
    entity = re.search(r"(\w+)\s*(<[^;{]*>)?\s*(?:\(|=(?!=)|\{|;|\[)", head)
    return entity.group(1) if entity and not entity.group(2) else None


def public_names(include):
    """Of every public name, the first place it stands at, and whether it is documented anywhere."""
    found = {}
    for header in sorted(include.rglob("*.hpp")):
        if header.name.endswith(".impl.hpp"):
            continue
        for scope, head in declarations(plain(header.read_text(encoding="utf-8"))):
            if scope not in NAMESPACES:
                continue
            name = name_of(head)
            if name:
                place, documented = found.get(f"{scope}::{name}", (header.relative_to(include), False))
                found[f"{scope}::{name}"] = place, documented or ABOVE in head or BEHIND in head
    return found


def main():
    found = public_names(pathlib.Path(sys.argv[1]))
    if "--list" in sys.argv:
        for name, (place, _) in found.items():
            print(f"{place} {name}")
        return
    bare = [(place, name) for name, (place, documented) in found.items() if not documented]
    for place, name in bare:
        print(f"{place}: {name} has no /// comment")
    print(f"{len(found)} public names, {len(bare)} without a comment")
    sys.exit(bool(bare or not found))


if __name__ == "__main__":
    main()
