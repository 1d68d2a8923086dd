// @ts-check
// Folders on the server that are being indexed: start, live progress, failures, pause, cancel, retry.

import { acts } from "./acts.js";
import { cancelJob, itemsNotIndexed, job, jobEvents, listJobs, startJob, steerJob } from "./api.js";
import { byId, el, lasting, plural, sleep } from "./dom.js";

/** @typedef {import("./api.js").Job} Job */

const STATE = {
  queued: "Waiting",
  running: "Running",
  paused: "Paused",
  done: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};

const form = /** @type {HTMLFormElement} */ (byId("folder-form"));
const path = /** @type {HTMLInputElement} */ (byId("folder-path"));
const deep = /** @type {HTMLInputElement} */ (byId("folder-deep"));
const list = byId("jobs");
const more = /** @type {HTMLButtonElement} */ (byId("jobs-more"));
// A browser opens few connections to one server, and the rest of the page needs some of them.
const MOST_STREAMS = 3;

/** @type {Map<string, ReturnType<typeof card>>} */
const cards = new Map();
const { onClick, onSubmit } = acts(byId("folder-problem"));
let onEnd = () => {};
let streams = 0;
/** @type {string | null} where the jobs that are not shown begin; null where all are */
let older = null;
let listed = false;

/** @param {() => void} ended called when a job has ended */
export function startJobs(ended) {
  onEnd = ended;
  onSubmit(form, async () => add(await startJob(path.value.trim(), deep.checked), true));
  onClick(more, showOlder);
}

/** Shows jobs begun earlier, or elsewhere. */
export async function refreshJobs() {
  const page = await listJobs().catch(() => null);
  if (!page) return;
  for (const one of page.data.reverse()) add(one, false);
  if (!listed) showMoreAfter(page.next);
  listed = true;
}

async function showOlder() {
  const page = await listJobs(older);
  for (const one of page.data) add(one, false, true);
  showMoreAfter(page.next);
}

/** @param {string | null} next */
function showMoreAfter(next) {
  older = next;
  more.hidden = !next;
}

/** @param {Job} shown */
const live = (shown) => ["queued", "running", "paused"].includes(shown.state);

/**
 * @param {Job} begun
 * @param {boolean} mine whether it was begun here just now
 * @param {boolean} [below] whether it goes below the others
 */
function add(begun, mine, below) {
  if (cards.has(begun.id)) return;
  const made = card(begun);
  cards.set(begun.id, made);
  if (below) list.append(made.item);
  else list.prepend(made.item);
  made.draw(begun);
  if (live(begun)) watch(begun.id, made);
  else if (mine) onEnd();
}

/** @param {Job} begun */
function card(begun) {
  const state = el("span", { class: "state" });
  const bar = el("progress", { max: 1, "aria-label": "Files done" });
  const say = el("p", { class: "about", role: "status" });
  const failures = el("ul", {});
  const summary = el("summary", {});
  const details = el("details", { class: "failures", hidden: true }, summary, failures);
  const cancel = el("button", { type: "button", class: "cancel" }, "Cancel");
  const steer = el("button", { type: "button", class: "steer" });
  let next = /** @type {"pause"|"resume"|"retry"} */ ("pause");
  const title = begun.path ?? "A folder";
  const item = el(
    "li",
    { class: "job" },
    el("div", { class: "line" }, el("span", { class: "name", title }, el("bdi", {}, title)), state, steer, cancel),
    bar,
    say,
    details,
  );

  /** @param {Job} now */
  function draw(now) {
    state.textContent = STATE[now.state] ?? now.state;
    state.className = `state ${now.state}`;
    cancel.hidden = !live(now);
    next = now.state === "paused" ? "resume" : live(now) ? "pause" : "retry";
    steer.textContent = { pause: "Pause", resume: "Resume", retry: "Try again" }[next];
    steer.hidden = next === "retry" && (!now.items_failed || now.state === "cancelled");
    bar.hidden = !live(now);
    if (now.items_total) bar.value = (now.items_done + now.items_failed + now.items_skipped) / now.items_total;
    say.textContent = progress(now);
    details.hidden = !now.items_failed && !now.items_skipped;
    summary.textContent = notIndexed(now);
    if (!details.hidden && (details.open || !live(now))) listFailures(now.id, failures);
  }
  onClick(cancel, async () => draw(await cancelJob(begun.id)));
  onClick(steer, async () => {
    const again = next === "retry";
    const now = await steerJob(begun.id, next);
    if (again && live(now)) watch(begun.id, shown);
    draw(now);
  });
  details.addEventListener("toggle", () => details.open && listFailures(begun.id, failures));
  const shown = { item, draw };
  return shown;
}

/** @param {Job} now */
function notIndexed(now) {
  const parts = [];
  if (now.items_failed) parts.push(`${plural(now.items_failed, "file")} failed`);
  if (now.items_skipped) parts.push(`${plural(now.items_skipped, "file")} skipped`);
  return parts.join(", ");
}

/** @param {Job} now */
function progress(now) {
  const ended = now.items_done + now.items_failed + now.items_skipped;
  const parts = [`${ended} of ${plural(now.items_total, "file")}`, plural(now.clips, "moment")];
  if (now.items_partial) parts.push(`${plural(now.items_partial, "file")} read in part`);
  const rate = now.hours_of_media_per_hour;
  if (rate > 0) parts.push(`${rate < 10 ? rate.toFixed(1) : Math.round(rate)}× real time`);
  if (live(now) && now.eta_secs !== null && now.eta_secs !== undefined) parts.push(`about ${lasting(now.eta_secs)} left`);
  if (now.error) parts.push(now.error.message);
  return parts.join(" · ");
}

/**
 * @param {string} id
 * @param {HTMLElement} box
 */
async function listFailures(id, box) {
  const items = await itemsNotIndexed(id).catch(() => []);
  box.replaceChildren(
    ...items.map((item) =>
      el("li", {}, el("span", { class: "name" }, item.path), ` ${item.error?.message ?? "could not be read"}`),
    ),
  );
}

/**
 * Follows a job to its end: by events, and by asking where those break off.
 * @param {string} id
 * @param {ReturnType<typeof card>} shown
 */
async function watch(id, { draw }) {
  const stop = new AbortController();
  let last = /** @type {Job | null} */ (null);
  const streamed = streams < MOST_STREAMS;
  if (streamed) streams += 1;
  try {
    for await (const now of streamed ? jobEvents(id, stop.signal) : []) {
      if (!now.state) continue;
      last = now;
      draw(now);
      if (!live(now)) break;
    }
  } catch {
    // The events broke off; asking goes on below.
  }
  if (streamed) streams -= 1;
  while (!last || live(last)) {
    last = await job(id).catch(() => last);
    if (last) draw(last);
    if (!last || live(last)) await sleep(1500);
  }
  stop.abort();
  onEnd();
}
