"""The page docs/networks.md, made of the answers of `zoo`."""

from __future__ import annotations

COLUMNS = {
    "score": "scores", "prune": "prune 10, 100", "magnitude": "magnitude", "snip": "SNIP",
    "grasp": "GraSP", "path": "paths", "cut": "cut schedule",
    "conservation": "conservation", "surgery": "surgery",
}  # fmt: skip
SIGNS = {"right": "yes", "refused": "refused", "unknown": "no oracle", "wrong": "**wrong**"}
PAGE = """# Which networks are answered, and how

Made by `python tests/zoo.py --store answers.jsonl --write docs/networks.md`; each network is asked
what the columns name, with random weights and small inputs.

| word | meaning |
|---|---|
| yes | right: as `tests/zoo_oracle.py`, the definition in float64, written apart from the library |
| refused | a `ValueError` that names the operation or module and says what to do |
| no oracle | an answer that passed all checks but the comparison |
| - | not asked; of a cut schedule also where more than 1.5 million weights would take minutes |
| **wrong** | anything else: another exception, a negative score, all scores zero, another number |

*scores*: SynFlow's, compared one by one. *prune*, *magnitude*, *SNIP*, *GraSP*: exact counts at
compression 10 and 100. *paths*: the dense network is connected, its effective compression and
whether magnitude at 20 collapses are those of the definition, the critical compression is found.
*cut schedule*: ends connected. *conservation*: every unit to 1e-9. *surgery*: without its dead
units the network is the same function.

All were asked on 30 November 2026 with torch 2.13.0, torchvision 0.28.0, timm 1.0.31 and
transformers 5.24.0, on one state of the code but for five, whose answers about paths the tests had
judged wrongly: EdgeNeXt, MobileNetV4, SHViT and Visformer (now at 64 or 128 pixels; with 32 their
last attention has one position) and DenseNet-169 were asked later that day. Networks of more than
15 million weights were not asked, and those of more than 4 million were not pruned; the tests ask a
third of the small ones for scores and paths anew every day. Two conventions decide numbers. A clamp
that multiplies a signal counts as one: `relu6(a(x)) * b(x)` as `b(x)`. Where a number was added
before it, it is a sigmoid written by hand and counts as its bound: `x * relu6(x + 3)` as `6 * x`,
but `x * (relu6(x + 3) / 6)` as `x`. A learned factor that is zero counts as one, whatever scales it
before the product.

"""


def page(known: dict[str, dict]) -> str:
    """docs/networks.md of the answers."""
    known = {name: known[name] for name in sorted(known)}  # however they were asked
    said = {  # question -> the word of every answer, "" where there is none
        question: [one.get(question, "").partition(":")[0] for one in known.values()]
        for question in COLUMNS
    }
    lines = _head("")
    for kind, sign in SIGNS.items():
        total = " | ".join(str(words.count(kind)) for words in said.values())
        lines.append(f"| {sign} | {total} |")
    asked = " | ".join(str(sum(word in SIGNS for word in words)) for words in said.values())
    lines += [f"| asked | {asked} |", ""]
    for library in ("torchvision", "timm", "transformers", "plain"):
        names = [name for name in known if name.startswith(f"{library}/")]
        if not names:
            continue
        lines += [f"## {library} ({len(names)})", ""]
        lines += _head("network")
        for name in names:
            words = (known[name].get(question, "").partition(":")[0] for question in COLUMNS)
            cells = " | ".join(SIGNS.get(word, "-") for word in words)
            lines.append(f"| {name.partition('/')[2]} | {cells} |")
        lines.append("")
    reasons = {}
    for name, one in known.items():
        for question in COLUMNS:
            kind, _, why = one.get(question, "").partition(": ")
            if kind in ("refused", "wrong"):
                why = " ".join(why.replace("|", "\\|").split())[:150]
                reasons.setdefault(f"{kind}: {why}", []).append(f"{name} ({question})")
    lines += ["## Why", ""]
    for why, where in sorted(reasons.items(), key=lambda item: -len(item[1])):
        more = f" and {len(where) - 3} more" if len(where) > 3 else ""
        lines.append(f"- {why} ... — {', '.join(where[:3])}{more}")
    return PAGE + "\n".join(lines) + "\n"


def _head(first: str) -> list[str]:
    """The first two lines of a table with a column for every question."""
    return ["| " + " | ".join([first, *COLUMNS.values()]) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
