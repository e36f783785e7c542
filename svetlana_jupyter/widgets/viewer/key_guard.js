// Hide the keys of a panel from JupyterLab; see KeyGuard in pointer.py.
function render({ el }) {
  const stop = new AbortController();
  const guard = () => {
    if (stop.signal.aborted) return;
    const panel = el.closest(".svetlana");
    if (!panel) return void requestAnimationFrame(guard); // not in the page yet
    panel.addEventListener("keydown", (e) => e.stopPropagation(), { signal: stop.signal });
  };
  guard();
  return () => stop.abort();
}
export default { render };
