// @ts-check
// Which model answers, what it knows, and what to do if that is not what the library shows.

import { listModels } from "./api.js";
import { byId, el, plural } from "./dom.js";

/** @typedef {import("./api.js").Model} Model */

/** A list of fewer words than this is of a toy world: no one can describe footage with it. */
const FEW_WORDS = 1000;
const HELP = "/ui/own-footage.html";

/** @type {Promise<Model | null> | null} */
let asked = null;

/** The serving model; null where it cannot be asked. */
export function serving() {
  asked ??= listModels().then(
    ({ data }) => data.find((model) => model.role === "serving") ?? data[0] ?? null,
    () => {
      asked = null;
      return null;
    },
  );
  return asked;
}

/** @param {Model} model */
function isToy(model) {
  return model.vocabulary_words !== null && model.vocabulary_words < FEW_WORDS;
}

/** What a model knows, in a sentence or two. @param {Model} model */
function knows(model) {
  const words = model.vocabulary_words === null ? "" : ` It knows ${plural(model.vocabulary_words, "word")}.`;
  const languages = model.languages.length ? ` Languages: ${model.languages.join(", ")}.` : "";
  return `${model.description ? `${model.description.replace(/\.$/, "")}.` : ""}${words}${languages}`;
}

function help() {
  return el("a", { href: HELP, class: "help" }, "Search your own footage");
}

/** Names the model in the footer. */
export async function showModel() {
  const model = await serving();
  const line = byId("model");
  if (!model) return;
  const license = model.license ? `, ${model.license}` : "";
  line.replaceChildren("Answers: ", el("b", {}, model.id), license);
  line.title = knows(model);
  line.hidden = false;
}

/**
 * Says so if the library holds what a toy model cannot know.
 * @param {{name: string}[]} assets some of the library
 */
export async function hintAtForeign(assets) {
  const place = byId("foreign");
  const model = await serving();
  const isForeign = model && isToy(model) && assets.some((found) => !model.samples.includes(found.name));
  place.hidden = !isForeign;
  if (!isForeign) return;
  place.replaceChildren(
    el("b", {}, `${model.id} cannot judge this library. `),
    knows(model),
    " Its hits in other footage mean nothing. ",
    help(),
    ".",
  );
}

/**
 * Says which words of a query the model left out.
 * @param {string[]} words
 */
export function showIgnored(words) {
  const place = byId("ignored");
  place.hidden = !words.length;
  place.replaceChildren(
    `Unknown words left out: ${words.join(", ")}. The more words are left out, the lower the confidence of the hits. `,
    help(),
    ".",
  );
}

/**
 * Says that the model knows no word of a query.
 * @param {string} text the query
 */
export async function showUnknown(text) {
  const model = await serving();
  const place = byId("unknown");
  place.replaceChildren(
    el("b", {}, `${model ? model.id : "The model"} knows no word of “${text}”. `),
    model ? `${knows(model)} ` : "",
    "To find other things, use a model that knows them: ",
    help(),
    ".",
  );
  place.hidden = false;
}
