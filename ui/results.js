// @ts-check
// The grid of found moments.

import { asset } from "./api.js";
import { clock, el, icon, placeMark } from "./dom.js";
import { thumbnail } from "./thumb.js";

/** @typedef {import("./api.js").Hit} Hit */

/**
 * @typedef {object} Actions
 * @property {(hit: Hit) => void} open
 * @property {(hit: Hit) => void} like
 */

const TRACK = { video: "picture", audio: "sound" };

/**
 * Adds hits to the grid.
 * @param {HTMLElement} grid
 * @param {Hit[]} hits
 * @param {Actions} actions
 */
export function addHits(grid, hits, actions) {
  const first = grid.children.length;
  hits.forEach((hit, index) => grid.append(card(hit, first + index + 1, actions)));
  if (!first) setCurrent(grid, 0);
}

/**
 * @param {Hit} hit
 * @param {number} place
 * @param {Actions} actions
 */
function card(hit, place, actions) {
  const span = `${clock(hit.start_secs)} – ${clock(hit.end_secs)}`;
  const track = TRACK[hit.matched];
  const time = el("span", { class: "time" }, span);
  const mark = el("span", { class: "mark" });
  const bar = el("span", { class: "bar" }, mark);
  const open = el(
    "button",
    {
      type: "button",
      class: "open",
      tabIndex: -1,
      "aria-label": `${place}. ${hit.asset_name}, ${span}, matched by ${track}, score ${hit.score.toFixed(2)}`,
      onClick: () => actions.open(hit),
    },
    thumbnail(hit.thumbnail_url),
    bar,
    el(
      "span",
      { class: "line" },
      el("span", { class: "name", title: hit.asset_name }, hit.asset_name),
      el("span", { class: "score", title: "Cosine similarity, from −1 to 1" }, hit.score.toFixed(2)),
    ),
    el("span", { class: "line about" }, time, el("span", { class: "track" }, icon(track), track)),
  );
  const like = el(
    "button",
    {
      type: "button",
      class: "like",
      tabIndex: -1,
      title: "More like this",
      "aria-label": `More like ${hit.asset_name}, ${span}`,
      onClick: () => actions.like(hit),
    },
    icon("like"),
  );
  locate(hit, mark, bar, time);
  return el("li", { class: `hit ${hit.matched}` }, open, like);
}

/**
 * Marks where in its asset the moment lies, once the asset's length is known.
 * @param {Hit} hit
 * @param {HTMLElement} mark
 * @param {HTMLElement} bar
 * @param {HTMLElement} time
 */
async function locate(hit, mark, bar, time) {
  const found = await asset(hit.asset_id).catch(() => null);
  if (found?.kind === "image") {
    bar.classList.add("without");
    time.hidden = true;
    return;
  }
  const total = found?.duration_secs ?? hit.end_secs;
  placeMark(mark, hit.start_secs, Math.min(hit.end_secs, Math.max(total, hit.start_secs)), total);
  bar.title = `In ${clock(total)}`;
}

/** @param {HTMLElement} grid */
const openers = (grid) => /** @type {HTMLButtonElement[]} */ ([...grid.querySelectorAll(".open")]);

/**
 * One card at a time takes part in the tab order; the arrow keys move between cards.
 * @param {HTMLElement} grid
 * @param {number} index
 */
function setCurrent(grid, index) {
  [...grid.children].forEach((item, at) => {
    for (const button of item.querySelectorAll("button")) button.tabIndex = at === index ? 0 : -1;
  });
}

/** @param {HTMLElement} grid */
export function focusFirst(grid) {
  openers(grid)[0]?.focus();
}

/**
 * Where an arrow key leads from a card.
 * @param {string} key
 * @param {number} at
 * @param {number} columns
 * @param {number} count
 */
function target(key, at, columns, count) {
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  const step = Reflect.get(steps, key);
  return step === undefined ? null : at + step;
}

/**
 * Arrow keys, Home and End between the cards; up from the first row leaves the grid.
 * @param {HTMLElement} grid
 * @param {() => void} leave
 */
export function listenToKeys(grid, leave) {
  grid.addEventListener("focusin", (event) => {
    const item = /** @type {HTMLElement} */ (event.target).closest("li");
    if (item) setCurrent(grid, [...grid.children].indexOf(item));
  });
  grid.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const buttons = openers(grid);
    const item = /** @type {HTMLElement} */ (event.target).closest("li");
    const at = item ? [...grid.children].indexOf(item) : -1;
    const top = buttons[0]?.offsetParent ? buttons[0].getBoundingClientRect().top : 0;
    const columns = buttons.filter((button) => button.getBoundingClientRect().top === top).length;
    const next = target(event.key, at, Math.max(1, columns), buttons.length);
    if (next === null || at < 0) return;
    event.preventDefault();
    if (next < 0 && event.key === "ArrowUp") leave();
    else buttons[next]?.focus();
  });
}
