// What a screen reader and the keyboard need, in the page's own DOM: names for all controls, one first heading, each id
// once, landmarks, nothing that only a pointer reaches; no scrolling sideways; and the contrast of each text with the
// opaque ground behind it ("WCAG 2.2", 1.4.3). Answers with what is wrong.
() => {
  const problems = [];
  const all = (selector) => [...document.querySelectorAll(selector)];
  const name = (e) =>
    (e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent || e.title || "").trim();
  for (const e of all("button, a[href], input:not([type=hidden]), select, textarea, [role=region]"))
    if (!name(e)) problems.push(`no name: ${e.outerHTML.slice(0, 100)}`);
  if (all("h1").length !== 1) problems.push("not one h1");
  const ids = all("[id]").map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push(`id twice: ${id}`);
  for (const e of all("[aria-labelledby]"))
    for (const id of e.getAttribute("aria-labelledby").split(" "))
      if (!document.getElementById(id)) problems.push(`no such id: ${id}`);
  for (const e of all(".scroll")) if (e.tabIndex !== 0) problems.push(`not reached by keys: ${e.className}`);
  if (!document.querySelector("main") || !document.querySelector("nav[aria-label]")) problems.push("no landmarks");
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) problems.push(`scrolls sideways by ${wide}`);

  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    const e = walker.currentNode.parentElement;
    if (!text || !e.checkVisibility() || e.closest(".visually-hidden, svg, :disabled")) continue;
    let ground = e;
    while (ground && rgba(getComputedStyle(ground).backgroundColor)[3] < 255) ground = ground.parentElement;
    const behind = light(rgba(getComputedStyle(ground ?? document.body).backgroundColor));
    const front = light(rgba(getComputedStyle(e).color));
    const ratio = (Math.max(front, behind) + 0.05) / (Math.min(front, behind) + 0.05);
    if (ratio < 4.5) problems.push(`contrast ${ratio.toFixed(2)}: ${e.className} ${text.slice(0, 40)}`);
  }
  return problems;
}
