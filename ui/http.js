// @ts-check
// The way to the server: errors as sentences, the API key, uploads, media that need the key.

const KEY_SLOT = "triptych-api-key";

/** What went wrong, in the server's words where it spoke. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, code?: string, retryAfterSecs?: number}} [facts]
   */
  constructor(message, facts = {}) {
    super(message);
    this.name = "ApiError";
    this.status = facts.status ?? 0;
    this.code = facts.code ?? "unknown";
    this.retryAfterSecs = facts.retryAfterSecs ?? 0;
  }
}

/** Fires `offline` and `online` as the server stops and starts answering. */
export const connection = new EventTarget();
let online = true;

/** @param {boolean} now */
function setOnline(now) {
  if (now === online) return;
  online = now;
  connection.dispatchEvent(new Event(now ? "online" : "offline"));
}

/** @returns {string | null} */
const apiKey = () => sessionStorage.getItem(KEY_SLOT);

/** @type {(refused: boolean) => Promise<string | null>} */
let askForKey = async () => null;
/** @type {Promise<boolean> | null} */
let asking = null;

/**
 * Who asks the person for the key when a call answers 401.
 * @param {(refused: boolean) => Promise<string | null>} ask gets whether a key was refused
 */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/**
 * Whether to try again: another key than the refused one is there now.
 * @param {string | null} refused
 */
async function anotherKey(refused) {
  if (apiKey() !== refused) return true;
  asking ??= askForKey(refused !== null)
    .then((key) => {
      if (key) sessionStorage.setItem(KEY_SLOT, key);
      return Boolean(key);
    })
    .finally(() => {
      asking = null;
    });
  return asking;
}

function offlineError() {
  return new ApiError("The server does not answer. Check that it is running and that you can reach it.", {
    code: "offline",
  });
}

/**
 * @param {number} status
 * @param {string} text
 * @param {string | null} retryAfter
 */
function errorFrom(status, text, retryAfter) {
  let body;
  try {
    body = JSON.parse(text).error;
  } catch {
    body = undefined;
  }
  const message = body?.message ?? `The server answered with status ${status} and no error message.`;
  return new ApiError(message, { status, code: body?.code, retryAfterSecs: Number(retryAfter) || 0 });
}

/**
 * One call. `quiet` calls do not ask for a key: they run in the background.
 * @param {string} path
 * @param {RequestInit & {quiet?: boolean}} [options]
 * @returns {Promise<Response>}
 */
export async function call(path, options = {}) {
  for (;;) {
    const key = apiKey();
    const headers = new Headers(options.headers);
    if (key) headers.set("Authorization", `Bearer ${key}`);
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      setOnline(false);
      throw offlineError();
    }
    setOnline(true);
    if (response.ok) return response;
    const error = errorFrom(response.status, await response.text(), response.headers.get("Retry-After"));
    if (response.status !== 401 || options.quiet || !(await anotherKey(key))) throw error;
  }
}

/**
 * @param {string} path
 * @param {RequestInit & {quiet?: boolean}} [options]
 */
export async function callJson(path, options) {
  return (await call(path, options)).json();
}

/** @param {unknown} body */
export const jsonBody = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

/** Asks whether the server can be reached; `connection` tells the answer. */
export async function ping() {
  await call("/livez", { quiet: true, cache: "no-store" });
}

// A server that refuses a body by closing the connection looks like one that is gone.
function cutOff() {
  return new ApiError(
    "The connection was lost during the upload. The server may be down, or the file may be larger than it accepts.",
    { code: "cut_off" },
  );
}

/**
 * Sends a file as multipart. XMLHttpRequest, since fetch does not tell how much has gone out.
 * @param {string} path
 * @param {File} file
 * @param {{onProgress: (share: number) => void, signal: AbortSignal}} how
 * @returns {Promise<{status: number, body: any}>}
 */
export async function sendFile(path, file, how) {
  for (;;) {
    const key = apiKey();
    try {
      return await sendOnce(path, file, key, how);
    } catch (error) {
      const refused = error instanceof ApiError && error.status === 401;
      if (!refused || !(await anotherKey(key))) throw error;
    }
  }
}

/**
 * @param {string} path
 * @param {File} file
 * @param {string | null} key
 * @param {{onProgress: (share: number) => void, signal: AbortSignal}} how
 * @returns {Promise<{status: number, body: any}>}
 */
function sendOnce(path, file, key, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    const form = new FormData();
    form.set("file", file, file.name);
    xhr.open("POST", path);
    if (key) xhr.setRequestHeader("Authorization", `Bearer ${key}`);
    xhr.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    xhr.addEventListener("error", () => reject(cutOff()));
    xhr.addEventListener("abort", () => reject(new ApiError("Cancelled.", { code: "cancelled" })));
    xhr.addEventListener("load", () => {
      const good = xhr.status >= 200 && xhr.status < 300;
      if (good) resolve({ status: xhr.status, body: JSON.parse(xhr.responseText) });
      else reject(errorFrom(xhr.status, xhr.responseText, xhr.getResponseHeader("Retry-After")));
    });
    signal.addEventListener("abort", () => xhr.abort());
    xhr.send(form);
  });
}

/** @type {Promise<unknown> | null} */
let session = null;
connection.addEventListener("online", () => {
  session = null; // the server may be a new one, which does not know the old cookie
});

/**
 * An address that an `<img>`, `<video>` or `<audio>` can load. Elements cannot send the key; where
 * there is one, a cookie that only opens media is asked for first.
 * @param {string} path
 * @returns {Promise<string>}
 */
export async function media(path) {
  const url = new URL(path, location.origin);
  if (url.origin !== location.origin) throw new ApiError("This file is on another server.");
  if (apiKey()) {
    session ??= call("/v1/session", { method: "POST", quiet: true }).catch((error) => {
      session = null;
      throw error;
    });
    await session;
  }
  return url.pathname + url.search;
}
