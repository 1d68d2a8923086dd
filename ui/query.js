// @ts-check
// The card that shows a query which is not text: a file, or a moment of the library.

import { asset } from "./api.js";
import { byId, bytes, clock, el, icon } from "./dom.js";
import { canGoBack, change, readRoute } from "./route.js";
import { empty, thumbnail } from "./thumb.js";

/** @typedef {import("./route.js").Query} Query */

const card = byId("query-card");
/** @type {Query | null} */
let shown = null;
let release = () => {};

/**
 * Shows the query, or nothing for a text query or none.
 * @param {Query | null} query
 */
export function showQuery(query) {
  if (query === shown) return;
  shown = query;
  release();
  release = () => {};
  empty(card);
  card.hidden = !query || query.kind === "text";
  if (!query || query.kind === "text") return;
  const preview = el("div", { class: "preview" });
  const title = el("strong", { class: "name" });
  const about = el("span", { class: "about" });
  const words = el("div", { class: "words" }, title, about, tracks(query));
  if (query.kind === "file") previewFile(query, preview, title, about);
  else previewAsset(query, preview, title, about);
  card.append(preview, words, ways());
}

function ways() {
  const clear = () => change({ query: null });
  return el(
    "div",
    { class: "ways" },
    canGoBack() &&
      el("button", { type: "button", id: "query-back", onClick: () => history.back() }, icon("back"), "Back"),
    el("button", { type: "button", id: "query-clear", onClick: clear }, icon("close"), "Clear"),
  );
}

/**
 * @param {import("./route.js").FileQuery} query
 * @param {HTMLElement} preview
 * @param {HTMLElement} title
 * @param {HTMLElement} about
 */
function previewFile({ file, modality, film }, preview, title, about) {
  const url = URL.createObjectURL(file);
  release = () => URL.revokeObjectURL(url);
  const kind = modality === "image" ? "img" : film ? "video" : "audio";
  const view = el(kind, kind === "img" ? { alt: "The picture used for the search" } : { controls: true, preload: "metadata" });
  view.addEventListener("error", () => preview.replaceChildren(icon(modality === "audio" ? "sound" : "picture")));
  view.src = url;
  preview.classList.add(kind);
  preview.append(view);
  title.textContent = file.name;
  about.textContent = `Your ${{ img: "picture", audio: "sound", video: "video" }[kind]}, ${bytes(file.size)}`;
}

/**
 * @param {import("./route.js").AssetQuery} query
 * @param {HTMLElement} preview
 * @param {HTMLElement} title
 * @param {HTMLElement} about
 */
async function previewAsset(query, preview, title, about) {
  title.textContent = "A moment from the library";
  about.textContent = `${clock(query.start)} – ${clock(query.end)}`;
  const found = await asset(query.id, { quiet: false }).catch(() => null);
  if (!found || shown !== query) return;
  preview.append(thumbnail(found.thumbnail_url, (query.start + query.end) / 2));
  title.textContent = found.name;
  if (found.kind === "image") about.textContent = "A picture from the library";
}

/**
 * A choice between picture and sound where the query has, or may have, both.
 * @param {import("./route.js").FileQuery | import("./route.js").AssetQuery} query
 */
function tracks(query) {
  if (query.kind === "file" && !query.film) return null;
  const now = query.kind === "file" ? query.modality : query.track;
  /** @param {"video"|"audio"} track @param {string} label */
  const choice = (track, label) =>
    el(
      "label",
      {},
      el("input", { type: "radio", name: "query-track", value: track, checked: now === track, onChange: () => pick(track) }),
      el("span", {}, icon(track === "video" ? "picture" : "sound"), label),
    );
  return el(
    "fieldset",
    { class: "choice small" },
    el("legend", { class: "unseen" }, "Search by"),
    choice("video", "By its picture"),
    choice("audio", "By its sound"),
  );
}

/** @param {"video"|"audio"} track */
function pick(track) {
  const { query } = readRoute();
  if (query?.kind === "file") change({ query: { ...query, modality: track } });
  if (query?.kind === "asset") change({ query: { ...query, track } });
}
