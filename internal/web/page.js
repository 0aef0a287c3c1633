"use strict";
(() => {
  const base = document.currentScript.dataset.base;
  const $ = (id) => document.getElementById(id);
  const json = (id) => JSON.parse($(id).textContent);
  const main = document.querySelector("main");
  const lines = [...document.querySelectorAll("#steps li")];
  const { titles, lines: failedAt } = json("known");
  // The line that a phase belongs to; placed and claiming pass too quickly for one of their own.
  const line = { queued: 0, placed: 1, claiming: 1, restoring: 1, starting: 2, ready: 3 };
  let began, since, reached, timer;

  const seconds = (ms) => (ms < 10000 ? (ms / 1000).toFixed(1) : Math.round(ms / 1000)) + " s";
  function size(n) {
    const k = 1000;
    if (n < k) return n + " B";
    if (n < k * k) return (n / k).toFixed(0) + " kB";
    if (n < 100 * k * k) return (n / k / k).toFixed(1) + " MB";
    if (n < k * k * k) return (n / k / k).toFixed(0) + " MB";
    return (n / k / k / k).toFixed(1) + " GB";
  }

  function place(n) {
    if (!n) return "";
    if (n === 1) return "next";
    const tens = n % 100;
    return n + (tens >= 11 && tens <= 13 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[n % 10] || "th") + " in line";
  }

  function begin() {
    began = since = performance.now();
    reached = -1;
    for (const li of lines) li.querySelector(".took").textContent = "";
    clearInterval(timer);
    timer = setInterval(() => { $("clock").textContent = " · " + Math.floor((performance.now() - began) / 1000) + " s"; }, 1000);
  }

  function show(p) {
    const failed = p.phase === "failed";
    const now = failed ? (reached < 0 ? failedAt[p.reason] ?? -1 : reached) : line[p.phase] ?? reached;
    if (now > reached) {
      const t = performance.now();
      // What had passed before this page was there took unknown time.
      if (reached >= 0 && t - since >= 100) lines[reached].querySelector(".took").textContent = seconds(t - since);
      since = t;
    }
    reached = now;
    lines.forEach((li, i) => { li.className = i < now ? "done" : i > now ? "" : failed ? "failed" : "now"; });
    main.dataset.phase = p.phase;
    main.classList.toggle("failed", failed);
    const counted = p.phase === "restoring" && p.total > 0;
    $("message").textContent = p.message || "";
    $("message").hidden = counted; // the count beside the bar says it
    $("retry").hidden = !failed;
    $("reason").textContent = failed ? p.reason || "" : "";
    $("bytes").hidden = !counted;
    if (counted) {
      $("bar").max = p.total;
      $("bar").value = p.done || 0;
      $("count").textContent = size(p.done || 0) + " of " + size(p.total);
    }
    if (now === 0) lines[0].querySelector(".took").textContent = place(p.position);
    const title = failed ? titles[p.reason || ""] || titles[""] : p.phase === "ready" ? "Ready" : p.position ? "Waiting in line" : "Waking your sandbox";
    $("title").textContent = title;
    document.title = title + document.title.replace(/^.*?( · |$)/, "$1");
    if (failed) clearInterval(timer);
  }

  function follow() {
    const source = new EventSource(base + "/_sandbox/events");
    const end = (e) => { source.close(); show(JSON.parse(e.data)); };
    source.addEventListener("progress", (e) => show(JSON.parse(e.data)));
    // The address, with its query and fragment, is the gateway's: enter it.
    source.addEventListener("ready", (e) => { end(e); location.reload(); });
    source.addEventListener("failed", end);
    source.addEventListener("error", () => {
      // The browser tries again by itself unless the answer was no event stream.
      if (source.readyState === EventSource.CLOSED) setTimeout(follow, 2000);
    });
  }

  $("retry").addEventListener("submit", async (e) => {
    e.preventDefault();
    begin();
    show({ phase: "queued", message: "Trying again" });
    try {
      const r = await fetch(base + "/_sandbox/start", { method: "POST" });
      if (!r.ok) throw new Error((await r.json()).detail);
      follow();
    } catch (err) {
      show({ phase: "failed", message: err instanceof TypeError ? "The router does not answer; try again in a moment." : err.message });
    }
  });

  begin();
  const p = json("start");
  show(p);
  if (p.phase !== "failed") follow();
  // A page that comes back from the back-forward cache may be long out of date.
  addEventListener("pageshow", (e) => { if (e.persisted) location.reload(); });
})();
