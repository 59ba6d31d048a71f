// A request on the page: live, but what is read and decided never changes under the reader.

import { announce, count, follow, onKey, reread, soon } from "./console.js";

const request = document.getElementById("request");
const form = document.getElementById("decision-form");
const confirmation = document.getElementById("confirm");
const modification = document.getElementById("modify");
const button = (decision) => form?.querySelector(`button[value="${decision}"]`);

// Votes, comments and findings come in; a new text or a new status asks to be read.
const refresh = async () => {
  const page = await reread().catch(() => null);
  const fresh = page?.getElementById("request");
  if (!fresh) return;
  const isSame = ["sha256", "revision", "status"].every((key) => fresh.dataset[key] === request.dataset[key]);
  if (!isSame && fresh.dataset.status === request.dataset.status) {
    document.getElementById("changed").hidden = false;
    for (const each of document.querySelectorAll("#decide button")) each.disabled = true;
    announce("This request has changed. Read it again.");
    return;
  }
  if (!isSame) {
    const isWriting = [...document.querySelectorAll("#decide textarea")].some((each) => each.value !== each.defaultValue);
    announce(`This request is now ${fresh.dataset.status}.`);
    if (!isWriting) return location.replace(location.pathname);
    document.getElementById("changed").hidden = false;
    for (const each of document.querySelectorAll("#decide button:not([value=comment])")) each.disabled = true;
  }
  for (const id of ["live-summary", "thread", "impact", "history", "context"]) {
    const [old, now] = [document.getElementById(id), page.getElementById(id)];
    if (old && now) old.replaceWith(document.adoptNode(now));
    else if (now) document.querySelector(".columns .first").append(document.adoptNode(now));
  }
  count();
};

let isConfirmed = false;
form?.addEventListener("submit", (event) => {
  if (event.submitter?.value !== "approve" || isConfirmed) return;
  event.preventDefault();
  confirmation.showModal();
});
confirmation?.addEventListener("close", () => {
  if (confirmation.returnValue !== "yes") return;
  isConfirmed = true;
  form.requestSubmit(button("approve"));
});
for (const each of document.querySelectorAll("form")) {
  each.addEventListener("submit", (event) => {
    if (event.defaultPrevented) return;
    // After the browser has read the fields, the pressed button's among them.
    setTimeout(() => each.querySelectorAll("button").forEach((pressed) => (pressed.disabled = true)));
  });
}
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload(); // from the back/forward cache: as it was, not as it is
});

const comment = document.getElementById("comment");
const actions = {
  approve: () => {
    if (button("approve")) confirmation.showModal();
    else announce("You cannot approve this.");
  },
  deny: () => (button("deny") ? comment.focus() : announce("You cannot deny this.")),
  comment: () => comment?.focus(),
  modify: () => {
    if (!modification) return announce("You cannot modify this.");
    modification.open = true;
    document.getElementById("sql").focus();
  },
};
onKey("a", actions.approve);
onKey("d", actions.deny);
onKey("c", actions.comment);
onKey("m", actions.modify);

const wanted = new URLSearchParams(location.search).get("do");
if (Object.hasOwn(actions, wanted ?? "")) {
  history.replaceState(null, "", location.pathname);
  actions[wanted]();
}

const changed = soon(refresh);
follow((approval) => approval.id === request.dataset.id && changed(), changed);
