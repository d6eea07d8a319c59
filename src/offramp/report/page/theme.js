// Before the first paint: the reader's last choice of colors.
try {
  const kept = localStorage.getItem("offramp-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch { /* storage may be forbidden; the system's choice holds */ }
document.documentElement.classList.add("js");
