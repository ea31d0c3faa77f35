"use strict";
// What the words need to be played, found and zoomed; their text is in the page already. Times in seconds.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  // In the order of their times, which turns of channels that speak at once are not.
  const words = [...document.querySelectorAll(".w")].sort((one, other) => one.id.slice(1) - other.id.slice(1));
  const { starts, ends, unaligned } = data;
  const byId = (id) => document.getElementById(id);
  const audio = byId("audio"), track = byId("track"), said = byId("said"), clock = byId("clock"), play = byId("play");
  let here = -1, wave = null, pixels = 0;

  // The last word that starts at or before `time`; -1 if there is none.
  const at = (time) => {
    let low = 0, high = starts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (starts[middle] <= time) low = middle + 1; else high = middle;
    }
    return low - 1;
  };
  const shown = (seconds) => {
    const whole = Math.max(0, seconds), minutes = Math.floor(whole / 60);
    return `${minutes}:${(whole - 60 * minutes).toFixed(2).padStart(5, "0")}`;
  };
  const mark = (index, scroll) => {
    if (index === here) return;
    if (words[here]) { words[here].classList.remove("here"); words[here].tabIndex = -1; words[here].removeAttribute("aria-current"); }
    here = index;
    const word = words[here];
    if (!word) return;
    word.classList.add("here");
    word.tabIndex = 0;
    word.setAttribute("aria-current", "true");
    if (scroll) word.scrollIntoView({ block: "center" });
  };
  const moved = (time, scroll) => {
    clock.value = shown(time);
    const index = at(time);
    mark(index >= 0 && (time < ends[index] || audio.paused) ? index : -1, scroll);
  };
  const seek = (time) => {
    if (wave) wave.setTime(time);
    moved(time, false);
  };
  const choose = (index) => {
    if (!words[index]) return;
    seek(starts[index]);
    mark(index, true);
    words[index].focus({ preventScroll: true });
    said.textContent = `${words[index].textContent}, ${shown(starts[index])}`;
  };
  const toggle = () => {
    if (!audio.getAttribute("src")) return;
    if (audio.paused) audio.play().catch((error) => { said.textContent = `The sound cannot be played: ${error.message}`; });
    else audio.pause();
  };
  const problem = (step) => {
    for (let index = here + step; index >= 0 && index < words.length; index += step) {
      if (/\b[nr]\b/.test(words[index].className)) return choose(index);
    }
    said.textContent = "No more words to check";
  };
  const zoom = (factor) => {
    const least = byId("wave").clientWidth / Math.max(data.seconds, 0.001);
    pixels = Math.min(1000, Math.max(least, pixels * factor));
    wave.zoom(pixels);
    label();
  };
  // The words below the visible part of the waveform, as many as there is room for: some dozens, however long the recording.
  const label = () => {
    if (!wave) return;
    const width = track.clientWidth, scale = wave.getWrapper().clientWidth / data.seconds, left = wave.getScroll();
    const from = left / scale, to = (left + width) / scale;
    const parts = document.createDocumentFragment();
    const add = (text, start, kind, wide) => {
      const part = document.createElement("span");
      part.textContent = text;
      part.className = kind;
      part.style.left = `${start * scale - left}px`;
      if (wide) part.style.width = `${wide * scale}px`;
      parts.append(part);
    };
    const reached = [-1e9, -1e9];
    for (let index = Math.max(0, at(from)), row = 0; index < starts.length && starts[index] < to; index += 1) {
      const x = starts[index] * scale - left, text = words[index].textContent;
      if (ends[index] <= starts[index] || x < reached[row]) continue;
      add(text, starts[index], words[index].className.replace("here", ""));
      reached[row] = x + 7.5 * text.length + 6;
      row = 1 - row;
    }
    for (const [start, end] of unaligned) if (end > from && start < to) add("", start, "loud", end - start);
    track.replaceChildren(parts);
  };

  if (data.peaks) {
    const bytes = Uint8Array.from(atob(data.peaks), (letter) => letter.charCodeAt(0));
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const colours = () => ({ waveColor: colour("--wave"), progressColor: colour("--played"), cursorColor: colour("--accent") });
    wave = WaveSurfer.create({
      container: "#wave", media: audio, height: 96, cspNonce: data.nonce, duration: data.seconds, dragToSeek: true,
      peaks: [Float32Array.from(bytes, (byte) => byte / 255)], ...colours(),
    });
    const scroller = wave.getWrapper().parentElement;
    scroller.tabIndex = 0;
    scroller.setAttribute("role", "group");
    scroller.setAttribute("aria-label", "Waveform");
    wave.on("ready", () => zoom(0));
    wave.on("scroll", label);
    wave.on("redrawcomplete", label);
    wave.on("interaction", (time) => moved(time, true));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => wave.setOptions(colours()));
    addEventListener("resize", label);
    byId("in").addEventListener("click", () => zoom(2));
    byId("out").addEventListener("click", () => zoom(0.5));
  }
  audio.addEventListener("timeupdate", () => moved(audio.currentTime, false));
  const follow = () => { moved(audio.currentTime, false); if (!audio.paused) requestAnimationFrame(follow); };
  audio.addEventListener("play", () => { play.textContent = "Pause"; requestAnimationFrame(follow); });
  audio.addEventListener("pause", () => { play.textContent = "Play"; });
  audio.addEventListener("error", () => { said.textContent = "The sound cannot be loaded"; });
  play.addEventListener("click", toggle);
  play.disabled = !audio.getAttribute("src");
  document.addEventListener("click", (event) => {
    const word = event.target.closest(".w"), time = event.target.closest("[data-at]");
    if (word) { choose(words.indexOf(word)); if (audio.paused) toggle(); }
    else if (time) choose(Math.max(0, at(Number(time.dataset.at))));
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea, summary")) return;
    const onButton = event.target.matches("button:not(.w)");
    const actions = {
      " ": onButton ? null : toggle, ArrowRight: () => choose(here + 1), ArrowLeft: () => choose(Math.max(0, here - 1)),
      Home: () => choose(0), End: () => choose(words.length - 1), n: () => problem(1), N: () => problem(-1),
      "+": () => wave && zoom(2), "-": () => wave && zoom(0.5),
    };
    if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
  });
  if (words[0]) words[0].tabIndex = 0;
})();
