// What ipycanvas does not report: device pixel ratio, width and theme of the page, mouse button, position of the wheel,
// and the selection that was on the screen when a key was pressed. Events are caught before ipycanvas sees them, so that none is handled twice.
// Without this script, the events of ipycanvas are used.

const IGNORED = new Set(["Shift", "Control", "Alt", "AltGraph", "Meta", "CapsLock", "Dead", "Process", "Tab"]);

const ON_MAC = navigator.platform.startsWith("Mac"); // where Ctrl+click is a right click

function render({ model, el }) {
  const stop = new AbortController();
  const { signal } = stop;
  el.style.display = "none";

  const sendPixelRatio = () => {
    model.set("dpr", window.devicePixelRatio);
    model.save_changes();
    const query = matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
    query.addEventListener("change", sendPixelRatio, { once: true, signal });
  };

  const sendTheme = () => {
    model.set("dark", document.body.dataset.jpThemeLight === "false");
    model.save_changes();
  };
  const theme = new MutationObserver(sendTheme);
  theme.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  signal.addEventListener("abort", () => theme.disconnect());

  // A viewer in a hidden tab has no width. While it grows by less than the width of a scroll bar, it stays as it is:
  // otherwise a scroll bar that comes and goes with the height of the picture would resize it forever.
  // A viewer that fills its box has a height of its own, and no scroll bar depends on it.
  const followSize = (viewer) => {
    const stage = viewer.classList.contains("sv-fill") && viewer.querySelector(".sv-stage");
    let sent = 0;
    let timer;
    const send = () => {
      const width = Math.floor(viewer.clientWidth);
      const height = stage ? Math.floor(stage.clientHeight) : 0;
      const steady = width > sent && width < sent + 20 && !stage;
      if (signal.aborted || !width || steady || (width === sent && height === model.get("height"))) return;
      sent = width;
      model.set({ width, height });
      model.save_changes();
    };
    const sizes = new ResizeObserver(() => {
      clearTimeout(timer);
      timer = setTimeout(send, sent ? 150 : 0);
    });
    sizes.observe(stage || viewer);
    signal.addEventListener("abort", () => sizes.disconnect());
  };

  // A workspace is as high as the scrolling page around it, less what its own cell shows above and below it.
  const followPage = (space) => {
    if (!space) return;
    const page = space.closest(".jp-WindowedPanel-outer, .jp-LinkedOutputView") ?? document.documentElement;
    const whole = space.closest(".sv-app") ?? space;
    // A full screen stretches the whole to its own height, so there the height of what is beside the workspace is
    // measured: what is above it, and the lines below it.
    const beside = () => {
      if (document.fullscreenElement !== whole || whole === space) return whole.offsetHeight - space.offsetHeight;
      const above = space.getBoundingClientRect().top - whole.getBoundingClientRect().top + whole.scrollTop;
      const parts = [...whole.children];
      const below = parts.slice(parts.findIndex((part) => part.contains(space)) + 1);
      return below.reduce((sum, part) => sum + part.offsetHeight, above);
    };
    const fit = () => {
      const height = document.fullscreenElement?.contains(space) ? window.innerHeight : page.clientHeight;
      if (space.offsetHeight) space.style.setProperty("--sv-room", `${height - beside() - 24}px`);
    };
    const sizes = new ResizeObserver(fit);
    for (const part of [page, whole]) sizes.observe(part);
    document.addEventListener("fullscreenchange", fit, { signal });
    signal.addEventListener("abort", () => sizes.disconnect());
  };

  const nameCanvas = (viewer) => {
    const shown = viewer.querySelector("canvas[tabindex]");
    if (signal.aborted || !model.get("name")) return;
    if (!shown) return void requestAnimationFrame(() => nameCanvas(viewer)); // not in the page yet
    shown.setAttribute("role", "application"); // its keys are those of the panel
    shown.setAttribute("aria-label", model.get("name"));
  };

  // Selection shown by the current frame, and the last click that the frame accounts for. The kernel sends these before
  // the frame, so they take effect only when the canvas that is drawn last carries the number of that frame.
  const received = () => ({
    shown: model.get("shown"),
    clickTime: model.get("click_time"),
    frame: model.get("frame"),
  });
  let layer = null;
  const drawnFrame = () => layer.ctx?.lineDashOffset ?? 0;
  const layerPromise = model.get("layer") ? model.widget_manager?.get_model(model.get("layer")) : undefined;
  layerPromise?.then((found) => (layer = found)).catch(() => {});
  let current = received();
  let clicked = 0;
  const accept = (next) => {
    if (next.frame < current.frame) return; // a later frame was drawn first
    current = next;
    el.dataset.frame = next.frame;
  };
  const follow = () => {
    const next = received();
    const check = () => {
      if (signal.aborted) return;
      // Without the layer, the time of drawing is unknown: wait longer than drawing takes.
      if (!layer) setTimeout(() => accept(next), 150);
      else if (drawnFrame() < next.frame) requestAnimationFrame(check);
      else requestAnimationFrame(() => accept(next)); // when the screen is refreshed
    };
    check();
  };

  const attach = () => {
    if (signal.aborted) return;
    const viewer = el.closest(".sv-viewer");
    if (!viewer) return void requestAnimationFrame(attach); // not in the page yet
    followSize(viewer);
    followPage(viewer.closest(".sv-space"));
    nameCanvas(viewer);
    const panel = el.closest(".svetlana") ?? viewer;
    const send = (event, content = {}) => model.send({ event, ...content });
    let canvas = null;
    let dragging = false;
    let pending = {}; // at most one message per event type and screen refresh

    // In the context menu, arrows move the focus; every other key is handled as if the menu were closed.
    const moveFocus = (menu, item, key) => {
      const items = [...menu.querySelectorAll("button")];
      const at = items.indexOf(item);
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[key];
      if (to === undefined) return false;
      items.at(to % items.length).focus();
      return true;
    };

    // In the pixels of the kernel: the page may show the canvas smaller than it was drawn.
    const position = (e) => {
      const box = canvas.getBoundingClientRect();
      const scale = canvas.width / (model.get("dpr") * box.width);
      return { row: (e.clientY - box.top) * scale, column: (e.clientX - box.left) * scale };
    };
    const modifiers = (e) =>
      [e.ctrlKey || e.metaKey ? "Ctrl" : "", e.shiftKey ? "Shift" : ""].filter(Boolean).join("+");
    const sendOnRefresh = (event, content) => {
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
      e.preventDefault(); // no text selection while dragging
      flush();
      dragging = true;
      const button = e.ctrlKey && ON_MAC ? 2 : e.button;
      send("pressed", { ...position(e), button, modifiers: modifiers(e) });
    });
    onCanvas("mousemove", (e) => dragging || sendOnRefresh("moved", position(e)));
    onCanvas("mouseout", () => dragging || (flush(), send("pointer_left")));
    onCanvas("mouseup", () => {});
    // A drag continues outside of the canvas.
    window.addEventListener("mousemove", (e) => dragging && sendOnRefresh("moved", position(e)), {
      capture: true,
      signal,
    });
    window.addEventListener("mouseup", (e) => {
      if (!dragging) return;
      dragging = false;
      flush();
      clicked = Date.now();
      send("released", { ...position(e), time: clicked });
    }, { capture: true, signal });
    onCanvas("wheel", (e) => {
      e.preventDefault();
      const unit = e.deltaMode === 0 ? 1 : 33; // pixels per line
      const before = pending.wheeled?.delta ?? 0;
      sendOnRefresh("wheeled", { delta: before + e.deltaY * unit * (e.ctrlKey ? 4 : 1), ...position(e) });
    });
    viewer.addEventListener("focusin", (e) => e.target.closest(".sv-stage")?.classList.add("sv-used"), { signal });
    viewer.addEventListener("keydown", (e) => {
      const menu = e.target.closest(".sv-menu");
      if (e.target.tagName !== "CANVAS" && !menu) return;
      e.stopPropagation(); // also for Tab: ipycanvas would keep it and trap the keyboard focus
      const opensMenu = e.shiftKey && e.key === "F10";
      if (IGNORED.has(e.key) || (/^F\d+$/.test(e.key) && !opensMenu) || e.isComposing) return;
      if (menu && (e.key === "Enter" || e.key === " ")) return; // these press the menu's button
      e.preventDefault();
      showWhole(e.target.closest(".sv-app"));
      if (menu && moveFocus(menu, e.target, e.key)) return;
      // The search field gets the focus here, so that it receives what is typed before the kernel answers.
      const find = e.key === "/" && panel.querySelector(".sv-find input");
      if (find?.offsetParent) find.focus({ preventScroll: true });
      // A key after a click applies to the clicked object. Until the kernel sends that object, the selection is null.
      const shown = current.clickTime < clicked ? null : current.shown;
      send("key_pressed", { key: e.key, control: e.ctrlKey || e.metaKey, shift: e.shiftKey, shown });
    }, { capture: true, signal });
    // JupyterLab's shortcuts would act on the cell: "m" turns the cell into Markdown and deletes the panel.
    panel.addEventListener("keydown", (e) => e.stopPropagation(), { signal });
    panel.addEventListener("contextmenu", (e) => {
      e.stopPropagation();
      if (e.target.tagName === "CANVAS" || e.target.closest(".sv-menu")) e.preventDefault();
    }, { signal });
  };

  const CHANGES = ["change:shown", "change:click_time", "change:frame"];
  releaseImages();
  sendPixelRatio();
  sendTheme();
  for (const change of CHANGES) model.on(change, follow);
  follow();
  attach();
  return () => {
    stop.abort();
    for (const change of CHANGES) model.off(change, follow);
  };
}

// A new workspace often reaches below the page; a key shows all of it, if it fits.
function showWhole(app) {
  const page = app?.closest(".jp-WindowedPanel-outer")?.getBoundingClientRect(), box = app?.getBoundingClientRect();
  if (page && box.height <= page.height && (box.top < page.top || box.bottom > page.bottom))
    app.scrollIntoView({ block: "nearest" });
}

// ipycanvas never releases the images it received. Only these are released, as other code may need its images longer.
function releaseImages() {
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
