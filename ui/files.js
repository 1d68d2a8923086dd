// @ts-check
// Files dropped on the page or picked from disk.

import { byId } from "./dom.js";

const KINDS = /** @type {const} */ (["image", "audio", "video"]);
const ENDINGS = {
  image: /\.(jpe?g|png|webp|gif|bmp|avif)$/i,
  audio: /\.(wav|mp3|flac|ogg|opus|m4a|aac|aiff?)$/i,
};

/**
 * What a file seems to be; the server looks at the bytes.
 * @param {File} file
 * @returns {"image"|"audio"|"video"}
 */
export function kindOf(file) {
  const named = KINDS.find((kind) => file.type.startsWith(`${kind}/`));
  if (named) return named;
  if (ENDINGS.image.test(file.name)) return "image";
  return ENDINGS.audio.test(file.name) ? "audio" : "video";
}

/**
 * All files of a folder that was dropped.
 * @param {FileSystemEntry} entry
 * @returns {Promise<File[]>}
 */
async function filesOf(entry) {
  if (entry.isFile) {
    const file = /** @type {FileSystemFileEntry} */ (entry);
    return [await new Promise((resolve, reject) => file.file(resolve, reject))];
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  const found = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const inner of some) if (!inner.name.startsWith(".")) found.push(...(await filesOf(inner)));
  }
}

/**
 * @param {DataTransfer} data
 * @returns {Promise<File[]>}
 */
async function dropped(data) {
  // Entries must be taken before the first await: the browser empties the list then.
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  const plain = [...data.files];
  if (!entries.some((entry) => entry?.isDirectory)) return plain;
  return (await Promise.all(entries.map((entry) => (entry ? filesOf(entry) : [])))).flat();
}

/**
 * Takes files dropped anywhere on the page, and shows meanwhile what dropping would do.
 * @param {() => string} hint
 * @param {(files: File[]) => void} take
 */
export function acceptDrops(hint, take) {
  const veil = byId("veil");
  /** @param {DragEvent} event */
  const carriesFiles = (event) => Boolean(event.dataTransfer?.types.includes("Files"));
  const blocked = () => document.querySelector("dialog[open]") !== null;
  let depth = 0;

  document.addEventListener("dragenter", (event) => {
    if (!carriesFiles(event) || blocked()) return;
    depth += 1;
    byId("veil-text").textContent = hint();
    veil.hidden = false;
  });
  document.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) veil.hidden = true;
  });
  document.addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  document.addEventListener("drop", async (event) => {
    depth = 0;
    veil.hidden = true;
    if (!carriesFiles(event) || !event.dataTransfer) return;
    event.preventDefault();
    if (blocked()) return;
    const files = await dropped(event.dataTransfer);
    if (files.length) take(files);
  });
}

/**
 * Takes files picked with a file input, which is emptied so that the same file can be picked again.
 * @param {HTMLInputElement} input
 * @param {(files: File[]) => void} take
 */
export function acceptPicks(input, take) {
  input.addEventListener("change", () => {
    const files = [...(input.files ?? [])];
    input.value = "";
    if (files.length) take(files);
  });
}
