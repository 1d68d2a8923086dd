// @ts-check
// A bar that stands for a whole asset: the moments found in it, the playhead, and seeking.

import { clock, el, placeMark } from "./dom.js";

/** @typedef {{start: number, end: number, track: string, chosen: boolean}} Mark */

/**
 * @param {HTMLMediaElement} player
 * @param {Mark[]} marks
 * @param {(secs: number) => void} seek
 */
export function timeline(player, marks, seek) {
  const head = el("span", { class: "playhead" });
  const bar = el("div", {
    class: "timeline",
    role: "slider",
    tabIndex: 0,
    "aria-label": "Position",
    "aria-valuemin": 0,
  });
  const total = () => (Number.isFinite(player.duration) ? player.duration : 0);

  function lay() {
    const spans = marks.map((mark) => {
      const node = el("span", { class: `span ${mark.track} ${mark.chosen ? "chosen" : ""}` });
      placeMark(node, mark.start, Math.min(mark.end, total() || mark.end), total());
      return node;
    });
    bar.replaceChildren(...spans, head);
    bar.setAttribute("aria-valuemax", total().toFixed(1));
    bar.hidden = !total();
  }

  function follow() {
    if (!total()) return;
    head.style.setProperty("left", `${(100 * player.currentTime) / total()}%`);
    bar.setAttribute("aria-valuenow", player.currentTime.toFixed(1));
    bar.setAttribute("aria-valuetext", `${clock(player.currentTime)} of ${clock(total())}`);
  }

  /** @param {PointerEvent} event */
  function seekTo(event) {
    const box = bar.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    seek(share * total());
  }

  bar.addEventListener("pointerdown", (event) => {
    bar.setPointerCapture(event.pointerId);
    seekTo(event);
  });
  bar.addEventListener("pointermove", (event) => {
    if (bar.hasPointerCapture(event.pointerId)) seekTo(event);
  });
  bar.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 5 : 1;
    const places = {
      ArrowLeft: player.currentTime - step,
      ArrowRight: player.currentTime + step,
      Home: 0,
      End: total(),
    };
    const place = Reflect.get(places, event.key);
    if (place === undefined) return;
    event.preventDefault();
    seek(Math.min(total(), Math.max(0, place)));
  });
  for (const name of ["loadedmetadata", "durationchange"]) player.addEventListener(name, lay);
  for (const name of ["timeupdate", "seeking", "loadedmetadata"]) player.addEventListener(name, follow);
  lay();
  return { bar, follow };
}
