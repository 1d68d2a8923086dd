// @ts-check
// What the page asks of the server, one function per call of the API.

import { call, callJson, jsonBody, sendFile } from "./http.js";

/**
 * @typedef {object} Asset
 * @property {string} id
 * @property {string} name
 * @property {"video"|"audio"|"image"|null} kind
 * @property {"indexing"|"ready"|"partial"|"failed"} state
 * @property {{code: string, message: string} | null} error
 * @property {number} duration_secs
 * @property {number} size_bytes
 * @property {number} clip_count
 * @property {string} content_url
 * @property {string | null} thumbnail_url
 * @property {Record<string, unknown>} metadata
 *
 * @typedef {object} Hit
 * @property {number} rank
 * @property {string} asset_id
 * @property {string} asset_name
 * @property {number} start_secs
 * @property {number} end_secs
 * @property {number} score
 * @property {number | null} confidence
 * @property {number | null} agreement
 * @property {"video"|"audio"} matched
 * @property {string | null} thumbnail_url
 * @property {string} content_url
 * @property {Record<string, unknown>} metadata
 *
 * @typedef {{start_secs: number, end_secs: number, score: number, confidence: number | null,
 *   matched: "video"|"audio", agreement: number | null}} ScoredClip
 *
 * @typedef {object} Timeline
 * @property {ScoredClip[]} data
 * @property {{start_secs: number, end_secs: number, peak_secs: number, score: number,
 *   confidence: number | null}[]} moments
 * @property {number | null} usual_score
 * @property {string[]} spaces
 *
 * @typedef {object} Job
 * @property {string} id
 * @property {"queued"|"running"|"paused"|"done"|"failed"|"cancelled"} state
 * @property {string | null} path
 * @property {{code: string, message: string} | null} error
 * @property {number} items_total
 * @property {number} items_done
 * @property {number} items_failed
 * @property {number} items_skipped
 * @property {number} items_partial
 * @property {number} clips
 * @property {number} media_secs
 * @property {number} hours_of_media_per_hour
 * @property {number | null} eta_secs
 *
 * @typedef {object} StandingQuery
 * @property {string} id
 * @property {string | null} name
 * @property {{text?: string}[]} query
 * @property {boolean} enabled
 * @property {boolean} can_match
 * @property {{code: string, message: string} | null} error
 * @property {number} match_count
 *
 * @typedef {object} Model
 * @property {string} id
 * @property {"serving"|"beside"} role
 * @property {string} description
 * @property {string} license
 * @property {string[]} languages
 * @property {number | null} vocabulary_words
 * @property {string[]} samples
 *
 * @typedef {{asset_id: string, asset_name: string, start_secs: number, end_secs: number, peak_secs: number,
 *   score: number, matched: "video"|"audio"}} Match
 */

/**
 * @param {object} request as `POST /v1/search` takes it, `query` left out where a file is sent
 * @param {{file: File, modality: string} | null} upload
 * @param {AbortSignal} signal
 * @returns {Promise<{hits: Hit[], ignored: string[], millis: number | null}>}
 */
export async function search(request, upload, signal) {
  const response = await ask("/v1/search", request, upload, signal);
  const millis = Number(response.headers.get("x-total-time-ms") ?? NaN);
  const { data, ignored_words: ignored } = await response.json();
  return { hits: data, ignored, millis: Number.isFinite(millis) ? millis : null };
}

/** @returns {Promise<{data: Model[]}>} */
export async function listModels() {
  return callJson("/v1/models", { quiet: true });
}

/**
 * Every clip of an asset, scored for the query of a search.
 * @param {string} id
 * @param {object} request
 * @param {{file: File, modality: string} | null} upload
 * @param {AbortSignal} signal
 * @returns {Promise<Timeline>}
 */
export async function timelineOf(id, request, upload, signal) {
  const response = await ask(`/v1/assets/${encodeURIComponent(id)}/timeline`, request, upload, signal);
  return response.json();
}

/**
 * @param {string} path
 * @param {object} request
 * @param {{file: File, modality: string} | null} upload
 * @param {AbortSignal} signal
 */
function ask(path, request, upload, signal) {
  let init = jsonBody(request);
  if (upload) {
    const form = new FormData();
    form.set("request", JSON.stringify(request));
    form.set("modality", upload.modality);
    form.set("file", upload.file, upload.file.name);
    init = /** @type {any} */ ({ method: "POST", body: form });
  }
  return call(path, { ...init, signal });
}

/** @type {Map<string, Promise<Asset>>} */
const assets = new Map();

/**
 * One asset, remembered once it is finished.
 * @param {string} id
 * @param {{fresh?: boolean, quiet?: boolean}} [how]
 * @returns {Promise<Asset>}
 */
export function asset(id, { fresh = false, quiet = true } = {}) {
  const known = assets.get(id);
  if (known && !fresh) return known;
  const asked = callJson(`/v1/assets/${encodeURIComponent(id)}`, { quiet });
  assets.set(id, asked);
  asked.then(
    (found) => found.state === "indexing" && assets.delete(id),
    () => assets.delete(id),
  );
  return asked;
}

/**
 * @param {{limit: number, after?: string | null, quiet?: boolean}} page
 * @returns {Promise<{data: Asset[], next: string | null}>}
 */
export async function listAssets({ limit, after, quiet = false }) {
  const params = new URLSearchParams({ limit: String(limit) });
  if (after) params.set("after", after);
  const body = await callJson(`/v1/assets?${params}`, { quiet });
  return { data: body.data, next: body.next ?? null };
}

/** @param {string} id */
export async function deleteAsset(id) {
  await call(`/v1/assets/${encodeURIComponent(id)}`, { method: "DELETE" });
  assets.delete(id);
}

/**
 * Sends a file to the library; status 200 means that the same bytes were there already.
 * @param {File} file
 * @param {{onProgress: (share: number) => void, signal: AbortSignal}} how
 * @returns {Promise<{status: number, asset: Asset}>}
 */
export async function upload(file, how) {
  const { status, body } = await sendFile("/v1/assets", file, how);
  return { status, asset: body };
}

/**
 * @param {string} path
 * @param {boolean} recursive
 * @returns {Promise<Job>}
 */
export function startJob(path, recursive) {
  const init = jsonBody({ type: "index", path, recursive });
  const token = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("");
  return callJson("/v1/jobs", { ...init, headers: { ...init.headers, "Idempotency-Key": token } });
}

/**
 * @param {string | null} [after] `next` of the page before
 * @returns {Promise<{data: Job[], next: string | null}>}
 */
export function listJobs(after) {
  const from = after ? `&after=${encodeURIComponent(after)}` : "";
  return callJson(`/v1/jobs?limit=6${from}`, { quiet: true });
}

/**
 * @param {string} id
 * @returns {Promise<Job>}
 */
export function job(id) {
  return callJson(`/v1/jobs/${encodeURIComponent(id)}`, { quiet: true });
}

/**
 * @param {string} id
 * @returns {Promise<Job>}
 */
export function cancelJob(id) {
  return callJson(`/v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
}

/**
 * @param {string} id
 * @param {"pause"|"resume"|"retry"} what
 * @returns {Promise<Job>}
 */
export function steerJob(id, what) {
  return callJson(`/v1/jobs/${encodeURIComponent(id)}/${what}`, { method: "POST" });
}

/**
 * @param {string} id
 * @returns {Promise<{path: string, error: {message: string} | null}[]>}
 */
export async function itemsNotIndexed(id) {
  const of = (/** @type {string} */ state) =>
    callJson(`/v1/jobs/${encodeURIComponent(id)}/items?state=${state}&limit=100`, { quiet: true });
  const [failed, skipped] = await Promise.all([of("failed"), of("skipped")]);
  return [...failed.data, ...skipped.data];
}

/**
 * Words that every new file is to be compared with.
 * @param {string} text
 * @param {string[]} targets
 * @param {boolean} backfill also what is there already
 * @returns {Promise<StandingQuery>}
 */
export function watchFor(text, targets, backfill) {
  return callJson("/v1/standing-queries", jsonBody({ query: { text }, targets, backfill }));
}

/** @returns {Promise<StandingQuery[]>} */
export async function listStanding() {
  return (await callJson("/v1/standing-queries?limit=20", { quiet: true })).data;
}

/**
 * @param {string} id
 * @param {boolean} enabled
 * @returns {Promise<StandingQuery>}
 */
export function steerStanding(id, enabled) {
  return callJson(`/v1/standing-queries/${encodeURIComponent(id)}`, { ...jsonBody({ enabled }), method: "PATCH" });
}

/** @param {string} id */
export async function dropStanding(id) {
  await call(`/v1/standing-queries/${encodeURIComponent(id)}`, { method: "DELETE" });
}

/**
 * @param {string} id
 * @returns {Promise<Match[]>}
 */
export async function standingMatches(id) {
  return (await callJson(`/v1/standing-queries/${encodeURIComponent(id)}/matches?limit=20`, { quiet: true })).data;
}

/**
 * The job as it changes. Read with fetch, because EventSource cannot carry the key.
 * @param {string} id
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Job>}
 */
export async function* jobEvents(id, signal) {
  const headers = { Accept: "text/event-stream" };
  const path = `/v1/jobs/${encodeURIComponent(id)}/events`;
  const response = await call(path, { headers, signal, quiet: true });
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value.replaceAll("\r", "");
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop() ?? "";
    for (const block of blocks) {
      const data = block
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart());
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}
