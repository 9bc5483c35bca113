// The pool map: shows the image under the pointer, and collects the ones to queue next.
const map = document.getElementById("map");
if (map) {
  const tip = document.getElementById("tip");
  const said = document.getElementById("map-said");
  const lasso = document.getElementById("lasso");
  const list = document.getElementById("chosen");
  const points = [...map.querySelectorAll("g[data-task]")].map((node) => ({
    node,
    task: node.dataset.task,
    x: Number(node.dataset.x),
    y: Number(node.dataset.y),
    text: node.dataset.text,
    free: "free" in node.dataset,
  }));
  const chosen = new Map();
  let current = null;
  let start = null;

  const thumbnail = (task) => list.dataset.thumbnail.replace("/tasks/0/", `/tasks/${task}/`);

  function show(point) {
    current?.node.classList.remove("current");
    current = point;
    if (!point) {
      tip.hidden = true;
      return;
    }
    point.node.classList.add("current");
    const image = tip.querySelector("img");
    if (image.dataset.task !== point.task) {
      image.dataset.task = point.task;
      image.src = thumbnail(point.task);
    }
    tip.querySelector("p").textContent = point.text;
    tip.hidden = false;
    const frame = map.getBoundingClientRect();
    const scale = frame.width / map.viewBox.baseVal.width;
    const right = point.x * scale > frame.width / 2;
    tip.style.left = `${point.x * scale + (right ? -14 - tip.offsetWidth : 14)}px`;
    tip.style.top = `${Math.max(0, Math.min(point.y * scale - 30, frame.height - 190))}px`;
  }

  function toggle(point, on = !chosen.has(point.task)) {
    if (!point.free) return false;
    if (on) chosen.set(point.task, point);
    else chosen.delete(point.task);
    point.node.classList.toggle("chosen", on);
    return true;
  }

  function tell() {
    const count = `${chosen.size} ${chosen.size === 1 ? "image" : "images"}`;
    document.getElementById("chosen-count").textContent = count;
    document.getElementById("chosen-tasks").value = [...chosen.keys()].join(",");
    document.getElementById("put-first").disabled = chosen.size === 0;
    said.textContent = `${count} selected`;
    list.replaceChildren(
      ...[...chosen.values()].slice(0, 60).map((point) => {
        const item = document.createElement("li");
        const button = document.createElement("button");
        button.type = "button";
        const image = document.createElement("img");
        image.src = thumbnail(point.task);
        image.alt = "";
        image.loading = "lazy";
        button.append(image, `Remove task ${point.task}`);
        button.addEventListener("click", () => {
          toggle(point, false);
          tell();
        });
        item.append(button);
        return item;
      }),
    );
  }

  function place(event) {
    const frame = map.getBoundingClientRect();
    const scale = map.viewBox.baseVal.width / frame.width;
    return { x: (event.clientX - frame.left) * scale, y: (event.clientY - frame.top) * scale, scale };
  }

  function nearest(at, within) {
    let best = null;
    let least = within;
    for (const point of points) {
      const far = Math.hypot(point.x - at.x, point.y - at.y);
      if (far < least) [best, least] = [point, far];
    }
    return best;
  }

  map.addEventListener("pointerdown", (event) => {
    start = place(event);
    map.setPointerCapture(event.pointerId);
  });
  map.addEventListener("pointermove", (event) => {
    const at = place(event);
    if (!start) {
      show(nearest(at, 12 * at.scale));
      return;
    }
    lasso.setAttribute("x", Math.min(start.x, at.x));
    lasso.setAttribute("y", Math.min(start.y, at.y));
    lasso.setAttribute("width", Math.abs(start.x - at.x));
    lasso.setAttribute("height", Math.abs(start.y - at.y));
  });
  map.addEventListener("pointerup", (event) => {
    const at = place(event);
    const began = start;
    start = null;
    lasso.setAttribute("width", 0);
    lasso.setAttribute("height", 0);
    if (!began) return;
    if (Math.hypot(at.x - began.x, at.y - began.y) < 5 * at.scale) {
      const point = nearest(at, 14 * at.scale);
      show(point);
      if (point) toggle(point);
    } else {
      const [left, right] = [Math.min(began.x, at.x), Math.max(began.x, at.x)];
      const [top, bottom] = [Math.min(began.y, at.y), Math.max(began.y, at.y)];
      for (const point of points)
        if (point.x >= left && point.x <= right && point.y >= top && point.y <= bottom)
          toggle(point, true);
    }
    tell();
  });
  map.addEventListener("pointercancel", () => (start = null));
  map.addEventListener("pointerleave", () => start || show(null));
  map.addEventListener("blur", () => show(null));
  map.addEventListener("focus", () => {
    if (!map.matches(":focus-visible")) return;
    const middle = map.viewBox.baseVal;
    show(current ?? nearest({ x: middle.width / 2, y: middle.height / 2 }, Infinity));
    if (current) said.textContent = current.text;
  });
  map.addEventListener("keydown", (event) => {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const way = ways[event.key];
    if (way && current) {
      let best = null;
      let least = Infinity;
      for (const point of points) {
        const [x, y] = [point.x - current.x, point.y - current.y];
        const along = x * way[0] + y * way[1];
        const across = Math.abs(x * way[1] + y * way[0]);
        if (along > 0.5 && along + 2 * across < least) [best, least] = [point, along + 2 * across];
      }
      if (best) show(best);
      said.textContent = current.text + (chosen.has(current.task) ? ", selected" : "");
    } else if ((event.key === "Enter" || event.key === " ") && current) {
      if (toggle(current)) tell();
      else said.textContent = "This image is already labelled or skipped.";
    } else if (event.key === "Escape") {
      for (const point of chosen.values()) point.node.classList.remove("chosen");
      chosen.clear();
      tell();
    } else return;
    event.preventDefault();
  });
}
