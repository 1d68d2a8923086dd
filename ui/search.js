// @ts-check
// The search view: from the address to a request, from the answer to the grid.

import { acts } from "./acts.js";
import { listAssets, search, timelineOf } from "./api.js";
import { byId, el, plural } from "./dom.js";
import { acceptPicks, kindOf } from "./files.js";
import { ApiError } from "./http.js";
import { hintAtForeign, showIgnored, showModel, showUnknown } from "./model.js";
import { play, wholeOf } from "./player.js";
import { showQuery } from "./query.js";
import { addHits, focusFirst, listenToKeys } from "./results.js";
import { change, readRoute } from "./route.js";
import { cover, empty } from "./thumb.js";

/**
 * @typedef {import("./api.js").Hit} Hit
 * @typedef {import("./route.js").Route} Route
 * @typedef {import("./route.js").Query} Query
 */

const PAGE = 24;
const RECENT = 10;

const form = /** @type {HTMLFormElement} */ (byId("search-form"));
const box = /** @type {HTMLInputElement} */ (byId("q"));
const grid = byId("results");
const status = byId("status");
const problem = byId("search-problem");
const { complain } = acts(problem);
const more = /** @type {HTMLButtonElement} */ (byId("more"));

/** @type {Hit[]} */
let hits = [];
let fetched = 0;
let running = new AbortController();
/** The search on show, so that coming back to the view does not ask again. */
let shownFor = "";
/** @type {Query | null} */
let shownQuery = null;

export function startSearch() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = box.value.trim();
    if (!text) return change({ query: null });
    shownFor = "";
    change({ query: { kind: "text", text } });
  });
  form.addEventListener("change", (event) => {
    const input = /** @type {HTMLInputElement} */ (event.target);
    if (input.name === "look") change({ look: /** @type {Route["look"]} */ (input.value) });
    if (input.id === "best") change({ best: input.checked });
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" || !hits.length) return;
    event.preventDefault();
    focusFirst(grid);
  });
  listenToKeys(grid, () => box.focus());
  more.addEventListener("click", () => run(readRoute(), fetched));
  acceptPicks(/** @type {HTMLInputElement} */ (byId("query-file")), searchByFiles);
  byId("query-pick").addEventListener("click", () => byId("query-file").click());
}

/** @param {File[]} files */
export function searchByFiles([file]) {
  const kind = kindOf(file);
  change({ view: "search", query: { kind: "file", file, modality: kind, film: kind === "video" } });
}

/**
 * @param {string} id
 * @param {number} start
 * @param {number} end
 * @param {"video"|"audio"} track
 */
export function searchByMoment(id, start, end, track) {
  change({ view: "search", query: { kind: "asset", id, start, end, track } });
  window.scrollTo({ top: 0 });
}

/**
 * Brings the view to what the address says.
 * @param {Route} route
 */
export function showSearch(route) {
  const { query, look, best } = route;
  box.value = query?.kind === "text" ? query.text : "";
  showQuery(query);
  const radio = form.querySelector(`input[name="look"][value="${look}"]`);
  if (radio instanceof HTMLInputElement) radio.checked = true;
  /** @type {HTMLInputElement} */ (byId("best")).checked = best;
  const words = query?.kind === "text" ? query.text : query?.kind === "asset" ? `${query.id} ${query.start}` : "";
  document.title = query?.kind === "text" ? `${query.text} – Triptych` : "Triptych";
  const key = JSON.stringify([words, query && { ...query, file: null }, look, best]);
  const sameFile = query?.kind !== "file" || query === shownQuery;
  if (key === shownFor && sameFile && query) return;
  shownFor = key;
  shownQuery = query;
  if (query) run(route, 0);
  else idle();
}

/** No query: say how to begin. */
export async function idle() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  reset();
  form.removeAttribute("aria-busy");
  try {
    const page = await listAssets({ limit: RECENT });
    if (signal.aborted) return;
    byId("empty-library").hidden = page.data.length > 0;
    byId("start").hidden = page.data.length === 0;
    showRecent(page.data);
    hintAtForeign(page.data);
    showModel();
  } catch (error) {
    if (!signal.aborted) complain(error);
  }
}

/** @param {import("./api.js").Asset[]} assets */
function showRecent(assets) {
  const list = byId("recent");
  empty(list);
  const whole = assets.filter((found) => found.state === "ready" || found.state === "partial").map(wholeOf);
  for (const found of assets.filter((one) => one.state !== "failed")) {
    const name = el("span", { class: "name", title: found.name }, found.name);
    const at = whole.findIndex((moment) => moment.assetId === found.id);
    const onClick = () => (at < 0 ? change({ view: "library" }) : play(whole, at));
    const label = `Open ${found.name}`;
    const button = { type: "button", class: "open", "aria-label": label, onClick };
    list.append(el("li", {}, el("button", button, cover(found), name)));
  }
}

function reset() {
  hits = [];
  fetched = 0;
  empty(grid);
  status.textContent = "";
  problem.hidden = true;
  more.hidden = true;
  for (const id of ["start", "empty-library", "nothing", "unsure", "unknown", "ignored", "foreign"]) byId(id).hidden = true;
}

/**
 * @param {Route} route
 * @param {number} offset
 */
function requestFor({ query, look, best }, offset) {
  const request = {
    targets: look === "both" ? ["video", "audio"] : [look],
    group_by: best ? "asset" : "moment",
    limit: PAGE,
    offset,
  };
  if (query?.kind === "text") return { ...request, query: { text: query.text } };
  if (query?.kind !== "asset") return request;
  const { id, start, end, track } = query;
  return { ...request, query: { asset: { id, start_secs: start, end_secs: end, track } } };
}

/**
 * Searches and shows what is found; a later search takes over from an earlier one.
 * @param {Route} route
 * @param {number} offset
 */
async function run(route, offset) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const { query } = route;
  if (!offset) reset();
  status.textContent = offset ? status.textContent : "Searching…";
  more.disabled = true;
  form.setAttribute("aria-busy", "true");
  try {
    const answer = await search(requestFor(route, offset), uploadOf(query), signal);
    if (!signal.aborted) show(route, answer, offset);
  } catch (error) {
    if (signal.aborted) return;
    status.textContent = "";
    if (query?.kind === "text" && error instanceof ApiError && error.code === "no_known_words") showUnknown(query.text);
    else complain(error);
    shownFor = "";
  } finally {
    if (!signal.aborted) form.removeAttribute("aria-busy");
    more.disabled = false;
  }
}

/** @param {Query | null} query */
function uploadOf(query) {
  return query?.kind === "file" ? { file: query.file, modality: query.modality } : null;
}

/**
 * @param {Route} route
 * @param {{hits: Hit[], ignored: string[], millis: number | null}} answer
 * @param {number} offset
 */
function show(route, answer, offset) {
  problem.hidden = true;
  const full = answer.hits.length === PAGE;
  fetched = offset + answer.hits.length;
  hits = hits.concat(answer.hits);
  /** @type {import("./player.js").AskTimeline} */
  const ask = (id, signal) => timelineOf(id, requestFor(route, 0), uploadOf(route.query), signal);
  addHits(grid, answer.hits, { open: (hit) => play(hits.map(momentOf), hits.indexOf(hit), ask), like });
  if (!offset) {
    showIgnored(answer.ignored);
    hintAtForeign(answer.hits.map((hit) => ({ name: hit.asset_name })));
    byId("unsure").hidden = !hits.length || !hits.every(isUnsure);
  }
  more.hidden = !full;
  byId("nothing").hidden = hits.length > 0;
  const time = answer.millis === null ? "" : ` · ${answer.millis.toFixed(answer.millis < 10 ? 1 : 0)} ms`;
  status.textContent = `${hits.length ? plural(hits.length, "moment") : "No moments"}${full ? ", best first" : ""}${time}`;
}

/**
 * Whether more than half of all queries about something else find as much: `no_match` is stricter, but
 * a person sees the hits and should not be told too early that they are none.
 * @param {Hit} hit
 */
function isUnsure(hit) {
  return hit.confidence !== null && hit.confidence < 0.5;
}

/** @param {Hit} hit */
function like(hit) {
  searchByMoment(hit.asset_id, hit.start_secs, hit.end_secs, hit.matched);
}

/**
 * @param {Hit} hit
 * @returns {import("./player.js").Moment}
 */
function momentOf(hit) {
  return {
    assetId: hit.asset_id,
    name: hit.asset_name,
    start: hit.start_secs,
    end: hit.end_secs,
    track: hit.matched,
    score: hit.score,
    confidence: hit.confidence,
    agreement: hit.agreement,
  };
}
