// @ts-check
// Starts the page: views, keyboard, the API key, and what to say while the server is away.

import { connection, onKeyNeeded, ping } from "./http.js";
import { byId, sleep } from "./dom.js";
import { acceptDrops, acceptPicks } from "./files.js";
import { refreshJobs, startJobs } from "./jobs.js";
import { addNewest, refreshLibrary, startLibrary } from "./library.js";
import { startPlayer } from "./player.js";
import { change, go, readRoute } from "./route.js";
import { idle, searchByFiles, searchByMoment, showSearch, startSearch } from "./search.js";
import { refreshStanding, startStanding } from "./standing.js";
import { addFiles, startUploads } from "./uploads.js";

const box = /** @type {HTMLInputElement} */ (byId("q"));

function show() {
  const route = readRoute();
  const library = route.view === "library";
  byId("search-view").hidden = library;
  byId("library-view").hidden = !library;
  for (const link of document.querySelectorAll("[data-view]")) {
    const here = link.getAttribute("data-view") === route.view;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!library) return showSearch(route);
  document.title = "Library – Triptych";
  refreshLibrary();
  refreshJobs();
  refreshStanding();
}

/** Links of the page change the view without loading the page anew. */
function listenToLinks() {
  document.addEventListener("click", (event) => {
    const link = /** @type {Element} */ (event.target).closest("a[data-view]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    if (link.hasAttribute("data-home")) go({ ...readRoute(), view: "search", query: null });
    else change({ view: link.getAttribute("data-view") === "library" ? "library" : "search" });
    window.scrollTo({ top: 0 });
  });
}

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const typing = /** @type {Element} */ (event.target).closest("input, textarea, select");
    if (event.key === "/" && !typing) {
      event.preventDefault();
      if (readRoute().view !== "search") change({ view: "search" });
      box.focus();
      box.select();
    }
    if (event.key === "Escape" && !typing && readRoute().view === "search") box.focus();
  });
}

function listenForKeyQuestion() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("key"));
  const input = /** @type {HTMLInputElement} */ (byId("key-input"));
  onKeyNeeded(async (refused) => {
    byId("key-refused").hidden = !refused;
    input.value = "";
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    return dialog.returnValue === "use" ? input.value.trim() || null : null;
  });
}

function followConnection() {
  const banner = byId("offline");
  connection.addEventListener("offline", async () => {
    banner.hidden = false;
    while (!banner.hidden) {
      await sleep(2500);
      await ping().catch(() => {});
    }
  });
  connection.addEventListener("online", () => {
    banner.hidden = true;
    const { view, query } = readRoute();
    if (view === "library" || !query) show();
  });
}

startSearch();
startLibrary();
startPlayer(searchByMoment);
function libraryChanged() {
  const { view, query } = readRoute();
  if (view === "library") {
    addNewest();
    refreshStanding();
  } else if (!query) idle();
}

startUploads(libraryChanged);
startJobs(libraryChanged);
startStanding();
acceptDrops(
  () => (readRoute().view === "library" ? "Drop to add to the library" : "Drop to search with this file"),
  (files) => (readRoute().view === "library" ? addFiles(files) : searchByFiles(files)),
);
const picker = /** @type {HTMLInputElement} */ (byId("add-files"));
acceptPicks(picker, addFiles);
byId("add-pick").addEventListener("click", () => picker.click());
listenToLinks();
listenToKeys();
listenForKeyQuestion();
followConnection();
window.addEventListener("popstate", show);
window.addEventListener("route", show);
show();
