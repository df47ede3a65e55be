#!/usr/bin/env python3
"""The program train under mpirun, on one machine: 1, 2 and 4 ranks end in the same bits and go on from each other's snapshots; ranks that are killed,
stopped, cut off, or are given something else end the run within a minute, with their number.

usage: ranks_test.py --program FILE [--kills N]
"""

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from train_case import TrainCase, members, pair, write_shard

# Tests may run as root, with more ranks than there are cores, and in a container where no process reads another's memory.
MPIRUN = ["mpirun", "--oversubscribe", "--mca", "btl_vader_single_copy_mechanism", "none"]
ENVIRONMENT = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "TMPDIR": "/tmp"}


def processes_of(name):
    """Of the ranks of a run that live, by the number of its rank."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        # One that is ending has no variables any more.
        with contextlib.suppress(OSError, KeyError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"train") and name.encode() in words and (place / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                variables = dict(entry.split(b"=", 1) for entry in (place / "environ").read_bytes().split(b"\0") if b"=" in entry)
                found[int(variables[b"OMPI_COMM_WORLD_RANK"])] = int(place.name)
    return found


class Ranks(TrainCase):
    kills = 4

    def ranks(self, count, name, *words, accumulated=4, **options):
        return [*MPIRUN, "-np", str(count), *self.command(name, *words, **{"batch_size": 5, "accum_freq": accumulated // count, "snapshot_steps": 3} | options)]

    def run_ranks(self, count, name, *words, code=0, **options):
        result = subprocess.run(self.ranks(count, name, *words, **options), capture_output=True, text=True, cwd=self.folder, env=ENVIRONMENT, timeout=300)
        self.assertEqual(result.returncode, code, (count, result.stderr))
        return result

    def start(self, command):
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=self.folder, env=ENVIRONMENT)

    def start_and_wait_for_step(self, command, step):
        process = self.start(command)
        for line in process.stderr:
            if line.startswith(f"step {step}/"):
                return process
        self.fail(process.communicate())

    def assert_all_end(self, name, seconds=60):
        until = time.monotonic() + seconds
        while processes_of(name):
            self.assertLess(time.monotonic(), until, processes_of(name))
            time.sleep(0.05)

    def test_one_two_and_four_ranks_end_in_the_same_bits(self):
        damaged = list(members(range(64)))
        damaged[8:8] = [("x.png", b"<html>"), ("x.txt", b"a page")]
        damaged += [("half.png", pair(3)[0][:200]), ("half.txt", b"half a picture")]
        write_shard(self.folder / "bad.tar", damaged)
        said = []
        for count in (1, 2, 4):
            result = self.run_ranks(count, f"of{count}", data="bad.tar::a-001.tar", val_data="val.tar", ema_decay=0.9)
            self.assertEqual(self.weights(f"of{count}"), self.weights("of1"))
            for file in ("model_ema.safetensors", "checkpoints/epoch_2.safetensors"):
                self.assertEqual(*((self.run_folder(name) / file).read_bytes() for name in ("of1", f"of{count}")))
            times = ("train/samples_per_second", "train/waiting_for_data", "train/share_of_ceiling")
            self.assertEqual(*([{tag: value for tag, value in line.items() if tag not in times} for line in self.log(name)] for name in ("of1", f"of{count}")))
            # What Open MPI itself has to say depends on the machine.
            said.append([re.sub(r"\S+ samples/s.*", "", line) for line in result.stderr.splitlines() if re.match(r"step |training: |validation: |\d+ pairs |learning ", line)])
            self.assertEqual(result.stdout.count("18 steps, loss"), 1)
        # As many as make do without --shares, and end together: the last words of one come while others still wait.
        for attempt in range(3):
            self.run_ranks(16, f"of16-{attempt}", accumulated=16, batch_size=2, epochs=1)
        # Once, with the damage that all ranks met.
        self.assertEqual(said, [said[0]] * 3)
        self.assertEqual(sum("left out" in line for line in said[0]), 2)
        self.train("alone", data="bad.tar::a-001.tar", batch_size=5, accum_freq=4, shares=4, ema_decay=0.9)
        self.assertEqual(self.weights("alone"), self.weights("of4"))
        self.run_ranks(4, "shards", "--shard-optimizer", data="bad.tar::a-001.tar", ema_decay=0.9)
        self.assertEqual(self.weights("shards"), self.weights("of4"))

    def test_killed_ranks_end_the_run_and_others_go_on_in_the_same_bits(self):
        self.run_ranks(1, "untouched")
        draw, kills, runs = random.Random(2), 0, 0
        while kills < self.kills:
            name, attempt = f"killed{runs}", 0
            runs += 1
            while True:
                shard = draw.choice(((), ("--shard-optimizer",)))
                process = self.start(self.ranks(draw.choice((1, 2, 4)), name, *shard, resume="latest" if attempt else None))
                attempt += 1
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(draw.uniform(0.5, 2.5) if attempt % 10 else None)
                ranks = list(processes_of(name).values())
                if ranks:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(draw.choice(ranks), signal.SIGKILL)
                error = process.communicate(timeout=60)[1]
                self.assert_all_end(name, 10)
                if process.returncode == 0:
                    break
                kills += 1
                self.assertTrue(ranks, error)
                # Before its ranks have met, mpirun knows nothing but that there is one less.
                self.assertRegex(error, r"process rank \d with PID \d+ on node \S+ exited on signal 9|ORTE|PMIX|mpirun")
            self.assertEqual(self.weights(name), self.weights("untouched"))
            self.assertEqual([line["step"] for line in self.log(name)], [line["step"] for line in self.log("untouched")])
            shutil.rmtree(self.run_folder(name))
        print(f"{kills} kills of {runs} runs", file=sys.stderr)

    def test_a_rank_that_stops_answering_is_named(self):
        for rank in (0, 2):
            name = f"stopped{rank}"
            process = self.start_and_wait_for_step(self.ranks(4, name, epochs=500, rank_timeout=2), 4)
            os.kill(processes_of(name)[rank], signal.SIGSTOP)
            error = process.communicate(timeout=60)[1]
            self.assertEqual(process.returncode, 4, error)
            self.assertRegex(error, rf"rank {(rank + 1) % 4} \(.*, process \d+\): rank {rank} \(.*, process \d+\) has not been heard for \d s; the run ends, and goes on from its last snapshot")
            self.assert_all_end(name)
        # A rank that computes alone for longer than that is not one.
        self.run_ranks(2, "busy", rank_timeout=2, val_data="val.tar", val_frequency=1)

    def test_a_rank_that_is_cut_off_is_named(self):
        """In a network namespace of its own, whose link goes down; the launcher's own daemon is there too."""
        def ip(*words):
            return subprocess.run(["ip", *words], capture_output=True, text=True).returncode == 0

        space, here, there = f"tandem{os.getpid()}", f"td{os.getpid()}a"[:15], f"td{os.getpid()}b"[:15]
        if shutil.which("ip") is None or not ip("netns", "add", space):
            self.skipTest("no network namespaces here")
        self.addCleanup(ip, "netns", "del", space)
        self.addCleanup(lambda: [os.kill(int(pid), signal.SIGKILL) for pid in subprocess.check_output(["ip", "netns", "pids", space]).split()])
        self.addCleanup(ip, "link", "del", here)
        for words in (["link", "add", here, "type", "veth", "peer", "name", there], ["link", "set", there, "netns", space], ["addr", "add", "10.213.77.1/24", "dev", here],
                      ["link", "set", here, "up"], ["-n", space, "addr", "add", "10.213.77.2/24", "dev", there], ["-n", space, "link", "set", there, "up"],
                      ["-n", space, "link", "set", "lo", "up"]):  # fmt: skip
            if not ip(*words):
                self.skipTest("no links between network namespaces here")
        agent = self.folder / "agent"
        agent.write_text(f'#!/bin/sh\nshift\nexec ip netns exec {space} sh -c "$*"\n')
        agent.chmod(0o755)
        command = self.ranks(2, "cut", epochs=500, rank_timeout=3)
        network = {"btl": "tcp,self", "btl_tcp_if_include": "10.213.77.0/24", "oob_tcp_if_include": "10.213.77.0/24", "plm_rsh_agent": str(agent)}
        command[1:1] = [word for name, value in network.items() for word in ("--mca", name, value)] + ["--host", "10.213.77.1:1,10.213.77.2:1"]
        process = self.start_and_wait_for_step(command, 4)
        ranks = processes_of("cut")
        ip("link", "set", here, "down")
        began = time.monotonic()
        for line in process.stderr:
            if "has not been heard" in line:
                break
        self.assertRegex(line, r"rank [01] \(.*\): rank [01] \(.*\) has not been heard for \d+ s")
        self.assertLess(time.monotonic() - began, 60)
        # Both are gone; mpirun goes on waiting for word from its daemon, as long as TCP does.
        while any(Path(f"/proc/{rank}/exe").exists() for rank in ranks.values()):
            self.assertLess(time.monotonic() - began, 60)
            time.sleep(0.05)
        process.kill()
        process.wait()
        process.stderr.close()

    def test_a_signal_to_the_launcher_saves(self):
        process = self.start_and_wait_for_step(self.ranks(2, "signal", epochs=500), 4)
        process.send_signal(signal.SIGUSR1)
        error = process.communicate(timeout=60)[1]
        self.assertRegex(error, r"stopped at step \d+ of 3000 and saved")
        self.assertEqual(process.returncode, 3, error)
        self.assert_all_end("signal")
        # Where every step ends an epoch, ranks stop behind one that is evaluated.
        process = self.start_and_wait_for_step(self.ranks(2, "each", epochs=500, batch_size=30, val_data="val.tar", log_every_n_steps=1, save_frequency=0), 3)
        process.send_signal(signal.SIGUSR1)
        error = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 3, error)

    def test_ranks_with_other_data_or_options_and_what_all_find_wrong(self):
        one = self.command("mixed", batch_size=5, accum_freq=2)
        other = self.command("mixed", batch_size=5, accum_freq=2, data="a-000.tar")
        result = subprocess.run([*MPIRUN, "-np", "1", *one, ":", "-np", "1", *other], capture_output=True, text=True, cwd=self.folder, env=ENVIRONMENT, timeout=60)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertRegex(result.stderr, r"Trainer: expected ranks that all have .*data: .* on rank 1")
        other = self.command("mixed", batch_size=5, accum_freq=2, snapshot_steps=7)
        result = subprocess.run([*MPIRUN, "-np", "1", *one, ":", "-np", "1", *other], capture_output=True, text=True, cwd=self.folder, env=ENVIRONMENT, timeout=60)
        self.assertIn("Trainer: expected ranks that all have snapshot_every 100, found snapshot_every 7 on rank 1", result.stderr)
        self.assertEqual(self.run_ranks(2, "twice", "--nonsense", code=2).stderr.count("--nonsense: expected an option"), 1)
        self.assertEqual(self.run_ranks(2, "gone", data="nowhere.tar", code=1).stderr.count("nowhere.tar: cannot open"), 1)
        self.assertIn("mpirun: expected a number of ranks that is a power of two, found 3", self.run_ranks(3, "three", code=1, accumulated=3).stderr)
        self.assertIn("--rank-timeout: expected a number from 2", self.run_ranks(2, "short", rank_timeout=0.5, code=2).stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--kills", type=int, default=Ranks.kills, help="how many in the test of kills, at least")
    options, rest = parser.parse_known_args()
    Ranks.program = str(Path(options.program).resolve())
    Ranks.kills = options.kills
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
