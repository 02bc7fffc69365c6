/** Script that loads a page again in place, so that scrolling, focus and what is open stay. Without it the browser reloads the page. */

/**
 * The script. `data-refresh-ms` of the body has the interval. It waits while a field has the focus or has been changed, text is selected, or the
 * tab is hidden. If the page does not answer, it says since when.
 */
export const refreshScript = `"use strict";
{
  const refreshMs = Number(document.body.dataset.refreshMs);
  let answeredAt = Date.now();
  let timer;

  const keyOf = (element) =>
    element.id || [element.tagName, element.getAttribute("href") ?? element.getAttribute("aria-label") ?? "", element.textContent.trim().slice(0, 80)].join(" ");
  const focusable = () => [...document.querySelectorAll("a, button, summary, [tabindex]")];

  function isInUse() {
    if (document.hidden || String(getSelection()) !== "") return true;
    const fields = [...document.querySelectorAll("main input:not([type=hidden]), main select, main textarea")];
    return fields.some((field) => field === document.activeElement || (field.defaultValue !== undefined && field.value !== field.defaultValue));
  }

  function show(next) {
    const focus = document.activeElement === document.body ? undefined : document.activeElement;
    const key = focus && keyOf(focus);
    const nth = focus && focusable().filter((one) => keyOf(one) === key).indexOf(focus);
    const open = new Set([...document.querySelectorAll("details[open] > summary")].map((one) => one.textContent));
    const scrolled = [...document.querySelectorAll("nav ul, .scroll, pre")].map((one) => [one.scrollLeft, one.scrollTop]);
    for (const name of ["header", "main"]) document.querySelector(name).replaceChildren(...next.querySelector(name).childNodes);
    document.title = next.title;
    for (const summary of document.querySelectorAll("details > summary")) if (open.has(summary.textContent)) summary.parentElement.open = true;
    for (const [at, one] of [...document.querySelectorAll("nav ul, .scroll, pre")].entries()) one.scrollTo(...(scrolled[at] ?? [0, 0]));
    if (focus && !focus.isConnected) focusable().filter((one) => keyOf(one) === key)[nth]?.focus({ preventScroll: true });
  }

  function complain() {
    let notice = document.getElementById("unanswered");
    if (notice === null) {
      notice = document.createElement("p");
      notice.id = "unanswered";
      notice.className = "banner error";
      notice.setAttribute("role", "status");
      document.querySelector("main").prepend(notice);
    }
    notice.textContent = \`The page has not answered for \${Math.round((Date.now() - answeredAt) / 1000)} s: what you see is old.\`;
  }

  async function refresh() {
    clearTimeout(timer);
    try {
      if (!isInUse()) {
        const response = await fetch(location.href, { cache: "no-store" });
        const next = new DOMParser().parseFromString(await response.text(), "text/html");
        if (next.querySelector("header") === null || next.querySelector("main") === null) throw new Error("no page");
        answeredAt = Date.now();
        if (!isInUse()) show(next);
      }
    } catch {
      complain();
    }
    timer = setTimeout(refresh, refreshMs);
  }
  timer = setTimeout(refresh, refreshMs);
  document.addEventListener("visibilitychange", () => document.hidden || Date.now() - answeredAt < refreshMs || refresh());
}
`;
