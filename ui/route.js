// @ts-check
// The address bar as the state of the page: what is looked for, where, and which view is open.

/**
 * @typedef {{kind: "text", text: string}} TextQuery
 * @typedef {{kind: "file", file: File, modality: "image"|"audio"|"video", film: boolean}} FileQuery
 *   `film`: the file has both a picture and a sound track to search by
 * @typedef {{kind: "asset", id: string, start: number, end: number, track: "video"|"audio"}} AssetQuery
 * @typedef {TextQuery | FileQuery | AssetQuery} Query
 * @typedef {"video"|"audio"|"both"} Look which tracks are looked at
 * @typedef {{view: "search"|"library", query: Query | null, look: Look, best: boolean}} Route
 *   `best`: only the best moment of each file
 */

/** Files cannot be written into an address: they live here, the history entry holds the key. */
/** @type {Map<string, FileQuery>} */
const files = new Map();

/** @returns {Route} */
export function readRoute() {
  const params = new URLSearchParams(location.search);
  const look = params.get("in");
  return {
    view: params.get("view") === "library" ? "library" : "search",
    query: readQuery(params),
    look: look === "sounds" ? "audio" : look === "both" ? "both" : "video",
    best: params.get("best") === "1",
  };
}

/**
 * @param {URLSearchParams} params
 * @returns {Query | null}
 */
function readQuery(params) {
  const kept = files.get(history.state?.file);
  if (kept) return kept;
  const like = params.get("like");
  if (like) {
    const track = params.get("track") === "audio" ? "audio" : "video";
    return { kind: "asset", id: like, start: Number(params.get("from")), end: Number(params.get("to")), track };
  }
  const text = (params.get("q") ?? "").trim();
  return text ? { kind: "text", text } : null;
}

/**
 * The address of a route, to be shared; a file query has none of its own.
 * @param {Route} route
 */
export function address({ view, query, look, best }) {
  const params = new URLSearchParams();
  if (query?.kind === "text") params.set("q", query.text);
  if (query?.kind === "asset") {
    params.set("like", query.id);
    params.set("from", String(query.start));
    params.set("to", String(query.end));
    if (query.track === "audio") params.set("track", "audio");
  }
  if (look !== "video") params.set("in", look === "audio" ? "sounds" : "both");
  if (best) params.set("best", "1");
  if (view === "library") params.set("view", "library");
  const text = params.toString();
  return text ? `/?${text}` : "/";
}

/** Whether an earlier step of this page lies behind the present one. */
export const canGoBack = () => (history.state?.depth ?? 0) > 0;

/**
 * Goes somewhere, as a step that the back button undoes.
 * @param {Route} route
 */
export function go(route) {
  const depth = history.state?.depth ?? 0;
  const target = address(route);
  const query = route.query;
  if (query?.kind !== "file") {
    const same = target === location.pathname + location.search && !history.state?.file;
    if (!same) history.pushState({ depth: depth + 1 }, "", target);
  } else {
    // Entries outlive a reload and the files do not: a number used again would show another file.
    const file = `${Date.now()}.${files.size}`;
    files.set(file, query);
    history.pushState({ depth: depth + 1, file }, "", target);
  }
  window.dispatchEvent(new Event("route"));
}

/**
 * @param {Partial<Route>} change
 */
export function change(change) {
  go({ ...readRoute(), ...change });
}
