"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });

  // A weather that is linked to opens; printing opens all.
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", reveal);
  reveal();
  addEventListener("beforeprint", () => document.querySelectorAll("details.weather").forEach((d) => { d.open = true; }));

  // Values under the pointer: read back from the drawing, so that the page holds them once.
  const points = (path) => {
    if (!path.plimsoll) {
      const numbers = (path.getAttribute("d").match(/-?[\d.]+/g) || []).map(Number);
      path.plimsoll = [];
      for (let i = 0; i + 1 < numbers.length; i += 2) path.plimsoll.push([numbers[i], numbers[i + 1]]);
    }
    return path.plimsoll;
  };
  const nearest = (list, x) => {
    let best = null;
    for (const point of list) if (!best || Math.abs(point[0] - x) < Math.abs(best[0] - x)) best = point;
    return best;
  };
  const show = (value, unit) => {
    const digits = value === 0 ? "0" : Number(value.toPrecision(3)).toLocaleString("en-US", { maximumFractionDigits: 6 });
    return digits + (unit === "%" || unit === "/s" || unit === "" ? unit : " " + unit);
  };
  const read = (plot, share) => {
    const { low, high, log, unit, filled, seconds } = plot.dataset;
    const [lo, hi] = [Number(low), Number(high)];
    const outputs = plot.parentElement.querySelectorAll("output");
    let below = 0;
    plot.querySelectorAll(filled === "1" ? "path.area" : "path.curve").forEach((path, i) => {
      let list = points(path);
      if (filled === "1") list = list.slice(0, list.length / 2);
      const point = nearest(list, share * 1000);
      if (!point || !outputs[i]) return;
      const up = 1 - point[1] / 100;
      let value = log === "1" ? lo * Math.pow(hi / lo, up) : lo + (hi - lo) * up;
      if (filled === "1") { const top = value; value = Math.max(0, value - below); below = top; }
      outputs[i].textContent = Math.abs(point[0] - share * 1000) > 30 ? "" : show(value, unit);
    });
    let cursor = plot.querySelector(".cursor");
    if (!cursor) { cursor = document.createElement("i"); cursor.className = "cursor"; plot.append(cursor); }
    cursor.style.left = share * 100 + "%";
    const axis = plot.closest(".charts")?.querySelector(".time");
    if (axis) {
      let now = axis.querySelector("b");
      if (!now) { now = document.createElement("b"); axis.append(now); }
      now.style.left = share * 100 + "%";
      now.textContent = (share * Number(seconds)).toFixed(1) + " s";
    }
  };
  const siblings = (plot) => plot.closest(".charts")?.querySelectorAll(".plot") || [plot];
  const clear = (plot) => {
    plot.closest(".charts")?.querySelector(".time b")?.remove();
    siblings(plot).forEach((other) => {
      other.querySelector(".cursor")?.remove();
      other.parentElement.querySelectorAll("output").forEach((output) => { output.textContent = ""; });
    });
  };
  document.querySelectorAll(".charts .plot").forEach((plot) => {
    let at = 0.5;
    const move = (share) => {
      at = Math.min(1, Math.max(0, share));
      siblings(plot).forEach((other) => read(other, at));
    };
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      move((event.clientX - box.left) / box.width);
    });
    plot.addEventListener("pointerleave", () => clear(plot));
    plot.addEventListener("blur", () => clear(plot));
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.01, ArrowRight: 0.01 }[event.key];
      if (step) { event.preventDefault(); move(at + step); }
    });
  });
})();
