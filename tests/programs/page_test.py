#!/usr/bin/env python3
"""The page of tandem serve in Debian's Chromium: real clicks, typed queries, a dropped file, keys; on a desktop and a phone.

usage: page_test.py --program FILE [--screenshots DIR]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.chrome.service import Service

from small_model import picture, write_model

OPTIONS = None


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="tandem-page-")).resolve()
        write_model(cls.folder / "quickstart")
        cls.pictures = cls.folder / "pictures"
        cls.pictures.mkdir()
        for i in range(48):
            (cls.pictures / f"picture {i}.png").write_bytes(picture(i, side=160))
        (cls.pictures / "copy.png").write_bytes(picture(3, side=160))
        (cls.pictures / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        words = "lighthouse harbour market forest river bridge tower garden".split()
        lines = [f"picture {i}.png\ta {words[i % 8]} <b>bold</b>, number {i}\n" for i in range(48)]
        (cls.pictures / "captions.tsv").write_text("".join(lines))
        cls.database = cls.folder / "pictures.db"
        subprocess.run([OPTIONS.program, "index", cls.pictures, "--database", cls.database], cwd=cls.folder, check=True, capture_output=True)
        cls.server = subprocess.Popen([OPTIONS.program, "serve", "--database", cls.database, "--port", "0"], cwd=cls.folder,
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
        cls.url = cls.server.stdout.readline().strip()

    @classmethod
    def tearDownClass(cls):
        cls.server.terminate()
        cls.server.wait()
        cls.server.stdout.close()
        shutil.rmtree(cls.folder)

    def setUp(self):
        self.open_browser(1280, 900)

    def open_browser(self, width, height, dark=False):
        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--window-size={width},{height}",
                         *(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else [])):  # fmt: skip
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.browser.set_window_size(width, height)
        self.browser.get(self.url)

    def tearDown(self):
        if OPTIONS.screenshots:
            Path(OPTIONS.screenshots).mkdir(parents=True, exist_ok=True)
            self.browser.save_screenshot(str(Path(OPTIONS.screenshots) / f"{self.id().split('.')[-1]}.png"))
        log = [entry for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]
        self.browser.quit()
        self.assertEqual([entry for entry in log if not entry.get("expected") and "status of 400" not in entry["message"]], [])

    def at(self, name):
        return self.browser.find_element(By.ID, name)

    def until(self, condition, what):
        for _ in range(150):
            try:
                found = condition()
            except Exception:  # the page is changing
                found = None
            if found:
                return found
            time.sleep(0.1)
        self.fail(what + ": " + self.at("status").text)

    def cards(self):
        return self.browser.find_elements(By.CSS_SELECTOR, ".card")

    def search(self, text):
        self.at("query").clear()
        self.at("query").send_keys(text)
        self.until(lambda: "relevant of" in self.at("status").text and self.cards(), "no answer for " + text)

    def test_typing_finds(self):
        self.until(lambda: "49 pictures" in self.at("status").text, "no overview")
        self.search("lighthouse")
        self.until(lambda: self.browser.find_elements(By.CSS_SELECTOR, ".card mark"), "no words marked")
        self.assertEqual(self.cards()[0].find_element(By.TAG_NAME, "mark").text, "lighthouse")
        self.assertIn("lighthouse", self.cards()[0].find_element(By.TAG_NAME, "img").get_attribute("alt"))
        self.assertIn("q=lighthouse", self.browser.current_url)
        # What a caption holds is text.
        self.assertEqual(self.browser.find_elements(By.CSS_SELECTOR, "#results b"), [])
        # The address brings the same back.
        self.browser.refresh()
        self.until(lambda: self.at("query").get_attribute("value") == "lighthouse" and self.cards(), "the query is lost")
        self.at("query").send_keys(" +")
        self.until(lambda: "every term" in self.at("status").text, "no error shown")

    def test_keys_open_and_close(self):
        self.search("harbour")
        body = self.browser.find_element(By.TAG_NAME, "body")
        ActionChains(self.browser).send_keys(Keys.ARROW_DOWN).perform()
        self.assertEqual(self.browser.switch_to.active_element, self.cards()[0])
        ActionChains(self.browser).send_keys(Keys.ARROW_RIGHT).perform()
        self.assertEqual(self.browser.switch_to.active_element, self.cards()[1])
        ActionChains(self.browser).send_keys(Keys.ENTER).perform()
        self.until(lambda: self.at("preview").get_attribute("open"), "not open")
        first = self.at("name").text
        self.at("close").send_keys(Keys.ARROW_RIGHT)
        self.until(lambda: self.at("name").text != first, "no next picture")
        ActionChains(self.browser).send_keys(Keys.ESCAPE).perform()
        self.until(lambda: not self.at("preview").get_attribute("open"), "not closed")
        self.assertEqual(self.browser.switch_to.active_element, self.cards()[2])
        ActionChains(self.browser).send_keys("/").perform()
        self.assertEqual(self.browser.switch_to.active_element, self.at("query"))
        self.assertNotIn("/", self.at("query").get_attribute("value"))
        self.assertTrue(body)

    def test_the_preview(self):
        self.search("market")
        self.cards()[0].click()
        self.until(lambda: self.at("large").get_property("naturalWidth") == 160, "no picture")
        self.assertIn("a market <b>bold</b>", self.at("caption").text)
        self.at("heat").find_element(By.TAG_NAME, "button").click()
        self.until(lambda: "/heat/" in self.at("large").get_attribute("src") and self.at("large").get_property("naturalWidth") >= 448, "no heat map")
        self.at("label").send_keys("<i>mine</i>")
        self.at("own-tag").find_element(By.TAG_NAME, "button").click()
        accepted = lambda: [tag.text for tag in self.browser.find_elements(By.CSS_SELECTOR, "#tags .has")]
        self.until(lambda: any("<i>mine</i>" in text for text in accepted()), "the tag is not there")
        suggested = self.until(lambda: self.browser.find_elements(By.CSS_SELECTOR, "#tags li:not(.has)"), "nothing is suggested")[0]
        label = suggested.text.split("✓")[0].strip()
        suggested.find_element(By.CSS_SELECTOR, "button").click()
        self.until(lambda: any(text.startswith(label) for text in accepted()), "a suggestion is not taken")
        self.at("like").click()
        self.until(lambda: self.at("query").get_attribute("value").startswith("id:"), "no more like this")
        self.until(lambda: self.cards(), "nothing alike")
        self.cards()[1].click()
        self.at("unlike").click()
        self.until(lambda: " - id:" in self.at("query").get_attribute("value"), "no less of this")

    def test_a_picture_is_dropped(self):
        asked = self.pictures / "picture 17.png"
        self.at("file").send_keys(str(asked))
        self.until(lambda: self.at("example").is_displayed() and self.cards(), "the chosen picture is not looked for")
        self.assertEqual(self.cards()[0].get_attribute("title"), str(asked))
        self.browser.find_element(By.CSS_SELECTOR, "#example button").click()
        self.until(lambda: not self.cards(), "the picture is still looked for")
        # A drop, as the browser makes one of a file.
        drop = """
            const [input] = arguments, data = new DataTransfer();
            data.items.add(input.files[0]);
            document.body.dispatchEvent(new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer: data}));"""
        self.browser.execute_script(drop, self.at("file"))
        self.until(lambda: self.cards() and self.cards()[0].get_attribute("title") == str(asked), "the dropped picture is not looked for")

    def test_duplicates_and_what_cannot_be_read(self):
        self.at("twins").click()
        self.until(lambda: "groups" in self.at("status").text, "no groups")
        titles = [card.get_attribute("title") for card in self.cards()]
        self.assertIn(str(self.pictures / "copy.png"), titles)
        self.assertIn(str(self.pictures / "picture 3.png"), titles)
        self.browser.find_element(By.TAG_NAME, "summary").click()
        self.until(lambda: "torn.png" in self.at("unreadable").text, "the unreadable picture is not named")
        self.assertIn("POST /api/search", self.browser.find_element(By.TAG_NAME, "footer").text)

    def test_on_a_phone_in_the_dark(self):
        self.browser.quit()
        self.open_browser(500, 850, dark=True)
        self.search("garden")
        wide = self.browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        self.assertTrue(wide, "it scrolls sideways")
        self.assertTrue(self.browser.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches"))
        self.assertEqual(self.browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color"), "rgba(23, 22, 20, 1)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, type=os.path.abspath)
    parser.add_argument("--screenshots")
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest])
