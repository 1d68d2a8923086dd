// @ts-check
// What is watched for: words that every new file is compared with, and which files matched them.

import { acts } from "./acts.js";
import { dropStanding, listStanding, standingMatches, steerStanding, watchFor } from "./api.js";
import { byId, clock, el, plural } from "./dom.js";
import { play } from "./player.js";

/** @typedef {import("./api.js").StandingQuery} StandingQuery */
/** @typedef {import("./api.js").Match} Match */

const form = /** @type {HTMLFormElement} */ (byId("standing-form"));
const words = /** @type {HTMLInputElement} */ (byId("standing-words"));
const heard = /** @type {HTMLInputElement} */ (byId("standing-sounds"));
const old = /** @type {HTMLInputElement} */ (byId("standing-old"));
const list = byId("standing");
/**
 * One query as shown.
 * @typedef {object} Card
 * @property {HTMLElement} item
 * @property {(now: StandingQuery) => void} draw
 */

/** @type {Map<string, Card>} */
const cards = new Map();
const { onClick, onSubmit } = acts(byId("standing-problem"));

export function startStanding() {
  onSubmit(form, async () => {
    const targets = heard.checked ? ["video", "audio"] : ["video"];
    list.prepend(card(await watchFor(words.value.trim(), targets, old.checked)).item);
    words.value = "";
  });
}

/** Reads the list anew; what is shown already, with the focus in it, stays where it is. */
export async function refreshStanding() {
  const found = (await listStanding().catch(() => [])).reverse();
  for (const one of found) {
    const known = cards.get(one.id);
    if (known) known.draw(one);
    else list.prepend(card(one).item);
  }
}

/** @param {StandingQuery} shown */
function title(shown) {
  const parts = shown.query.map((part) => part.text ?? "a file");
  return shown.name ?? parts.join(", ");
}

/** @param {StandingQuery} now */
function state(now) {
  if (now.error) return now.error.message;
  if (!now.enabled) return "Paused";
  return now.can_match ? "Watching" : "The library is still too small to find confident matches";
}

/**
 * @param {StandingQuery} begun
 * @returns {Card}
 */
function card(begun) {
  const name = title(begun);
  const say = el("p", { class: "about", role: "status" });
  const matches = el("ul", {});
  const summary = el("summary", {});
  const details = el("details", { class: "matches" }, summary, matches);
  const steer = el("button", { type: "button", class: "steer" });
  const drop = el("button", { type: "button", class: "cancel", "aria-label": `Stop watching for ${name}` }, "Stop");
  const line = el("div", { class: "line" }, el("span", { class: "name", title: name }, el("bdi", {}, name)), steer, drop);
  const item = el("li", { class: "job" }, line, say, details);
  let now = begun;

  /** @param {StandingQuery} changed */
  function draw(changed) {
    now = changed;
    steer.textContent = now.enabled ? "Pause" : "Resume";
    say.textContent = state(now);
    details.hidden = !now.match_count;
    summary.textContent = `${plural(now.match_count, "file")} matched`;
  }
  onClick(steer, async () => draw(await steerStanding(now.id, !now.enabled)));
  onClick(drop, async () => {
    await dropStanding(now.id);
    cards.delete(now.id);
    item.remove();
    words.focus();
  });
  details.addEventListener("toggle", async () => {
    if (!details.open) return;
    const found = await standingMatches(now.id).catch(() => []);
    matches.replaceChildren(...found.map((_, at) => row(found, at)));
  });
  draw(begun);
  const shown = { item, draw };
  cards.set(begun.id, shown);
  return shown;
}

/**
 * @param {Match[]} found
 * @param {number} at
 */
function row(found, at) {
  const { asset_name: name, peak_secs: peak } = found[at];
  const moments = found.map((one) => ({
    assetId: one.asset_id,
    name: one.asset_name,
    start: one.start_secs,
    end: one.end_secs,
    track: one.matched,
    score: one.score,
  }));
  const open = el("button", { type: "button", class: "plain", onClick: () => play(moments, at) }, name);
  return el("li", {}, open, ` at ${clock(peak)}`);
}
