"use strict";
// A scene: width, height (px), far, near (1/m, bounds of nearness), focal_mm, sensor_mm, most_px,
// focus_m and f_number to begin with, unit and unit_m (what depths are given in), uncertainty_m (bound of its picture),
// hints by view, viridis (256 * 3 bytes, base64), nearness (see unpack).
const scene = JSON.parse(document.getElementById("scene").textContent);
const byId = (id) => document.getElementById(id);
const WIDEST = 0.5, NARROWEST = 16, BLOCK = 16, SAMPLES = 420, DRAFT_SAMPLES = 56, BANDS = 6;
// A picture that takes longer is rendered with fewer samples, then with fewer pixels; not with #exact in the address.
const PATIENCE_MS = 2500, FEWEST_SAMPLES = 120, MOST_ZOOM = 3;
const state = { view: "refocused", focus: 1 / scene.focus_m, fNumber: scene.f_number };
let nearness, gl, uniforms, blocks, pending = null, settle = null, complete = false, waiting = [], samplesWhole = SAMPLES;

function cocPerNearness() {
  // Diameter in px for 1/m off the focus: aperture times lens-to-sensor distance in px, as defocus_sim.lens has it.
  const focal = scene.focal_mm / 1000, distance = 1 / state.focus;
  const sensorPx = (focal * distance / (distance - focal)) * 1000 * scene.width / scene.sensor_mm;
  return (focal / state.fNumber) * sensorPx;
}

// Bytes that build.py has packed: differences along the rows, deflated, in base64. Not a picture read back from a canvas,
// which browsers that guard against fingerprinting answer with noise.
async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let row = 0; row < bytes.length; row += scene.width)
    for (let k = row + 1; k < row + scene.width; k++) bytes[k] = (bytes[k] + bytes[k - 1]) & 255;
  return bytes;
}

const nearnessOf = (value) => scene.far + (scene.near - scene.far) * value / 255;
const nearnessAt = (x, y) => nearnessOf(nearness[y * scene.width + x]);

// The nearest and the farthest surface of every block of pixels: what can be blurred most in it is one of both.
function makeBlocks() {
  const columns = Math.ceil(scene.width / BLOCK), rows = Math.ceil(scene.height / BLOCK);
  const low = new Float32Array(columns * rows).fill(Infinity), high = new Float32Array(columns * rows).fill(-Infinity);
  for (let y = 0; y < scene.height; y++)
    for (let x = 0; x < scene.width; x++) {
      const k = Math.floor(y / BLOCK) * columns + Math.floor(x / BLOCK), n = nearnessAt(x, y);
      if (n < low[k]) low[k] = n;
      if (n > high[k]) high[k] = n;
    }
  return { columns, rows, low, high, reach: new Float32Array(columns * rows) };
}

// The widest radius of any block that can reach each block, if anything there lies before something here.
function spreadReach(strength) {
  const { columns, rows, low, high, reach } = blocks;
  reach.fill(0);
  for (let k = 0; k < reach.length; k++) {
    const widest = Math.max(Math.abs(state.focus - low[k]), Math.abs(state.focus - high[k]));
    const radius = 0.5 * Math.min(strength * widest, scene.most_px);
    if (radius < 0.5) continue;
    const far = Math.ceil(radius / BLOCK), kx = k % columns, ky = Math.floor(k / columns);
    for (let y = Math.max(ky - far, 0); y <= Math.min(ky + far, rows - 1); y++)
      for (let x = Math.max(kx - far, 0); x <= Math.min(kx + far, columns - 1); x++) {
        const j = y * columns + x;
        if ((high[k] - low[j]) * strength > 0.5 && radius > reach[j]) reach[j] = radius;
      }
  }
}

function startGl() {
  gl = byId("refocused").getContext("webgl2", { antialias: false, alpha: false, preserveDrawingBuffer: true });
  if (!gl) return false;
  const program = gl.createProgram();
  const corner = "#version 300 es\nvoid main(){vec2 p=vec2(gl_VertexID&1,gl_VertexID>>1);gl_Position=vec4(p*4.0-1.0,0,1);}";
  for (const [kind, text] of [[gl.VERTEX_SHADER, corner], [gl.FRAGMENT_SHADER, byId("blur").textContent.trim()]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  uniforms = (name) => gl.getUniformLocation(program, name);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  ["picture", "nearness", "reach"].forEach((name, unit) => {
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.uniform1i(uniforms(name), unit);
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.MIRRORED_REPEAT);
    for (const how of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, how, gl.NEAREST);
  });
  gl.activeTexture(gl.TEXTURE0);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.SRGB8_ALPHA8, gl.RGBA, gl.UNSIGNED_BYTE, byId("restored"));
  gl.generateMipmap(gl.TEXTURE_2D);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
  gl.activeTexture(gl.TEXTURE1);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8, scene.width, scene.height, 0, gl.RED, gl.UNSIGNED_BYTE, nearness);
  gl.activeTexture(gl.TEXTURE2);
  gl.uniform2f(uniforms("size"), scene.width, scene.height);
  gl.uniform2f(uniforms("bounds"), scene.far, scene.near);
  gl.uniform1f(uniforms("most"), scene.most_px);
  gl.uniform1i(uniforms("block"), BLOCK);
  setZoom(1);
  return true;
}

function setUniforms(samples) {
  const strength = cocPerNearness();
  spreadReach(strength);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32F, blocks.columns, blocks.rows, 0, gl.RED, gl.FLOAT, blocks.reach);
  gl.uniform1f(uniforms("strength"), strength);
  gl.uniform1f(uniforms("focus"), state.focus);
  gl.uniform1i(uniforms("samples"), samples);
}

// Renders in bands, a frame of the browser each, so that a slow phone stays alive; a newer request ends an older one.
function render(samples) {
  if (!gl) return;
  setUniforms(samples);
  cancelAnimationFrame(pending);
  const { width, height } = gl.canvas, bands = samples > DRAFT_SAMPLES ? BANDS : 1, rows = Math.ceil(height / bands);
  let band = 0;
  const step = () => {
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(0, height - (band + 1) * rows, width, rows);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    band += 1;
    if (band < bands) { pending = requestAnimationFrame(step); return; }
    pending = null;
    if (samples > DRAFT_SAMPLES) { complete = true; waiting.forEach((done) => done()); waiting = []; }
  };
  step();
}

function setZoom(zoom) {
  gl.canvas.width = Math.ceil(scene.width / zoom);
  gl.canvas.height = Math.ceil(scene.height / zoom);
  gl.viewport(0, 0, gl.canvas.width, gl.canvas.height);
  gl.uniform2f(uniforms("zoom"), scene.width / gl.canvas.width, scene.height / gl.canvas.height);
}

// Times a strip across the middle, as a computer without a graphics processor needs a hundred times as long as one with.
function fitToMachine() {
  if (location.hash === "#exact") return;
  const time = (rows) => {
    const start = performance.now();
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(0, Math.floor((scene.height - rows) / 2), scene.width, rows);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.readPixels(0, Math.floor(scene.height / 2), 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
    return performance.now() - start;
  };
  setUniforms(DRAFT_SAMPLES);
  time(1);
  const rows = Math.max(1, Math.floor(scene.height / 32));
  const whole = time(rows) * scene.height / rows * SAMPLES / DRAFT_SAMPLES;
  samplesWhole = Math.round(Math.min(SAMPLES, Math.max(FEWEST_SAMPLES, SAMPLES * PATIENCE_MS / whole)));
  setZoom(Math.min(MOST_ZOOM, Math.max(1, Math.sqrt(whole * samplesWhole / SAMPLES / PATIENCE_MS))));
}

function refresh() {
  byId("focus").value = Math.round(1000 * (state.focus - scene.far) / (scene.near - scene.far || 1));
  byId("aperture").value = Math.round(1000 * Math.log(state.fNumber / NARROWEST) / Math.log(WIDEST / NARROWEST));
  byId("focus-text").textContent = inUnit(1 / state.focus);
  byId("aperture-text").textContent = "f/" + state.fNumber.toFixed(state.fNumber < 10 ? 1 : 0);
  for (const id of ["focus", "aperture"]) byId(id).setAttribute("aria-valuetext", byId(id + "-text").textContent);
  clearTimeout(settle);
  complete = false;
  render(DRAFT_SAMPLES);
  settle = setTimeout(() => render(samplesWhole), 160);
}

// Resolves when the picture is there in full quality: at once where it is already.
function rendered() { return gl && !complete ? new Promise((done) => waiting.push(done)) : Promise.resolve(); }

const inUnit = (metres) => (metres / scene.unit_m).toFixed(metres / scene.unit_m < 10 ? 2 : 1) + scene.unit;

function focusAt(x, y) {
  // The nearest sharp surface within a fingertip would surprise: the pixel that was touched counts.
  state.focus = Math.max(nearnessAt(x, y), 1e-4);
  refresh();
}

function show(view) {
  state.view = view;
  const shown = { refocused: ["refocused"], compare: ["restored", "behind", "edge", "tag-left", "tag-right"] }[view] || [view];
  for (const element of byId("stage").children) element.classList.toggle("shown", shown.includes(element.id));
  for (const button of document.querySelectorAll(".views button"))
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  byId("bar").classList.toggle("shown", view === "depth" || view === "uncertainty");
  byId("lens-sliders").hidden = view !== "refocused";
  byId("compare-sliders").hidden = view !== "compare";
  byId("save").hidden = view !== "refocused";
  byId("hint").textContent = scene.hints[view];
  if (view === "depth" || view === "uncertainty") fillBar(view);
}

function compareTo(share) {
  byId("behind").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  byId("edge").style.left = share + "%";
  byId("compare-text").textContent = `${share} % photograph`;
}

const colours = Uint8Array.from(atob(scene.viridis), (c) => c.charCodeAt(0));

function paintDepth() {
  const canvas = byId("depth");
  [canvas.width, canvas.height] = [scene.width, scene.height];
  const context = canvas.getContext("2d"), data = context.createImageData(scene.width, scene.height);
  for (let i = 0; i < nearness.length; i++) {
    data.data.set(colours.subarray(3 * nearness[i], 3 * nearness[i] + 3), 4 * i);
    data.data[4 * i + 3] = 255;
  }
  context.putImageData(data, 0, 0);
}

function fillBar(view) {
  const [strip, labels] = byId("bar").children;
  const stops = [];
  for (let i = 0; i <= 16; i++) {
    // Near is on the left, and bright.
    const k = 3 * Math.round(255 * (view === "depth" ? 16 - i : i) / 16);
    stops.push(`rgb(${colours[k]},${colours[k + 1]},${colours[k + 2]})`);
  }
  strip.style.background = `linear-gradient(90deg,${stops.join()})`;
  const at = (share) => view === "depth"
    ? inUnit(1 / (scene.near + (scene.far - scene.near) * share)) : "\u00b1 " + inUnit(scene.uncertainty_m * share);
  labels.replaceChildren(...[0, 0.25, 0.5, 0.75, 1].map((share) => {
    const span = document.createElement("span");
    span.textContent = at(share);
    return span;
  }));
}

function pixelOf(event) {
  const box = byId("refocused").getBoundingClientRect();
  const along = (at, start, length, count) => Math.min(Math.max(Math.floor((at - start) / length * count), 0), count - 1);
  return [along(event.clientX, box.left, box.width, scene.width), along(event.clientY, box.top, box.height, scene.height)];
}

function listen() {
  byId("refocused").addEventListener("click", (event) => {
    const [x, y] = pixelOf(event), ring = byId("ring");
    ring.style.left = 100 * (x + 0.5) / scene.width + "%";
    ring.style.top = 100 * (y + 0.5) / scene.height + "%";
    ring.classList.remove("shown");
    void ring.offsetWidth;
    ring.classList.add("shown");
    focusAt(x, y);
  });
  byId("focus").addEventListener("input", (event) => {
    state.focus = Math.max(scene.far + (scene.near - scene.far) * event.target.value / 1000, 1e-4);
    refresh();
  });
  byId("aperture").addEventListener("input", (event) => {
    state.fNumber = NARROWEST * Math.pow(WIDEST / NARROWEST, event.target.value / 1000);
    refresh();
  });
  byId("compare").addEventListener("input", (event) => compareTo(Number(event.target.value)));
  // The line between before and after follows a finger on the picture, too.
  const drag = (event) => {
    if (state.view !== "compare" || (event.type === "pointermove" && !event.buttons)) return;
    const box = byId("stage").getBoundingClientRect();
    byId("compare").value = Math.round(100 * (event.clientX - box.left) / box.width);
    compareTo(Number(byId("compare").value));
  };
  for (const kind of ["pointerdown", "pointermove"]) byId("stage").addEventListener(kind, drag);
  for (const button of document.querySelectorAll(".views button"))
    button.addEventListener("click", () => show(button.dataset.view));
  byId("save").addEventListener("click", () => { byId("save").href = byId("refocused").toDataURL("image/png"); });
}

async function main() {
  await Promise.all([...document.querySelectorAll(".stage img[src]")].map((image) => image.decode()));
  nearness = await unpack(scene.nearness);
  blocks = makeBlocks();
  byId("behind").src = byId("before").src;
  paintDepth();
  listen();
  compareTo(50);
  let works = false;
  try { works = startGl(); } catch (error) { console.error(error); }
  if (!works) {
    byId("problem").textContent = "This browser has no WebGL 2: the picture cannot be refocused here, the other views work.";
    byId("problem").classList.add("shown");
    document.querySelector('[data-view="refocused"]').remove();
    show("compare");
    return;
  }
  fitToMachine();
  show("refocused");
  refresh();
  await rendered();
}

window.viewer = { state, focusAt, rendered, refresh, ready: main() };
