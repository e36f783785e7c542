// Hide the keys of a panel from JupyterLab, and let no action overtake the text before it; see KeyGuard in pointer.py.

// While the kernel is busy with one change of a field, ipywidgets holds back later ones, but not clicks and Enter: the
// kernel would act on the first letter of a name that was typed fast. Send what is held back first.
function sendHeldBack(manager) {
  const send = (model) => {
    if (!model._msg_buffer) return;
    const sent = model.send_sync_message(model._msg_buffer, model._msg_buffer_callbacks);
    model.rememberLastUpdateFor?.(sent);
    model._msg_buffer = model._msg_buffer_callbacks = null;
  };
  // Models that are loaded are sent before the next listener runs; others have nothing to send.
  for (const loading of Object.values(manager?._models ?? {})) loading.then(send, () => {});
}

// The kernel must not empty a field after Enter: by then, the next name may have begun. So the page does, in the same
// event as ipywidgets reports Enter, directly after it. A timer would be late on a busy machine and join two names.
function afterEnter(field, act, signal) {
  const entered = field.value;
  const then = () => {
    if (field.value.startsWith(entered)) {
      field.value = field.value.slice(entered.length);
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    act();
  };
  field.closest(".jupyter-widgets").addEventListener("keypress", then, { once: true, signal });
}

// Enter in a row moves the focus to the next empty row. Until the kernel has added one, keep what is typed.
function followRows(panel, signal) {
  let held = null; // names, one per line
  const enter = (text) => {
    held = text;
    while (held !== null) {
      const empty = [...panel.querySelectorAll(".sv-row input")].find((field) => !field.value.trim());
      if (!empty) return;
      const [name, ...others] = held.split("\n");
      empty.focus();
      empty.value = name;
      if (name) empty.dispatchEvent(new Event("input", { bubbles: true }));
      held = others.length ? others.join("\n") : null;
    }
  };
  const rows = new MutationObserver(() => held !== null && enter(held));
  rows.observe(panel, { childList: true, subtree: true, attributeFilter: ["class"] });
  signal.addEventListener("abort", () => rows.disconnect());
  panel.addEventListener("keydown", (e) => {
    const isText = e.key.length === 1 && !e.ctrlKey && !e.metaKey;
    if (held !== null && e.target.closest(".sv-row") && (isText || e.key === "Enter" || e.key === "Backspace")) {
      e.preventDefault();
      e.stopImmediatePropagation();
      enter(e.key === "Backspace" ? held.slice(0, -1) : held + (isText ? e.key : "\n"));
    } else if (e.key === "Enter" && e.target.matches(".sv-row input") && e.target.value.trim()) enter("");
  }, { capture: true, signal });
}

function render({ model, el }) {
  const stop = new AbortController();
  const { signal } = stop;
  const guard = () => {
    if (signal.aborted) return;
    const panel = el.closest(".svetlana");
    if (!panel) return void requestAnimationFrame(guard); // not in the page yet
    panel.addEventListener("keydown", (e) => e.stopPropagation(), { signal });
    panel.addEventListener("click", (e) => {
      if (e.target.closest(".sv-full-screen")?.closest(".svetlana") !== panel) return;
      if (document.fullscreenElement) document.exitFullscreen();
      else panel.requestFullscreen?.();
      // On the button, Space and Enter would leave the full screen.
      const canvas = [...panel.querySelectorAll("canvas[tabindex]")].find((each) => each.offsetParent);
      if (canvas) canvas.focus({ preventScroll: true });
      else e.target.closest(".sv-full-screen").blur();
    }, { signal });
    followRows(panel, signal);
    panel.addEventListener("click", () => sendHeldBack(model.widget_manager), { capture: true, signal });
    panel.addEventListener("keydown", (e) => {
      // Escape closes the list of keys, before it clears a selection.
      const keys = e.key === "Escape" && [...panel.querySelectorAll(".sv-keys")].find((each) => each.offsetParent);
      if (keys) {
        e.preventDefault();
        e.stopImmediatePropagation();
        return void keys.closest(".svetlana").querySelector(".sv-help-button")?.click();
      }
      // The letters after "/" must not wait for the kernel to move the focus either.
      const find = e.key === "/" && e.target.tagName === "CANVAS" && panel.querySelector(".sv-find input");
      if (find?.offsetParent) {
        e.preventDefault();
        e.stopPropagation();
        return void find.focus();
      }
      if (e.key !== "Enter" || e.target.tagName !== "INPUT") return;
      sendHeldBack(model.widget_manager);
      if (!e.target.closest(".sv-once") || !e.target.value.trim()) return;
      const finds = e.target.closest(".sv-find");
      // The next key labels an object; it must not wait for the kernel to move the focus.
      afterEnter(e.target, () => finds && panel.querySelector("canvas[tabindex]")?.focus(), signal);
    }, { capture: true, signal });
  };
  guard();
  return () => stop.abort();
}
export default { render };
