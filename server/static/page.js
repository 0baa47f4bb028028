// Makes the pages quicker; every page works without it. No state beyond the page, no address but our own.

const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/* Files: drop them anywhere on the field, see them before they are sent. */

let shownPath = location.pathname;
let chosen = null; // the file under check, shown sharp beside its report; it never leaves but by the form

function showThumbs(drop) {
  const input = find("input[type=file]", drop);
  const thumbs = find("[data-thumbs]", drop);
  thumbs.replaceChildren(...[...input.files].slice(0, 6).map(makeThumb));
  thumbs.hidden = input.files.length === 0;
}

const isVideo = (file) => file.type.startsWith("video/");

function makeThumb(file) {
  const shown = isVideo(file) ? makePlayer(file) : new Image();
  shown.addEventListener("error", () => { // a coding that this browser does not know
    const tile = document.createElement("span");
    tile.className = "tile";
    tile.textContent = file.name;
    shown.replaceWith(tile);
  });
  if (!isVideo(file)) Object.assign(shown, { src: URL.createObjectURL(file), alt: file.name });
  return shown;
}

function makePlayer(file) { // silent; it plays the user's own file, and only when asked
  const player = document.createElement("video");
  player.setAttribute("aria-label", file.name);
  return Object.assign(player, { muted: true, playsInline: true, preload: "metadata", src: URL.createObjectURL(file) });
}

function makeDrop(drop) {
  const input = find("input[type=file]", drop);
  const over = (on) => (event) => {
    event.preventDefault();
    drop.classList.toggle("over", on);
  };
  drop.addEventListener("dragover", over(true));
  drop.addEventListener("dragleave", over(false));
  drop.addEventListener("drop", (event) => {
    over(false)(event);
    if (event.dataTransfer.files.length === 0) return;
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  input.addEventListener("change", () => showThumbs(drop));
}

/* Check: send with progress, show the report in place, keep its own address. */

function makeCheck(form) {
  const status = find("[data-status]", form);
  const bar = find("[data-progress]", form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    chosen = find("input[type=file]", form).files[0];
    if (chosen.size > Number(form.dataset.maxBytes) - 4096) { // its form adds a little
      status.textContent = status.dataset.large;
      return;
    }
    const looking = isVideo(chosen) ? status.dataset.watching : status.dataset.looking;
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.responseType = "document";
    request.upload.addEventListener("progress", (sent) => {
      bar.value = sent.lengthComputable ? (100 * sent.loaded) / sent.total : 0;
      status.textContent = sent.loaded < sent.total ? status.dataset.sending : looking;
    });
    request.upload.addEventListener("load", () => {
      bar.removeAttribute("value");
      status.textContent = looking;
    });
    const fail = () => {
      bar.hidden = true;
      status.textContent = status.dataset.failed;
    };
    request.addEventListener("load", () => (request.response ? showAnswer(request.response) : fail()));
    request.addEventListener("error", fail);
    bar.hidden = false;
    status.textContent = status.dataset.sending;
    request.send(new FormData(form));
  });
}

function showAnswer(page) {
  document.title = page.title;
  find("main").replaceWith(document.adoptNode(find("main", page)));
  const checked = find("[data-checked]");
  if (checked) {
    history.pushState(null, "", checked.dataset.checked);
    shownPath = location.pathname;
    all(".languages a").forEach((link) => {
      link.href = `${checked.dataset.checked}${new URL(link.href).search}`;
    });
    sharpen();
  }
  prepare(find("main"));
  find("main").focus();
  scrollTo(0, 0);
}

function playOwn(figure) { // the still stays where the browser cannot play the file
  const still = find("img", figure);
  const caption = find("[data-own]", figure);
  if (!still || !chosen) return;
  const player = makePlayer(chosen);
  player.addEventListener("loadedmetadata", () => {
    if (player.videoWidth === 0) return;
    Object.assign(player, { controls: true, poster: still.src });
    still.replaceWith(player);
    caption.textContent = caption.dataset.own;
  }, { once: true });
}

function sharpen() {
  all("[data-film]").forEach(playOwn);
  const drawn = find("[data-looked] svg");
  if (!drawn || !chosen) return;
  const probe = new Image();
  probe.addEventListener("load", () => {
    const box = drawn.viewBox.baseVal;
    if (Math.abs(probe.naturalWidth / probe.naturalHeight - box.width / box.height) > 0.01) return;
    const old = find("image", drawn);
    const image = old || document.createElementNS(drawn.namespaceURI, "image");
    image.setAttribute("href", probe.src);
    image.setAttribute("width", box.width);
    image.setAttribute("height", box.height);
    if (!old) find(".blank", drawn).after(image);
  });
  probe.src = URL.createObjectURL(chosen);
}

addEventListener("popstate", () => { // a jump within the page comes here, too
  if (location.pathname !== shownPath) location.reload();
});

/* Make: the steps of a job, by events; when those fail, by asking. */

function makeJob(section) {
  const id = section.dataset.job;
  const status = find("[data-status]", section);
  const ended = new Set(["done", "failed", "refused", "cancelled", "dead"]);
  const reach = (stage) => {
    const steps = all("[data-stage]", section);
    const at = steps.findIndex((step) => step.dataset.stage === stage);
    if (at < 0) return;
    steps.forEach((step, place) => {
      step.classList.toggle("past", place < at);
      step.classList.toggle("now", place === at);
      step.toggleAttribute("aria-current", false);
    });
    steps[at].setAttribute("aria-current", "step");
    status.textContent = steps[at].textContent.trim();
  };
  const poll = async () => {
    status.textContent = status.dataset.lost;
    const answer = await fetch(`/v1/fusions/${id}`, { headers: { Accept: "application/json" } }).catch(() => null);
    const job = answer && answer.ok ? await answer.json() : null;
    if (job && ended.has(job.state)) return location.reload();
    if (job) reach(job.stage);
    return setTimeout(poll, 1500);
  };
  if (!("EventSource" in window)) return void poll();
  const source = new EventSource(`/v1/fusions/${id}/events`);
  source.addEventListener("stage", (event) => reach(JSON.parse(event.data).data.stage));
  for (const end of ended) source.addEventListener(end, () => { source.close(); location.reload(); });
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return;
    source.close();
    poll();
  });
}

/* Before and after. */

function makeSlider(figure) {
  const control = find(".slider-control", figure);
  const over = find(".slider-over", figure);
  const move = () => over.style.setProperty("--cut", `${find("input", control).value}%`);
  figure.classList.add("live");
  control.hidden = false;
  control.addEventListener("input", move);
  move();
}

/* Audit: RFC 6962 section 2.1.1, C2SP signed notes, with the browser's own cryptography. */

const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const fromHex = (text) => Uint8Array.from(text.match(/../g) || [], (pair) => parseInt(pair, 16));
const fromBase64 = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
const utf8 = (text) => new TextEncoder().encode(text);

async function sha256(...parts) {
  const joined = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  parts.reduce((at, part) => (joined.set(part, at), at + part.length), 0);
  return new Uint8Array(await crypto.subtle.digest("SHA-256", joined));
}

export async function rootOf(leaf, index, size, hashes) { // RFC 9162 section 2.1.3.2
  let [fn, sn, root] = [index, size - 1, leaf];
  for (const sibling of hashes) {
    if (sn === 0) return null;
    if (fn % 2 === 1 || fn === sn) {
      root = await sha256([1], sibling, root);
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)];
    } else {
      root = await sha256([1], root, sibling);
    }
    [fn, sn] = [Math.floor(fn / 2), Math.floor(sn / 2)];
  }
  return sn === 0 ? root : null;
}

async function isSigned(note, key) {
  const [text, signatures] = [note.slice(0, note.indexOf("\n\n") + 1), note.slice(note.indexOf("\n\n") + 2)];
  const [name, id, ...rest] = key.split("+");
  const raw = fromBase64(rest.join("+")).slice(1);
  const imported = await crypto.subtle.importKey("raw", raw, "Ed25519", false, ["verify"]);
  for (const line of signatures.split("\n")) {
    const match = /^— (\S+) (\S+)$/.exec(line);
    if (!match || match[1] !== name) continue;
    const payload = fromBase64(match[2]);
    if (hex(payload.slice(0, 4)) !== id) continue;
    if (await crypto.subtle.verify("Ed25519", imported, payload.slice(4), utf8(text))) return true;
  }
  return false;
}

async function makeProof(box) {
  const given = JSON.parse(box.dataset.proof);
  const told = find("[data-result]", box);
  const tell = (tone, text) => {
    told.hidden = false;
    told.className = `notice tone-${tone}`;
    find("span", told).textContent = text;
  };
  if (!globalThis.crypto?.subtle) return tell("warn", box.dataset.unable);
  const show = (step, good, text) => {
    const item = find(`[data-step=${step}]`, box);
    item.className = good ? "good" : "bad";
    find("code", item).textContent = text;
  };
  find(".proof-steps", box).hidden = false;
  try {
    const leaf = await sha256([0], utf8(given.entry));
    show("leaf", true, hex(leaf));
    const root = await rootOf(leaf, given.index, given.size, given.hashes.map(fromHex));
    show("path", root !== null, root ? hex(root) : "–");
    const [, size, stated] = given.checkpoint.split("\n");
    const same = root !== null && hex(root) === hex(fromBase64(stated)) && Number(size) === given.size;
    show("root", same, hex(fromBase64(stated)));
    const signed = await isSigned(given.checkpoint, given.key);
    show("signature", signed, given.key);
    tell(same && signed ? "proof" : "danger", same && signed ? box.dataset.good : box.dataset.bad);
  } catch (error) {
    tell("warn", box.dataset.unable);
  }
}

function prepare(root) {
  all("[data-drop]", root).forEach(makeDrop);
  all("form[data-check]", root).forEach(makeCheck);
  all("[data-job]", root).forEach(makeJob);
  all("[data-slider]", root).forEach(makeSlider);
  all("[data-proof]", root).forEach(makeProof);
}

prepare(document);
