// @ts-check
// A thumbnail, or a sign of the kind of file where there is no picture.

import { media } from "./http.js";
import { el, icon } from "./dom.js";

/** Pixels of a thumbnail's longer side: twice the width of a card, for dense screens. */
const SIZE_PX = 480;

/**
 * @param {string | null} path
 * @param {number | null} [at] second of the asset; null: as the server chose
 */
export function thumbnail(path, at = null) {
  const box = el("span", { class: "thumb" });
  if (!path) {
    box.append(icon("sound"));
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
 * @param {HTMLImageElement} image
 * @param {string} path
 */
async function load(image, path) {
  const { src, release } = await media(path);
  // A blob is at hand already, and a lazy image might never load to let go of it.
  if (src.startsWith("blob:")) image.loading = "eager";
  image.addEventListener("load", release);
  image.addEventListener("error", release);
  image.src = src;
}

/**
 * Empties an element and stops the pictures in it that are still on their way.
 * @param {HTMLElement} box
 */
export function empty(box) {
  for (const image of box.querySelectorAll("img")) if (!image.complete) image.removeAttribute("src");
  box.replaceChildren();
}
