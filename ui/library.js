// @ts-check
// The list of what is in the library.

import { acts } from "./acts.js";
import { asset, deleteAsset, listAssets } from "./api.js";
import { byId, bytes, clock, el, icon, plural, sleep } from "./dom.js";
import { play, wholeOf } from "./player.js";
import { cover, empty } from "./thumb.js";

/** @typedef {import("./api.js").Asset} Asset */

const PAGE = 20;
const KIND = { video: "Video", audio: "Sound", image: "Picture" };
const STATE = { indexing: "Indexing", ready: "Ready", partial: "Partial", failed: "Failed" };

const list = byId("assets");
const more = /** @type {HTMLButtonElement} */ (byId("assets-more"));
const problem = byId("library-problem");
const status = byId("assets-status");
const { complain } = acts(problem);
/** @type {string | null} */
let next = null;

export function startLibrary() {
  more.addEventListener("click", () => loadPage(next));
}

/** Reads the list anew. */
export function refreshLibrary() {
  return loadPage(null);
}

/** Adds what is new on top, and leaves the rows that are there, with the focus in them, alone. */
export async function addNewest() {
  const page = await listAssets({ limit: PAGE, quiet: true }).catch(() => null);
  const here = new Set([...list.children].map((item) => /** @type {HTMLElement} */ (item).dataset.id));
  const first = list.firstChild;
  for (const found of page?.data ?? []) {
    if (!here.has(found.id)) list.insertBefore(row(found), first);
  }
  count();
}

/** @param {string | null} after */
async function loadPage(after) {
  more.disabled = true;
  try {
    const page = await listAssets({ limit: PAGE, after });
    problem.hidden = true;
    if (!after) empty(list);
    list.append(...page.data.map(row));
    next = page.next;
  } catch (error) {
    complain(error);
  }
  more.disabled = false;
  count();
}

function count() {
  const shown = list.children.length;
  more.hidden = !next;
  byId("assets-empty").hidden = shown > 0 || !problem.hidden;
  status.textContent = shown ? `${plural(shown, "file")}${next ? ", newest first; more below" : ""}` : "";
}

/**
 * A row of the list, which follows its asset until that is finished.
 * @param {Asset} shown
 */
function row(shown) {
  const item = el("li", { class: "asset" });
  item.dataset.id = shown.id;
  draw(item, shown);
  if (shown.state === "indexing") follow(item, shown.id);
  return item;
}

/**
 * @param {HTMLElement} item
 * @param {string} id
 */
async function follow(item, id) {
  for (let wait = 700; ; wait = Math.min(5000, wait * 1.3)) {
    await sleep(wait);
    const found = await asset(id, { fresh: true }).catch(() => null);
    if (!item.isConnected) return;
    if (!found || found.state === "indexing") continue;
    return draw(item, found);
  }
}

/**
 * @param {HTMLElement} item
 * @param {Asset} shown
 */
function draw(item, shown) {
  const open = el(
    "button",
    { type: "button", class: "open", "aria-label": `Open ${shown.name}`, onClick: () => play([wholeOf(shown)], 0) },
    cover(shown),
  );
  const state = el("span", { class: `state ${shown.state}` }, STATE[shown.state] ?? shown.state);
  const sentence = shown.error ? el("p", { class: "why" }, shown.error.message) : null;
  const remove = el(
    "button",
    { type: "button", class: "delete", "aria-label": `Delete ${shown.name}`, onClick: () => confirmDelete(item, shown) },
    icon("delete"),
  );
  const words = el(
    "div",
    { class: "words" },
    el("span", { class: "name", title: shown.name }, shown.name),
    el("span", { class: "about" }, about(shown)),
    sentence,
  );
  empty(item);
  item.append(open, words, state, remove);
}

/** @param {Asset} shown */
function about(shown) {
  const parts = [shown.kind ? KIND[shown.kind] : "File"];
  if (shown.duration_secs > 0 && shown.kind !== "image") parts.push(clock(shown.duration_secs));
  parts.push(bytes(shown.size_bytes));
  if (shown.clip_count > 0 && shown.kind !== "image") parts.push(plural(shown.clip_count, "moment"));
  return parts.join(" · ");
}

/**
 * @param {HTMLElement} item
 * @param {Asset} shown
 */
async function confirmDelete(item, shown) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("confirm"));
  byId("confirm-name").textContent = shown.name;
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "delete") return;
  try {
    await deleteAsset(shown.id);
    item.remove();
    count();
    byId("assets-title").focus();
  } catch (error) {
    complain(error);
  }
}
