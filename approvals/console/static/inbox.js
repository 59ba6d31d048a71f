// The inbox stays as the server would render it now, and is walked with keys.

import { announce, count, follow, onKey, reread, soon } from "./console.js";

const title = document.title;
const known = () => new Set([...document.querySelectorAll("#inbox [data-id]")].map((each) => each.dataset.id));
const links = () => [...document.querySelectorAll("#inbox a.request")];
const isAtStart = !new URLSearchParams(location.search).has("cursor");

const showCount = () => {
  const waiting = document.getElementById("inbox").dataset.pending;
  document.title = waiting === "0" ? title : `(${waiting}) ${title}`;
};

const refresh = async () => {
  if (!isAtStart) return;
  const page = await reread().catch(() => null);
  const fresh = page?.getElementById("inbox");
  if (!fresh) return;
  const before = known();
  const focused = document.activeElement?.closest?.("#inbox [data-id]")?.dataset.id;
  document.getElementById("inbox").replaceWith(document.adoptNode(fresh));
  if (focused) links().find((link) => link.parentElement.dataset.id === focused)?.focus({ preventScroll: true });
  count();
  showCount();
  const news = [...document.querySelectorAll("[aria-label='Waiting requests'] > li")].filter((each) => !before.has(each.dataset.id));
  if (news.length === 1) announce(`New request: ${news[0].querySelector(".line").textContent.slice(0, 80)}`);
  else if (news.length > 1) announce(`${news.length} new requests`);
};

const move = (step) => {
  const all = links();
  if (!all.length) return;
  const at = all.indexOf(document.activeElement);
  all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + step, 0), all.length - 1)].focus();
};

// Nobody decides on a first line: the keys lead to the whole request, where they are asked for once more.
const openTo = (what) => () => {
  const link = document.activeElement?.closest?.("a.request") ?? links()[0];
  if (link) location.assign(`${link.pathname}?do=${what}`);
};

onKey("j", () => move(1));
onKey("k", () => move(-1));
onKey("a", openTo("approve"));
onKey("d", openTo("deny"));
onKey("c", openTo("comment"));
onKey("m", openTo("modify"));

showCount();
follow(soon(refresh), soon(refresh));
