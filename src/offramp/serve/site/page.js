// Every two seconds the page anew. What is the same stays as it is, so that no reader is told it twice.
const stale = document.getElementById("stale");
async function refresh() {
  try {
    const answer = await fetch("./", { headers: { Accept: "text/html" }, cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      part.className = other.className;
      if (part.innerHTML !== other.innerHTML) part.replaceChildren(...other.childNodes);
    }
    stale.hidden = true;
  } catch {
    stale.hidden = false;
  }
}
setInterval(refresh, 2000);
addEventListener("focus", refresh);
