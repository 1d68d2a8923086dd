"""Finding and playing moments on the page, in a real browser against the real server."""

import json
import re
import time

import pytest
from conftest import SAMPLES
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.usefixtures("library")


def demo_text() -> str:
    return json.loads((SAMPLES / "demo.json").read_text())["text"]


def demo_sound():
    return SAMPLES / json.loads((SAMPLES / "demo.json").read_text())["audio"]


def found_by_api(server, query: dict, **more) -> list[dict]:
    body = {"query": query, "limit": 24, "group_by": "moment", **more}
    status, body = server.api("/v1/search", body)
    assert status == 200, body
    return body["data"]


def as_shown(hit: dict) -> tuple[str, str]:
    return hit["asset_name"], f"{hit['score']:.2f}"


def span_of(hit: dict) -> tuple[float, float]:
    """The seconds that a card shows."""
    start, end = (part.strip().split(":") for part in hit["time"].split("–"))
    return int(start[0]) * 60 + float(start[1]), int(end[0]) * 60 + float(end[1])


def plays_within(page, start: float, end: float) -> None:
    """A real playback position: inside the moment, and moving."""
    first = page.wait(
        lambda: (now := page.player()) and now["ready"] >= 2 and not now["paused"] and now,
        "the moment to play",
    )
    assert start - 0.1 <= first["now"] <= end + 0.1, first
    page.wait(lambda: page.player()["now"] > first["now"] + 0.3, "the playback to move")


def test_a_card_is_a_moment_not_a_window(page, server):
    page.open()
    text = "a small cyan cross moving up"
    shown, expected = page.search(text), found_by_api(server, {"text": text})
    spans = [(hit["start_secs"], hit["end_secs"]) for hit in expected]
    for hit, span in zip(shown, spans, strict=True):
        assert span_of(hit) == pytest.approx(span, abs=0.051), hit
    # That scene goes on for longer than a window.
    assert expected[0]["end_secs"] - expected[0]["start_secs"] > 4.0


def test_text_finds_moments_with_pictures(page, server):
    page.open()
    shown = page.search(demo_text())
    expected = found_by_api(server, {"text": demo_text()})
    assert [(hit["name"], hit["score"]) for hit in shown] == [as_shown(hit) for hit in expected]
    assert re.search(r"\d+ moments?", page.text("#status"))
    assert page.find("#status").get_attribute("aria-live") == "polite"
    wide = "return arguments[0].complete && arguments[0].naturalWidth"
    for image in page.all(".hit img"):
        page.js("arguments[0].scrollIntoView()", image)
        page.wait(lambda image=image: page.js(wide, image), "a thumbnail")
    mark = page.js(
        "const m = document.querySelector('.hit .mark'); const bar = m.parentElement;"
        "return m.getBoundingClientRect().width / bar.getBoundingClientRect().width"
    )
    assert 0 < mark <= 1


def test_a_strip_shows_how_well_each_part_answers(page, server):
    page.open("/?q=" + demo_text().replace(" ", "+"))
    page.hits()
    page.find(".hit .open").click()
    cells = page.wait(lambda: page.all("#player .heat span"), "the heat strip")
    hit = found_by_api(server, {"text": demo_text()})[0]
    path = f"/v1/assets/{hit['asset_id']}/timeline"
    status, timeline = server.api(path, {"query": {"text": demo_text()}})
    assert status == 200 and len(cells) == len(timeline["data"])
    warmth = "return [...document.querySelectorAll('.heat span')].map((s) => +s.style.opacity ||"
    shown = page.js(warmth + " +getComputedStyle(s).opacity)")
    scores = [clip["score"] for clip in timeline["data"]]
    assert max(shown) == 1 and shown.index(1) == scores.index(max(scores)), shown
    label = page.find("#player .heat").get_attribute("aria-label")
    assert f"{timeline['moments'][0]['score']:.2f}" in label, label
    assert page.console_errors() == []


def test_a_click_plays_the_moment_and_stops_at_its_end(page):
    page.open("/?q=" + demo_text().replace(" ", "+"))
    start, end = span_of(page.hits()[0])
    page.find(".hit .open").click()
    plays_within(page, start, end)
    length = page.player()["length"]
    chosen = page.find("#player .timeline .chosen")
    bar = page.find("#player .timeline")
    share = chosen.rect["width"] / bar.rect["width"]
    assert abs(share - (min(end, length) - start) / length) < 0.05
    page.wait(lambda: page.player()["paused"], "the end of the moment", end - start + 15)
    assert abs(page.player()["now"] - min(end, length)) < 0.6
    page.find("#player .again").click()
    plays_within(page, start, end)
    page.find("#player-close").click()
    assert page.player() is None


def test_the_timeline_seeks(page):
    page.open("/?q=" + demo_text().replace(" ", "+"))
    page.hits()
    page.find(".hit .open").click()
    page.wait(lambda: (page.player() or {}).get("ready", 0) >= 2, "the player")
    bar = page.find("#player .timeline")
    bar.send_keys(Keys.END)
    page.wait(lambda: page.player()["now"] > page.player()["length"] - 0.5, "the end")
    bar.send_keys(Keys.HOME)
    page.wait(lambda: page.player()["now"] < 1.5, "the beginning")
    assert bar.get_attribute("role") == "slider"
    assert float(bar.get_attribute("aria-valuemax")) > 0


def test_a_dropped_sound_finds_moments(page, server):
    page.open()
    assert page.drop(demo_sound(), "audio/wav") == "Drop to search with this file"
    page.wait(lambda: page.shown("#query-card audio"), "the preview of the sound")
    assert page.hits()
    assert demo_sound().name in page.text("#query-card")
    length = "return document.querySelector('#query-card audio').duration"
    page.wait(lambda: page.js(length), "the sound to be read")
    page.find("#query-clear").click()
    page.wait(lambda: not page.all(".hit") and not page.shown("#query-card"), "a clear page")


def test_a_picked_picture_finds_moments_like_it(page, make_media):
    clip = sorted((SAMPLES / "clips").glob("*.mp4"))[0]
    picture = make_media("still.png", "-ss", "1", "-i", str(clip), "-frames:v", "1", "-update", "1")
    page.open()
    page.find("#query-file").send_keys(str(picture))
    hits = page.hits()
    page.wait(lambda: page.shown("#query-card img"), "the preview of the picture")
    assert len({hit["name"] for hit in hits}) > 1
    assert float(hits[0]["score"]) > float(hits[-1]["score"])


def test_a_video_searches_by_picture_or_by_sound(page):
    clip = sorted((SAMPLES / "clips").glob("*.mp4"))[0]
    page.open()
    page.find("#query-file").send_keys(str(clip))
    assert clip.name in [hit["name"] for hit in page.hits()[:3]]
    page.find("#query-card input[value=audio] + span").click()
    by_sound = "return document.querySelector('#query-card input[value=audio]')?.checked"
    page.wait(lambda: page.js(by_sound), "the choice")
    assert page.hits()


def test_looking_at_sounds_matches_sounds(page):
    page.open("/?q=" + demo_text().replace(" ", "+"))
    page.hits()
    page.find("input[name=look][value=audio] + span").click()
    page.wait(lambda: "in=sounds" in page.driver.current_url, "the choice in the address")
    assert {hit["track"] for hit in page.hits()} == {"sound"}
    page.find("input[name=look][value=both] + span").click()
    page.wait(lambda: "in=both" in page.driver.current_url, "the choice in the address")
    page.hits()
    page.find("#best").click()
    page.wait(lambda: "best=1" in page.driver.current_url, "the choice in the address")
    names = [hit["name"] for hit in page.hits()]
    assert len(names) == len(set(names))


def test_more_like_this_and_the_way_back(page):
    page.open("/")
    before = page.search(demo_text())
    card = page.find(".hit")
    ActionChains(page.driver).move_to_element(card).perform()
    card.find_element(By.CSS_SELECTOR, ".like").click()
    page.wait(lambda: "like=ast_" in page.driver.current_url, "the moment in the address")
    after = page.hits()
    assert page.text("#query-card .name") == before[0]["name"]
    moments = [(hit["name"], hit["time"]) for hit in after]
    assert (before[0]["name"], before[0]["time"]) not in moments
    page.find("#query-back").click()
    page.wait(lambda: page.find("#q").get_attribute("value") == demo_text(), "the text again")
    assert page.hits() == before


def test_more_like_this_from_the_player(page):
    page.open("/?q=" + demo_text().replace(" ", "+"))
    page.hits()
    page.find(".hit .open").click()
    page.wait(lambda: page.shown("#player .like-audio"), "the player's buttons")
    page.find("#player .like-audio").click()
    page.wait(lambda: "track=audio" in page.driver.current_url, "the sound in the address")
    assert page.hits()


def test_the_keyboard_alone_is_enough(page):
    page.open()
    keys = page.find("body").send_keys
    focus = lambda: page.driver.switch_to.active_element  # noqa: E731
    keys("/")
    assert focus().get_attribute("id") == "q"
    focus().send_keys(demo_text(), Keys.ENTER)
    page.wait(lambda: "q=" in page.driver.current_url, "the query")
    hits = page.hits()
    focus().send_keys(Keys.ARROW_DOWN)
    assert focus() == page.all(".hit .open")[0]
    focus().send_keys(Keys.ARROW_RIGHT)
    assert focus() == page.all(".hit .open")[1]
    outline = page.js("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "the focus must be seen"
    focus().send_keys(Keys.ENTER)
    plays_within(page, *span_of(hits[1]))
    focus().send_keys("n")
    page.wait(lambda: page.text("#player-place").startswith("3 of"), "the next moment")
    focus().send_keys(Keys.ESCAPE)
    page.wait(lambda: page.player() is None, "the player to close")
    assert focus() == page.all(".hit .open")[1]
    focus().send_keys(Keys.HOME)
    assert focus() == page.all(".hit .open")[0]
    focus().send_keys(Keys.TAB)
    assert focus() == page.all(".hit .like")[0]
    focus().send_keys(Keys.ESCAPE)
    assert focus().get_attribute("id") == "q"


def test_words_nobody_knows_are_answered_with_the_way_to_another_model(page, server):
    status, _ = server.api("/v1/search", {"query": {"text": "qxzvw"}})
    assert status >= 400
    page.expected_statuses.add(status)
    page.open()
    page.find("#q").send_keys("qxzvw\n")
    page.wait(lambda: page.shown("#unknown"), "the words")
    assert "qxzvw" in page.text("#unknown")
    assert page.find("#unknown a").get_attribute("href").endswith("/ui/own-footage.html")


def test_a_server_that_is_away_is_told(page):
    page.open()
    page.wait(lambda: page.shown("#start"), "the start")
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    online = offline | {"offline": False}
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        page.find("#q").send_keys(demo_text() + "\n")
        page.wait(lambda: page.shown("#offline"), "the banner")
        assert "does not answer" in page.problem()
    finally:
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", online)
    page.wait(lambda: not page.shown("#offline"), "the banner to go")
    errors = [m for m in page.console_errors() if "ERR_INTERNET_DISCONNECTED" not in m]
    assert not errors


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(page, scheme):
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    fits = "return document.documentElement.scrollWidth <= innerWidth && innerWidth === 390"
    page.open("/?q=" + demo_text().replace(" ", "+"))
    page.hits()
    assert page.js(fits)
    page.find(".hit .open").click()
    page.wait(lambda: page.player(), "the player")
    box = page.find("#player").rect
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert page.js(fits)
    page.open("/?view=library")
    page.wait(lambda: page.all(".asset"), "the library")
    assert page.js(fits)
    background = page.js("return getComputedStyle(document.body).backgroundColor")
    light = int(re.findall(r"\d+", background)[0]) > 128
    assert light == (scheme == "light")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_shared_address_opens_the_same_search(page):
    page.open("/?q=" + demo_text().replace(" ", "+"))
    first = page.hits()
    assert page.find("#q").get_attribute("value") == demo_text()
    page.driver.refresh()
    time.sleep(0.2)
    assert page.hits() == first


def test_the_page_names_the_model_and_what_it_knows(page, server):
    page.open()
    model = page.wait(lambda: page.shown("#model") and page.find("#model"), "the model")
    _, models = server.api("/v1/models")
    serving = models["data"][0]
    assert serving["id"] in model.text and serving["license"] in model.text
    title = model.get_attribute("title")
    assert serving["description"].rstrip(".") in title
    assert f"{serving['vocabulary_words']} words" in title
    # The library holds the clips that came with it.
    page.wait(lambda: page.all("#recent li"), "the newest files")
    assert not page.shown("#foreign")


def test_foreign_footage_gets_a_hint(page, server, make_media):
    clip = make_media("holiday.mp4", "-f", "lavfi", "-i", "testsrc=d=4:s=128x128:r=10")
    status, added = server.upload("holiday.mp4", clip.read_bytes())
    assert status in (200, 201), added
    page.open()
    page.wait(lambda: page.shown("#foreign"), "the hint")
    assert "mean nothing" in page.text("#foreign")
    link = page.find("#foreign a")
    assert link.text == "Search your own footage"
    link.click()
    page.wait(lambda: "make model NAME=" in page.text("main"), "how to get a model")


def test_words_that_the_model_does_not_know_are_named(page):
    page.expected_statuses.add(422)
    page.open("/?q=a+dog+barking")
    page.wait(lambda: page.shown("#unknown"), "the words")
    said = page.text("#unknown")
    assert "a dog barking" in said and "Search your own footage" in said, said
    assert not page.shown("#search-problem") and not page.shown("#nothing")
    page.open("/?q=a+red+dog")
    page.hits()
    assert "dog" in page.text("#ignored") and "red" not in page.text("#ignored")
    assert not page.shown("#unknown")
    page.open("/?q=a+red+circle")
    page.hits()
    assert not page.shown("#ignored"), "the function word is no loss"
