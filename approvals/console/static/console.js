// What every page has: times that count, the colours' switch, keys, and the stream of changes.

const NAMES = { "": "as the system has them", light: "light", dark: "dark" };
const NEXT = { "": "light", light: "dark", dark: "" };

export const announce = (text) => {
  const place = document.getElementById("announcements");
  if (place) place.textContent = text;
};

const duration = (seconds) => {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
};

export const count = () => {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[data-count]")) {
    const at = Date.parse(time.dateTime);
    const isAge = time.dataset.count === "age";
    const left = (isAge ? now - at : at - now) / 1000;
    const text = isAge ? `${duration(left)} ago` : left > 0 ? `in ${duration(left)}` : "now";
    if (time.textContent !== text) time.textContent = text;
    time.classList.toggle("soon", !isAge && left < 60);
  }
};

const theme = document.getElementById("theme");
if (theme) {
  const show = () => {
    const name = document.documentElement.dataset.theme ?? "";
    theme.setAttribute("aria-label", `Colours: ${NAMES[name]}. Change`);
    theme.title = `Colours: ${NAMES[name]}`;
  };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const next = NEXT[document.documentElement.dataset.theme ?? ""];
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    try {
      if (next) localStorage.setItem("pgproxy-theme", next);
      else localStorage.removeItem("pgproxy-theme");
    } catch {
      // it holds for this page
    }
    show();
  });
  show();
}

// The browser's EventSource comes back by itself, with the id of the last event it saw; what it gives up on (a login
// that is over, a server that is not there) is tried again here. With each connection the page is read anew.
export const follow = (onChange, onBack) => {
  const live = document.getElementById("live");
  const say = (state, text) => {
    if (!live || live.dataset.state === state) return;
    live.dataset.state = state;
    live.textContent = text;
  };
  let wait = 1000;
  const open = () => {
    const source = new EventSource("/v1/approvals/events");
    source.addEventListener("open", () => {
      wait = 1000;
      say("on", "live");
      onBack(); // what happened between the page's rendering, or the loss, and now
    });
    source.addEventListener("approval", (event) => onChange(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      say("lost", "connection lost, trying again…");
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(open, wait);
      wait = Math.min(wait * 2, 30000);
    });
  };
  open();
};

// The same page again, as the server renders it now; null when it does not.
export const reread = async () => {
  const response = await fetch(location.pathname + location.search, { headers: { Accept: "text/html" } });
  if (response.redirected && new URL(response.url).pathname === "/login") {
    location.assign(response.url);
    return null;
  }
  if (!response.ok) return null;
  return new DOMParser().parseFromString(await response.text(), "text/html");
};

export const soon = (work, ms = 150) => {
  let timer = 0;
  return () => {
    if (timer) return;
    timer = setTimeout(() => {
      timer = 0;
      work();
    }, ms);
  };
};

const isTyping = (target) =>
  target instanceof HTMLElement && (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName));

const keys = new Map();
export const onKey = (key, action) => keys.set(key, action);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && isTyping(event.target)) event.target.blur();
  if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
  const action = keys.get(event.key);
  if (action) {
    event.preventDefault();
    action();
  }
});

onKey("?", () => document.getElementById("help")?.showModal());
onKey("u", () => location.assign("/"));
onKey("/", () => {
  const search = document.getElementById("search");
  if (!search) return location.assign("/?focus=search");
  const details = search.closest("details");
  if (details) details.open = true;
  search.focus();
});
if (new URLSearchParams(location.search).has("focus")) keys.get("/")();

count();
setInterval(count, 1000);
