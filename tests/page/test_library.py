"""Adding, following and deleting files on the page, and the API key."""

import pytest
from conftest import SAMPLES, Page, start_server, stop_server
from selenium.webdriver.common.by import By

HOSTILE = "<img src=x onerror=alert(1)>.mp4"
NOISE = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=10,noise=alls=60:allf=t"]
TONE = ["-f", "lavfi", "-i", "sine=frequency=700:sample_rate=48000"]
ENCODE = [
    "-t",
    "7",
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-crf",
    "12",
    "-pix_fmt",
    "yuv420p",
    "-c:a",
    "aac",
    "-shortest",
]

# What a line of the list of uploads says, as it changes.
RECORD = """
window.seen = [];
const list = document.getElementById("uploads");
new MutationObserver(() => {
  const bar = list.querySelector("progress");
  window.seen.push([list.querySelector(".say")?.textContent, bar ? bar.value : null]);
}).observe(list, {subtree: true, childList: true, characterData: true, attributes: true});
"""


def add(page: Page, path) -> None:
    page.open("/?view=library")
    page.wait(lambda: page.all(".asset") or page.shown("#assets-empty"), "the list")
    page.js(RECORD)
    page.find("#add-files").send_keys(str(path))


def line(page: Page, outcome: str) -> str:
    css = f".upload.{outcome} .say"
    return page.wait(lambda: page.all(css), f"an upload that is {outcome}", 120)[0].text


def row(page: Page, name: str):
    """The row of the library with this name; rows are drawn anew as their assets change."""
    return page.js(
        "return [...document.querySelectorAll('.asset')]"
        ".find((row) => row.querySelector('.name').textContent === arguments[0]) ?? null",
        name,
    )


def test_a_folder_is_indexed_through_the_page(library, page, server):
    assert "empty" in library["guidance"]
    assert library["states"][-1] == "Done"
    assert library["errors"] == []
    assets = server.api("/v1/assets?limit=1000")[1]["data"]
    samples = [asset for asset in assets if asset["state"] == "ready"]
    assert len(samples) >= 2
    assert f"{len(samples)} of {len(samples)} files" in library["job"]
    page.open("/?view=library")
    page.wait(lambda: len(page.all(".asset")) == min(20, len(assets)), "the list")
    if len(assets) > 20:
        page.find("#assets-more").click()
        page.wait(lambda: len(page.all(".asset")) == min(40, len(assets)), "the next page")
    assert row(page, assets[0]["name"]).find_element(By.CSS_SELECTOR, ".state").text == "Ready"


def test_older_jobs_are_shown_page_by_page(library, page, server):
    clip = str(next((SAMPLES / "clips").iterdir()))
    for _ in range(8):
        assert server.api("/v1/jobs", {"type": "index", "files": [{"path": clip}]})[0] == 202
    jobs = server.api("/v1/jobs?limit=1000")[1]["data"]
    page.open("/?view=library")
    page.wait(lambda: len(page.all("#jobs > li")) == 6, "the newest jobs")
    while page.shown("#jobs-more"):
        before = len(page.all("#jobs > li"))
        page.find("#jobs-more").click()
        page.wait(lambda: len(page.all("#jobs > li")) > before, "the next page")  # noqa: B023
    assert len(page.all("#jobs > li")) == len(jobs)


def test_a_folder_that_is_not_allowed_shows_the_servers_sentence(library, page, server):
    status, body = server.api("/v1/jobs", {"type": "index", "path": "/etc"})
    assert status >= 400
    page.expected_statuses.add(status)
    page.open("/?view=library")
    page.find("#folder-path").send_keys("/etc\n")
    page.wait(lambda: page.shown("#folder-problem"), "the sentence")
    assert page.text("#folder-problem") == body["error"]["message"]


def test_an_upload_shows_its_progress_and_becomes_searchable(library, page, server, make_media):
    clip = make_media(HOSTILE, *NOISE, *TONE, *ENCODE)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1}
    slow["uploadThroughput"] = clip.stat().st_size / 2
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    try:
        add(page, clip)
        assert line(page, "done").startswith("Searchable: ")
    finally:
        fast = slow | {"uploadThroughput": -1}
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", fast)
    seen = page.js("return window.seen")
    shares = [share for says, share in seen if says and says.startswith("Sending")]
    assert shares == sorted(shares)
    assert any(0 < share < 1 for share in shares), "progress of the sending itself"
    assert any(says == "Indexing" for says, _ in seen)

    page.wait(lambda: row(page, HOSTILE), "the hostile name, as text")
    page.wait(lambda: "Ready" in row(page, HOSTILE).text, "its state in the list")
    assert page.all("img[src='x']") == [], "a name must never become an element"

    page.open()
    page.find("#query-file").send_keys(str(clip))
    hits = page.hits()
    assert hits[0]["name"] == HOSTILE
    assert float(hits[0]["score"]) > 0.98
    page.find(".hit .open").click()
    page.wait(lambda: page.player(), "the player")
    assert page.text("#player-name") == HOSTILE
    assert page.all("img[src='x']") == []


def test_the_same_bytes_again_are_known(library, page, make_media):
    clip = make_media("twice.mp4", *NOISE, *["-t", "3", "-c:v", "libx264", "-pix_fmt", "yuv420p"])
    add(page, clip)
    assert line(page, "done").startswith("Searchable")
    add(page, clip)
    assert line(page, "done") == "Already in the library"


def test_a_file_that_is_no_media_shows_the_servers_sentence(library, page, server, tmp_path):
    fake = tmp_path / "fake.mp4"
    fake.write_text("This is a letter, whatever its name says.\n" * 50)
    _, refused = server.upload("same.mp4", fake.read_bytes())
    page.expected_statuses |= {415, 422}
    add(page, fake)
    assert line(page, "failed") == refused["error"]["message"]


def test_deleting_asks_first(library, page, server, make_media):
    sound = make_media("delete-me.wav", *TONE, "-t", "4")
    status, added = server.upload(sound.name, sound.read_bytes())
    assert status == 201, added
    page.open("/?view=library")
    page.wait(lambda: row(page, sound.name), "the sound in the list")
    row(page, sound.name).find_element(By.CSS_SELECTOR, ".delete").click()
    assert page.text("#confirm-name") == sound.name
    page.find("#confirm button[value='']").click()
    assert row(page, sound.name)
    row(page, sound.name).find_element(By.CSS_SELECTOR, ".delete").click()
    page.find("#confirm .danger").click()
    page.wait(lambda: row(page, sound.name) is None, "the row to go")
    assert server.api(f"/v1/assets/{added['id']}")[0] == 404


def test_what_is_watched_for_shows_what_it_matched(library, page, server):
    page.open("/?view=library")
    page.find("#standing-old").click()
    page.find("#standing-words").send_keys("a big blue triangle moving left\n")
    card = page.wait(lambda: page.all("#standing > li"), "the card")[0]
    assert card.find_element(By.CSS_SELECTOR, ".name").text == "a big blue triangle moving left"
    path = "/v1/standing-queries"
    query = server.api(path)[1]["data"][0]
    matched = page.wait(
        lambda: server.api(f"{path}/{query['id']}/matches")[1]["data"], "a match", 60
    )
    page.open("/?view=library")
    page.wait(lambda: page.shown("#standing .matches summary"), "the matches")
    page.find("#standing .matches summary").click()
    rows = page.wait(lambda: page.all("#standing .matches li button"), "the files")
    assert rows[0].text == matched[0]["asset_name"]
    rows[0].click()
    page.wait(lambda: page.text("#player-name") == matched[0]["asset_name"], "the player")
    page.find("#player-close").click()
    page.find("#standing .steer").click()
    page.wait(lambda: page.text("#standing .about") == "Paused", "the pause")
    assert server.api(path)[1]["data"][0]["enabled"] is False
    page.find("#standing .cancel").click()
    page.wait(lambda: not page.all("#standing > li"), "the card to go")
    assert server.api(path)[1]["data"] == []


def test_a_sound_plays_and_a_picture_is_shown(library, page, server, make_media):
    sound = make_media("hum.wav", *TONE, "-t", "5")
    picture = make_media("card.png", *NOISE, "-frames:v", "1", "-update", "1")
    for path in (sound, picture):
        assert server.upload(path.name, path.read_bytes())[0] in (200, 201)
    page.open("/?view=library")
    page.wait(lambda: row(page, sound.name) and row(page, picture.name), "both in the list")
    row(page, sound.name).find_element(By.CSS_SELECTOR, ".open").click()
    page.wait(lambda: (page.player() or {}).get("now", 0) > 0.3, "the sound to play")
    assert page.player()["tag"] == "audio"
    page.find("#player-close").click()
    row(page, picture.name).find_element(By.CSS_SELECTOR, ".open").click()
    wide = "return document.querySelector('#player-stage > img')?.naturalWidth"
    page.wait(lambda: page.js(wide) == 320, "the picture at its full size")


@pytest.fixture
def locked(browser, tmp_path, make_media, server):
    """A server that wants a key, with one clip in it."""
    running = start_server(tmp_path / "data", "--api-key", "open-sesame", key="open-sesame")
    clip = make_media("locked.mp4", *NOISE, *TONE, *ENCODE)
    assert running.upload(clip.name, clip.read_bytes())[0] == 201
    yield Page(browser, running, {401})
    stop_server(running)


def test_the_key_is_asked_for_and_used_for_pictures_and_playback(locked, page):
    page.expected_statuses.add(401)
    locked.open()
    for key, refused in [("wrong", False), ("open-sesame", True)]:
        locked.wait(lambda: locked.shown("#key-input"), "the question for the key")
        locked.wait(lambda r=refused: locked.shown("#key-refused") == r, "what was wrong")
        locked.find("#key-input").send_keys(key + "\n")
    wide = "return document.querySelector('#recent img')?.naturalWidth > 0"
    locked.wait(lambda: locked.js(wide), "a thumbnail that needs the key")
    locked.find("#recent .open").click()
    locked.wait(lambda: (locked.player() or {}).get("now", 0) > 0.3, "the video to play")
    assert "open-sesame" not in locked.driver.current_url
    stored = "return [sessionStorage.length, localStorage.length, document.cookie]"
    assert locked.js(stored) == [1, 0, ""]
