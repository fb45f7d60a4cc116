// The page of `generalist watch`: tiles that play, and one task looked into step by step.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
let playingAll = !calm;
let speed = 1;
let open = null; // number of the task in the dialog
let at = 0; // its step
let playing = false; // whether the film in the dialog runs

// Films lie in the page as base64; as blobs they can be sought in every browser.
const urls = {};
function filmUrl(id) {
  if (urls[id]) return urls[id];
  const source = document.getElementById(id);
  if (!source) return null;
  const bytes = Uint8Array.from(atob(source.textContent.trim()), (each) => each.charCodeAt(0));
  urls[id] = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
  source.remove();
  return urls[id];
}

const short = (value) => (value === null || value === undefined ? "–" : String(Number(Number(value).toPrecision(4))));
const returns = data.tasks.map((task) => {
  let sum = 0;
  return task.moments.map((moment) => (sum += moment.reward));
});

function moment(number, step) {
  const task = data.tasks[number], packed = task.moments[step];
  return { ...packed, words: packed.words.map((index) => task.lexicon[index]) };
}

function film(id, label) {
  const url = filmUrl(id);
  if (!url) return null;
  const video = element("video", { loop: true, playsinline: true, preload: "auto", "aria-label": label });
  video.muted = true; // the attribute alone does not allow autoplay
  video.src = url;
  return video;
}

// Tiles

const tiles = data.tasks.map((task, number) => {
  const video = film(`film-${number}`, `${task.task}, an episode`);
  const live = element("span", { class: "live mono" }, "");
  const stage = element("button", { class: "stage", "aria-label": `Look inside ${task.task}` },
    video || element("span", { class: "nofilm" }, `No film here: ${task.no_film || "the environment shows no pictures."}`),
    live, element("span", { class: "open", "aria-hidden": "true" }, "look inside"));
  stage.addEventListener("click", () => show(number));
  const slash = task.task.indexOf("/");
  const told = task.instruction ? element("p", { class: "told" }, "told: ", element("b", {}, `“${task.instruction}”`)) : null;
  const tile = element("article", { class: "tile" }, stage, element("div", { class: "about" },
    element("h2", {}, element("span", { class: "family" }, task.task.slice(0, slash + 1)), task.task.slice(slash + 1)),
    element("p", { class: "small soft" }, task.description), told, scale(task)));
  $("grid").append(tile);
  return { video, live, task, number };
});

function scale(task) {
  const { scores } = task;
  const from = scores.random, to = scores.expert, agent = scores.agent;
  const span = to - from, place = (value) => Math.max(0, Math.min(100, (100 * (value - from)) / span));
  const parts = [];
  if (agent && agent.normalized !== null) {
    const range = agent.interval ? element("span", { class: "range", style: `left:${place(agent.interval[0])}%;width:${place(agent.interval[1]) - place(agent.interval[0])}%` }) : null;
    parts.push(element("div", { class: "track", role: "img", "aria-label": `from random to expert: ${Math.round(place(agent.mean))} of 100` },
      element("span", { class: "reach", style: `width:${place(agent.mean)}%` }), range));
  }
  const succeeds = task.metric === "success", solved = task.success ?? task.return > 0;
  const told = (value) => (succeeds && value !== null ? `${Math.round(100 * value)}%` : short(value));
  const episode = succeeds ? (solved ? "solved" : "not solved") : short(task.return);
  const own = agent ? (succeeds ? told(agent.mean) : agent.text) : episode;
  parts.push(element("div", { class: "numbers" }, element("span", {}, `random ${told(from)}`),
    element("span", {}, agent ? "agent " : "this episode ", element("b", {}, own)), element("span", {}, `expert ${told(to)}`)));
  const over = agent ? `${agent.episodes} whole episodes` : "episodes";
  const unit = succeeds ? `share of ${over} that succeed` : `mean return of ${over}, in the task's own rewards`;
  const alone = agent && agent.normalized === null ? "; no normalised score, so no bar" : "";
  parts.push(element("p", { class: "unit" }, unit + alone));
  return element("div", { class: "scale" }, ...parts);
}

function stepOf(task, video) {
  return Math.min(task.moments.length - 1, Math.floor(video.currentTime * task.fps + 1e-3) * task.stride);
}

function tick() {
  for (const { video, live, task, number } of tiles) {
    if (!video) continue;
    const step = stepOf(task, video);
    live.textContent = `step ${step}  return ${short(returns[number][step])}`;
  }
  requestAnimationFrame(tick);
}

function playAll(playing) {
  playingAll = playing;
  $("all").textContent = playing ? "Pause all" : "Play all";
  $("all").setAttribute("aria-pressed", String(playing));
  for (const { video } of tiles) if (video) playing ? video.play().catch(() => {}) : video.pause();
}

// One task

let big = null, decoded = null;

function show(number) {
  stop();
  open = number;
  at = 0;
  const task = data.tasks[number];
  if (!$("inside").open) { for (const { video } of tiles) video?.pause(); $("inside").showModal(); }
  $("inside-title").textContent = task.task;
  big = film(`film-${number}`, task.task);
  decoded = film(`seen-${number}`, "the frame as its tokens say it");
  $("big").replaceChildren(big || element("div", { class: "nofilm" }, task.no_film || ""));
  $("decoded").replaceChildren(...(decoded ? [decoded, element("p", { class: "small soft" }, "the frame, decoded from its tokens")] : []));
  if (decoded) decoded.className = "decoded";
  $("step").max = task.moments.length - 1;
  drawHeader($("header"), task.header);
  const legend = task.legend, one = legend.positions === 1 ? "position" : "positions";
  $("form").textContent = `${legend.tokens} tokens a step, ${legend.positions} ${one} of the model (${legend.form} form).`;
  const drawn = task.bins_temperature ?? task.temperature;
  $("sampled").textContent = `The bars are what the model believes. ${drawn === 0 ? "The likeliest is taken." : `The action is drawn from them at temperature ${drawn}.`}`;
  const ends = { terminated: "The task ended the episode", truncated: "The step limit ended the episode", cut: "The film ends before the episode does" };
  const solved = task.success === null ? "" : task.success ? ", solved" : ", not solved";
  const most = `An episode has at most ${task.limit.toLocaleString("en")} steps.`;
  $("outcome").textContent = `${ends[task.ended]}, with return ${short(task.return)}${solved}. ${most} Seed ${task.seed.toLocaleString("en")}.`;
  drawSpark(number);
  go(0);
  if (!calm) start();
}

function drawSpark(number) {
  const values = returns[number], low = Math.min(0, ...values), high = Math.max(0, ...values), span = high - low || 1;
  const points = values.map((value, index) => `${(100 * index) / Math.max(1, values.length - 1)},${94 - (88 * (value - low)) / span}`);
  $("spark").innerHTML = `<path d="M${points.join("L")}"/><line x1="0" x2="0" y1="0" y2="100"/>`;
}

// Show a step, and move the films there.
function go(step) {
  const task = data.tasks[open];
  draw(Math.max(0, Math.min(task.moments.length - 1, step)));
  for (const video of [big, decoded]) if (video) video.currentTime = (Math.floor(at / task.stride) + 0.5) / task.fps;
}

function draw(step) {
  const task = data.tasks[open], last = task.moments.length - 1;
  at = step;
  const now = moment(open, at), before = at > 0 ? moment(open, at - 1) : null;
  $("step").value = at;
  $("where").textContent = `step ${at} of ${last}, return ${short(returns[open][at])}`;
  $("action").replaceChildren(element("b", { class: "mono" }, now.action), now.value === null ? "" : `  expecting a return of ${short(now.value)}`);
  drawChoices($("choices"), task.legend, now);
  drawSeen($("seen"), task.legend, now, before);
  const x = (100 * at) / Math.max(1, last);
  const line = $("spark").querySelector("line");
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
}

// While it plays, the film says which step is shown; where there is no film, a clock does.
function start() {
  const task = data.tasks[open], began = performance.now(), from = at;
  stop();
  playing = {};
  $("play").textContent = "Pause";
  for (const video of [big, decoded]) if (video) { video.playbackRate = speed; video.play().catch(() => {}); }
  const mine = playing;
  const follow = (now) => {
    if (playing !== mine) return;
    const late = Math.floor(((now - began) / 1000) * task.fps * speed) * task.stride;
    const step = big ? stepOf(task, big) : (from + Math.max(0, late)) % task.moments.length;
    if (step !== at) draw(step);
    requestAnimationFrame(follow);
  };
  requestAnimationFrame(follow);
}

function stop() {
  playing = false;
  for (const video of [big, decoded]) video?.pause();
  $("play").textContent = "Play";
}

const toggle = () => (playing ? stop() : start());
const turn = (by) => show((open + by + data.tasks.length) % data.tasks.length);

$("play").addEventListener("click", toggle);
$("back").addEventListener("click", () => { stop(); go(at - 1); });
$("forward").addEventListener("click", () => { stop(); go(at + 1); });
$("step").addEventListener("input", () => { stop(); go(Number($("step").value)); });
$("previous").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));
$("close").addEventListener("click", () => $("inside").close());
$("inside").addEventListener("click", (event) => { if (event.target === $("inside")) $("inside").close(); });
$("inside").addEventListener("close", () => { stop(); if (playingAll) playAll(true); });
$("all").addEventListener("click", () => playAll(!playingAll));
$("speed").addEventListener("change", () => {
  speed = Number($("speed").value);
  for (const { video } of tiles) if (video) video.playbackRate = speed;
  if (playing) start();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (!$("inside").open) {
    if (event.key === "p") playAll(!playingAll);
    return;
  }
  const slider = event.target === $("step"), pressed = event.target.tagName === "BUTTON";
  const moves = { ArrowLeft: -1, ArrowRight: 1 };
  if (event.key in moves && !slider) { stop(); go(at + moves[event.key]); }
  else if (event.key === " " && !pressed) toggle();
  else if (event.key === "Home" && !slider) { stop(); go(0); }
  else if (event.key === "End" && !slider) { stop(); go(data.tasks[open].moments.length - 1); }
  else return;
  event.preventDefault();
});

// Words of the page

$("title").textContent = data.title;
$("facts").replaceChildren(...data.facts.map(([value, what]) => element("span", {}, element("b", {}, value), ` ${what}`)));
$("notes").replaceChildren(...data.notes.map((each) => element("p", {}, each)));
startTheme($("theme"));
playAll(playingAll);
tick();
