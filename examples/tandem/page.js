"use strict";
const at = (id) => document.getElementById(id);
const filters = ["folder", "tag", "word", "after", "before"];
let example = null;   // the picture that is looked for
let asked = null;     // the request under way
let shown = [];       // what the list holds
let current = -1;     // which of it is open
let timer = 0;

const token = new URLSearchParams(location.search).get("token");
if (token) history.replaceState(null, "", "/");  // the cookie has it now

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

async function ask(url, options = {}) {
  const response = await fetch(url, options);
  const answer = await response.json().catch(() => ({error: response.statusText}));
  if (!response.ok) throw new Error(answer.error || response.statusText);
  return answer;
}

function state() {
  const parameters = new URLSearchParams();
  for (const [name, id] of [["q", "query"], ["by", "by"], ["sort", "sort"], ...filters.map((name) => [name, name])]) {
    if (at(id).value) parameters.set(name, at(id).value);
  }
  return parameters;
}

function card(picture, index) {
  const percent = picture.probability === null || picture.probability === undefined ? "" : Math.round(100 * picture.probability) + " % ";
  const image = element("img", {src: "/thumbnail/" + picture.id, alt: picture.alt || "", loading: "lazy"});
  const button = element("button", {type: "button", className: "card", title: picture.path, onclick: () => open(index)}, image,
    element("span", {}, element("small", {textContent: percent}), picture.path.split("/").pop(), element("br"),
      ...(picture.words || []).flatMap((word) => [element("mark", {textContent: word}), " "])));
  return element("li", {className: picture.relevant === false ? "less" : ""}, button);
}

function fill(items) {
  at("results").replaceChildren(...items);
}

async function search() {
  clearTimeout(timer);
  if (asked) asked.abort();
  const parameters = state();
  history.replaceState(null, "", parameters.size ? "#" + parameters : "#");
  if (!parameters.get("q") && !example) {
    shown = [];
    fill([]);
    at("status").textContent = "";
    return overview();
  }
  const mine = asked = new AbortController();
  try {
    const answer = await ask("/api/search?" + parameters,
      {signal: mine.signal, ...(example ? {method: "POST", body: example, headers: {"Content-Type": example.type || "image/jpeg"}} : {})});
    shown = answer.results;
    const items = shown.map(card);
    const fold = shown.findIndex((picture) => !picture.relevant);
    if (fold >= 0) items.splice(fold, 0, element("li", {className: "fold", textContent: "Less relevant"}));
    fill(items);
    at("empty").hidden = shown.length > 0;
    at("empty").textContent = "Nothing found.";
    at("status").textContent = answer.relevant.toLocaleString("en") + " relevant of " + answer.searched.toLocaleString("en") + ", in " +
      answer.milliseconds.toFixed(0) + " ms";
  } catch (error) {
    if (error.name !== "AbortError") at("status").textContent = error.message;
  } finally {
    if (asked === mine) asked = null;
  }
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(search, 120);
}

async function overview() {
  const status = await ask("/api/status").catch((error) => ({error: error.message}));
  if (status.error) return void (at("status").textContent = status.error);
  if (!at("query").value && !example) {
    at("status").textContent = status.pictures.toLocaleString("en") + " pictures, model " + status.model +
      (status.fitted_on ? "" : ", whose percentages are rough: too few captions to learn from") +
      (status.indexing ? " — indexing: " + status.indexing : "");
  }
  at("unreadable").replaceChildren(...(status.unreadable.length
    ? [element("p", {textContent: status.unreadable.length + " pictures cannot be read:"}),
       element("ul", {}, ...status.unreadable.map((error) => element("li", {textContent: error})))] : []));
}

function look_for(picture) {
  if (example) URL.revokeObjectURL(at("example").querySelector("img").src);
  example = picture;
  at("example").hidden = !picture;
  if (picture) at("example").querySelector("img").src = URL.createObjectURL(picture);
  search();
}

function open(index) {
  const picture = shown[index];
  if (!picture) return;
  current = index;
  at("large").src = "/picture/" + picture.id;
  at("large").alt = picture.alt || "";
  at("name").textContent = picture.path.split("/").pop();
  at("about").textContent = [picture.path, picture.date, picture.width + " × " + picture.height].filter(Boolean).join(" · ");
  at("why").textContent = picture.probability === null || picture.probability === undefined ? "" :
    "Fits with a probability of " + (100 * picture.probability).toFixed(1) + " %" +
    (picture.words && picture.words.length ? "; has the words " + picture.words.join(", ") : "");
  at("caption").textContent = picture.caption || "";
  at("phrase").value = at("query").value.replace(/id:\d+/g, "").replace(/^[\s+-]+|[\s+-]+$/g, "");
  if (!at("preview").open) at("preview").showModal();
  tags();
}

async function tags() {
  const id = shown[current].id;
  at("tags").replaceChildren();
  const answer = await ask("/api/suggest?id=" + id).catch(() => null);
  if (!answer || !shown[current] || shown[current].id !== id) return;
  const set = async (label, accepted) => {
    await ask("/api/tag", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({id, label, accepted})})
      .catch((error) => { at("status").textContent = error.message; });
    tags();
  };
  const yes = (label) => element("button", {type: "button", textContent: "✓", title: "Accept " + label, onclick: () => set(label, true)});
  const no = (label) => element("button", {type: "button", textContent: "✕", title: "Refuse " + label, onclick: () => set(label, false)});
  at("tags").append(
    ...answer.accepted.map((label) => element("li", {className: "has"}, label, no(label))),
    ...answer.suggested.map((one) => element("li", {title: (100 * one.probability).toFixed(1) + " %"}, one.label, yes(one.label), no(one.label))));
  at("own-tag").onsubmit = (event) => {
    event.preventDefault();
    if (at("label").value.trim()) set(at("label").value.trim(), true);
    at("label").value = "";
  };
}

async function twins() {
  at("status").textContent = "Looking for duplicates…";
  try {
    const answer = await ask("/api/duplicates");
    shown = [];
    const items = [];
    for (const group of answer.groups) {
      items.push(element("li", {className: "fold", textContent: group.same_file ? "The same file" : "Alike"}));
      for (const picture of group.pictures) {
        items.push(card(picture, shown.length));
        shown.push(picture);
      }
    }
    fill(items);
    at("status").textContent = answer.groups.length + " groups";
  } catch (error) {
    at("status").textContent = error.message;
  }
}

for (const id of ["query", ...filters]) at(id).addEventListener("input", soon);
for (const id of ["by", "sort"]) at(id).addEventListener("change", search);
at("form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
at("more-filters").addEventListener("click", () => {
  at("filters").hidden = !at("filters").hidden;
  at("more-filters").setAttribute("aria-expanded", String(!at("filters").hidden));
});
at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", () => { if (at("file").files.length) look_for(at("file").files[0]); });
at("twins").addEventListener("click", twins);
at("example").querySelector("button").addEventListener("click", () => look_for(null));
at("close").addEventListener("click", () => at("preview").close());
at("preview").addEventListener("close", () => at("results").querySelectorAll(".card")[current]?.focus());
at("like").addEventListener("click", () => { at("query").value = "id:" + shown[current].id; at("preview").close(); search(); });
at("unlike").addEventListener("click", () => {
  at("query").value = (at("query").value.trim() + " - id:" + shown[current].id).trim();
  at("preview").close();
  search();
});
at("heat").addEventListener("submit", (event) => {
  event.preventDefault();
  const phrase = at("phrase").value.trim();
  at("large").src = phrase ? "/heat/" + shown[current].id + "?q=" + encodeURIComponent(phrase) : "/picture/" + shown[current].id;
});

addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
addEventListener("dragleave", () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.dataTransfer.files.length) look_for(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  const picture = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
  if (picture) look_for(picture);
});
addEventListener("keydown", (event) => {
  const writes = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !writes) {
    event.preventDefault();
    at("query").focus();
    at("query").select();
  }
  const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1}[event.key];
  if (!step) return;
  if (at("preview").open && !writes && (event.key === "ArrowRight" || event.key === "ArrowLeft")) return open(current + step);
  const cards = [...at("results").querySelectorAll(".card")];
  const place = cards.indexOf(document.activeElement);
  if (place < 0 && !(event.key === "ArrowDown" && event.target === at("query"))) return;
  event.preventDefault();
  const columns = getComputedStyle(at("results")).gridTemplateColumns.split(" ").length;
  const far = event.key === "ArrowDown" || event.key === "ArrowUp" ? columns * step : step;
  (place < 0 ? cards[0] : cards[place + far])?.focus();
});

for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
  const field = at(name === "q" ? "query" : name);
  if (field && ["q", "by", "sort", ...filters].includes(name)) field.value = value;
}
search();
setInterval(() => { if (!at("query").value && !example && !document.hidden && !shown.length) overview(); }, 2000);
