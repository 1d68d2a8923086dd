// @ts-check
// The panel that plays a moment, or shows a picture.

import { asset } from "./api.js";
import { media } from "./http.js";
import { byId, bytes, clock, el, icon, lasting } from "./dom.js";
import { thumbnail } from "./thumb.js";
import { heatStrip } from "./heat.js";
import { timeline } from "./timeline.js";

/** @typedef {import("./api.js").Asset} Asset */

/**
 * @typedef {object} Moment
 * @property {string} assetId
 * @property {string} name
 * @property {number} start seconds
 * @property {number} end seconds
 * @property {"video"|"audio"|null} track which track matched; null where nothing was searched
 * @property {number | null} score
 * @property {number | null} [confidence]
 * @property {number | null} [agreement]
 *
 * @typedef {(id: string, signal: AbortSignal) => Promise<import("./api.js").Timeline>} AskTimeline
 *
 * @typedef {(id: string, start: number, end: number, track: "video"|"audio") => void} OnLike
 */

const dialog = /** @type {HTMLDialogElement} */ (byId("player"));
const stage = byId("player-stage");
const facts = byId("player-facts");
const actions = byId("player-actions");
const stopBox = /** @type {HTMLInputElement} */ (byId("player-stop"));

/** @type {AbortController} */
let showing = new AbortController();
/** @type {Moment[]} */
let moments = [];
let at = 0;
/** @type {AskTimeline | null} */
let askTimeline = null;
/** @type {OnLike} */
let onLike = () => {};

/** @param {OnLike} handler */
export function startPlayer(handler) {
  onLike = (...span) => {
    dialog.close();
    handler(...span);
  };
  byId("player-close").addEventListener("click", () => dialog.close());
  byId("player-previous").addEventListener("click", () => step(-1));
  byId("player-next").addEventListener("click", () => step(1));
  dialog.addEventListener("close", clear);
  // A click on the dialog itself, not on what it holds, is a click on the backdrop.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "n") step(1);
    if (event.key === "p") step(-1);
  });
}

/**
 * A whole asset, opened without having been searched for.
 * @param {Asset} found
 * @returns {Moment}
 */
export function wholeOf(found) {
  return { assetId: found.id, name: found.name, start: 0, end: found.duration_secs, track: null, score: null };
}

/**
 * Opens one of a list of moments.
 * @param {Moment[]} list
 * @param {number} index
 * @param {AskTimeline | null} [ask] how the whole asset answers what the moments were found by
 */
export function play(list, index, ask = null) {
  moments = list;
  askTimeline = ask;
  at = index;
  if (!dialog.open) dialog.showModal();
  show();
}

/** @param {number} by */
function step(by) {
  if (!moments[at + by]) return;
  at += by;
  show();
}

function clear() {
  showing.abort();
  for (const player of stage.querySelectorAll("video, audio")) {
    // Without a source the browser lets go of the connection and the decoder at once.
    /** @type {HTMLMediaElement} */ (player).pause();
    player.removeAttribute("src");
    /** @type {HTMLMediaElement} */ (player).load();
  }
  stage.replaceChildren();
  actions.replaceChildren();
}

async function show() {
  clear();
  showing = new AbortController();
  const { signal } = showing;
  const moment = moments[at];
  byId("player-name").textContent = moment.name;
  byId("player-place").textContent = moments.length > 1 ? `${at + 1} of ${moments.length}` : "";
  /** @type {HTMLButtonElement} */ (byId("player-previous")).disabled = at === 0;
  /** @type {HTMLButtonElement} */ (byId("player-next")).disabled = at === moments.length - 1;
  facts.textContent = "";
  try {
    const found = await asset(moment.assetId, { quiet: false });
    if (signal.aborted) return;
    tell(moment, found);
    offer(moment, found);
    await load(moment, found, signal);
  } catch (error) {
    if (!signal.aborted) complain(/** @type {Error} */ (error).message);
  }
}

/** @param {string} sentence */
function complain(sentence) {
  stage.querySelector(".wait")?.remove();
  stage.append(el("p", { class: "problem", role: "alert" }, sentence));
}

/**
 * @param {Moment} moment
 * @param {Asset} found
 */
function tell(moment, found) {
  const parts = [];
  if (found.kind !== "image" && moment.track) parts.push(`${clock(moment.start)} – ${clock(moment.end)}`);
  if (found.kind !== "image") parts.push(`${lasting(found.duration_secs)} in all`);
  if (moment.track) parts.push(`matched by ${moment.track === "video" ? "picture" : "sound"}`);
  if (moment.score !== null) parts.push(`score ${moment.score.toFixed(2)}`);
  if (typeof moment.confidence === "number") parts.push(`confidence ${Math.round(100 * moment.confidence)} %`);
  if (typeof moment.agreement === "number") parts.push(`video and audio agree ${moment.agreement.toFixed(2)}`);
  parts.push(bytes(found.size_bytes));
  for (const [key, value] of Object.entries(found.metadata ?? {})) {
    parts.push(`${key}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
  }
  facts.textContent = parts.join("  ·  ");
}

/**
 * @param {Moment} moment
 * @param {Asset} found
 */
function offer(moment, found) {
  const span = /** @type {const} */ ([moment.assetId, moment.start, moment.end]);
  /** @param {"video"|"audio"} track @param {string} label */
  const button = (track, label) =>
    el("button", { type: "button", class: `like-${track}`, onClick: () => onLike(...span, track) }, icon("like"), label);
  byId("player-options").hidden = found.kind === "image" || !moment.track;
  if (found.kind !== "audio") actions.append(button("video", "More like this picture"));
  if (found.kind !== "image") actions.append(button("audio", "More like this sound"));
}

/**
 * @param {Moment} moment
 * @param {Asset} found
 * @param {AbortSignal} signal
 */
async function load(moment, found, signal) {
  const wait = el("p", { class: "wait" }, "Loading…");
  stage.append(wait);
  const src = await media(found.content_url);
  wait.remove();
  if (signal.aborted) return;
  if (found.kind === "image") showPicture(found, src);
  else playMedia(moment, found, src, signal);
}

/**
 * @param {Asset} found
 * @param {string} src
 */
function showPicture(found, src) {
  const image = el("img", { alt: found.name });
  image.addEventListener("error", () => image.replaceWith(thumbnail(found.thumbnail_url)));
  image.src = src;
  stage.append(image);
}

/**
 * @param {Moment} moment
 * @param {Asset} found
 * @param {string} src
 * @param {AbortSignal} signal
 */
function playMedia(moment, found, src, signal) {
  const player = el(found.kind === "audio" ? "audio" : "video", { controls: true, preload: "auto" });
  if (player instanceof HTMLVideoElement) player.playsInline = true;
  let within = true; // until the person seeks elsewhere, or the moment is over

  /** @param {number} secs */
  const seek = (secs) => {
    player.currentTime = secs;
  };
  player.addEventListener("seeking", () => {
    within = player.currentTime >= moment.start - 0.05 && player.currentTime < moment.end;
  });
  const marks = moments
    .filter((other) => other.assetId === moment.assetId && other.track)
    .map((other) => ({ ...other, track: other.track ?? "", chosen: other === moment }));
  const line = timeline(player, marks, seek);

  function watch() {
    if (signal.aborted) return;
    line.follow();
    if (within && moment.track && player.currentTime >= moment.end) {
      within = false;
      if (stopBox.checked) player.pause();
    }
    if (!player.paused) requestAnimationFrame(watch);
  }
  player.addEventListener("play", watch);
  player.addEventListener("loadedmetadata", () => begin(player, moment), { once: true });
  player.addEventListener("error", () => {
    if (signal.aborted) return;
    const picture = found.thumbnail_url && thumbnail(found.thumbnail_url, (moment.start + moment.end) / 2);
    player.replaceWith(picture || "");
    complain("This browser cannot play the format of this file; it is searchable all the same.");
  });
  player.src = `${src}#t=${moment.start}`;
  stage.append(player, line.bar);
  if (askTimeline && moment.track) {
    const { strip, fill } = heatStrip(player, seek);
    stage.append(strip);
    // Without it the moment plays all the same.
    askTimeline(moment.assetId, signal).then(fill, () => strip.remove());
  }
  if (moment.track) actions.prepend(replayButton(player, () => seek(moment.start)));
}

/**
 * @param {HTMLMediaElement} player
 * @param {Moment} moment
 */
function begin(player, moment) {
  if (Math.abs(player.currentTime - moment.start) > 0.05) player.currentTime = moment.start;
  // Browsers may refuse to start by themselves; the controls are there.
  player.play().catch(() => {});
}

/**
 * @param {HTMLMediaElement} player
 * @param {() => void} rewind
 */
function replayButton(player, rewind) {
  const again = () => {
    rewind();
    player.play().catch(() => {});
  };
  return el("button", { type: "button", class: "again", onClick: again }, icon("again"), "Play again");
}
