// What a model saw and chose at one timestep, drawn into the page. Both pages use it.
"use strict";

const COLORS = { red: "#c62828", green: "#2e7d32", blue: "#1565c0", purple: "#7b1fa2", yellow: "#9a7b00", grey: "#5b6672" };
const ARROWS = ["→", "↓", "←", "↑"];

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") made.className = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((each) => each !== null));
  return made;
}

const percent = (share) => (share > 0 && share < 0.005 ? "<1%" : `${Math.round(100 * share)}%`);

function drawChoices(target, legend, moment) {
  const parts = legend.choices.map((choice, number) => {
    const shares = moment.bars[number], chosen = moment.chosen[number];
    const title = element("div", { class: "field" }, choice.field);
    const body = shares.length > 12 ? histogram(choice, shares, chosen) : bars(choice, shares, chosen);
    return element("div", { class: "choice" }, legend.choices.length > 1 || shares.length > 12 ? title : null, ...body);
  });
  target.replaceChildren(...parts);
}

function bars(choice, shares, chosen) {
  return shares.map((share, index) =>
    element("div", { class: index === chosen ? "bar is-chosen" : "bar" },
      element("span", { class: "name", title: choice.labels[index] }, choice.labels[index]),
      element("span", { class: "track" }, element("span", { class: "fill", style: `width:${100 * share}%` })),
      element("span", { class: "share" }, percent(share), index === chosen ? element("span", { class: "visually-hidden" }, " chosen") : null)));
}

function histogram(choice, shares, chosen) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const most = Math.max(...shares, 1e-6);
  svg.setAttribute("viewBox", `0 0 ${shares.length} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "histogram");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${choice.field}: chosen near ${choice.labels[chosen]}, held to be ${percent(shares[chosen])} likely`);
  shares.forEach((share, index) => {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = Math.max(1, (98 * share) / most);
    for (const [key, value] of Object.entries({ x: index + 0.08, width: 0.84, y: 100 - height, height })) rect.setAttribute(key, value);
    if (index === chosen) rect.setAttribute("class", "is-chosen");
    svg.append(rect);
  });
  const short = (text) => String(Number(Number(text).toPrecision(3)));
  return [svg, element("div", { class: "ends" },
    element("span", {}, short(choice.labels[0])),
    element("b", {}, `${short(choice.labels[chosen])}, ${percent(shares[chosen])}`),
    element("span", {}, short(choice.labels[choice.labels.length - 1])))];
}

function drawHeader(target, header) {
  target.replaceChildren(...header.map((token) =>
    element("span", { class: `chip mono is-${token.range}`, title: token.id === null ? "a vector of its own" : `id ${token.id}, range ${token.range}` }, token.value)));
}

function drawSeen(target, legend, moment, before) {
  const planes = legend.pictures.map((picture) => plane(picture, legend, moment, before));
  const rows = [];
  legend.fields.forEach((field, index) => {
    if (inPlane(legend, index)) return;
    const own = field.role === "action" ? " is-action" : "";
    rows.push(element("tr", { class: `is-${field.range}${own}` },
      element("td", { class: "mono" }, field.field), element("td", {}, moment.ids[index]),
      element("td", { class: "kind" }, field.range), element("td", { class: "mono" }, moment.words[index])));
  });
  const head = element("tr", {}, ...["field", "id", "range", "in words"].map((each) => element("th", { scope: "col" }, each)));
  const table = element("table", { class: "words" }, element("thead", {}, head), element("tbody", {}, ...rows));
  target.replaceChildren(...planes, element("div", { style: "flex:1 1 260px;min-width:0" }, table));
}

const inPlane = (legend, index) =>
  legend.pictures.some((each) => index >= each.first && index < each.first + each.rows * each.columns);

function plane(picture, legend, moment, before) {
  const cells = [];
  // In a view with named cells the agent stands in the middle of the last row, and looks up.
  const own = legend.cells ? (picture.rows - 1) * picture.columns + Math.floor(picture.columns / 2) : -1;
  for (let index = 0; index < picture.rows * picture.columns; index += 1) {
    // The first axis of a view with named cells is x: it is drawn transposed, as the environment shows it.
    const grid = picture.kind === "grid";
    const place = picture.first + (grid && legend.cells ? (index % picture.columns) * picture.rows + Math.floor(index / picture.columns) : index);
    cells.push(grid ? gridCell(legend, moment, place, index === own) : frameCell(legend, moment, before, place));
  }
  const what = picture.kind === "grid" ? "cells of the grid in view" : "codes of the frame";
  return element("div", { class: "plane", role: "img", "aria-label": `${picture.rows} by ${picture.columns} ${what}`,
    style: `grid-template-columns:repeat(${picture.columns},1fr)` }, ...cells);
}

function frameCell(legend, moment, before, place) {
  const word = moment.words[place].replace("code ", "");
  const changed = before && before.ids[place] !== moment.ids[place];
  return element("div", { class: changed ? "cell is-new" : "cell", title: `id ${moment.ids[place]}, ${moment.words[place]}` }, word);
}

function gridCell(legend, moment, place, isOwn) {
  const word = moment.words[place];
  const [kind, color] = word.replace(/[()]/g, "").split(", ").map(Number);
  const names = legend.cells;
  if (!names) return element("div", { class: "cell", title: word }, String(kind));
  if (isOwn) return element("div", { class: "cell is-own", title: `the agent itself ${word}` }, "▲");
  const object = names.object[kind] || "", tint = names.color[color] || "";
  const plain = ["unseen", "empty", "wall", "floor"].includes(object);
  const style = plain ? (object === "wall" ? "background:var(--random)" : object === "unseen" ? "opacity:.35" : null) : `background:${COLORS[tint] || "#555"}`;
  return element("div", { class: plain ? "cell" : "cell is-thing", style, title: `${plain ? "" : tint + " "}${object} ${word}` }, plain ? "" : object);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("generalist-theme", theme); } catch (error) { /* a file may have no storage */ }
}

function startTheme(button) {
  let theme = null;
  try { theme = localStorage.getItem("generalist-theme"); } catch (error) { /* as above */ }
  setTheme(theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  button.addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
}
