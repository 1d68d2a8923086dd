// @ts-check
// A thumbnail, or a sign of the kind of file where there is no picture.

import { media } from "./http.js";
import { el, icon } from "./dom.js";

/** Pixels of a thumbnail's longer side: twice the width of a card, for dense screens. */
const SIZE_PX = 480;

/**
 * @param {string | null} path
 * @param {number | null} [at] second of the asset; null: as the server chose
 * @param {"sound"|"unknown"} [instead] what to show where there is no picture
 */
export function thumbnail(path, at = null, instead = "sound") {
  const box = el("span", { class: "thumb" });
  if (!path) {
    box.append(icon(instead));
    return box;
  }
  const url = new URL(path, location.origin);
  url.searchParams.set("size", String(SIZE_PX));
  if (at !== null) url.searchParams.set("at", at.toFixed(2));
  const image = el("img", { alt: "", decoding: "async", loading: "lazy" });
  // Pictures must not hold up the next search: browsers open few connections to one server.
  image.fetchPriority = "low";
  image.addEventListener("error", () => image.replaceWith(icon("picture")));
  box.append(image);
  load(image, url.pathname + url.search).catch(() => image.replaceWith(icon("picture")));
  return box;
}

/**
 * The thumbnail of an asset as a whole: some way in, for many videos begin in black.
 * @param {import("./api.js").Asset} asset
 */
export function cover({ thumbnail_url: path, kind, duration_secs: length }) {
  return thumbnail(path, kind === "video" ? length / 3 : null, kind === "audio" ? "sound" : "unknown");
}

/**
 * @param {HTMLImageElement} image
 * @param {string} path
 */
async function load(image, path) {
  image.src = await media(path);
}

/**
 * Empties an element and stops the pictures in it that are still on their way.
 * @param {HTMLElement} box
 */
export function empty(box) {
  for (const image of box.querySelectorAll("img")) if (!image.complete) image.removeAttribute("src");
  box.replaceChildren();
}
