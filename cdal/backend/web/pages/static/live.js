// Refreshes the parts of a page that are marked with data-live, without reloading the page.
const EVERY_MS = 1500;
const parts = new Map();
for (const part of document.querySelectorAll("[data-live]")) parts.set(part.id, part.innerHTML);

function replace(part, html) {
  const open = new Set([...part.querySelectorAll("details[open][id]")].map((one) => one.id));
  const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
  part.innerHTML = html;
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus();
}

function say(text) {
  const lost = document.getElementById("lost");
  lost.hidden = !text;
  if (lost.textContent !== text) lost.textContent = text;
}

async function refresh() {
  if (document.hidden || !parts.size) return;
  try {
    const answer = await fetch(location.href, { headers: { "X-Live": "1" }, cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const [id, before] of parts) {
      const now = fresh.getElementById(id);
      const part = document.getElementById(id);
      if (!now || !part || now.innerHTML === before) continue;
      // An emptied part means that only a full reload shows what is new.
      if (part.dataset.live === "reload" && !now.innerHTML.trim()) location.reload();
      replace(part, now.innerHTML);
      parts.set(id, now.innerHTML);
    }
    say("");
  } catch {
    say("The backend does not answer, so this page may be out of date. Trying again.");
  }
}

async function again() {
  await refresh();
  setTimeout(again, EVERY_MS);
}
setTimeout(again, EVERY_MS);
document.addEventListener("visibilitychange", refresh);
