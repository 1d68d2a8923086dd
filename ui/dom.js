// @ts-check
// Small helpers for building elements and wording numbers. Names given by users only ever enter
// the page as text nodes: nothing here, or anywhere else, parses a string as HTML.

/** @typedef {Node | string | null | undefined | false} Child */

const SVG = "http://www.w3.org/2000/svg";

/**
 * The element with this id; its absence is a mistake in index.html.
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return /** @type {T} */ (found);
}

/**
 * Builds an element. `on…` keys become listeners, keys that are properties are set as properties,
 * all others become attributes; children are nodes or text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [props]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2).toLowerCase(), value);
    else if (key === "class") node.className = value;
    else if (key in node && !key.startsWith("aria")) Reflect.set(node, key, value);
    else node.setAttribute(key, String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/**
 * An icon from the sprite in index.html.
 * @param {string} name
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/**
 * Seconds as `0:03.2`, `12:07` or `1:02:03`; tenths where they matter.
 * @param {number} secs
 * @param {boolean} [tenths]
 */
export function clock(secs, tenths = true) {
  const all = Math.max(0, tenths ? Math.round(secs * 10) / 10 : Math.floor(secs));
  const hours = Math.floor(all / 3600);
  const minutes = Math.floor((all % 3600) / 60);
  const rest = all % 60;
  const digits = tenths ? rest.toFixed(1).padStart(4, "0") : String(rest).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${digits}` : `${minutes}:${digits}`;
}

/**
 * Seconds as a person says them: `8 s`, `4 min`, `2 h 10 min`.
 * @param {number} secs
 */
export function lasting(secs) {
  if (secs < 90) return `${Math.max(1, Math.round(secs))} s`;
  if (secs < 5400) return `${Math.round(secs / 60)} min`;
  return `${Math.floor(secs / 3600)} h ${Math.round((secs % 3600) / 60)} min`;
}

/** @param {number} size bytes */
export function bytes(size) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = size;
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${value.toFixed(unit && value < 10 ? 1 : 0)} ${units[unit]}`;
}

/**
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

/**
 * Places a mark on a bar that stands for a whole asset.
 * @param {HTMLElement} mark
 * @param {number} start seconds
 * @param {number} end seconds
 * @param {number} total seconds of the asset
 */
export function placeMark(mark, start, end, total) {
  const whole = Math.max(total, end, 0.001);
  mark.style.setProperty("left", `${(100 * start) / whole}%`);
  mark.style.setProperty("width", `${(100 * Math.max(0, end - start)) / whole}%`);
}

/**
 * Waits, unless told to stop.
 * @param {number} millis
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(millis, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, millis);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
