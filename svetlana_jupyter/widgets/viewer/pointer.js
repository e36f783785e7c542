// What ipycanvas cannot tell: device pixel ratio, mouse button, where the wheel was turned, and what was on the screen
// when a key was pressed. It takes these events before ipycanvas sees them, so that none is handled twice; without it
// ipycanvas' own events do.

const IGNORED = new Set(["Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock", "Dead", "Process", "Tab"]);

const ON_MAC = navigator.platform.startsWith("Mac"); // where Ctrl makes a click the right button's

function render({ model, el }) {
  const stop = new AbortController();
  const { signal } = stop;
  el.style.display = "none";

  const tellRatio = () => {
    model.set("dpr", window.devicePixelRatio);
    model.save_changes();
    const query = matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
    query.addEventListener("change", tellRatio, { once: true, signal });
  };

  // What the frame on the screen shows, and the last click it knows of. This arrives before the frame does, so it
  // counts only when the layer that is drawn last carries the frame's number.
  const told = () => ({ shown: model.get("shown"), answered: model.get("answered"), frame: model.get("frame") });
  let layer = null;
  const drawn = () => layer.ctx?.lineDashOffset ?? 0;
  const known = model.get("layer") ? model.widget_manager?.get_model(model.get("layer")) : undefined;
  known?.then((found) => (layer = found)).catch(() => {});
  let seen = told();
  let clicked = 0;
  const see = (next) => {
    if (next.frame < seen.frame) return; // a later one has overtaken it
    seen = next;
    el.dataset.frame = next.frame;
  };
  const follow = () => {
    const next = told();
    const look = () => {
      if (signal.aborted) return;
      if (!layer) setTimeout(() => see(next), 150); // nothing tells when the picture is drawn: then surely later
      else if (drawn() < next.frame) requestAnimationFrame(look);
      else requestAnimationFrame(() => see(next)); // with this frame of the screen
    };
    look();
  };

  const attach = () => {
    if (signal.aborted) return;
    const viewer = el.closest(".sv-viewer");
    if (!viewer) return void requestAnimationFrame(attach); // not in the page yet
    const panel = el.closest(".svetlana") ?? viewer;
    const send = (event, content = {}) => model.send({ event, ...content });
    let canvas = null;
    let dragging = false;
    let pending = {}; // at most one message of a kind for each frame of the screen

    // Arrows lead from item to item; every other key is the picture's, as if the menu were not there.
    const walk = (menu, item, key) => {
      const items = [...menu.querySelectorAll("button")];
      const at = items.indexOf(item);
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[key];
      if (to === undefined) return false;
      items.at(to % items.length).focus();
      return true;
    };

    const place = (e) => {
      const box = canvas.getBoundingClientRect();
      return { row: e.clientY - box.top, column: e.clientX - box.left };
    };
    const held = (e) => [e.ctrlKey || e.metaKey ? "Ctrl" : "", e.shiftKey ? "Shift" : ""].filter(Boolean).join("+");
    const soon = (event, content) => {
      if (!Object.keys(pending).length) requestAnimationFrame(flush);
      pending[event] = content;
    };
    const flush = () => {
      for (const [event, content] of Object.entries(pending)) send(event, content);
      pending = {};
    };
    const onCanvas = (type, act) =>
      viewer.addEventListener(type, (e) => {
        if (e.target.tagName !== "CANVAS") return;
        canvas = e.target;
        e.stopPropagation();
        act(e);
      }, { capture: true, passive: false, signal });

    onCanvas("mousedown", (e) => {
      canvas.focus({ preventScroll: true });
      e.preventDefault(); // no selection of text while dragging
      flush();
      dragging = true;
      const button = e.ctrlKey && ON_MAC ? 2 : e.button;
      send("pressed", { ...place(e), button, held: held(e) });
    });
    onCanvas("mousemove", (e) => dragging || soon("moved", place(e)));
    onCanvas("mouseout", () => dragging || (flush(), send("left")));
    onCanvas("mouseup", () => {});
    // A drag goes on outside of the canvas.
    window.addEventListener("mousemove", (e) => dragging && soon("moved", place(e)), { capture: true, signal });
    window.addEventListener("mouseup", (e) => {
      if (!dragging) return;
      dragging = false;
      flush();
      clicked = Date.now();
      send("released", { ...place(e), time: clicked });
    }, { capture: true, signal });
    onCanvas("wheel", (e) => {
      e.preventDefault();
      const unit = e.deltaMode === 0 ? 1 : 33;
      const before = pending.wheeled?.delta ?? 0;
      soon("wheeled", { delta: before + e.deltaY * unit * (e.ctrlKey ? 4 : 1), ...place(e) });
    });
    viewer.addEventListener("keydown", (e) => {
      const menu = e.target.closest(".sv-menu");
      if (e.target.tagName !== "CANVAS" && !menu) return;
      e.stopPropagation(); // Tab too: ipycanvas would keep it, and nobody could tab out
      const opensMenu = e.shiftKey && e.key === "F10";
      if (IGNORED.has(e.key) || (/^F\d+$/.test(e.key) && !opensMenu) || e.isComposing) return;
      if (menu && (e.key === "Enter" || e.key === " ")) return; // the button's own
      e.preventDefault();
      if (menu && walk(menu, e.target, e.key)) return;
      // What is typed behind it belongs into the field, whenever the kernel may answer.
      const find = e.key === "/" && panel.querySelector(".sv-find input");
      if (find?.offsetParent) find.focus({ preventScroll: true });
      // A key right behind a click means the object clicked, which only the kernel knows yet.
      const shown = seen.answered < clicked ? null : seen.shown;
      send("key_pressed", { key: e.key, control: e.ctrlKey || e.metaKey, shift: e.shiftKey, shown });
    }, { capture: true, signal });
    // JupyterLab's shortcuts would act on the cell: "m" makes it Markdown and destroys the panel.
    panel.addEventListener("keydown", (e) => e.stopPropagation(), { signal });
    panel.addEventListener("contextmenu", (e) => {
      e.stopPropagation();
      if (e.target.tagName === "CANVAS" || e.target.closest(".sv-menu")) e.preventDefault();
    }, { signal });
  };

  releasePictures();
  tellRatio();
  model.on("change:shown", follow);
  model.on("change:answered", follow);
  model.on("change:frame", follow);
  follow();
  attach();
  return () => {
    stop.abort();
    model.off("change:shown", follow);
    model.off("change:answered", follow);
    model.off("change:frame", follow);
  };
}

// ipycanvas never releases the pictures it was sent. Only its own are touched: others may want theirs for longer.
function releasePictures() {
  const create = URL.createObjectURL;
  if (create.releases) return;
  URL.createObjectURL = (object) => {
    const url = create.call(URL, object);
    if (object.type === "image/jpeg" && new Error().stack.includes("ipycanvas")) {
      setTimeout(() => URL.revokeObjectURL(url), 30_000);
    }
    return url;
  };
  URL.createObjectURL.releases = true;
}

export default { render };
