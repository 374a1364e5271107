"use strict";
(() => {
  const percent = (part) => {
    if (!Number.isFinite(part)) return "more than all";
    if (part > 0 && part < 0.001) return "< 0.1 %";
    if (part > 0.999 && part < 1) return "> 99.9 %";
    return (100 * part).toFixed(1) + " %";
  };
  const fits = (row, at) => Math.max(0, Math.floor((1 - row.share) / row.costs[at]));
  const count = (number) => (Number.isFinite(number) ? String(number) : "any number");

  const show = (box, outlook) => {
    const dial = (name) => box.querySelector(`[data-dial="${name}"]`);
    const tell = (name, text) => { box.querySelector(`[data-told="${name}"]`).textContent = text; };
    const at = Number(dial("epsilon").value);
    const number = Number(dial("number").value);
    const epsilon = outlook.epsilons[at];
    const own = epsilon === outlook.own ? " (as the last)" : "";
    tell("epsilon", `ε ${epsilon}${own}`);
    tell("number", String(number));
    dial("epsilon").setAttribute("aria-valuetext", `epsilon ${epsilon}${own}`);
    dial("number").setAttribute("aria-valuetext", number === 1 ? "1 study" : `${number} studies`);
    let worst = null;
    outlook.rows.forEach((row, index) => {
      const line = box.querySelectorAll("tbody tr")[index];
      const cell = (name, text) => { line.querySelector(`[data-cell="${name}"]`).textContent = text; };
      const after = row.share + number * row.costs[at];
      const fit = fits(row, at);
      cell("used", fit >= number ? percent(after) : "does not fit");
      cell("left", fit >= number ? percent(Math.max(0, 1 - after)) : "–");
      cell("fit", count(fit));
      line.classList.toggle("beyond", fit < number);
      line.querySelector('[data-cell="more"]').setAttribute("width", (120 * Math.min(1, after)).toFixed(1));
      if (worst === null || fit < worst.fit) worst = { fit, row };
    });
    const asked = number === 1 ? "One such study" : `${number} such studies`;
    const limit = `${worst.row.name} of ${worst.row.group} customers`;
    tell("sum", worst.fit >= number
      ? `${asked} at ε ${epsilon} would fit: ${count(worst.fit)} in all, then the ${limit} is used up.`
      : `${asked} at ε ${epsilon} would not fit: the ${limit} has room for ${count(worst.fit)}. The partner would refuse the rest.`);
  };

  for (const box of document.querySelectorAll("[data-outlook]")) {
    const outlook = JSON.parse(box.dataset.outlook);
    box.hidden = false;
    box.addEventListener("input", () => show(box, outlook));
    show(box, outlook);
  }

  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    const closed = target && target.closest("details:not([open])");
    if (closed) closed.open = true;
    if (target && target.classList.contains("proof")) {
      target.closest("details").scrollIntoView({ block: "start" });
      target.focus({ preventScroll: true });
    }
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
