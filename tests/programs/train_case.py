"""What tests of the program train have in common: pairs that are made here, and how the program is run on them."""

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path

from programs_test import png

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "yellow": (230, 210, 40), "black": (20, 20, 20), "white": (245, 245, 245)}
SHAPES = {
    "disc": lambda x, y: x * x + y * y < 0.6,
    "square": lambda x, y: abs(x) < 0.7 and abs(y) < 0.7,
    "bar": lambda x, y: abs(y) < 0.3,
    "cross": lambda x, y: abs(x) < 0.25 or abs(y) < 0.25,
}


def pair(number, side=48):
    """A shape of one colour on another, and what it is."""
    names = list(COLOURS)
    figure, ground, shape = names[number % 6], names[(number + 1 + number // 6 % 5) % 6], list(SHAPES)[number // 30 % 4]
    inside, centre = SHAPES[shape], (number * 7 % 5 - 2) / 10
    rows = b"".join(b"\0" + b"".join(bytes(COLOURS[figure if inside(2 * x / side - 1 - centre, 2 * y / side - 1) else ground]) for x in range(side)) for y in range(side))
    return png(side, side, rows), f"a photo of a {figure} {shape} on {ground}"


def write_shard(path, members):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def members(numbers):
    for number in numbers:
        picture, caption = pair(number)
        yield f"{number:05}.png", picture
        yield f"{number:05}.txt", caption.encode()


class TrainCase(unittest.TestCase):
    program = tandem = recall = None

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="tandem-train-")).resolve()
        write_shard(cls.folder / "a-000.tar", members(range(0, 64)))
        write_shard(cls.folder / "a-001.tar", members(range(64, 120)))
        write_shard(cls.folder / "val.tar", members(range(120, 160)))
        for number in range(12):
            picture, caption = pair(number)
            place = cls.folder / "classes" / caption.removeprefix("a photo of a ").replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(picture)

        (cls.folder / "numbers" / "n01440764").mkdir(parents=True)
        (cls.folder / "numbers" / "n01440765").mkdir()

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def command(self, name, *words, data="a-{000..001}.tar", **options):
        """The program's words: these options, and those of all runs here that are not among them."""
        usual = {"train_data": data, "name": name, "batch_size": 20, "epochs": 3, "lr": 0.002, "log_every_n_steps": 2}
        command = [self.program, *words]
        for option, value in (usual | options).items():
            if value is not None:
                command += ["--" + option.replace("_", "-"), *([] if value is True else [str(value)])]
        return command

    def run_command(self, command, code=0):
        result = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        self.assertEqual(result.returncode, code, (command, result.stderr))
        return result

    def train(self, name, *words, code=0, **options):
        return self.run_command(self.command(name, *words, **options), code)

    def run_folder(self, name):
        return self.folder / "logs" / name

    def weights(self, name):
        return (self.run_folder(name) / "model.safetensors").read_bytes()

    def log(self, name):
        return [json.loads(line) for line in (self.run_folder(name) / "log.jsonl").read_text().splitlines()]
