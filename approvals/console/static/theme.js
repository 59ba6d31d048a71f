// Before the page is painted, so that nothing flashes: the colours this browser was told to use, if any.
try {
  const theme = localStorage.getItem("pgproxy-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // no storage: as the system has them
}
