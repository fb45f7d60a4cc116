// The page of `generalist play`: it shows what the server sends, and says what the person does.
"use strict";

const $ = (id) => document.getElementById(id);
const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "space", Enter: "enter" };
let socket = null, game = null, state = null, before = null, held = [];

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/play`);
  socket.binaryType = "arraybuffer";
  socket.addEventListener("message", (event) => (typeof event.data === "string" ? heard(JSON.parse(event.data)) : drawn(event.data)));
  socket.addEventListener("close", (event) => {
    for (const button of document.querySelectorAll("main button:not(#theme)")) button.disabled = true;
    say(`The server is gone${event.reason ? `: ${event.reason}` : ""}. Start it again, then reload this page.`);
  });
}

const tell = (type, rest = {}) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify({ type, ...rest }));
function say(text) { $("error").textContent = text; $("error").classList.toggle("hidden", !text); }

const HEARD = {
  hello(message) {
    $("who").textContent = `${message.checkpoint}, generalist ${message.version}`;
    const option = (task) => element("option", { value: task }, task);
    const groups = [element("optgroup", { label: "The checkpoint plays" }, ...message.tasks.map(option))];
    if (message.alone.length) groups.push(element("optgroup", { label: "You play, it does not know" }, ...message.alone.map(option)));
    $("task").replaceChildren(...groups);
    const wanted = decodeURIComponent(location.hash.slice(1));
    if ([...message.tasks, ...message.alone].includes(wanted)) { $("task").value = wanted; start(); }
  },
  started(message) {
    game = message;
    before = null;
    held = [];
    say("");
    for (const id of ["saved", "action", "choices", "seen", "header"]) $(id).replaceChildren();
    $("description").textContent = message.description;
    const views = Array.from({ length: message.agents }, (_, slot) => {
      const view = element("button", { "aria-label": `Agent ${slot + 1}`, "aria-pressed": slot === 0 && message.agents > 1 },
        element("canvas", { width: 4, height: 3 }), element("span", { class: "over mono" }));
      view.addEventListener("click", (event) => {
        if (message.controls.cells && state?.control) moveTo(event, view.firstChild, message.controls.cells);
        else if (message.controls.motions.length && state?.control) view.requestPointerLock?.();
        else tell("look", { slot });
        $("views").focus();
      });
      return view;
    });
    $("views").className = `views of-${message.agents}`;
    $("views").replaceChildren(...views);
    $("inside").classList.toggle("hidden", !message.known);
    $("ask").classList.toggle("hidden", !message.asks);
    drawKeys(message.controls);
    for (const id of ["run", "once", "again", "save"]) $(id).disabled = false;
    const can = message.controls.buttons.length + message.controls.sliders.length + message.controls.toggles.length > 0;
    $("control").disabled = !can || !message.known;
  },
  state(message) {
    const same = state && before && state.look === message.look;
    state = message;
    $("run").textContent = message.running ? "Pause" : "Go on";
    $("control").textContent = message.control ? "Hand back" : "Take over";
    $("control").setAttribute("aria-pressed", String(message.control));
    $("keys").classList.toggle("hidden", !message.control);
    $("views").classList.toggle("is-mine", message.control);
    const now = message.slots[message.look];
    const over = now.done ? `, over${now.success === null ? "" : now.success ? ", solved" : ", not solved"}` : "";
    const turn = message.waiting && !now.done ? ", your turn" : "";
    const told = message.instruction ? `  “${message.instruction}”` : "";
    const asked = message.wanted ? `  asked for ${message.wanted}${message.beyond ? ` (${message.beyond})` : ""}` : "";
    const value = message.moment && message.moment.value !== null ? `  it expects ${Number(message.moment.value.toPrecision(4))} more` : "";
    $("status").textContent = `step ${now.step}  return ${Number(now.return.toPrecision(5))}  seed ${now.seed}${over}${turn}${told}${asked}${value}`;
    message.slots.forEach((slot, number) => {
      const view = $("views").children[number];
      view.lastChild.textContent = message.slots.length > 1 ? Number(slot.return.toPrecision(4)) : "";
      view.setAttribute("aria-pressed", String(message.slots.length > 1 && number === message.look));
    });
    drawHeader($("header"), message.header);
    if (message.moment) {
      drawChoices($("choices"), game.legend, message.moment);
      drawSeen($("seen"), game.legend, message.moment, same ? before : null);
      $("action").textContent = `done: ${message.moment.action}`;
      before = message.moment;
    }
    [...$("keys").querySelectorAll("button")].forEach((button, number) => {
      button.disabled = Boolean(message.legal && !message.legal[number]);
      button.classList.toggle("hidden", button.disabled && game.task.startsWith("board/"));
    });
  },
  saved(message) { $("saved").textContent = `Saved below ${message.folder}. Look: generalist inspect ${message.folder}`; },
  error(message) { say(message.text); },
};
function heard(message) { HEARD[message.type]?.(message); }

// Pictures are decoded one after the other; a late one gives way to the next.
const latest = [];
async function drawn(buffer) {
  const slot = new Uint8Array(buffer, 0, 1)[0], mark = {};
  latest[slot] = mark;
  const bitmap = await createImageBitmap(new Blob([new Uint8Array(buffer, 1)], { type: "image/jpeg" }));
  const canvas = $("views").children[slot]?.querySelector("canvas");
  if (latest[slot] !== mark || !canvas) return;
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) { canvas.width = bitmap.width; canvas.height = bitmap.height; }
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  $("views").dataset.frames = Number($("views").dataset.frames || 0) + 1;
}

// Acting: keys and buttons hold an action while they are down; in turns each press is one step.

function drawKeys(controls) {
  const buttons = [...controls.buttons, ...controls.toggles].map((each) => {
    const button = element("button", { type: "button" }, each.label, each.key && each.key !== each.label ? element("kbd", {}, ` ${NAMES[each.key] || each.key}`) : null);
    button.addEventListener("pointerdown", () => press(each));
    button.addEventListener("pointerup", () => release(each));
    button.addEventListener("pointerleave", () => release(each));
    button.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); event.stopPropagation(); if (!event.repeat) press(each); } });
    button.addEventListener("keyup", () => release(each));
    each.button = button;
    return button;
  });
  const sliders = controls.sliders.map((each, number) => {
    const slider = element("input", { type: "range", min: each.low, max: each.high, step: (each.high - each.low) / 100, "aria-label": `action ${number}` });
    slider.value = Math.min(each.high, Math.max(each.low, 0));
    slider.addEventListener("input", sendSliders);
    each.slider = slider;
    return element("label", {}, `action ${number}`, slider);
  });
  $("keys").replaceChildren(...buttons, ...sliders);
}

// A click on a board: the cell under it, of the picture as it lies in its canvas.
function moveTo(event, canvas, cells) {
  const box = canvas.getBoundingClientRect();
  const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
  const x = (event.clientX - box.left - (box.width - canvas.width * scale) / 2) / (canvas.width * scale);
  const y = (event.clientY - box.top - (box.height - canvas.height * scale) / 2) / (canvas.height * scale);
  if (x < 0 || x >= 1 || y < 0 || y >= 1) return;
  const column = Math.floor(x * cells.columns), row = Math.floor(y * cells.rows);
  const action = cells.by === "column" ? column : row * cells.columns + column;
  if (!state.legal || state.legal[action]) tell("act", { action });
}

const sendSliders = () => tell("act", { action: game.controls.sliders.map((each) => Number(each.slider.value)) });

function press(each) {
  if (!state?.control || held.includes(each)) return;
  held.push(each);
  each.button.classList.add("is-held");
  if (game.controls.toggles.includes(each)) sendKeys();
  else tell("act", { action: each.action });
}

function release(each) {
  if (!held.includes(each)) return;
  held = held.filter((other) => other !== each);
  each.button.classList.remove("is-held");
  if (game.controls.toggles.includes(each)) return sendKeys();
  if (game.controls.turns) return;
  const last = held[held.length - 1], idle = game.controls.buttons.find((one) => ["noop", "nothing", "no torque"].includes(one.label));
  if (last || idle) tell("act", { action: (last || idle).action });
}

// Where any keys may be down at a time: all of them, and what the mouse has moved since.
const DEGREES = 0.2; // a pixel of the mouse
let moved = { x: 0, y: 0 };
function sendKeys() {
  const keys = game.controls.toggles.map((each) => Number(held.includes(each)));
  tell("act", { action: [...keys, ...game.controls.motions.map((axis) => (axis ? moved[axis] * DEGREES : 0))] });
  moved = { x: 0, y: 0 };
}
const aims = () => game && state?.control && game.controls.motions.length > 0;
$("views").addEventListener("mousemove", (event) => {
  if (!aims()) return;
  if (!moved.x && !moved.y) requestAnimationFrame(sendKeys);
  moved.x += event.movementX;
  moved.y += event.movementY;
});
const trigger = () => game.controls.toggles.find((each) => each.label === "attack");
$("views").addEventListener("mousedown", () => aims() && trigger() && press(trigger()));
addEventListener("mouseup", () => game && trigger() && release(trigger()));

const SLIDER_KEYS = { ArrowLeft: [0, "low"], ArrowRight: [0, "high"], ArrowDown: [1, "low"], ArrowUp: [1, "high"] };
function slide(key, down) {
  const [number, end] = SLIDER_KEYS[key] || [];
  const slider = game.controls.sliders[number];
  if (!slider) return false;
  slider.slider.value = down ? slider[end] : Math.min(slider.high, Math.max(slider.low, 0));
  sendSliders();
  return true;
}

function keyed(event) { // Shift may be down too
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return [...game.controls.buttons, ...game.controls.toggles].find((each) => each.key === key);
}
function typing(event) { return event.target.closest("input, select, form"); }
document.addEventListener("keydown", (event) => {
  if (!game || !state || typing(event) || event.ctrlKey || event.metaKey || event.altKey) return;
  const own = state.control && keyed(event);
  if (own) { if (!event.repeat) press(own); event.preventDefault(); }
  else if (state.control && event.key in SLIDER_KEYS && (event.repeat || slide(event.key, true))) event.preventDefault();
});
document.addEventListener("keyup", (event) => {
  if (!game || !state || typing(event)) return;
  const own = keyed(event);
  if (own) release(own);
  else if (state.control && event.key in SLIDER_KEYS) slide(event.key, false);
});
addEventListener("blur", () => [...held].forEach(release));

// Buttons

function start() {
  tell("start", { task: $("task").value, agents: Number($("agents").value) });
  $("views").focus();
}
$("start").addEventListener("click", start);
$("run").addEventListener("click", () => tell(state?.running ? "pause" : "play"));
$("once").addEventListener("click", () => tell("step"));
$("again").addEventListener("click", () => tell("again"));
$("save").addEventListener("click", () => tell("save"));
$("control").addEventListener("click", () => { tell("control", { on: !state.control }); $("views").focus(); });
$("speed").addEventListener("input", () => {
  const value = 2 ** Number($("speed").value);
  $("speed-is").textContent = `${value}×`;
  tell("speed", { value });
});
$("temperature").addEventListener("input", () => {
  const place = Number($("temperature").value), value = place < 0 ? null : place / 10;
  $("temperature-is").textContent = value === null ? "as trained" : String(value);
  tell("temperature", { value });
});
$("tell").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("instruction").value.trim()) tell("instruct", { text: $("instruction").value.trim() });
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  tell("ask", { text: $("wanted").value.trim() });
});
startTheme($("theme"));
connect();
