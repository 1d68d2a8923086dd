// @ts-check
// Files on their way into the library: sent one after the other, followed until searchable.

import { asset, upload } from "./api.js";
import { ApiError } from "./http.js";
import { byId, bytes, el, icon, lasting, plural, sleep } from "./dom.js";

const list = byId("uploads");
const TRIES = 6;

/** Sending side by side would only split the line; the server indexes side by side anyway. */
let queue = Promise.resolve();
let onChange = () => {};

/** @param {() => void} changed called when the library's list has changed */
export function startUploads(changed) {
  onChange = changed;
}

/** @param {File[]} files */
export function addFiles(files) {
  for (const file of files) {
    const line = row(file);
    list.prepend(line.item);
    queue = queue.then(() => send(file, line));
  }
}

/**
 * @param {File} file
 */
function row(file) {
  const stop = new AbortController();
  const bar = el("progress", { max: 1, value: 0, "aria-label": `Sending ${file.name}` });
  const say = el("span", { class: "say", role: "status" }, "Waiting");
  const button = el(
    "button",
    { type: "button", class: "dismiss", "aria-label": `Cancel ${file.name}`, onClick: () => stop.abort() },
    icon("close"),
  );
  const name = el("span", { class: "name", title: file.name }, file.name);
  const item = el("li", { class: "upload" }, name, el("span", { class: "about" }, bytes(file.size)), say, bar, button);
  return { item, bar, say, button, stop };
}

/** @typedef {ReturnType<typeof row>} Row */

/**
 * @param {Row} line
 * @param {"done"|"failed"} outcome
 * @param {string} sentence
 */
function end({ item, bar, say, button }, outcome, sentence) {
  item.classList.add(outcome);
  bar.remove();
  say.textContent = sentence;
  button.setAttribute("aria-label", "Remove this entry");
  button.addEventListener("click", () => item.remove());
}

/**
 * @param {File} file
 * @param {Row} line
 */
async function send(file, line) {
  const { signal } = line.stop;
  try {
    const { status, asset: added } = await sendPatiently(file, line);
    onChange();
    if (status === 200 && added.state !== "indexing") end(line, "done", "Already in the library");
    else follow(added.id, line);
  } catch (error) {
    end(line, "failed", signal.aborted ? "Cancelled" : /** @type {Error} */ (error).message);
  }
}

/**
 * Sends again after a while where the server says that it is busy.
 * @param {File} file
 * @param {Row} line
 */
async function sendPatiently(file, { bar, say, stop }) {
  const { signal } = stop;
  for (let attempt = 1; ; attempt += 1) {
    signal.throwIfAborted();
    try {
      return await upload(file, {
        signal,
        onProgress: (share) => {
          bar.value = share;
          say.textContent = share < 1 ? `Sending ${Math.floor(100 * share)} %` : "Uploaded, being checked";
        },
      });
    } catch (error) {
      const busy = error instanceof ApiError && (error.status === 429 || error.status === 503);
      if (!busy || attempt === TRIES) throw error;
      const secs = Math.min(60, Math.max(1, error.retryAfterSecs));
      say.textContent = `${error.message} Trying again in ${lasting(secs)}.`;
      await sleep(secs * 1000, signal);
    }
  }
}

/**
 * Until the file is searchable, or known not to be.
 * @param {string} id
 * @param {Row} line
 */
async function follow(id, line) {
  line.bar.removeAttribute("value");
  line.say.textContent = "Indexing";
  // The file is in the library now: nothing is left to cancel.
  line.button.hidden = true;
  for (let wait = 400; ; wait = Math.min(4000, wait * 1.3)) {
    await sleep(wait);
    try {
      const found = await asset(id, { fresh: true });
      if (found.state === "indexing") continue;
      line.button.hidden = false;
      if (found.state === "failed") end(line, "failed", found.error?.message ?? "No part of the file could be read.");
      else if (found.state === "partial") end(line, "done", `Searchable in part: ${found.error?.message ?? ""}`);
      else end(line, "done", `Searchable: ${plural(found.clip_count, "moment")}`);
      return onChange();
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 404) {
        line.button.hidden = false;
        return end(line, "failed", /** @type {Error} */ (error).message);
      }
    }
  }
}
