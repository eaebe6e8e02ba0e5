// Before the first paint: the theme, and that scripts run.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const chosen = root.dataset.theme;
    root.dataset.bsTheme = chosen === "dark" || (chosen === "auto" && dark.matches) ? "dark" : "light";
    dispatchEvent(new CustomEvent("pulvinar:theme"));
  };
  root.classList.replace("no-js", "js");
  apply();
  dark.addEventListener("change", apply);
  addEventListener("pulvinar:choose-theme", (event) => { root.dataset.theme = event.detail; apply(); });
})();
