"""Lets other people's CEF code read our lines: jc and pycef parse them, cefevent writes them anew from their meaning.

Standard input holds one JSON object a line: {"line", "header": {...}, "extension": [[key, value], ...]}; standard output
answers each with {"jc", "pycef", "cefevent"}. What the answers must be is decided by the test, never here.
"""

import json
import sys

import jc
import pycef
from cefevent import CEFEvent


def parsed(parse, line):
    try:
        return {"read": parse(line)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def written(header, extension):
    event = CEFEvent(strict=True)
    refused = []
    for field, value in header.items():
        event.set_prefix(field, value)
    for key, value in extension:
        try:
            event.set_field(key, value)
        except ValueError:
            refused.append(key)
    return {"line": event.build_cef(), "refused": refused}


for line in sys.stdin:
    asked = json.loads(line)
    answer = {
        "jc": parsed(lambda text: jc.parse("cef", text, quiet=True)[0], asked["line"]),
        "pycef": parsed(pycef.parse, asked["line"]),
        "cefevent": written(asked["header"], asked["extension"]),
    }
    print(json.dumps(answer))
