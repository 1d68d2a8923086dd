// @ts-check
// A strip under the player that shows how well each part of an asset answers the query.

import { clock, el, placeMark } from "./dom.js";

/** @typedef {import("./api.js").Timeline} Timeline */

/**
 * How warm a score is: 0 for what any clip of the library scores, 1 for the best of this asset.
 * @param {number} score
 * @param {number} usual
 * @param {number} best
 */
export function warmth(score, usual, best) {
  return best > usual ? Math.min(1, Math.max(0, (score - usual) / (best - usual))) : 0;
}

/**
 * An empty strip, to be filled when the scores are there.
 * @param {HTMLMediaElement} player
 * @param {(secs: number) => void} seek
 */
export function heatStrip(player, seek) {
  const strip = el("div", { class: "heat", role: "img", "aria-label": "How well each part matches" });
  strip.addEventListener("pointerdown", (event) => {
    const box = strip.getBoundingClientRect();
    if (Number.isFinite(player.duration)) seek(((event.clientX - box.left) / box.width) * player.duration);
  });

  /** @param {Timeline} timeline */
  function fill({ data, moments, usual_score, spaces }) {
    // Scores of several spaces have no common scale; confidence has.
    const told = spaces.length > 1 && data.every((clip) => clip.confidence !== null);
    /** @param {{score: number, confidence: number | null}} one */
    const value = (one) => (told ? (one.confidence ?? 0) : one.score);
    const usual = told ? 0 : (usual_score ?? 0);
    const end = data.reduce((last, clip) => Math.max(last, clip.end_secs), 0);
    const total = () => (Number.isFinite(player.duration) && player.duration ? player.duration : end);
    const best = data.reduce((most, clip) => Math.max(most, value(clip)), -1);
    const lay = () => strip.replaceChildren(...data.map((clip, at) => cell(clip, at)));
    /** @param {import("./api.js").ScoredClip} clip @param {number} at */
    function cell(clip, at) {
      // Windows may overlap: each is drawn up to where the next one begins.
      const until = Math.min(data[at + 1]?.start_secs ?? clip.end_secs, clip.end_secs, total());
      const span = `${clock(clip.start_secs)} – ${clock(clip.end_secs)}`;
      const node = el("span", { class: clip.matched, title: `${span}: ${value(clip).toFixed(2)}` });
      node.style.setProperty("--warmth", warmth(value(clip), usual, best).toFixed(3));
      placeMark(node, clip.start_secs, Math.max(until, clip.start_secs), total());
      return node;
    }
    lay();
    player.addEventListener("loadedmetadata", lay);
    const first = moments[0];
    if (!first) return;
    const span = `${clock(first.start_secs)} to ${clock(first.end_secs)}`;
    const how = `${told ? "confidence" : "score"} ${value(first).toFixed(2)}`;
    strip.setAttribute("aria-label", `How well each part matches: best from ${span}, ${how}`);
  }
  return { strip, fill };
}
