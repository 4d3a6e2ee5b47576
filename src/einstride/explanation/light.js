// Pointing at a label, or giving it the focus, lights it up everywhere; a click keeps it lit. A notebook may show several
// explanations: each script takes the ones that nobody has taken.
document.querySelectorAll(".einstride:not([data-live])").forEach((root) => {
  root.dataset.live = "";
  let kept = null;
  const keyOf = (event) => event.target.closest("[data-key]")?.dataset.key ?? null;
  const light = (keys) => {
    const lit = new Set((keys ?? "").split(" "));
    root.classList.toggle("lighting", Boolean(keys));
    for (const element of root.querySelectorAll("[data-key]")) {
      element.classList.toggle("lit", element.dataset.key.split(" ").some((key) => lit.has(key)));
    }
  };
  const keep = (keys) => {
    kept = keys;
    for (const button of root.querySelectorAll("button[data-key]")) {
      button.setAttribute("aria-pressed", String(button.dataset.key === kept));
    }
    light(kept);
  };
  root.addEventListener("pointerover", (event) => light(keyOf(event) ?? kept));
  root.addEventListener("pointerleave", () => light(kept));
  root.addEventListener("focusin", (event) => light(keyOf(event) ?? kept));
  root.addEventListener("focusout", () => light(kept));
  root.addEventListener("click", (event) => keep(keyOf(event) === kept ? null : keyOf(event)));
  root.addEventListener("keydown", (event) => event.key === "Escape" && keep(null));
});
