"""docs/smollm2.md says how to run on one 80 GB GPU, on eight, what it costs, and what was run; every `alignfirst run`
on it parses as a dry run, and every bill in its table is what the dry run says. Half a minute."""

from __future__ import annotations

import json
import re
import shlex
import tempfile

from common import ROOT, cli, conclude

page = (ROOT / "docs" / "smollm2.md").read_text(encoding="utf-8")
sections = ("What it costs", "On one 80 GB GPU", "On eight", "What we have run, and what not")
failures = [f"no section {name!r}" for name in sections if f"\n## {name}\n" not in page]
commands = dict.fromkeys(line.strip() for line in page.splitlines() if line.startswith("    alignfirst run "))
with tempfile.TemporaryDirectory() as folder:
    for line in commands:
        arguments = [a for a in shlex.split(line, comments=True)[2:] if a != "--dry-run"]
        done = cli("run", *arguments, "--dry-run", "--json", "--out", f"{folder}/run")
        if done.returncode:
            failures.append(f"{line}: exit {done.returncode}: {done.stderr.strip()}")
            continue
        total = json.loads(done.stdout)["bill"]["total"]
        print(f"{line.split('#')[0].strip()}: {total['flops']:.2g} operations, {total['bytes'] / 1e12:.3f} TB")
    rows = re.findall(r"^\| `(smollm2[^`]*)` \| ([\d.e+]+) \| ([\d.]+) TB \| ([\d,]+) \|$", page, re.MULTILINE)
    for arguments, flops, disk, hours in rows:
        bill = json.loads(cli("run", *shlex.split(arguments), "--dry-run", "--json", "--out", f"{folder}/run").stdout)
        bill = bill["bill"]
        found = (f"{bill['total']['flops']:.2g}", f"{bill['total']['bytes'] / 1e12:.2f}")
        found += (f"{bill['gpu_hours']['H100 SXM 80 GB']:,.0f}",)
        if found != (flops, disk, hours):
            failures.append(f"{arguments}: the page says {(flops, disk, hours)}, the dry run {found}")
print(f"{len(commands)} commands, {len(rows)} bills")
if len(commands) < 5 or len(rows) < 4:
    failures.append("too few commands or bills were found on the page")
conclude(failures)
