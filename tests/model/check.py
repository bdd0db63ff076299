#!/usr/bin/python3
"""Goal: the rule by which long-term nonces are reserved holds in every order of events that nonce_ledger.pml knows, not only
in those that a test thought of.
Method: Spin visits every state of the model under several bounds and must find nothing, must have finished, and must have
reached every line of the model in one of them. Then the same for mutants: rules that are known to be wrong, each with the
promise that it breaks. One that passes fails this test, for then the model proves nothing. Two at a time, less than a minute.

usage: check.py [-v] [NAME ...]    -v prints each counter-example; NAMEs choose from the lists below. Exit 77: no spin here.
"""

import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

MODEL = pathlib.Path(__file__).resolve().with_name("nonce_ledger.pml")
SKIP = 77
DEPTH = 200_000
MEMORY_MIB = 2000

DISK = "LIVES=3 ERRORS=2 ROT=1"
COPIES = "VAULTS=2 LIVES=2 RESTORES=1 END=5"
IN_PLACE = "LIVES=3 RESTORES=1 STEPS=3 END=12 IN_PLACE"

# The rule, in the worlds that it is made for.
RULE = {
    "failing disk": DISK,
    "many crashes": "LIVES=4 ERRORS=1 END=10",
    "copies and replicas": COPIES,
    "copies and replicas, started more often": "VAULTS=2 LIVES=3 RESTORES=1 END=5 CALM",
    "copies, a stepping clock": "LIVES=3 RESTORES=1 STEPS=2 END=6 CALM",
    "old state in the same file, a right clock": IN_PLACE,
}
# name: (the promise that it breaks, the world in which it does)
MUTANTS = {
    "LITERAL_CURVE_TUN": (1, "LIVES=2"),
    "NO_SYNC": (1, "LIVES=2"),
    "ONE_SLOT": (5, "LIVES=2"),
    "NO_REWRITE": (5, DISK),
    "RETRIES_SYNC": (1, DISK),
    "IGNORES_SHORT_WRITES": (2, DISK),
    "KEEPS_KEY_WHEN_DAMAGED": (1, DISK),
    "KEEPS_KEY_WHEN_COPIED": (1, COPIES),
    "SHARED_INSTANCE": (1, "VAULTS=2 LIVES=2"),
    "NO_LOCK": (1, "VAULTS=2 LIVES=2"),
    "NO_FLOOR": (1, IN_PLACE),
    # No mutant but a limit, and docs/protocol.md §6 owns up to it: the clock floor can't tell starts within one second.
    "WITHIN_A_SECOND": (4, IN_PLACE),
}
# What is left of a counter-example when the slots' way to the disk is taken out.
SHORTEST = {
    "LITERAL_CURVE_TUN": ["vault 0 starts: counter 0", "vault 0 issues 0 under nonce key 0", "vault 0 is killed",
                          "vault 0 starts: counter 0", "vault 0 issues 0 under nonce key 0"],
}


class Verdict:
    def __init__(self, text, story):
        self.text, self.story = text, story
        self.states = int(re.search(r"^ *(\d+) states, stored", text, re.M)[1])
        self.violated = "assertion violated" in text
        # Each way in which pan gives up early, and whatever else it may complain about.
        self.finished = (re.search(r"errors: 0$", text, re.M) is not None and "Full statespace search" in text and
                         not re.search(r"out of memory|max search depth|not completed|truncated|aborted|^error", text, re.M))
        # (process, line, statement) of what no run came to; the ends of processes that never end don't count.
        self.unreached, process = set(), ""
        for line in text.splitlines():
            header = re.match(r"unreached in (?:proctype )?(\w+)", line)
            process = header[1] if header else process
            at = re.match(r"\t\S+?:(\d+), state \d+, \"(.*)\"$", line)
            if at and at[2] not in ("-end-", "((file[v]==0))", "(0)"):
                self.unreached.add((process, int(at[1]), at[2]))


def run(defines, breadth_first):
    """Spin's C program for the model under these defines, compiled and run. Breadth first finds the shortest way."""
    options = [f"-D{define}" for define in defines.split()]
    with tempfile.TemporaryDirectory(prefix="sallyport-model-") as folder:
        def call(*command, check=True):
            return subprocess.run(command, cwd=folder, check=check, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
        shutil.copy(MODEL, folder)
        call("spin", "-a", *options, MODEL.name)
        # A mutant's search is over before an optimizing compiler would be.
        call("gcc", "-w", "-O0" if breadth_first else "-O2", "-DSAFETY", "-DNOCLAIM", "-DNOREDUCE", "-DCOLLAPSE",
             f"-DMEMLIM={MEMORY_MIB}", *(["-DBFS"] if breadth_first else []), "-o", "pan", "pan.c")
        text = call("./pan", "-E", "-w22", f"-m{DEPTH}", check=False)
        trail = pathlib.Path(folder, MODEL.name + ".trail").exists()
        story = call("spin", "-t", "-T", *options, MODEL.name, check=False) if trail else ""
        return Verdict(text, [line for line in story.splitlines() if re.match(r"vault|slot|file|a power|the copy", line)])


def judge_rule(name):
    verdict = run(RULE[name], breadth_first=False)
    problem = None
    if verdict.violated:
        shortest = run(RULE[name], breadth_first=True)
        problem = "a promise is broken:\n  " + "\n  ".join(shortest.story)
    elif not verdict.finished:
        problem = "the search didn't finish:\n" + verdict.text
    return name, verdict, problem


def judge_mutant(name):
    promise, world = MUTANTS[name]
    verdict = run(f"{world} {name} PROMISES={1 << (promise - 1)}", breadth_first=True)
    problem = None
    if not verdict.violated:
        problem = f"promise {promise} should break and doesn't:\n{verdict.text}"
    elif name in SHORTEST and [line for line in verdict.story if not line.startswith("slot")] != SHORTEST[name]:
        problem = "not the shortest counter-example:\n  " + "\n  ".join(verdict.story)
    return name, verdict, problem


def main():
    if not shutil.which("spin", path="/usr/sbin:/usr/bin:/sbin:/bin"):
        print("skipped: spin is not installed (apt-get install spin)")
        return SKIP
    verbose = "-v" in sys.argv[1:]
    chosen = [name for name in sys.argv[1:] if name != "-v"]
    failures, never_reached = 0, None
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(judge_rule, name) for name in RULE if not chosen or name in chosen]
        jobs += [pool.submit(judge_mutant, name) for name in MUTANTS if not chosen or name in chosen]
        for job in jobs:
            name, verdict, problem = job.result()
            outcome = problem or ("broken, as it must be" if name in MUTANTS else "holds")
            print(f"{name}: {verdict.states} states: {outcome}", flush=True)
            if verbose:
                print("".join(f"  {line}\n" for line in verdict.story), end="")
            failures += problem is not None
            if name in RULE:
                never_reached = verdict.unreached if never_reached is None else never_reached & verdict.unreached
    if never_reached and not chosen:
        failures += 1
        print("no world came to:", *sorted(never_reached), sep="\n  ")
    return 1 if failures or not jobs else 0


if __name__ == "__main__":
    sys.exit(main())
